package bench

import (
	"math/rand/v2"
	"testing"
)

// A path is made up: what it carries without loss, what with a little, and what its
// source can offer, in datagrams a second.
type madeUp struct {
	clean, partial, ceiling float64
	trials                  int
	noise                   *rand.Rand // loses single datagrams if not nil
}

func (m *madeUp) try(rate float64) (trial, error) {
	m.trials++
	t := trial{rate: min(rate, m.ceiling)}
	switch {
	case t.rate > m.partial:
		t.loss = max(1, 100*(1-m.partial/t.rate))
	case t.rate > m.clean:
		t.loss = 0.1
	case m.noise != nil && m.noise.IntN(4) == 0:
		t.loss = 0.001
	}
	return t, nil
}

func TestSearchRates(t *testing.T) {
	within := func(got, want float64) bool { return got <= want*1.001 && got >= want/resolution*0.999 }
	for _, m := range []*madeUp{
		{clean: 80_000, partial: 100_000, ceiling: 400_000},
		{clean: 1000, partial: 300_000, ceiling: 400_000},
		{clean: 30_000, partial: 30_000, ceiling: 140_000},
		{clean: 500_000, partial: 500_000, ceiling: 144_000}, // the source is the limit
		{clean: 0, partial: 50_000, ceiling: 200_000},        // some are always lost
		{clean: 80_000, partial: 100_000, ceiling: 400_000, noise: rand.New(rand.NewPCG(1, 2))},
	} {
		found, err := searchRates(m.try)
		if err != nil {
			t.Fatal(err)
		}
		clean, partial := min(m.clean, m.ceiling), min(m.partial, m.ceiling)
		noisy := m.noise != nil && found.ndr > 0 && found.ndr <= clean
		if !within(found.ndr, clean) && !noisy || !within(found.pdr, partial) || found.ceiling != m.ceiling {
			t.Errorf("%+v: found %+v", m, found)
		}
		if m.trials > 4*maxTrials {
			t.Errorf("%+v: %d trials", m, m.trials)
		}
	}
}
