package resolver

import (
	"testing"

	"github.com/miekg/dns"
)

// A question costs the same on a network of ten thousand endpoints as on one of
// ten: it is looked up, not searched for.
func TestQuestionCostsNoScan(t *testing.T) {
	cost := func(tasks int) float64 {
		c := New(Config{Store: crowd(tasks)}).client(Scope{Networks: []string{"id-ngx_net"}})
		packet := mustPack(t, question("crowd.7.id7.ngx_net", dns.TypeA))
		out := make([]byte, 0, maxQuery)
		return testing.AllocsPerRun(100, func() {
			q, _ := c.read(packet, false)
			if pack(c.answer(q), q.size, out) == nil {
				t.Fatal("no answer")
			}
		})
	}
	few, many := cost(10), cost(10_000)
	if few != many || few > 30 {
		t.Errorf("%v allocations for a name among 10, %v among 10,000", few, many)
	}
}

// A byte is one of the query and its answer.
func BenchmarkAnswer(b *testing.B) {
	c := New(Config{Store: world()}).client(both)
	for name, qtype := range map[string]uint16{"my-test": dns.TypeA, "tasks.my-test": dns.TypeA, "rr": dns.TypeAAAA} {
		b.Run(name+"/"+dns.TypeToString[qtype], func(b *testing.B) {
			packet := mustPack(b, question(name, qtype))
			out := make([]byte, 0, maxQuery)
			b.ReportAllocs()
			for b.Loop() {
				q, _ := c.read(packet, false)
				wire := pack(c.answer(q), q.size, out)
				b.SetBytes(int64(len(packet) + len(wire)))
			}
		})
	}
}
