package bench

import (
	"cmp"
	"slices"
)

// A Spread describes the values of several rounds.
type Spread struct {
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
}

// spread returns the Spread of v, which it sorts and which has values.
func spread(v []float64) Spread {
	slices.Sort(v)
	mid := v[len(v)/2]
	if len(v)%2 == 0 {
		mid = (v[len(v)/2-1] + mid) / 2
	}
	return Spread{Median: mid, Min: v[0], Max: v[len(v)-1]}
}

// quantile returns the value in sorted, which has values, that a share of q of
// all values does not exceed (nearest rank).
func quantile[T cmp.Ordered](sorted []T, q float64) T {
	rank := int(q * float64(len(sorted)))
	return sorted[min(rank, len(sorted)-1)]
}
