package sandbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func probeSandbox(t *testing.T, s Spec, c Command) probed {
	t.Helper()
	h := helper(t, "probe")
	c.Args, c.Env = h.Args, append(h.Env, c.Env...)
	out, code, err := output(t, s, c)
	if err != nil || code != 0 {
		t.Fatalf("exit code %d, error %v, output:\n%s", code, err, out)
	}
	var p probed
	if err := json.Unmarshal([]byte(out), &p); err != nil {
		t.Fatalf("%v in:\n%s", err, out)
	}
	return p
}

// Docker's order and names: as in the Spec, eth0 first.
func TestInterfaces(t *testing.T) {
	n := newFakeNode(t)
	s := n.spec(3)
	s.Interfaces = []Interface{
		testInterface("eth0", "10.10.0.3/16"),
		testInterface("eth1", "10.0.1.7/24", "fd00:1::7/64"),
		testInterface("eth2", "172.18.0.5/16"),
	}
	s.Interfaces[1].MTU, s.Interfaces[1].Queues = 1424, 3
	s.Interfaces[1].Routes = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}
	s.Interfaces[2].Gateway = netip.MustParseAddr("172.18.0.1")
	p := probeSandbox(t, s, Command{})

	want := []probedInterface{
		{"lo", 65536, []string{"127.0.0.1/8", "::1/128"}},
		{"eth0", 1450, []string{"10.10.0.3/16"}},
		{"eth1", 1424, []string{"10.0.1.7/24", "fd00:1::7/64"}},
		{"eth2", 1450, []string{"172.18.0.5/16"}},
	}
	if got, want := fmt.Sprint(p.Interfaces), fmt.Sprint(want); got != want {
		t.Errorf("interfaces:\n got %s\nwant %s", got, want)
	}
	for _, r := range []string{
		"10.10.0.0/16 dev 2", "10.0.1.0/24 dev 3", "192.0.2.0/24 dev 3", "172.18.0.0/16 dev 4",
		"0.0.0.0/0 dev 4 via 172.18.0.1",
	} {
		if !slices.Contains(p.Routes, r) {
			t.Errorf("no route %q in %q", r, p.Routes)
		}
	}
	if p.Port80 != "" {
		t.Errorf("bind port 80: %s", p.Port80)
	}
	if slices.Sort(p.SysNet); fmt.Sprint(p.SysNet) != "[eth0 eth1 eth2 lo]" {
		t.Errorf("/sys/class/net has %q", p.SysNet)
	}
}

func TestCommandHasNoPrivilege(t *testing.T) {
	n := newFakeNode(t)
	p := probeSandbox(t, n.spec(3), Command{})
	for _, set := range []string{"CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"} {
		if got := p.Status[set]; strings.Trim(got, "0") != "" {
			t.Errorf("%s is %s", set, got)
		}
	}
	if p.Status["NoNewPrivs"] != "1" {
		t.Errorf("NoNewPrivs is %s", p.Status["NoNewPrivs"])
	}
	if p.UID != os.Getuid() || p.GID != os.Getgid() {
		t.Errorf("uid %d, gid %d, not %d, %d", p.UID, p.GID, os.Getuid(), os.Getgid())
	}
	if p.PPID != 1 {
		t.Errorf("the command's parent is %d, not the init as pid 1", p.PPID)
	}
	if sig := p.Status["SigIgn"]; ignored(t, sig) != 0 {
		t.Errorf("the command ignores signals %s", sig)
	}
	if sig := p.Status["SigBlk"]; strings.Trim(sig, "0") != "" {
		t.Errorf("the command blocks signals %s", sig)
	}
	out, code, err := output(t, n.spec(3), helper(t, "change"))
	if err != nil || code != 0 {
		t.Errorf("exit code %d, error %v: %s", code, err, out)
	}
}

func TestEnvironment(t *testing.T) {
	n := newFakeNode(t)
	t.Setenv("OVND_TEST_A", "outside")
	t.Setenv("OVND_TEST_B", "outside")
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	s := n.spec(3)
	s.Hostname = "www"
	p := probeSandbox(t, s, Command{Env: []string{"OVND_TEST_B=own", "OVND_TEST_C=a=b\xff"}, Dir: dir})
	want := map[string]string{
		"OVND_TEST_A": "outside", "OVND_TEST_B": "own", "OVND_TEST_C": "a=b�", // � by JSON
		"HOSTNAME": "www",
	}
	for k, v := range want {
		if p.Env[k] != v {
			t.Errorf("%s is %q, not %q", k, p.Env[k], v)
		}
	}
	if p.Hostname != "www" {
		t.Errorf("hostname is %q", p.Hostname)
	}
	if p.Dir != dir {
		t.Errorf("started in %q, not %q", p.Dir, dir)
	}
	if p := probeSandbox(t, n.spec(4), Command{}); p.Hostname != "000000000000" {
		t.Errorf("without Spec.Hostname it is %q", p.Hostname)
	}
}

func TestHostsAndResolvConf(t *testing.T) {
	n := newFakeNode(t)
	s := n.spec(3)
	s.Hostname = "www"
	s.Hosts = []HostEntry{{netip.MustParseAddr("192.0.2.9"), []string{"db", "database"}}}
	hosts := mustOutput(t, s, "cat", "/etc/hosts")
	for _, line := range []string{"127.0.0.1\tlocalhost", "10.10.0.3\twww box3", "192.0.2.9\tdb database"} {
		if !slices.Contains(strings.Split(hosts, "\n"), line) {
			t.Errorf("no line %q in:\n%s", line, hosts)
		}
	}
	own, _ := os.ReadFile("/etc/resolv.conf")
	s.ID = n.spec(3).ID
	if got := mustOutput(t, s, "sh", "-c", "cat /etc/resolv.conf || true"); len(own) > 0 && got != strings.TrimSpace(string(own)) {
		t.Errorf("resolv.conf is not the host's:\n%s", got)
	}
	s.ID, s.ResolvConf = n.spec(3).ID, []byte("nameserver 127.0.0.11\n")
	if got := mustOutput(t, s, "cat", "/etc/resolv.conf"); got != "nameserver 127.0.0.11" {
		t.Errorf("resolv.conf is:\n%s", got)
	}
	if now, _ := os.ReadFile("/etc/resolv.conf"); string(now) != string(own) {
		t.Errorf("the host's resolv.conf changed")
	}
}

func TestExitCodes(t *testing.T) {
	n := newFakeNode(t)
	plain := filepath.Join(t.TempDir(), "plain")
	if err := os.WriteFile(plain, []byte("#!/bin/sh\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	noToken, noNode, refused := n.spec(4), n.spec(5), n.spec(6)
	noToken.Token = "wrong"
	noNode.NodeSocket += ".none"
	refused.ID = "short"
	for _, c := range []struct {
		name string
		spec Spec
		cmd  Command
		code int
		err  string // in the error
	}{
		{"success", n.spec(3), Command{Args: []string{"true"}}, 0, ""},
		{"status", n.spec(3), Command{Args: []string{"sh", "-c", "exit 3"}}, 3, ""},
		{"killed", n.spec(3), Command{Args: []string{"sh", "-c", "kill -KILL $$"}}, 137, ""},
		{"terminated", n.spec(3), Command{Args: []string{"sh", "-c", "kill -TERM $$"}}, 143, ""},
		{"not found", n.spec(3), Command{Args: []string{"ovnd-no-such"}}, 127, "executable file not found in $PATH"},
		{"no such path", n.spec(3), Command{Args: []string{"/ovnd/none"}}, 127, "no such file"},
		{"not executable", n.spec(3), Command{Args: []string{plain}}, 126, "permission denied"},
		{"a folder", n.spec(3), Command{Args: []string{"/etc"}}, 126, "is a directory"},
		{"PATH of its own", n.spec(3), Command{Args: []string{"true"}, Env: []string{"PATH=/ovnd"}}, 127, "not found"},
		{"no workdir", n.spec(3), Command{Args: []string{"true"}, Dir: "/ovnd/none"}, 125, "--workdir"},
		{"no command", n.spec(3), Command{}, 125, "no command"},
		{"refused", noToken, Command{Args: []string{"true"}}, 125, "wrong token"},
		{"no node", noNode, Command{Args: []string{"true"}}, 125, "is it up?"},
		{"bad spec", refused, Command{Args: []string{"true"}}, 125, "64 hexadecimal"},
	} {
		t.Run(c.name, func(t *testing.T) {
			out, code, err := output(t, c.spec, c.cmd)
			if code != c.code {
				t.Errorf("exit code %d, not %d; error %v, output:\n%s", code, c.code, err, out)
			}
			if (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
				t.Errorf("error %v, want %q in it", err, c.err)
			}
		})
	}
}

func TestOrphansAreReaped(t *testing.T) {
	n := newFakeNode(t)
	out, code, err := output(t, n.spec(3), helper(t, "leave"))
	if err != nil || code != 0 {
		t.Errorf("exit code %d, error %v: %s", code, err, out)
	}
}

// What a command leaves in the background keeps the sandbox and its addresses.
func TestDaemonKeepsSandbox(t *testing.T) {
	defer goleak.VerifyNone(t)
	n := newFakeNode(t)
	defer n.stop()
	s := n.spec(3)
	fifo := filepath.Join(t.TempDir(), "fifo")
	script := `mkfifo "$0"; (read line <"$0"; exit 0) & exit 5`
	type result struct {
		code int
		err  error
	}
	done := make(chan result, 1)
	go func() {
		_, code, err := output(t, s, Command{Args: []string{"sh", "-c", script, fifo}})
		done <- result{code, err}
	}()
	n.wait("attached", func() bool { return n.attached[s.ID] != nil })
	select {
	case r := <-done:
		t.Fatalf("ended with its command: exit code %d, error %v", r.code, r.err)
	case <-time.After(300 * time.Millisecond):
	}
	n.wait("still attached", func() bool { return n.attached[s.ID] != nil })
	if err := os.WriteFile(fifo, []byte("go\n"), 0); err != nil {
		t.Fatal(err)
	}
	if r := <-done; r.code != 5 || r.err != nil {
		t.Errorf("exit code %d, error %v; want the command's 5", r.code, r.err)
	}
	n.wait("detached", func() bool { return n.attached[s.ID] == nil })
}

// Nothing is left of a sandbox: no descriptor, goroutine or process.
func TestNothingLeaks(t *testing.T) {
	n := newFakeNode(t)
	mustOutput(t, n.spec(3), "true") // opens what stays, the poller for one
	before := openDescriptors(t)
	for i := range 5 {
		mustOutput(t, n.spec(4+i), "true")
	}
	n.wait("detached", func() bool { return len(n.attached) == 0 })
	n.stop()
	goleak.VerifyNone(t)
	// The server's listener is gone.
	if after := openDescriptors(t); len(after) > len(before) {
		t.Errorf("descriptors before: %q\nafter: %q", before, after)
	}
	if left := descendants(os.Getpid()); len(left) > 0 {
		t.Errorf("processes %d are left", left)
	}
}

func openDescriptors(t *testing.T) (out []string) {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		link, err := os.Readlink("/proc/self/fd/" + e.Name())
		if errors.Is(err, os.ErrNotExist) {
			continue // of the ReadDir
		}
		out = append(out, e.Name()+" "+link)
	}
	return out
}
