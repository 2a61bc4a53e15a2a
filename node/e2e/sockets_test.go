package e2e

import (
	"encoding/hex"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/ovnd/ovnd/bench/lab"
)

// TestSockets looks at what listens, as ss -lntu does: the swarm's port on a
// manager, gossip and VXLAN, each on the node's own address, and nothing else.
func TestSockets(t *testing.T) {
	hosts, addrs := threeMachines(t, "192.0.2.%d", 24)
	nodes := threeNodes(t, hosts, addrs)
	nodes[0].must("network", "create", "-d", "overlay", "--attachable", "net")
	for i, n := range nodes {
		n.startAgent("--network", "net", "--name", "a")
		want := []string{
			"tcp " + addrs[i] + ":7946",
			"udp " + addrs[i] + ":4789",
			"udp " + addrs[i] + ":7946",
		}
		if i == 0 {
			want = slices.Insert(want, 0, "tcp "+addrs[i]+":2377")
		}
		if got := listening(t, hosts[i]); !slices.Equal(got, want) {
			t.Errorf("%s listens at %q, want %q", n.name, got, want)
		}
	}
}

// States of sockets in /proc/net (include/net/tcp_states.h).
const (
	stateListen = "0A" // TCP
	stateClose  = "07" // UDP that is not connected
)

// listening is what accepts packets from anybody in the host's namespace.
func listening(t *testing.T, h *lab.Host) []string {
	t.Helper()
	var list []string
	for _, proto := range []struct{ name, state string }{{"tcp", stateListen}, {"tcp6", stateListen}, {"udp", stateClose}, {"udp6", stateClose}} {
		var table []byte
		err := h.Do(func() (err error) {
			table, err = os.ReadFile("/proc/thread-self/net/" + proto.name)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		for _, line := range strings.Split(string(table), "\n")[1:] {
			fields := strings.Fields(line)
			if len(fields) > 3 && fields[3] == proto.state {
				list = append(list, strings.TrimSuffix(proto.name, "6")+" "+procAddr(t, fields[1]).String())
			}
		}
	}
	slices.Sort(list)
	return list
}

// procAddr reads ADDR:PORT as /proc/net has it: words of the address in the
// machine's byte order, little endian here.
func procAddr(t *testing.T, s string) netip.AddrPort {
	t.Helper()
	var port uint16
	addr, hexPort, _ := strings.Cut(s, ":")
	if _, err := fmt.Sscanf(hexPort, "%X", &port); err != nil {
		t.Fatal(err)
	}
	b, err := hex.DecodeString(addr)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(b); i += 4 {
		slices.Reverse(b[i : i+4])
	}
	a, _ := netip.AddrFromSlice(b)
	return netip.AddrPortFrom(a, port)
}
