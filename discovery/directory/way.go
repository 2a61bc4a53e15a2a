package directory

import "fmt"

// LabelWay is the label of a service that says how connections to its VIPs are
// carried.
const LabelWay = "ovnd.vip"

// A Way is how connections to a service's VIPs are carried. The numbers are those
// of gossip's records.
type Way uint8

const (
	// DefaultWay is that of a service that does not say.
	DefaultWay Way = iota
	// Proxied ones end in the client's node, which makes others.
	Proxied
	// Direct ones, if they are of sandboxes, go to the backend, and are rewritten on
	// their way; others are proxied.
	Direct
)

// ParseWay reads the value of [LabelWay]; "" is none.
func ParseWay(s string) (Way, error) {
	for _, w := range []Way{DefaultWay, Proxied, Direct} {
		if s == w.String() {
			return w, nil
		}
	}
	return DefaultWay, fmt.Errorf("label %s=%s: want %s or %s", LabelWay, s, Proxied, Direct)
}

// String returns "proxy", "direct" or "".
func (w Way) String() string {
	switch w {
	case Proxied:
		return "proxy"
	case Direct:
		return "direct"
	}
	return ""
}

// IsDirect reports whether the data plane is to carry what it can.
func (w Way) IsDirect() bool { return w != Proxied }
