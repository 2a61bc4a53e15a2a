package lab_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ovnd/ovnd/bench/lab"
)

func TestMain(m *testing.M) {
	if os.Getenv(holderEnv) != "" {
		holderMain()
		return
	}
	lab.Main(m)
}

var (
	v4a, v4b = netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	v6a, v6b = netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::2")
)

func pair(t *testing.T) (a, b *lab.Host) {
	t.Helper()
	l := lab.New(t)
	a, b = l.Host("a"), l.Host("b")
	l.Veth(1500,
		lab.End{Host: a, Name: "eth0", Addrs: []string{"192.0.2.1/24", "2001:db8::1/64"}},
		lab.End{Host: b, Name: "eth0", Addrs: []string{"192.0.2.2/24", "2001:db8::2/64"}})
	return a, b
}

func within(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func TestPing(t *testing.T) {
	a, b := pair(t)
	ctx := within(t, 10*time.Second)
	for _, dst := range []netip.Addr{v4b, v6b} {
		if err := a.Ping(ctx, dst, lab.Ping{Size: 1500, DF: true}); err != nil {
			t.Error(err)
		}
		if err := a.Ping(ctx, dst, lab.Ping{Size: 1501, DF: true}); !errors.Is(err, syscall.EMSGSIZE) {
			t.Errorf("1501 bytes over MTU 1500: %v, want EMSGSIZE", err)
		}
		if err := a.Ping(ctx, dst, lab.Ping{Size: 4000}); err != nil {
			t.Error(err)
		}
	}
	if err := b.Ping(within(t, 300*time.Millisecond), netip.MustParseAddr("192.0.2.9"), lab.Ping{}); err == nil {
		t.Error("an address that nobody has answered")
	}
}

func TestSocketsStayInHost(t *testing.T) {
	a, b := pair(t)
	var ln net.Listener
	if err := b.Do(func() (err error) { ln, err = net.Listen("tcp4", "192.0.2.2:80"); return err }); err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	go func() {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		_, _ = io.WriteString(c, "hello")
		c.Close()
	}()
	if _, err := net.DialTimeout("tcp4", "192.0.2.2:80", time.Second); err == nil {
		t.Error("reached a host's address from outside its namespace")
	}
	var conn net.Conn
	if err := a.Do(func() (err error) { conn, err = net.Dial("tcp4", "192.0.2.2:80"); return err }); err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if got, _ := io.ReadAll(conn); string(got) != "hello" {
		t.Errorf("read %q", got)
	}
}

// Two kernel VXLAN devices reach each other by static entries, and the capture
// sees their frames on the underlay.
func TestVXLANOnTheWire(t *testing.T) {
	for _, under := range [][2]netip.Addr{{v4a, v4b}, {v6a, v6b}} {
		a, b := pair(t)
		macs := [2]net.HardwareAddr{{2, 0x42, 10, 0, 0, 1}, {2, 0x42, 10, 0, 0, 2}}
		a.VXLAN(lab.VXLAN{Name: "vx", VNI: 42, Local: under[0], MAC: macs[0], Addrs: []string{"10.0.0.1/24"}})
		b.VXLAN(lab.VXLAN{Name: "vx", VNI: 42, Local: under[1], MAC: macs[1], Addrs: []string{"10.0.0.2/24"}})
		a.FDB("vx", macs[1], under[1])
		b.FDB("vx", macs[0], under[0])
		a.Neigh("vx", netip.MustParseAddr("10.0.0.2"), macs[1])
		b.Neigh("vx", netip.MustParseAddr("10.0.0.1"), macs[0])

		wire := b.Wire("eth0")
		ctx := within(t, 10*time.Second)
		if err := a.Ping(ctx, netip.MustParseAddr("10.0.0.2"), lab.Ping{}); err != nil {
			t.Fatal(err)
		}
		isVXLAN := func(f lab.Frame) bool {
			return !f.Outgoing && strings.Contains(string(f.Data), "\x08\x00\x00\x00\x00\x00\x2a\x00"+string(macs[1])+string(macs[0]))
		}
		if _, err := wire.Find(ctx, isVXLAN); err != nil {
			t.Errorf("no VXLAN frame with VNI 42 seen: %v", err)
		}
	}
}

// A frame with a VLAN tag arrives with it, though the kernel carries the tag
// beside the data.
func TestWireSend(t *testing.T) {
	a, b := pair(t)
	in, out := b.Wire("eth0"), a.Wire("eth0")
	frame := append(append(append([]byte{}, b.MAC("eth0")...), a.MAC("eth0")...), 0x81, 0, 0, 7, 0x88, 0xb5)
	frame = append(frame, make([]byte, 46)...)
	if err := out.Send(frame); err != nil {
		t.Fatal(err)
	}
	same := func(f lab.Frame) bool { return !f.Outgoing && string(f.Data) == string(frame) }
	if _, err := in.Find(within(t, 5*time.Second), same); err != nil {
		t.Error(err)
	}
}

func TestStart(t *testing.T) {
	a, _ := pair(t)
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	// The test binary itself, as a program that lists no test: nothing else is
	// sure to be installed.
	p := a.Start(exec.Command(exe, "-test.run=^$"))
	if err := p.Wait(); err != nil {
		t.Error(err)
	}
	if p.Usage().Maxrss == 0 {
		t.Error("no resource usage")
	}
}

// Sysctls are the host's own.
func TestSysctl(t *testing.T) {
	a, b := pair(t)
	a.Sysctl("net.ipv4.ip_default_ttl", "7")
	for host, want := range map[*lab.Host]string{a: "7", b: "64"} {
		err := host.Do(func() error {
			got, err := os.ReadFile("/proc/sys/net/ipv4/ip_default_ttl")
			if s := strings.TrimSpace(string(got)); s != want {
				t.Errorf("%s: ttl %s, want %s", host.Name(), s, want)
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
	}
}

// Cleanup leaves no process and no thread in a namespace.
func TestCleanup(t *testing.T) {
	var pid int
	t.Run("lab", func(t *testing.T) {
		a, _ := pair(t)
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { r.Close(); w.Close() })
		cmd := exec.Command("/proc/self/exe", "-test.run=TestHelperBlocks", "-test.timeout=0")
		cmd.Env, cmd.Stdin = append(os.Environ(), "LAB_TEST_BLOCK=1"), r
		pid = a.Start(cmd).Pid()
	})
	if err := syscall.Kill(pid, 0); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("process %d after cleanup: %v", pid, err)
	}
	own, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(5 * time.Second)
	for strangers(t, own) > 0 {
		if time.Now().After(deadline) {
			t.Fatalf("%d threads are still in another namespace", strangers(t, own))
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func strangers(t *testing.T, own string) (n int) {
	t.Helper()
	tasks, err := filepath.Glob("/proc/self/task/*/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	for _, task := range tasks {
		if ns, err := os.Readlink(task); err == nil && ns != own {
			n++
		}
	}
	return n
}

func TestHelperBlocks(*testing.T) {
	if os.Getenv("LAB_TEST_BLOCK") != "" {
		_, _ = io.Copy(io.Discard, os.Stdin)
	}
}
