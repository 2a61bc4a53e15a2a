package e2e

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ovnd/ovnd/bench/lab"
)

// Resident memory that a node may take, in MB: a manager with ten endpoints,
// a worker with one.
const (
	managerMemory = 96
	workerMemory  = 64
)

func TestFootprint(t *testing.T) {
	h := lab.New(t).Host("machine")
	m := newNode(t, h, "n1", "127.0.0.2")
	start := time.Now()
	m.up()
	t.Logf("from start to the first answer: %v", time.Since(start).Round(time.Millisecond))
	w := newNode(t, h, "n2", "127.0.0.3").up("--join", m.token("worker"), "127.0.0.2:2377")
	m.must("network", "create", "-d", "overlay", "--attachable", "net")
	for i := range 10 {
		m.startAgent("--network", "net", "--name", "agent"+strconv.Itoa(i))
	}
	a := w.startAgent("--network", "net", "--name", "agent")
	a.mustAsk(nil, "send", "127.0.0.1", "1000")
	for _, n := range []struct {
		*node
		limit int
	}{{m, managerMemory}, {w, workerMemory}} {
		got := n.residentMB()
		t.Logf("%s: %d MB resident", n.name, got)
		if got > n.limit {
			t.Errorf("%s takes %d MB, want at most %d", n.name, got, n.limit)
		}
	}
	if os.Getenv("OVND_SOAK") == "" {
		return
	}
	before := []time.Duration{m.cpu(), w.cpu()}
	time.Sleep(time.Minute) // what is measured is idleness
	for i, n := range []*node{m, w} {
		used := n.cpu() - before[i]
		t.Logf("%s: %.2f %% of a core when idle", n.name, 100*used.Seconds()/60)
	}
}

// cpu is the processor time that the node has used.
func (n *node) cpu() time.Duration {
	n.t.Helper()
	used, err := n.process.CPU()
	if err != nil {
		n.t.Fatal(err)
	}
	return used
}

// residentMB is VmRSS of the node's process.
func (n *node) residentMB() int {
	n.t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", n.process.Pid()))
	if err != nil {
		n.t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		var kb int
		if _, err := fmt.Sscanf(line, "VmRSS: %d kB", &kb); err == nil {
			return kb / 1024
		}
	}
	n.t.Fatal("no VmRSS")
	return 0
}
