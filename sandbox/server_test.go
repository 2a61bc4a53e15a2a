package sandbox

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func dial(t *testing.T, n *fakeNode) *packetConn {
	t.Helper()
	c, err := dialPacket(t.Context(), n.socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return c
}

// pipeFD returns a descriptor that is no TUN device's.
func pipeFD(t *testing.T) int {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close(); w.Close() })
	return int(r.Fd())
}

func TestServerRefuses(t *testing.T) {
	n := newFakeNode(t)
	valid := func() attachMessage {
		s := n.spec(3)
		return attachMessage{Version: protocolVersion, ID: s.ID, Token: s.Token, Interfaces: s.Interfaces}
	}
	other := valid()
	other.Version++
	token := valid()
	token.Token = strings.Repeat("x", maxToken+1)
	queues := valid()
	queues.Interfaces[0].Queues = 2
	name := valid()
	name.Interfaces[0].Name = "../eth0"
	for _, c := range []struct {
		name   string
		m      any
		fds    []int
		answer nodeKind
		text   string
	}{
		{"no TUN device", valid(), []int{pipeFD(t)}, nodeRefused, "not a TUN device's"},
		{"no descriptor", valid(), nil, nodeRefused, "0 descriptors sent"},
		{"too few descriptors", queues, []int{pipeFD(t)}, nodeRefused, "2 descriptors announced, 1 descriptors sent"},
		{"another version", other, []int{pipeFD(t)}, nodeGone, "version 3"},
		{"long token", token, []int{pipeFD(t)}, nodeRefused, "token"},
		{"bad name", name, []int{pipeFD(t)}, nodeRefused, "not a name"},
		{"no attach message", "hello", nil, nodeRefused, "decode"},
	} {
		t.Run(c.name, func(t *testing.T) {
			conn := dial(t, n)
			if err := conn.send(c.m, c.fds...); err != nil {
				t.Fatal(err)
			}
			var m nodeMessage
			if err := conn.receiveInto(&m); err != nil {
				t.Fatal(err)
			}
			if m.Kind != c.answer || !strings.Contains(m.Text, c.text) {
				t.Errorf("answer %q: %q; want %q with %q", m.Kind, m.Text, c.answer, c.text)
			}
			if err := conn.receiveInto(&m); err == nil {
				t.Errorf("the connection stays open")
			}
		})
	}
	if n.count != 0 {
		t.Errorf("%d were attached", n.count)
	}
}

// Only processes of the node's own user may connect, whatever the modes of
// socket and folders.
func TestServerChecksUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root for a second user")
	}
	dir, err := os.MkdirTemp("/tmp", "ovnd-test-") //nolint:usetesting // t.TempDir is root's alone
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	n := &fakeNode{t: t, socket: filepath.Join(dir, "s"), attached: map[string][]Devices{}, pids: map[string]int{}, changed: make(chan struct{}, 1)}
	n.start()
	t.Cleanup(func() { n.stop() })
	if st, err := os.Stat(n.socket); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("socket: mode %v, error %v", st.Mode(), err)
	}
	if err := errors.Join(os.Chmod(dir, 0o755), os.Chmod(n.socket, 0o666)); err != nil {
		t.Fatal(err)
	}
	h := helper(t, "dial", n.socket)
	cmd := exec.Command("/proc/self/exe", h.Args[1:]...)
	cmd.Env = append(os.Environ(), h.Env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "closed without answer") {
		t.Errorf("another user: %v: %s", err, out)
	}
}

// dialServer connects to the server at args[0] and says how that ended.
func dialServer(args []string) error {
	c, err := dialPacket(context.Background(), args[0])
	if err != nil {
		return err
	}
	_ = c.send(attachMessage{Version: protocolVersion + 1}) // would be answered
	var m nodeMessage
	if err := c.receiveInto(&m); err == nil {
		return errors.New("answered: " + m.Text)
	}
	os.Stdout.WriteString("closed without answer\n")
	return nil
}

func TestServerReplacesStaleSocket(t *testing.T) {
	// Too long for a socket's address, as folders of users may be.
	dir := filepath.Join(t.TempDir(), strings.Repeat("long/", 30))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "sandbox.sock")
	for range 2 { // the first does not remove it
		s, err := NewServer(path, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		s.ln.Close()
	}
	s, err := NewServer(path, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- s.Run(ctx) }()
	c, err := dialPacket(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is still there: %v", err)
	}
}

func TestMessageLimits(t *testing.T) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	a, err := inheritedConn(fds[0], "a")
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	b, err := inheritedConn(fds[1], "b")
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()

	if err := a.send(strings.Repeat("x", maxMessage)); !errors.Is(err, errMessageSize) {
		t.Errorf("send of too much: %v", err)
	}
	if _, err := a.Write(make([]byte, maxMessage+1)); err != nil {
		t.Fatal(err)
	}
	if _, _, err := b.receive(); !errors.Is(err, errMessageSize) {
		t.Errorf("receive of too much: %v", err)
	}
	before := len(openDescriptors(t))
	if err := a.send("x", pipeFD(t)); err != nil {
		t.Fatal(err)
	}
	var s string
	if err := b.receiveInto(&s); !errors.Is(err, errNoFiles) {
		t.Errorf("unexpected descriptor: %v", err)
	}
	if after := len(openDescriptors(t)); after != before+2 { // the pipe
		t.Errorf("%d descriptors, were %d", after, before)
	}
	// The largest sandbox there is fits.
	m := attachMessage{Version: protocolVersion, ID: strings.Repeat("f", idLen), Token: strings.Repeat("x", maxToken)}
	for range maxDevices {
		in := testInterface(strings.Repeat("e", maxDeviceName), "100.100.100.100/24", "2001:db8:1111:2222:3333:4444:5555:6666/128")
		in.NetworkID, in.EndpointID, in.NetworkName = strings.Repeat("n", 25), strings.Repeat("e", 64), strings.Repeat("n", 64)
		m.Interfaces = append(m.Interfaces, in)
	}
	if err := a.send(m); err != nil {
		t.Errorf("%d interfaces: %v", maxDevices, err)
	}
}

func TestPeerThatSaysNothing(t *testing.T) {
	if testing.Short() {
		t.Skip("takes as long as the server waits")
	}
	t.Parallel()
	n := newFakeNode(t)
	c := dial(t, n)
	var m nodeMessage
	if err := c.receiveInto(&m); err != nil || m.Kind != nodeRefused || !strings.Contains(m.Text, "timeout") {
		t.Errorf("answer %+v, error %v", m, err)
	}
}

// FuzzParseAttach feeds the node what an init might say.
func FuzzParseAttach(f *testing.F) {
	s := Spec{Interfaces: []Interface{testInterface("eth0", "10.10.0.3/16", "fd00::3/64")}}
	s.Interfaces[0].Gateway = s.Interfaces[0].Addrs[0].Addr()
	for _, m := range []attachMessage{
		{Version: protocolVersion, ID: strings.Repeat("0a", 32), Token: testToken, Interfaces: s.Interfaces},
		{Version: protocolVersion, ID: strings.Repeat("0a", 32), Token: testToken},
	} {
		b, err := json.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b, len(m.Interfaces))
	}
	f.Add([]byte(`{"version":1,"interfaces":[{"queues":-1}]}`), 0)
	f.Fuzz(func(t *testing.T, b []byte, n int) {
		m, err := parseAttach(b, n)
		if err != nil {
			return
		}
		left := n
		for _, in := range m.Interfaces {
			if in.Queues < 1 || in.Queues > left {
				t.Fatalf("%d queues of %d descriptors left", in.Queues, left)
			}
			left -= in.Queues
			for _, p := range in.Addrs {
				if !p.IsValid() {
					t.Fatal("invalid address")
				}
			}
		}
		if left != 0 || len(m.ID) != idLen || m.Token == "" {
			t.Fatalf("accepted %+v with %d descriptors", m, n)
		}
		again, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := parseAttach(again, n); err != nil {
			t.Fatalf("not accepted again: %v: %s", err, again)
		}
	})
}
