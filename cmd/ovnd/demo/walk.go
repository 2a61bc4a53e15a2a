package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

const (
	network   = "ngx_net"
	service   = "my-test"
	dnsrr     = "my-dnsrr-nginx"
	replicas  = 5
	scaled    = 8
	dnsrrSize = 3
)

// A walk is one run of the walk-through.
type walk struct {
	cfg      Config
	dir      string
	program  program
	machines []*machine // as names has them
	port     uint16     // published
	census   census

	wire *wire // what an encrypted network's walk listens to; nil: it is plain

	token string
	tasks []task // of service, by slot
	vip   netip.Addr
}

// A task is one of a service that runs.
type task struct {
	id, name string // name as `ovnd ps` shows it: my-test.1.<id>
	slot     int
	on       *machine
	addr     netip.Addr // on network
}

func (t task) short() string { return fmt.Sprintf("%s…", t.name[:min(len(t.name), len(service)+8)]) }

func (w *walk) manager() *machine { return w.machines[0] }

// steps are those of the walk-through, in its order.
func (w *walk) steps() []step {
	if w.cfg.Bare {
		return w.bareSteps()
	}
	return w.withSealed([]step{
		{"A node, and with it a swarm", true, w.init},
		{"Two more nodes join it", true, w.join},
		{"The nodes of the swarm", true, w.nodeList},
		{"An overlay network", true, w.createNetwork},
		{"Five tasks of a service", true, w.createService},
		{"The service and its tasks, over three nodes", true, w.listTasks},
		{"The network as each node has it", false, w.inspectNetwork},
		{"The service's virtual addresses", false, w.inspectService},
		{"A task's interfaces", false, w.interfaces},
		{"From task to task, over all nodes", false, w.pingTasks},
		{"Names: the service is one address, its tasks are five", false, w.names},
		{"The virtual address: each task in turn", false, w.throughVIP},
		{"The published port, on every node", false, w.throughIngress},
		{"The world outside, by the gateway bridge", false, w.outside},
		{"A service without a virtual address", false, w.createDNSRR},
		{"Scale up, and down again", false, w.scale},
		{"A task dies and is replaced", false, w.killTask},
		{"Remove it all", false, w.remove},
	})
}

// ovnd notes and runs one command line.
func (w *walk) ovnd(ctx context.Context, s *stepRun, m *machine, args ...string) (string, error) {
	s.command(m.name, shown(args))
	return m.ovnd(ctx, args...)
}

// shown is a command line as a user types it.
func shown(args []string) string {
	words := slices.Clone(args)
	for i, w := range words {
		if strings.ContainsAny(w, " {}'\"") {
			words[i] = "'" + w + "'"
		}
	}
	return strings.Join(words, " ")
}

// eventually calls see until it is satisfied or ctx or limit ends, and returns
// what it saw last.
func eventually(ctx context.Context, limit time.Duration, see func(ctx context.Context) (seen string, ok bool, err error)) (string, bool, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	var last string
	var lastErr error
	for {
		seen, ok, err := see(ctx)
		if ctx.Err() == nil { // otherwise it saw what it was cut off from
			last, lastErr = seen, err
		}
		if ok || ctx.Err() != nil {
			return last, ok, lastErr
		}
		select {
		case <-ctx.Done():
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// rows decodes what `--format json` prints: an object a line.
func rows[T any](out string) ([]T, error) {
	var all []T
	dec := json.NewDecoder(strings.NewReader(out))
	for dec.More() {
		var row T
		if err := dec.Decode(&row); err != nil {
			return nil, fmt.Errorf("%q: %w", out, err)
		}
		all = append(all, row)
	}
	return all, nil
}

func decode[T any](out string) (T, error) {
	var v T
	if err := json.Unmarshal([]byte(out), &v); err != nil {
		return v, fmt.Errorf("%q: %w", out, err)
	}
	return v, nil
}

// probe runs a probe inside a task.
func probe[T any](ctx context.Context, s *stepRun, t task, args ...string) (T, error) {
	s.command(t.on.name, "exec "+t.short()+" ovnd "+ProbeName+" "+strings.Join(args, " "))
	return quietProbe[T](ctx, t, args...)
}

func quietProbe[T any](ctx context.Context, t task, args ...string) (T, error) {
	// The task has this program, but perhaps not at its path: /tmp is its own.
	out, err := t.on.ovnd(ctx, append([]string{"exec", t.name, "/proc/self/exe", ProbeName}, args...)...)
	if err != nil {
		var zero T
		return zero, err
	}
	return decode[T](out)
}

// runningTasks returns the tasks of a service that are to run and do.
func (w *walk) runningTasks(ctx context.Context, of string) ([]task, error) {
	out, err := w.manager().ovnd(ctx, "service", "ps", "--no-trunc", "--filter", "desired-state=running", "--format", "json", of)
	if err != nil {
		return nil, err
	}
	found, err := rows[struct{ ID, Name, Node, CurrentState string }](out)
	if err != nil {
		return nil, err
	}
	var tasks []task
	for _, row := range found {
		i := slices.Index(names[:], row.Node)
		if i < 0 || !strings.HasPrefix(row.CurrentState, "Running") {
			continue
		}
		t := task{id: row.ID, name: row.Name + "." + row.ID, on: w.machines[i]}
		if _, err := fmt.Sscanf(strings.TrimPrefix(row.Name, of+"."), "%d", &t.slot); err != nil {
			return nil, fmt.Errorf("task name %q", row.Name)
		}
		tasks = append(tasks, t)
	}
	slices.SortFunc(tasks, func(a, b task) int { return a.slot - b.slot })
	return tasks, w.findAddresses(ctx, tasks)
}

// findAddresses fills in the tasks' addresses on the network.
func (w *walk) findAddresses(ctx context.Context, tasks []task) error {
	if len(tasks) == 0 {
		return nil
	}
	args := []string{"inspect", "--type", "task"}
	for _, t := range tasks {
		args = append(args, t.id)
	}
	out, err := w.manager().ovnd(ctx, args...)
	if err != nil {
		return err
	}
	type attachment struct {
		Network   struct{ Spec struct{ Name string } }
		Addresses []netip.Prefix
	}
	found, err := decode[[]struct{ NetworksAttachments []attachment }](out)
	if err != nil {
		return err
	}
	if len(found) != len(tasks) {
		return fmt.Errorf("%d tasks of %d were found", len(found), len(tasks))
	}
	for i, t := range found {
		for _, a := range t.NetworksAttachments {
			if a.Network.Spec.Name == network && len(a.Addresses) > 0 {
				tasks[i].addr = a.Addresses[0].Addr()
			}
		}
	}
	return nil
}

// spread counts tasks by node: "localhost 1, hsp1 2, hsp2 2".
func (w *walk) spread(tasks []task) string {
	parts := make([]string, 0, len(w.machines))
	for _, m := range w.machines {
		n := 0
		for _, t := range tasks {
			if t.on == m {
				n++
			}
		}
		parts = append(parts, fmt.Sprintf("%s %d", m.name, n))
	}
	return strings.Join(parts, ", ")
}

// taskOn is the first of the tasks on a machine.
func (w *walk) taskOn(m *machine) (task, error) {
	i := slices.IndexFunc(w.tasks, func(t task) bool { return t.on == m })
	if i < 0 {
		return task{}, errors.New("no task of " + service + " is on " + m.name)
	}
	return w.tasks[i], nil
}
