package demo

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// bareSteps are those of the walk-through where tasks have no namespaces and no
// TUN devices: they are processes of this machine, and see their network through
// a proxy that says no more than where a name leads.
func (w *walk) bareSteps() []step {
	return []step{
		{"A node, and with it a swarm", true, w.init},
		{"Two more nodes join it", true, w.join},
		{"The nodes of the swarm", true, w.nodeList},
		{"How tasks live on them", false, w.modes},
		{"An overlay network", true, w.createNetwork},
		{"Five tasks of a service", true, w.createService},
		{"The service and its tasks, over three nodes", true, w.listTasks},
		{"The network as each node has it", false, w.inspectNetwork},
		{"The service's virtual addresses", false, w.inspectService},
		{"The tasks share this machine's ports", false, w.localPorts},
		{"The virtual address, by a task's proxy: each task in turn", false, w.throughProxy},
		{"The published port, on every node", false, w.throughIngress},
		{"A service without a virtual address", false, w.bareDNSRR},
		{"Scale up, and down again", false, w.bareScale},
		{"A task dies and is replaced", false, w.bareKill},
		{"Remove it all", false, w.remove},
	}
}

func (w *walk) modes(ctx context.Context, s *stepRun) error {
	for _, m := range w.machines {
		out, err := w.ovnd(ctx, s, m, "status", "--format", "{{.TUN.Sandboxes}}")
		if err != nil {
			return err
		}
		s.equal("false", strings.TrimSpace(out))
	}
	return nil
}

// localPorts checks that each task is told a port of its own.
func (w *walk) localPorts(ctx context.Context, s *stepRun) error {
	seen := make(map[string]bool)
	for _, t := range w.tasks {
		s.command(t.on.name, "exec "+t.short()+" sh -c 'echo $PORT'")
		out, err := t.on.ovnd(ctx, "exec", t.name, "sh", "-c", "echo $PORT")
		if err != nil {
			return err
		}
		seen[strings.TrimSpace(out)] = true
	}
	s.check(fmt.Sprintf("%d different ports", len(w.tasks)), fmt.Sprintf("%d: %s", len(seen), strings.Join(sortedKeys(seen), ", ")), len(seen) == len(w.tasks))
	return nil
}

func sortedKeys(set map[string]bool) []string {
	keys := make([]string, 0, len(set))
	for k := range set {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

func (w *walk) throughProxy(ctx context.Context, s *stepRun) error {
	for _, m := range w.machines {
		from, err := w.taskOn(m)
		if err != nil {
			return err
		}
		err = w.inTurn(ctx, s, turns*len(w.tasks), func(n int) ([]httpAnswer, error) {
			return probe[[]httpAnswer](ctx, s, from, "http", strconv.Itoa(n), "http://"+service+"/")
		})
		if err != nil {
			return err
		}
	}
	pages, err := probe[[]httpAnswer](ctx, s, w.tasks[0], "http", "1", "http://no-such-name/")
	if err != nil {
		return err
	}
	s.check("502, no such name", fmt.Sprintf("%d, %s", pages[0].Status, strings.TrimSpace(pages[0].Start)),
		pages[0].Status == 502 && strings.Contains(pages[0].Start, "no such name"))
	return nil
}

func (w *walk) bareDNSRR(ctx context.Context, s *stepRun) error {
	out, err := w.ovnd(ctx, s, w.manager(), "service", "create", "--replicas", strconv.Itoa(dnsrrSize), "--name", dnsrr, "--network", network,
		"--endpoint-mode", "dnsrr", w.program.image)
	if err != nil {
		return err
	}
	w.converged(s, out, dnsrrSize)
	pages, err := probe[[]httpAnswer](ctx, s, w.tasks[0], "http", "3", "http://"+dnsrr+"/")
	if err != nil {
		return err
	}
	s.check("3 pages", w.program.describe(pages), w.program.pages(pages, dnsrrSize))
	return nil
}

func (w *walk) bareScale(ctx context.Context, s *stepRun) error {
	for _, n := range []int{scaled, replicas} {
		if _, err := w.ovnd(ctx, s, w.manager(), "service", "scale", "--detach", fmt.Sprintf("%s=%d", service, n)); err != nil {
			return err
		}
		want := fmt.Sprintf("%d/%d", n, n)
		seen, ok, err := eventually(ctx, 2*settled, func(ctx context.Context) (string, bool, error) {
			tasks, err := w.runningTasks(ctx, service)
			w.tasks = tasks
			return fmt.Sprintf("%d/%d", len(tasks), n), len(tasks) == n, err
		})
		if err != nil {
			return err
		}
		s.check(want, seen, ok)
	}
	return nil
}

func (w *walk) bareKill(ctx context.Context, s *stepRun) error {
	victim := w.tasks[len(w.tasks)-1]
	if _, err := w.ovnd(ctx, s, victim.on, "kill", victim.name); err != nil {
		return err
	}
	return w.replaced(ctx, s, victim)
}
