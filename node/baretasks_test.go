package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ovnd/ovnd/cluster"
	"github.com/ovnd/ovnd/discovery/directory"
)

func published(target uint16, p directory.Protocol) cluster.TaskPort {
	return cluster.TaskPort{Port: directory.Port{Protocol: p, Target: target, Published: 30000 + target}}
}

// TestTargetPorts: which ports a task without namespaces has, and which is PORT.
func TestTargetPorts(t *testing.T) {
	for _, tc := range []struct {
		name string
		task cluster.Task
		want string // protocol and target of each, or the error's words
	}{
		{"none", cluster.Task{Command: "nginx"}, ""},
		{"published, in order", cluster.Task{Ports: []cluster.TaskPort{published(443, directory.TCP), published(80, directory.TCP), published(443, directory.TCP)}}, "tcp443 tcp80"},
		{"its own PORT goes first", cluster.Task{Env: []string{"A=b", "PORT=8000"}, Ports: []cluster.TaskPort{published(80, directory.UDP), published(8000, directory.TCP)}}, "tcp8000 udp80"},
		{"built in", cluster.Task{Command: imageWhoami}, "tcp80 tcp7 udp7"},
		{"no port", cluster.Task{Env: []string{"PORT=http"}}, "want 1 to 65535"},
		{"zero", cluster.Task{Env: []string{"PORT=0"}}, "want 1 to 65535"},
		{"SCTP", cluster.Task{Ports: []cluster.TaskPort{published(80, directory.SCTP)}}, "sctp"},
	} {
		ports, err := targetPorts(&tc.task)
		got := make([]string, 0, len(ports))
		for _, p := range ports {
			got = append(got, p.Protocol.String()+fmt.Sprint(p.Target))
		}
		if s := strings.Join(got, " "); err == nil && s != tc.want || err != nil && !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %s, %v; want %s", tc.name, s, err, tc.want)
		}
	}
}

func TestBareEnv(t *testing.T) {
	ports := []localPort{{directory.TCP, 80, 20001}, {directory.TCP, 7, 20002}, {directory.UDP, 7, 20002}}
	proxy := []string{"HTTP_PROXY=http://p", "NO_PROXY=localhost"}
	got := bareEnv([]string{"A=b", "PORT=80", "NO_PROXY=x"}, true, ports, proxy)
	want := []string{"A=b", "NO_PROXY=x", "PORT=20001", "PORT_80=20001", "PORT_7=20002", "ECHO_PORT=20002", "HTTP_PROXY=http://p"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q\nwant %q", got, want)
	}
	if got := bareEnv([]string{"PORT=1"}, false, nil, nil); len(got) != 0 {
		t.Errorf("a task without ports has %q", got)
	}
}

// TestAssignPorts: no two tasks have a port in common, nor one that somebody
// listens at; TCP and UDP of one number have one.
func TestAssignPorts(t *testing.T) {
	s := &sandboxes{byID: map[string]*sandboxState{}}
	targets := []directory.Port{{Protocol: directory.TCP, Target: 53}, {Protocol: directory.UDP, Target: 53}, {Protocol: directory.TCP, Target: 80}}
	seen := map[uint16]bool{}
	for i := range 20 {
		st := &sandboxState{task: newTaskState(), record: record{Task: &taskRecord{}}}
		s.byID[fmt.Sprint(i)] = st
		if err := (tasks{s}).assignPorts(st, targets); err != nil {
			t.Fatal(err)
		}
		l := st.Task.Local
		if len(l) != 3 || l[0].Local != l[1].Local || l[2].Local == l[0].Local || seen[l[0].Local] || seen[l[2].Local] {
			t.Fatalf("task %d has %v", i, l)
		}
		seen[l[0].Local], seen[l[2].Local] = true, true
		if to, ok := st.Task.localTarget(directory.UDP, 53); !ok || to.Port() != l[0].Local || !to.Addr().IsLoopback() {
			t.Errorf("UDP port 53 leads to %v, %t", to, ok)
		}
		if _, ok := st.Task.localTarget(directory.UDP, 80); ok {
			t.Error("a port of TCP is open to UDP")
		}
	}
	ln, err := net.Listen("tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if port := uint16(ln.Addr().(*net.TCPAddr).Port); canListen(port) {
		t.Errorf("port %d, which is taken, is free", port)
	}
}

func TestCheckBare(t *testing.T) {
	for _, tc := range []struct {
		task cluster.Task
		ok   bool
	}{
		{cluster.Task{}, true},
		{cluster.Task{Mounts: []cluster.TaskMount{{Source: "/srv", Target: "/srv"}}}, true},
		{cluster.Task{Mounts: []cluster.TaskMount{{Source: "/srv", Target: "/srv", ReadOnly: true}}}, false},
		{cluster.Task{Mounts: []cluster.TaskMount{{Source: "/srv", Target: "/mnt"}}}, false},
		{cluster.Task{Files: []cluster.TaskFile{{Target: "/run/secrets/x"}}}, false},
		{cluster.Task{Hosts: []string{"10.0.0.1 x"}}, false},
		{cluster.Task{DNS: []string{"10.0.0.1"}}, false},
	} {
		err := checkBare(&tc.task, "why")
		if (err == nil) != tc.ok || err != nil && (!strings.Contains(err.Error(), "(why)") || !strings.Contains(err.Error(), labelTUN)) {
			t.Errorf("%+v: %v", tc.task, err)
		}
	}
}

func TestSidecarPorts(t *testing.T) {
	web := cluster.Task{ServiceName: "app", Ports: []cluster.TaskPort{published(80, directory.TCP), published(443, directory.TCP)}}
	for _, tc := range []struct {
		task  cluster.Task
		named uint16
		want  []localPort
	}{
		{web, 0, []localPort{{directory.TCP, 80, 80}, {directory.TCP, 443, 443}}},
		{web, 3000, []localPort{{directory.TCP, 80, 3000}, {directory.TCP, 443, 443}}},
		{cluster.Task{ServiceName: "app"}, 3000, []localPort{{directory.TCP, 3000, 3000}}},
		{cluster.Task{ServiceName: "app"}, 0, nil},
	} {
		got, err := sidecarPorts(&tc.task, tc.named)
		if !slices.Equal(got, tc.want) || (err == nil) != (tc.want != nil) {
			t.Errorf("%d: %v, %v; want %v", tc.named, got, err, tc.want)
		}
	}
}

// TestChooseTUN: what each mode makes of a machine with sandboxes and of one
// without.
func TestChooseTUN(t *testing.T) {
	broken := errors.New("no TUN device")
	for _, tc := range []struct {
		mode      string
		check     error
		sandboxes bool
		reason    string
		fails     bool
	}{
		{"", nil, true, "", false},
		{TUNAuto, broken, false, "no TUN device", false},
		{TUNRequire, nil, true, "", false},
		{TUNRequire, broken, false, "", true},
		{TUNNever, nil, false, "--tun never", false},
		{"perhaps", nil, false, "", true},
	} {
		n := &Node{cfg: Config{TUN: tc.mode}}
		st, err := n.chooseTUN(func(context.Context) error { return tc.check })
		if st.Sandboxes != tc.sandboxes || st.Reason != tc.reason || (err != nil) != tc.fails {
			t.Errorf("%q, %v: %+v, %v", tc.mode, tc.check, st, err)
		}
		if tc.check != nil && err != nil && !errors.Is(err, tc.check) {
			t.Errorf("the error does not say why: %v", err)
		}
	}
}

// TestListenLocal: a socket that a dead node left is replaced; one that somebody
// listens at, and what is none, are not.
func TestListenLocal(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	one, err := listenLocal(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := listenLocal(path); err == nil || !strings.Contains(err.Error(), "somebody listens") {
		t.Errorf("where somebody listens: %v", err)
	}
	one.(*net.UnixListener).SetUnlinkOnClose(false)
	_ = one.Close()
	two, err := listenLocal(path)
	if err != nil {
		t.Fatalf("in place of a dead one: %v", err)
	}
	_ = two.Close()
	if _, err := listenLocal(t.TempDir()); err == nil {
		t.Error("a folder was replaced")
	}
	if _, err := listenLocal("192.0.2.1:1"); err == nil {
		t.Error("at an address that this machine has not")
	}
}
