package bench

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/ovnd/ovnd/bench/report"
	"github.com/ovnd/ovnd/bench/traffic"
)

// Data that is not what was sent fails what is measured meanwhile, by name. Here it
// comes from a source that does not know that it is verified.
func TestWrongBytesFail(t *testing.T) {
	set := &setup{mtu: 1500, congestion: "cubic", verify: true}
	p, err := open(t.Context(), set, Veth)
	if err != nil {
		t.Fatal(err)
	}
	defer p.close()
	rogue, err := startChild(p.ends[0].host, childSpec{Source: &traffic.Spec{To: p.ends[1].addr, UDPRate: 1000, UDPSize: 200}})
	if err != nil {
		t.Fatal(err)
	}
	defer rogue.end()
	for _, c := range []test{bulk(1), rate(200, 1000)} {
		r := &report.Report{}
		s := &series{
			timing: Timing{Rounds: 1, Window: 50 * time.Millisecond}, group: "path", report: r,
			planes: []*plane{p}, tests: []test{c},
		}
		if err := s.run(context.Background()); err != nil {
			t.Fatal(err)
		}
		_, wrong := errors.AsType[*IntegrityError](errors.Join(s.failures...))
		if failed := r.Benchmarks[0].Results[0].Rounds[0].Failed; !wrong || !strings.Contains(failed, "not what was sent") {
			t.Errorf("%s: %v, %q", c.name, s.failures, failed)
		}
	}
}
