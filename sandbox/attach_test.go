package sandbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// attachHelper is a process in a container: args are a spec in JSON and a
// resolv.conf. It serves echoServer's port when attached.
func attachHelper(args []string) error {
	var s Spec
	if err := json.Unmarshal([]byte(args[0]), &s); err != nil {
		return err
	}
	lo, err := netlink.LinkByName("lo")
	if err == nil {
		err = netlink.LinkSetUp(lo)
	}
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM)
	defer stop()
	err = Attach(ctx, s, Attached{
		ResolvConf: args[1],
		Notice:     func(text string) { fmt.Println(text) },
		Ready: func() {
			interfaces, err := probeInterfaces()
			fmt.Println("ready", interfaces, err)
			go func() { _ = echoServer([]string{"10.10.0.3:7"}) }()
		},
	})
	fmt.Println("end:", err)
	return nil
}

// startContainer attaches from user, network and mount namespaces of its own,
// with the capabilities that a container has for it.
func startContainer(t *testing.T, s Spec, resolv string, caps ...uintptr) *cli {
	t.Helper()
	text, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	h := helper(t, "attach", string(text), resolv)
	cmd := exec.Command(h.Args[0], h.Args[1:]...)
	cmd.Env = append(os.Environ(), h.Env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  unix.CLONE_NEWUSER | unix.CLONE_NEWNET | unix.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: os.Getuid(), HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: os.Getgid(), HostID: os.Getgid(), Size: 1}},
		AmbientCaps: caps,
	}
	return startProcess(t, cmd)
}

// A container's traffic goes through its device, which survives a restart of
// the node; the node may stop it and run nothing in it.
func TestAttach(t *testing.T) {
	n := newFakeNode(t)
	resolv := filepath.Join(t.TempDir(), "resolv.conf")
	const was = "nameserver 127.0.0.11\nsearch lan" // Docker's, without an end of line
	if err := os.WriteFile(resolv, []byte(was), 0o644); err != nil {
		t.Fatal(err)
	}
	a := n.spec(3)
	a.Resolver, a.ResolvConf = true, []byte("nameserver 127.0.0.11\noptions ndots:0\n")
	c := startContainer(t, a, resolv, unix.CAP_NET_ADMIN, unix.CAP_NET_BIND_SERVICE)
	line, err := c.lines.ReadString('\n')
	if err != nil || !strings.Contains(line, "ovnd0 1450 [10.10.0.3/16]") {
		t.Fatalf("%q, %v: %s", line, err, c.stderr.String())
	}
	c.expect("listening")
	want := "#ovnd# replaced by ovnd: what it was, and is again afterwards\n#ovnd# nameserver 127.0.0.11\n#ovnd# search lan\nnameserver 127.0.0.12\noptions ndots:0\n"
	if b, err := os.ReadFile(resolv); err != nil || string(b) != want {
		t.Errorf("resolv.conf: %q, %v", b, err)
	}

	b := n.spec(4)
	talk := helper(t, "talk", "10.10.0.3:7")
	client := startCLI(t, testRun{Spec: b, Args: talk.Args, Env: talk.Env})
	n.wait("both attached", func() bool { return len(n.attached) == 2 })
	ctx, cancel := context.WithCancel(t.Context())
	finish := n.join(ctx, a.ID, b.ID)
	for i := range 5 {
		client.expect(fmt.Sprint(i))
	}
	cancel()
	finish()
	n.stop()
	c.expect("the node is gone: its networks are silent until it is back")
	n.start()
	c.expect("the node is back")
	n.wait("attached again", func() bool { return len(n.attached) == 2 })
	ctx, cancel = context.WithCancel(t.Context())
	finish = n.join(ctx, a.ID, b.ID)
	for i := range 5 {
		client.expect(fmt.Sprint(5 + i))
	}
	cancel()
	finish()

	n.mu.Lock()
	session, pid := n.sessions[a.ID], n.pids[a.ID]
	n.mu.Unlock()
	if got, started := session.Command(); got != pid || started.IsZero() {
		t.Errorf("the command is process %d since %s, want %d", got, started, pid)
	}
	if _, err := session.Exec(t.Context(), Exec{Args: []string{"sh"}}); err == nil || !strings.Contains(err.Error(), "the container's own exec") {
		t.Errorf("exec: %v", err)
	}
	if err := session.Stop(unix.SIGTERM, time.Second); err != nil {
		t.Error(err)
	}
	c.expect("end: " + ErrStopped.Error())
	n.wait("detached", func() bool { return len(n.attached) == 1 })
	select {
	case <-session.Exited():
	case <-time.After(10 * time.Second):
		t.Error("the node does not know how it ended")
	}
	if b, err := os.ReadFile(resolv); err != nil || string(b) != was {
		t.Errorf("resolv.conf afterwards: %q, %v", b, err)
	}
}

// Whether it ends as it should or is killed, the node knows at once; and what a
// killed one left in resolv.conf, the next makes good.
func TestAttachEnds(t *testing.T) {
	n := newFakeNode(t)
	resolv := filepath.Join(t.TempDir(), "resolv.conf")
	if err := os.WriteFile(resolv, []byte("nameserver 192.0.2.53\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, sig := range []syscall.Signal{unix.SIGKILL, unix.SIGTERM} {
		s := n.spec(3)
		s.Resolver, s.ResolvConf = true, []byte("nameserver 127.0.0.11\n")
		c := startContainer(t, s, resolv, unix.CAP_NET_ADMIN, unix.CAP_NET_BIND_SERVICE)
		n.wait("attached", func() bool { return len(n.attached) == 1 })
		if _, err := c.lines.ReadString('\n'); err != nil {
			t.Fatal(err, c.stderr.String())
		}
		if err := c.cmd.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
		n.wait("detached", func() bool { return len(n.attached) == 0 })
		c.wait()
	}
	if b, err := os.ReadFile(resolv); err != nil || string(b) != "nameserver 192.0.2.53\n" {
		t.Errorf("resolv.conf: %q, %v", b, err)
	}
}

func TestAttachRefused(t *testing.T) {
	n := newFakeNode(t)
	s := n.spec(3)
	s.Token = "another"
	c := startContainer(t, s, "", unix.CAP_NET_ADMIN, unix.CAP_NET_BIND_SERVICE)
	c.expect("end: wrong token")
	err := explainDevices(fmt.Errorf("TUN device ovnd0: %w", unix.EPERM))
	if !errors.Is(err, unix.EPERM) || !strings.Contains(err.Error(), "--cap-add NET_ADMIN --device /dev/net/tun") {
		t.Error(err)
	}
	s = n.spec(3)
	c = startContainer(t, s, "", unix.CAP_NET_ADMIN, unix.CAP_NET_BIND_SERVICE)
	n.wait("attached", func() bool { return len(n.attached) == 1 })
	if _, err := c.lines.ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	c.expect("listening")
	n.server.End(s.ID, "the swarm took its address away")
	c.expect("end: the node has ended the attachment: the swarm took its address away")
}

// A file that is replaced twice is what it was in the end; one that somebody
// else wrote meanwhile is left to them.
func TestResolvFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "resolv.conf")
	for _, was := range []string{"", "nameserver 1.1.1.1\n", "a\n#ovnd# b\nc", "\n\n"} {
		if err := os.WriteFile(path, []byte(was), 0o644); err != nil {
			t.Fatal(err)
		}
		for range 2 { // the first is killed
			f, err := readResolv(path)
			if err != nil || string(f.was) != was && string(f.was) != was+"\n" {
				t.Fatalf("%q: %+v, %v", was, f, err)
			}
			f.ours = []byte("nameserver 127.0.0.11\n")
			if err := f.replace(); err != nil {
				t.Fatal(err)
			}
		}
		f, err := readResolv(path)
		if err != nil {
			t.Fatal(err)
		}
		f.ours = []byte("nameserver 127.0.0.11\n")
		f.restore()
		if b, err := os.ReadFile(path); err != nil || strings.TrimSuffix(string(b), "\n") != strings.TrimSuffix(was, "\n") {
			t.Errorf("%q became %q, %v", was, b, err)
		}
		if err := f.replace(); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte("mine"), 0o644); err != nil {
			t.Fatal(err)
		}
		f.restore()
		if b, err := os.ReadFile(path); err != nil || string(b) != "mine" {
			t.Errorf("somebody else's became %q, %v", b, err)
		}
	}
	if f, err := readResolv(path + "/none"); err == nil {
		t.Errorf("%+v", f)
	}
	f, err := readResolv("")
	if err != nil || f.replace() != nil || f.serves(netip.MustParseAddr("127.0.0.11")) {
		t.Errorf("%+v, %v", f, err)
	}
}

func FuzzUnmarkResolv(f *testing.F) {
	f.Add([]byte("nameserver 1.1.1.1\n"), []byte("nameserver 127.0.0.11\n"))
	f.Add([]byte("#ovnd# x"), []byte(""))
	f.Fuzz(func(t *testing.T, was, ours []byte) {
		got := unmarkResolv(markResolv(was, nil))
		if string(got) != string(was) && string(got) != string(was)+"\n" {
			t.Errorf("%q became %q", was, got)
		}
		unmarkResolv(ours)
	})
}
