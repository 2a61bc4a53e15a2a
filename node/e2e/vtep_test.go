package e2e

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ovnd/ovnd/bench/lab"
)

// TestKernelVTEP has a kernel VXLAN device, outside the swarm, as a peer of a
// network: once with an address fixed at creation, once learned by ARP.
func TestKernelVTEP(t *testing.T) {
	for _, tc := range []struct{ name, option string }{
		{"fixed", "ovnd.vtep.kernel=192.0.2.20,ip=10.10.0.200,mac=02:00:00:00:00:c8"},
		{"learned", "ovnd.vtep.kernel=192.0.2.20,learn"},
	} {
		t.Run(tc.name, func(t *testing.T) { testKernelVTEP(t, tc.option) })
	}
}

func testKernelVTEP(t *testing.T, option string) {
	l := lab.New(t)
	machine, kernel := l.Host("machine"), l.Host("kernel")
	l.Veth(1500,
		lab.End{Host: machine, Name: "ens3", Addrs: []string{"192.0.2.11/24"}},
		lab.End{Host: kernel, Name: "ens3", Addrs: []string{"192.0.2.20/24"}})
	n := newNode(t, machine, "n1", "192.0.2.11").up()
	n.must("network", "create", "-d", "overlay", "--attachable", "--subnet", "10.10.0.0/16", "--ip-range", "10.10.0.0/25",
		"--opt", option, "--opt", vniOption+"=4242", "net")
	a := n.startAgent("--network", "net", "--name", "a")
	kernel.VXLAN(lab.VXLAN{
		Name: "vx0", VNI: 4242, Local: netip.MustParseAddr("192.0.2.20"), Remote: netip.MustParseAddr("192.0.2.11"),
		MTU: 1450, MAC: net.HardwareAddr{2, 0, 0, 0, 0, 0xc8}, Addrs: []string{"10.10.0.200/16"},
	})

	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	addr := netip.MustParseAddr(a.addr())
	if err := kernel.Ping(ctx, addr, lab.Ping{Size: 1450, DF: true}); err != nil {
		t.Errorf("kernel to sandbox: %v", err)
	}
	a.node.eventually("ping from sandbox to kernel", func() error { return a.ask(nil, "ping", "10.10.0.200", "1450") })
	if err := kernelEcho(kernel, addr); err != nil {
		t.Errorf("TCP from kernel to sandbox: %v", err)
	}
	status := n.must("status")
	if !strings.Contains(status, "192.0.2.20") {
		t.Errorf("status does not show the VTEP:\n%s", status)
	}
	verbose := n.must("network", "inspect", "--verbose", "net")
	if !strings.Contains(verbose, "192.0.2.20") {
		t.Errorf("inspect --verbose does not show the VTEP:\n%s", verbose)
	}
}

// kernelEcho sends 4 MiB from the host to the agent's echo service and compares.
func kernelEcho(h *lab.Host, to netip.Addr) error {
	var c net.Conn
	err := h.Do(func() (err error) {
		c, err = net.DialTimeout("tcp", net.JoinHostPort(to.String(), strconv.Itoa(agentPort+1)), 5*time.Second)
		return err
	})
	if err != nil {
		return err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(30 * time.Second))
	want := bytes.Repeat([]byte("0123456789abcdef"), 4<<20/16)
	sent := make(chan error, 1)
	go func() {
		_, err := c.Write(want)
		sent <- err
	}()
	got := make([]byte, len(want))
	for n := 0; n < len(got); {
		m, err := c.Read(got[n:])
		if err != nil {
			return fmt.Errorf("after %d bytes: %w", n, err)
		}
		n += m
	}
	if !bytes.Equal(got, want) {
		return fmt.Errorf("the echo differs")
	}
	return <-sent
}
