package e2e

import (
	"math/rand/v2"
	"os"
	"testing"
)

// rounds is how often a test repeats what it does: once, or n times by
// `make soak`.
func rounds(n int) int {
	if os.Getenv("OVND_SOAK") != "" {
		return n
	}
	return 1
}

// TestRestartRounds kills a node, any of three, and brings it back, while
// connections between all of them stay open.
func TestRestartRounds(t *testing.T) {
	hosts, addrs := threeMachines(t, "192.0.2.%d", 24)
	nodes := threeNodes(t, hosts, addrs)
	nodes[0].must("network", "create", "-d", "overlay", "--attachable", "net")
	var agents [3]*sandbox
	for i, n := range nodes {
		agents[i] = n.startAgent("--network", "net", "--name", "a")
	}
	for i, a := range agents {
		a.mustAsk(nil, "open", agents[(i+1)%3].addr())
	}
	for round := range rounds(100) {
		victim := rand.IntN(3)
		nodes[victim].kill()
		nodes[victim].up()
		for i, a := range agents {
			if err := a.ask(nil, "exchange"); err != nil {
				t.Fatalf("round %d, after n%d was killed: connection of n%d: %v", round, victim+1, i+1, err)
			}
		}
	}
	for _, n := range nodes {
		t.Logf("%s: %d MB resident", n.name, n.residentMB())
		checkStatus(t, n)
	}
}
