package sandbox

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// bareSpec is the spec of a task without namespaces.
func bareSpec(n *fakeNode) Spec {
	s := n.spec(3)
	s.Bare, s.Interfaces, s.Resolver, s.ResolvConf, s.Hosts = true, nil, false, nil, nil
	return s
}

// TestBareTask: a task without namespaces is a process of the machine, in a
// session of its own, whose log, exit status and executed processes are as any
// task's.
func TestBareTask(t *testing.T) {
	n := newFakeNode(t)
	own, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	log := LogConfig{Path: filepath.Join(t.TempDir(), "log")}
	s := startTestTask(t, n, bareSpec(n), Task{
		Args: []string{"sh", "-c", "readlink /proc/self/ns/net; echo $X; read line; exit 3"}, Env: []string{"X=1"}, OpenStdin: true, Log: log,
	})
	want := "1:" + own + "\n1:1\n"
	said := func() string { return readTestLog(t, log, LogOptions{Stdout: true, Tail: -1}) }
	n.wait("the task says where it is", func() bool { return len(said()) >= len(want) })
	p, err := s.Exec(t.Context(), Exec{Args: []string{"sh", "-c", "exit $((X+4))"}})
	if err != nil {
		t.Fatal(err)
	}
	if st, err := p.Wait(t.Context()); err != nil || st.Code != 5 {
		t.Errorf("exec: %+v, %v", st, err)
	}
	if err := s.Stop(unix.SIGTERM, 0); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the task ends", s.Exited())
	if st := s.ExitStatus(); st.Signal == 0 {
		t.Errorf("exit status %+v", st)
	}
	if got := said(); got != want {
		t.Errorf("it said %q, want %q", got, want)
	}
}

// TestBareTaskTakesAll: what a task without namespaces started ends with it.
func TestBareTaskTakesAll(t *testing.T) {
	n := newFakeNode(t)
	log := LogConfig{Path: filepath.Join(t.TempDir(), "log")}
	s := startTestTask(t, n, bareSpec(n), Task{Args: []string{"sh", "-c", "setsid sleep 1000 & echo $!; wait"}, Log: log})
	var pid string
	n.wait("the task says what it started", func() bool {
		pid = strings.TrimSpace(strings.TrimPrefix(readTestLog(t, log, LogOptions{Stdout: true, Tail: -1}), "1:"))
		return pid != ""
	})
	if err := s.Stop(unix.SIGTERM, 0); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the task ends", s.Exited())
	if _, err := os.Stat("/proc/" + pid); err == nil {
		t.Errorf("process %s is still there", pid)
	}
}

// TestBareTaskHasNoFiles: what needs namespaces is refused.
func TestBareTaskHasNoFiles(t *testing.T) {
	n := newFakeNode(t)
	for _, task := range []Task{
		{Args: []string{"true"}, Mounts: []Mount{{Source: "/etc", Target: "/mnt"}}},
		{Args: []string{"true"}, Files: []File{{Target: "/run/secrets/x"}}},
	} {
		task.Log.Path = filepath.Join(t.TempDir(), "log")
		if _, err := Start(t.Context(), bareSpec(n), task); err == nil {
			t.Errorf("%+v was started", task)
		}
	}
}

// TestCheck: sandboxes can be had here, or not at all where no user namespace may
// be made.
func TestCheck(t *testing.T) {
	if err := Check(t.Context()); err != nil {
		t.Errorf("where the other tests have sandboxes: %v", err)
	}
}
