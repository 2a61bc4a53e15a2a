package demo

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

func (w *walk) createService(ctx context.Context, s *stepRun) error {
	published := fmt.Sprintf("%d:80", w.port)
	out, err := w.ovnd(ctx, s, w.manager(), "service", "create", "--replicas", strconv.Itoa(replicas), "--network", network,
		"--name", service, "-p", published, w.program.image)
	if err != nil {
		return err
	}
	w.converged(s, out, replicas)
	return nil
}

// converged checks the last lines of a command that waits for a service.
func (w *walk) converged(s *stepRun, out string, n int) {
	want := fmt.Sprintf("overall progress: %d out of %d tasks", n, n)
	s.check(want, lastLine(out, "overall progress: "), strings.Contains(out, want))
	last := lastLine(out, "verify: ")
	s.check("verify: Service … converged", last, strings.HasPrefix(last, "verify: Service ") && strings.HasSuffix(last, " converged"))
}

// lastLine is the last line of out that begins with prefix.
func lastLine(out, prefix string) string {
	for _, line := range slices.Backward(strings.Split(out, "\n")) {
		if strings.HasPrefix(line, prefix) {
			return strings.TrimSpace(line)
		}
	}
	return "nothing"
}

func (w *walk) listTasks(ctx context.Context, s *stepRun) error {
	out, err := w.ovnd(ctx, s, w.manager(), "service", "ls", "--filter", "name="+service, "--format", "{{.Name}} {{.Mode}} {{.Replicas}} {{.Image}} {{.Ports}}")
	if err != nil {
		return err
	}
	s.equal(fmt.Sprintf("%s replicated %d/%d %s:latest *:%d->80/tcp", service, replicas, replicas, w.program.image, w.port), strings.TrimSpace(out))
	s.command(w.manager().name, "service ps "+service)
	if w.tasks, err = w.runningTasks(ctx, service); err != nil {
		return err
	}
	everywhere := !slices.ContainsFunc(w.machines, func(m *machine) bool {
		return !slices.ContainsFunc(w.tasks, func(t task) bool { return t.on == m })
	})
	s.check(fmt.Sprintf("%d run, some on every node", replicas), fmt.Sprintf("%d run: %s", len(w.tasks), w.spread(w.tasks)), len(w.tasks) == replicas && everywhere)
	for _, m := range w.machines {
		out, err := w.ovnd(ctx, s, m, "ps", "--format", "{{.Names}}")
		if err != nil {
			return err
		}
		var want []string
		for _, t := range w.tasks {
			if t.on == m {
				want = append(want, t.name)
			}
		}
		got := strings.Fields(out)
		slices.Sort(want)
		slices.Sort(got)
		s.equal(strings.Join(want, "\n"), strings.Join(got, "\n"))
	}
	return nil
}

func (w *walk) inspectService(ctx context.Context, s *stepRun) error {
	type vip struct {
		NetworkID string
		Addr      netip.Prefix
	}
	out, err := w.ovnd(ctx, s, w.manager(), "service", "inspect", service)
	if err != nil {
		return err
	}
	found, err := decode[[]struct {
		Endpoint struct{ VirtualIPs []vip }
	}](out)
	if err != nil || len(found) != 1 {
		return fmt.Errorf("service inspect: %d services, %w", len(found), err)
	}
	id, err := w.manager().ovnd(ctx, "network", "inspect", "--format", "{{.ID}}", network)
	if err != nil {
		return err
	}
	var seen []string
	for _, v := range found[0].Endpoint.VirtualIPs {
		seen = append(seen, v.Addr.String())
		if v.NetworkID == strings.TrimSpace(id) {
			w.vip = v.Addr.Addr()
		}
	}
	ok := len(seen) == 2 && netip.MustParsePrefix("10.10.0.0/16").Contains(w.vip)
	s.check("one on ingress, one in 10.10.0.0/16", strings.Join(seen, ", "), ok)
	return nil
}

func (w *walk) interfaces(ctx context.Context, s *stepRun) error {
	t := w.tasks[0]
	ifaces, err := probe[[]ifaceAnswer](ctx, s, t, "interfaces")
	if err != nil {
		return err
	}
	want := []struct {
		name, subnet string
		mtu          int
	}{{"eth0", "10.0.0.0/24", plainMTU}, {"eth1", "10.10.0.0/16", w.mtu()}, {"eth2", "172.18.0.0/16", 1500}}
	for _, e := range want {
		seen, ok := "absent", false
		for _, i := range ifaces {
			if i.Name == e.name {
				seen = fmt.Sprintf("%s: %s, MTU %d", i.Name, strings.Join(i.Addrs, ", "), i.MTU)
				ok = i.MTU == e.mtu && len(i.Addrs) == 1 && within(e.subnet, i.Addrs[0])
			}
		}
		s.check(fmt.Sprintf("%s: in %s, MTU %d", e.name, e.subnet, e.mtu), seen, ok)
	}
	return nil
}

func within(subnet, addr string) bool {
	p, err := netip.ParsePrefix(addr)
	return err == nil && netip.MustParsePrefix(subnet).Contains(p.Addr())
}

func (w *walk) createDNSRR(ctx context.Context, s *stepRun) error {
	m := w.manager()
	_, err := w.ovnd(ctx, s, m, "service", "create", "--name", dnsrr, "--endpoint-mode", "dnsrr", "-p", "81:80", w.program.image)
	const refused = "EndpointSpec: port published with ingress mode can't be used with dnsrr mode"
	seen := "no error"
	if err != nil {
		seen = err.Error()
	}
	s.check("… "+refused, seen, strings.HasSuffix(seen, refused))
	out, err := w.ovnd(ctx, s, m, "service", "create", "--replicas", strconv.Itoa(dnsrrSize), "--name", dnsrr, "--network", network,
		"--endpoint-mode", "dnsrr", w.program.image)
	if err != nil {
		return err
	}
	w.converged(s, out, dnsrrSize)
	tasks, err := w.runningTasks(ctx, dnsrr)
	if err != nil {
		return err
	}
	want := addresses(tasks)
	answer, err := probe[dnsAnswer](ctx, s, w.tasks[0], "dns", dnsrr, "A")
	if err != nil {
		return err
	}
	s.check("its three tasks: "+strings.Join(want, ", "), describeDNS(answer), len(want) == dnsrrSize && slices.Equal(want, sorted(answer.Answers)))
	pages, err := probe[[]httpAnswer](ctx, s, w.tasks[0], "http", "3", "http://"+dnsrr+"/")
	if err != nil {
		return err
	}
	s.check("3 pages", w.program.describe(pages), w.program.pages(pages, 3))
	return nil
}

func (w *walk) scale(ctx context.Context, s *stepRun) error {
	for _, n := range []int{scaled, replicas} {
		if _, err := w.ovnd(ctx, s, w.manager(), "service", "scale", "--detach", fmt.Sprintf("%s=%d", service, n)); err != nil {
			return err
		}
		if err := w.countTasks(ctx, s, n); err != nil {
			return err
		}
	}
	seen, ok, err := eventually(ctx, settled, func(ctx context.Context) (string, bool, error) {
		tasks, err := w.runningTasks(ctx, service)
		w.tasks = tasks
		return fmt.Sprintf("%d/%d", len(tasks), replicas), len(tasks) == replicas, err
	})
	s.check(fmt.Sprintf("%d/%d", replicas, replicas), seen, ok)
	return err
}

// countTasks waits for DNS to have n tasks of the service.
func (w *walk) countTasks(ctx context.Context, s *stepRun, n int) error {
	t := w.tasks[0]
	s.command(t.on.name, "exec "+t.short()+" ovnd "+ProbeName+" dns tasks."+service+" A")
	began := time.Now()
	seen, ok, err := eventually(ctx, 2*settled, func(ctx context.Context) (string, bool, error) {
		answer, err := quietProbe[dnsAnswer](ctx, t, "dns", "tasks."+service, "A")
		return fmt.Sprintf("%d addresses after %.1f s", len(answer.Answers), time.Since(began).Seconds()), len(answer.Answers) == n, err
	})
	if err != nil {
		return err
	}
	s.check(fmt.Sprintf("%d addresses", n), seen, ok)
	return nil
}

func (w *walk) killTask(ctx context.Context, s *stepRun) error {
	victim, witness := w.tasks[len(w.tasks)-1], w.tasks[0]
	type result struct {
		answer watchAnswer
		err    error
	}
	watched := make(chan result, 1)
	s.command(witness.on.name, "exec "+witness.short()+" ovnd "+ProbeName+" watch tasks."+service+" "+victim.addr.String()+" 10")
	go func() {
		a, err := quietProbe[watchAnswer](ctx, witness, "watch", "tasks."+service, victim.addr.String(), "10")
		watched <- result{a, err}
	}()
	killed := time.Now()
	if _, err := w.ovnd(ctx, s, victim.on, "kill", victim.name); err != nil {
		<-watched
		return err
	}
	r := <-watched
	if r.err != nil {
		return r.err
	}
	seen := "still there after 10 s"
	took := r.answer.At.Sub(killed)
	if !r.answer.At.IsZero() {
		seen = fmt.Sprintf("gone after %.2f s", took.Seconds())
	}
	s.check("out of DNS within a second", seen, !r.answer.At.IsZero() && took < time.Second)
	return w.replaced(ctx, s, victim)
}

// replaced waits until another task has the place of one that was killed.
func (w *walk) replaced(ctx context.Context, s *stepRun, victim task) error {
	s.command(w.manager().name, "service ps "+service)
	began := time.Now()
	seen, ok, err := eventually(ctx, 2*settled, func(ctx context.Context) (string, bool, error) {
		tasks, err := w.runningTasks(ctx, service)
		gone := !slices.ContainsFunc(tasks, func(t task) bool { return t.id == victim.id })
		if gone && len(tasks) == replicas {
			w.tasks = tasks
		}
		return fmt.Sprintf("%d/%d after %.1f s", len(tasks), replicas, time.Since(began).Seconds()), gone && len(tasks) == replicas, err
	})
	if err != nil {
		return err
	}
	s.check(fmt.Sprintf("%d/%d again", replicas, replicas), seen, ok)
	out, err := w.manager().ovnd(ctx, "service", "ps", "--no-trunc", "--filter", "desired-state=shutdown", "--format", "{{.ID}} {{.Name}} {{.Error}}", service)
	if err != nil {
		return err
	}
	history := "nothing"
	for line := range strings.Lines(out) {
		if rest, ok := strings.CutPrefix(line, victim.id+" "); ok {
			history = strings.TrimSpace(rest)
		}
	}
	want := fmt.Sprintf(`%s.%d "task: non-zero exit (137)"`, service, victim.slot)
	s.check(`\_ `+want, `\_ `+strings.TrimPrefix(history, `\_ `), strings.TrimPrefix(history, `\_ `) == want)
	return nil
}

func (w *walk) remove(ctx context.Context, s *stepRun) error {
	out, err := w.ovnd(ctx, s, w.manager(), "service", "rm", service, dnsrr)
	if err != nil {
		return err
	}
	s.equal(service+"\n"+dnsrr, strings.TrimSpace(out))
	for _, m := range w.machines {
		s.command(m.name, "ps --quiet")
		seen, ok, err := eventually(ctx, 2*settled, func(ctx context.Context) (string, bool, error) {
			out, err := m.ovnd(ctx, "ps", "--quiet")
			n := len(strings.Fields(out))
			return fmt.Sprintf("%d tasks", n), n == 0 && err == nil, err
		})
		if err != nil {
			return err
		}
		s.check("0 tasks", seen, ok)
	}
	seen, ok, err := eventually(ctx, settled, func(ctx context.Context) (string, bool, error) {
		_, err := w.manager().ovnd(ctx, "network", "rm", network)
		if err != nil {
			return err.Error(), false, nil //nolint:nilerr // it is what is seen
		}
		return network, true, nil
	})
	s.command(w.manager().name, "network rm "+network)
	s.check(network, seen, ok)
	if err != nil {
		return err
	}
	for _, m := range w.machines {
		free, _, _ := eventually(ctx, settled, func(context.Context) (string, bool, error) {
			return map[bool]string{true: "closed", false: "open"}[tcpFree(m.addr, w.port)], tcpFree(m.addr, w.port), nil
		})
		s.equal(fmt.Sprintf("%s:%d closed", m.addr, w.port), fmt.Sprintf("%s:%d %s", m.addr, w.port, free))
	}
	return nil
}

func addresses(tasks []task) []string {
	all := make([]string, 0, len(tasks))
	for _, t := range tasks {
		all = append(all, t.addr.String())
	}
	return sorted(all)
}

func sorted(all []string) []string { return slices.Sorted(slices.Values(all)) }
