package bench

import (
	"math/rand/v2"
	"testing"
)

// In a network of two all is known after one interval, and each tells it as often
// as it may. In larger ones everybody hears of it, and nobody tells it for ever.
func TestSpreadEvent(t *testing.T) {
	seconds, packets := spreadEvent(2, rand.New(rand.NewPCG(1, 1)))
	if seconds != gossipInterval || packets != 2*retransmitMult {
		t.Errorf("two nodes: %g s, %d packets", seconds, packets)
	}
	for _, nodes := range []int{10, 100, 1000} {
		seconds, packets := spreadEvent(nodes, rand.New(rand.NewPCG(1, 1)))
		limit := map[int]int{10: 8, 100: 12, 1000: 16}[nodes]
		if seconds == 0 || packets != nodes*limit*gossipFanout {
			t.Errorf("%d nodes: %g s, %d packets", nodes, seconds, packets)
		}
	}
}
