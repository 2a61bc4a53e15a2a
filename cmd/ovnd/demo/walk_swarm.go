package demo

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
)

// settled is how long something may take that is usually there at once.
const settled = 10 * time.Second

func (w *walk) init(ctx context.Context, s *stepRun) error {
	m := w.manager()
	s.command(m.name, "up --hostname "+m.name+" --advertise-addr "+m.addr.String())
	began := time.Now()
	if err := m.up(ctx); err != nil {
		return err
	}
	s.check("a node, ready", fmt.Sprintf("ready after %.2f s", time.Since(began).Seconds()), true)
	token, err := w.ovnd(ctx, s, m, "swarm", "join-token", "-q", "worker")
	if err != nil {
		return err
	}
	w.token = strings.TrimSpace(token)
	s.check("a token to join with", w.token[:min(len(w.token), 20)]+"…", strings.HasPrefix(w.token, "SWMTKN-1-"))
	return nil
}

func (w *walk) join(ctx context.Context, s *stepRun) error {
	manager := w.manager().addr.String() + ":2377"
	for _, m := range w.machines[1:] {
		s.command(m.name, "up --hostname "+m.name+" --advertise-addr "+m.addr.String()+" --join SWMTKN-… "+manager)
		began := time.Now()
		if err := m.up(ctx, "--join", w.token, manager); err != nil {
			return err
		}
		s.check("a worker", fmt.Sprintf("joined after %.2f s", time.Since(began).Seconds()), true)
	}
	return nil
}

func (w *walk) nodeList(ctx context.Context, s *stepRun) error {
	s.command(w.manager().name, "node ls")
	const want = "hsp1 Ready Active\nhsp2 Ready Active\nlocalhost Ready Active Leader"
	seen, _, err := eventually(ctx, settled, func(ctx context.Context) (string, bool, error) {
		out, err := w.manager().ovnd(ctx, "node", "ls", "--format", "{{.Hostname}} {{.Status}} {{.Availability}} {{.ManagerStatus}}")
		var lines []string
		for line := range strings.Lines(out) {
			lines = append(lines, strings.TrimSpace(line))
		}
		slices.Sort(lines)
		seen := strings.Join(lines, "\n")
		return seen, seen == want, err
	})
	s.equal(want, seen)
	return err
}

func (w *walk) createNetwork(ctx context.Context, s *stepRun) error {
	m := w.manager()
	create := []string{"network", "create", "--driver", "overlay", "--subnet", "10.10.19.0/16"}
	if w.sealed() {
		create = append(create, "--opt", "encrypted")
	}
	out, err := w.ovnd(ctx, s, m, append(create, network)...)
	if err != nil {
		return err
	}
	s.check("the network's ID", strings.TrimSpace(out), len(strings.TrimSpace(out)) == 25)
	out, err = w.ovnd(ctx, s, m, "network", "ls", "--filter", "name="+network, "--format", "{{.Name}} {{.Driver}} {{.Scope}}")
	if err != nil {
		return err
	}
	s.equal(network+" overlay swarm", strings.TrimSpace(out))
	out, err = w.ovnd(ctx, s, m, "network", "inspect", "--format", "{{(index .IPAM.Config 0).Subnet}}", network)
	if err != nil {
		return err
	}
	s.equal("10.10.0.0/16", strings.TrimSpace(out))
	// A worker hears of a network with its first task there.
	out, err = w.ovnd(ctx, s, w.machines[1], "network", "ls", "--quiet", "--filter", "name="+network)
	if err != nil {
		return err
	}
	s.equal("nothing yet", map[bool]string{true: "nothing yet", false: strings.TrimSpace(out)}[strings.TrimSpace(out) == ""])
	return nil
}

// inspected is what the demo reads of `network inspect`.
type inspected struct {
	Containers map[string]struct{ Name string }
	Peers      []struct{ IP string }
}

func (w *walk) inspectNetwork(ctx context.Context, s *stepRun) error {
	for _, m := range w.machines {
		s.command(m.name, "network inspect "+network)
		var want []string
		for _, t := range w.tasks {
			if t.on == m {
				want = append(want, fmt.Sprintf("%s.%d", service, t.slot))
			}
		}
		want = append(want, network+"-endpoint")
		expected := strings.Join(want, ", ") + "; 3 peers"
		seen, _, err := eventually(ctx, settled, func(ctx context.Context) (string, bool, error) {
			out, err := m.ovnd(ctx, "network", "inspect", network)
			if err != nil {
				return "", false, err
			}
			found, err := decode[[]inspected](out)
			if err != nil || len(found) != 1 {
				return out, false, err
			}
			seen := strings.Join(endpoints(found[0]), ", ") + fmt.Sprintf("; %d peers", len(found[0].Peers))
			return seen, seen == expected, nil
		})
		if err != nil {
			return err
		}
		s.equal(expected, seen)
	}
	return nil
}

// endpoints are the names of what a network has on a node, tasks without ID.
func endpoints(n inspected) []string {
	all := make([]string, 0, len(n.Containers))
	for _, c := range n.Containers {
		name := c.Name
		if parts := strings.Split(name, "."); len(parts) == 3 {
			name = parts[0] + "." + parts[1]
		}
		all = append(all, name)
	}
	// Tasks come first, the load balancer's endpoint last.
	slices.SortFunc(all, func(a, b string) int {
		if isLB := strings.HasSuffix; isLB(a, "-endpoint") != isLB(b, "-endpoint") {
			return map[bool]int{true: 1, false: -1}[isLB(a, "-endpoint")]
		}
		return strings.Compare(a, b)
	})
	return all
}
