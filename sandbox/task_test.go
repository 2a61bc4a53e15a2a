package sandbox

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// startTestTask starts a task and returns its session once the node has it.
func startTestTask(t *testing.T, n *fakeNode, s Spec, task Task) *Session {
	t.Helper()
	if task.Log.Path == "" {
		task.Log.Path = filepath.Join(t.TempDir(), "log")
	}
	task.Env = append(task.Env, "PATH="+os.Getenv("PATH")+":/usr/sbin:/sbin")
	c, err := Start(t.Context(), s, task)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = syscall.Kill(c.PID(), unix.SIGKILL)
		<-c.Done()
	})
	return n.session(s.ID)
}

// session waits for the sandbox to be attached.
func (n *fakeNode) session(id string) *Session {
	n.t.Helper()
	// Not whether it is attached: one whose command has ended soon is no more.
	n.wait("the sandbox is attached", func() bool { return n.sessions[id] != nil })
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.sessions[id]
}

func waitFor(t *testing.T, what string, c <-chan struct{}) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(20 * time.Second):
		t.Fatalf("waited in vain: %s", what)
	}
}

func readTestLog(t *testing.T, cfg LogConfig, o LogOptions) string {
	t.Helper()
	var b strings.Builder
	if err := ReadLogs(t.Context(), cfg, o, func(l LogLine) error {
		fmt.Fprintf(&b, "%d:%s", l.Stream, l.Data)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestTask(t *testing.T) {
	n := newFakeNode(t)
	log := LogConfig{Path: filepath.Join(t.TempDir(), "log")}
	s := startTestTask(t, n, n.spec(3), Task{Args: []string{"sh", "-c", "echo out $X; pwd; echo err >&2; exit 3"}, Env: []string{"X=1"}, Log: log})
	waitFor(t, "the task ends", s.Exited())
	if st := s.ExitStatus(); st.Code != 3 || st.Error != "" {
		t.Errorf("exit status %+v", st)
	}
	// Two pipes have no order between them.
	if got := readTestLog(t, log, LogOptions{Stdout: true, Tail: -1}); got != "1:out 1\n1:/\n" {
		t.Errorf("stdout:\n%s", got)
	}
	if got := readTestLog(t, log, LogOptions{Stderr: true, Tail: -1}); got != "2:err\n" {
		t.Errorf("stderr:\n%s", got)
	}
	if got := readTestLog(t, log, LogOptions{Stdout: true, Tail: 1}); got != "1:/\n" {
		t.Errorf("last line of stdout: %q", got)
	}
}

func TestTaskThatCannotRun(t *testing.T) {
	n := newFakeNode(t)
	s := startTestTask(t, n, n.spec(3), Task{Args: []string{"no-such-program"}})
	waitFor(t, "the task ends", s.Exited())
	if st := s.ExitStatus(); st.Code != ExitNotFound || !strings.Contains(st.Error, "no-such-program") {
		t.Errorf("exit status %+v", st)
	}
}

// TestTaskOutlivesNode has a node die and another take over, the task ending
// before, between and after.
func TestTaskOutlivesNode(t *testing.T) {
	n := newFakeNode(t)
	spec := n.spec(3)
	flag := filepath.Join(t.TempDir(), "flag")
	s := startTestTask(t, n, spec, Task{Args: []string{"sh", "-c", "while ! test -e " + flag + "; do sleep 0.05; done; exit 5"}})
	waitFor(t, "the task runs", s.Started())
	pid, started := s.Command()
	if pid == 0 || syscall.Kill(pid, 0) != nil {
		t.Fatalf("process ID %d", pid)
	}
	n.stop()
	n.start()
	s = n.session(spec.ID)
	waitFor(t, "the new node knows that it runs", s.Started())
	if again, at := s.Command(); again != pid || !at.Equal(started) {
		t.Errorf("process %d of %v, was %d of %v", again, at, pid, started)
	}
	n.stop()
	if err := os.WriteFile(flag, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for syscall.Kill(pid, 0) == nil {
		time.Sleep(10 * time.Millisecond)
	}
	n.start()
	s = n.session(spec.ID)
	waitFor(t, "the next node hears of the end", s.Exited())
	if st := s.ExitStatus(); st.Code != 5 {
		t.Errorf("exit status %+v", st)
	}
}

func TestTaskWithoutNodeIsKilled(t *testing.T) {
	n := newFakeNode(t)
	s := startTestTask(t, n, n.spec(3), Task{Args: []string{"sh", "-c", "trap '' TERM; while :; do sleep 0.1; done"}, Orphan: 200 * time.Millisecond})
	waitFor(t, "the task runs", s.Started())
	pid, _ := s.Command()
	n.stop()
	deadline := time.Now().Add(20 * time.Second)
	for syscall.Kill(pid, 0) == nil {
		if time.Now().After(deadline) {
			t.Fatal("it still runs")
		}
		time.Sleep(10 * time.Millisecond)
	}
	n.start() // for the cleanup
}

func TestStop(t *testing.T) {
	n := newFakeNode(t)
	for _, tc := range []struct {
		script string
		sig    syscall.Signal
		grace  time.Duration
		code   int
	}{
		{"exec sleep 1000", unix.SIGTERM, time.Minute, 128 + 15},
		{"trap 'exit 9' QUIT; echo ready; while :; do sleep 0.05; done", unix.SIGQUIT, time.Minute, 9},
		{"trap '' TERM; echo ready; while :; do sleep 0.05; done", unix.SIGTERM, 200 * time.Millisecond, 128 + 9},
	} {
		log := LogConfig{Path: filepath.Join(t.TempDir(), "log")}
		s := startTestTask(t, n, n.spec(3), Task{Args: []string{"sh", "-c", tc.script}, Log: log})
		waitFor(t, "the task runs", s.Started())
		if strings.Contains(tc.script, "ready") {
			n.wait("the trap is set", func() bool {
				return strings.Contains(readTestLog(t, log, LogOptions{Stdout: true, Tail: -1}), "ready")
			})
		}
		if err := s.Stop(tc.sig, tc.grace); err != nil {
			t.Fatal(err)
		}
		waitFor(t, "the task ends", s.Exited())
		if st := s.ExitStatus(); st.Code != tc.code {
			t.Errorf("%s: exit status %+v, want %d", tc.script, st, tc.code)
		}
	}
}

func TestExec(t *testing.T) {
	n := newFakeNode(t)
	s := startTestTask(t, n, n.spec(3), Task{Args: []string{"sleep", "1000"}, Env: []string{"A=1"}})
	waitFor(t, "the task runs", s.Started())
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	p, err := s.Exec(t.Context(), Exec{Args: []string{"sh", "-c", "echo $A $B; exit 7"}, Env: []string{"B=2"}, Stdout: w})
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	out, err := io.ReadAll(r)
	if err != nil || string(out) != "1 2\n" {
		t.Errorf("exec printed %q, %v", out, err)
	}
	if st, err := p.Wait(t.Context()); err != nil || st.Code != 7 {
		t.Errorf("exec ended with %+v, %v", st, err)
	}
	_, err = s.Exec(t.Context(), Exec{Args: []string{"no-such-program"}})
	if exitCode(err) != ExitNotFound {
		t.Errorf("exec of nothing: %v", err)
	}
	p, err = s.Exec(t.Context(), Exec{Args: []string{"sleep", "1000"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Signal(unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if st, err := p.Wait(t.Context()); err != nil || st.Signal != 9 {
		t.Errorf("killed exec ended with %+v, %v", st, err)
	}
}

func TestExecTerminal(t *testing.T) {
	n := newFakeNode(t)
	s := startTestTask(t, n, n.spec(3), Task{Args: []string{"sleep", "1000"}})
	waitFor(t, "the task runs", s.Started())
	master, slave, err := OpenTerminal()
	if err != nil {
		t.Fatal(err)
	}
	defer master.Close()
	p, err := s.Exec(t.Context(), Exec{Args: []string{"sh", "-c", "tty >/dev/null && echo terminal </dev/tty"}, TTY: true, Stdin: slave, Stdout: slave, Stderr: slave})
	slave.Close()
	if err != nil {
		t.Fatal(err)
	}
	out, _ := io.ReadAll(master) // ends with EIO
	if string(out) != "terminal\r\n" {
		t.Errorf("exec printed %q", out)
	}
	if st, err := p.Wait(t.Context()); err != nil || st.Code != 0 {
		t.Errorf("exec ended with %+v, %v", st, err)
	}
}

// TestTaskSurroundings is what a task may have beside a command.
func TestTaskSurroundings(t *testing.T) {
	n := newFakeNode(t)
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "file"), []byte("mounted\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	log := LogConfig{Path: filepath.Join(t.TempDir(), "log")}
	spec := n.spec(3)
	spec.Resolver = true
	s := startTestTask(t, n, spec, Task{
		Args:    []string{"sh", "-c", "cat /run/data/file; touch /run/data/x || echo read-only; cat /run/secrets/key; ulimit -n; tty || echo no tty"},
		Mounts:  []Mount{{Source: dir, Target: "/run/data", ReadOnly: true}},
		Files:   []File{{Target: "/run/secrets/key", Data: []byte("secret\n"), Mode: 0o400}},
		Ulimits: []Ulimit{{Name: "nofile", Soft: 77, Hard: 99}}, Log: log,
	})
	waitFor(t, "the task ends", s.Exited())
	got := readTestLog(t, log, LogOptions{Stdout: true, Tail: -1})
	if got != "1:mounted\n1:read-only\n1:secret\n1:77\n1:not a tty\n1:no tty\n" {
		t.Errorf("the task prints:\n%s", got)
	}
}

// What the host has no place for gets one, in the sandbox alone.
func TestPrivateTargets(t *testing.T) {
	n := newFakeNode(t)
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "file"), []byte("mounted\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	log := LogConfig{Path: filepath.Join(t.TempDir(), "log")}
	list := func() (names []string) {
		for _, d := range []string{"/", "/srv", "/usr", "/run"} {
			entries, err := os.ReadDir(d)
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range entries {
				names = append(names, d+" "+e.Name())
			}
		}
		return names
	}
	before := list()
	script := `cat /ovnd-config /ovnd-data/deep/file /srv/ovnd/file /usr/ovnd/file /run/secrets/key "$0"/file "$0"/new/file
ls /usr/bin/env /proc/self/exe; touch "$0"/written; ls -A /tmp >/dev/null && hostname`
	s := startTestTask(t, n, n.spec(3), Task{
		Args: []string{"sh", "-c", script, dir},
		Mounts: []Mount{
			{Source: dir, Target: "/ovnd-data/deep"},
			{Source: dir, Target: "/srv/ovnd"},
			{Source: dir, Target: "/usr/ovnd"},
			{Source: dir, Target: dir + "/new"},
		},
		Files: []File{
			{Target: "/ovnd-config", Data: []byte("config\n"), Mode: 0o444},
			{Target: "/run/secrets/key", Data: []byte("secret\n"), Mode: 0o400},
		},
		Log: log,
	})
	waitFor(t, "the task ends", s.Exited())
	want := "config\nmounted\nmounted\nmounted\nsecret\nmounted\nmounted\n/proc/self/exe\n/usr/bin/env\n000000000000\n"
	if got := strings.ReplaceAll(readTestLog(t, log, LogOptions{Stdout: true, Tail: -1}), "1:", ""); got != want {
		t.Errorf("the task prints:\n%s\n%s", got, readTestLog(t, log, LogOptions{Stderr: true, Tail: -1}))
	}
	if _, err := os.Stat(filepath.Join(dir, "written")); err != nil {
		t.Errorf("the host's /tmp is not the task's: %v", err)
	}
	if after := list(); !slices.Equal(before, after) {
		t.Errorf("the host has now %q, had %q", after, before)
	}
	bad := Task{Args: []string{"true"}, Files: []File{{Target: "/tmp/x"}}, Log: log}
	if _, err := Start(t.Context(), n.spec(4), bad); err == nil || !strings.Contains(err.Error(), "choose another") {
		t.Errorf("a file in /tmp: %v", err)
	}
}

// Standard files are blocking ones, as programs expect, and a terminal is one.
func TestTaskInput(t *testing.T) {
	n := newFakeNode(t)
	for _, task := range []Task{
		{OpenStdin: true, Args: []string{"sh", "-c", "echo ready; read x; echo ended"}},
		{TTY: true, Args: []string{"sh", "-c", "tty >/dev/null && echo ready; stty size >/dev/null </dev/tty && read x; echo ended"}},
	} {
		task.Log.Path = filepath.Join(t.TempDir(), "log")
		s := startTestTask(t, n, n.spec(3), task)
		printed := func() string { return readTestLog(t, task.Log, LogOptions{Stdout: true, Tail: -1}) }
		n.wait("it is ready", func() bool { return strings.Contains(printed(), "ready") })
		select {
		case <-s.Exited():
			t.Errorf("ended without input: %q", printed())
		case <-time.After(100 * time.Millisecond):
		}
		if err := s.Stop(unix.SIGKILL, 0); err != nil {
			t.Fatal(err)
		}
		waitFor(t, "it ends", s.Exited())
		if got := strings.TrimRight(printed(), "\r\n"); got != "1:ready" {
			t.Errorf("printed %q", got)
		}
	}
}

// Limits are the task's and those of what is executed beside it, whatever an
// init would need itself.
func TestUlimits(t *testing.T) {
	n := newFakeNode(t)
	s := startTestTask(t, n, n.spec(3), Task{
		Args:    []string{"sleep", "1000"},
		Ulimits: []Ulimit{{Name: "nofile", Soft: 5, Hard: 6}, {Name: "core", Soft: 0, Hard: 0}},
	})
	waitFor(t, "the task runs", s.Started())
	for range 10 {
		if got := execOutput(t, s, Command{Args: []string{"sh", "-c", "ulimit -n; ulimit -Hn; ulimit -c"}}); got != "5\n6\n0" {
			t.Fatalf("limits are %q", got)
		}
	}
	var own unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &own); err != nil {
		t.Fatal(err)
	}
	for _, u := range []Ulimit{{"nofile", 1, int64(own.Max) + 1}, {"nofile", 2, 1}, {"speed", 1, 1}} {
		if _, err := Start(t.Context(), n.spec(4), Task{Args: []string{"true"}, Ulimits: []Ulimit{u}}); err == nil || !strings.Contains(err.Error(), "--ulimit "+u.Name) {
			t.Errorf("%+v: %v", u, err)
		}
	}
}

// A folder that is not there is not a program that is not there.
func TestTaskFolder(t *testing.T) {
	n := newFakeNode(t)
	s := startTestTask(t, n, n.spec(3), Task{Args: []string{"true"}, Dir: "/ovnd/none"})
	waitFor(t, "the task ends", s.Exited())
	if st := s.ExitStatus(); st.Code != ExitNotExecutable || !strings.Contains(st.Error, "--workdir") {
		t.Errorf("exit status %+v", st)
	}
}

// TestDaemon runs a command that goes into the background.
func TestDaemon(t *testing.T) {
	n := newFakeNode(t)
	log := LogConfig{Path: filepath.Join(t.TempDir(), "log")}
	s := startTestTask(t, n, n.spec(3), Task{Args: []string{"sh", "-c", "(sleep 0.1; echo daemon; exec sleep 1000) & exit 0"}, Log: log})
	n.wait("the daemon has written", func() bool {
		return strings.Contains(readTestLog(t, log, LogOptions{Stdout: true, Tail: -1}), "daemon")
	})
	if pid, _ := s.Command(); pid != 0 && syscall.Kill(pid, 0) == nil {
		t.Errorf("the command, %d, has not ended", pid)
	}
	p, err := s.Exec(t.Context(), Exec{Args: []string{"true"}})
	if err != nil {
		t.Fatal(err)
	}
	if st, err := p.Wait(t.Context()); err != nil || st.Code != 0 {
		t.Errorf("exec ended with %+v, %v", st, err)
	}
	select {
	case <-s.Exited():
		t.Fatal("the task counts as ended while its daemon runs")
	default:
	}
	stopped := time.Now()
	if err := s.Stop(unix.SIGTERM, time.Minute); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the daemon ends", s.Exited())
	// How the daemon ended, not the command that began it, and when.
	if st := s.ExitStatus(); st.Code != 128+15 || st.FinishedAt.Before(stopped) {
		t.Errorf("exit status %+v", st)
	}
}

// Debian's nginx, as it is installed, without arguments: it goes into the
// background, and its workers end with it.
func TestNginx(t *testing.T) {
	if _, err := os.Stat("/usr/sbin/nginx"); err != nil {
		t.Skip("nginx is not installed")
	}
	n := newFakeNode(t)
	for _, tc := range []struct {
		sig  syscall.Signal
		code int
	}{{unix.SIGTERM, 0}, {unix.SIGQUIT, 0}, {unix.SIGKILL, 128 + 9}} {
		log := LogConfig{Path: filepath.Join(t.TempDir(), "log")}
		s := startTestTask(t, n, n.spec(3), Task{Args: []string{"nginx"}, Log: log})
		waitFor(t, "nginx runs", s.Started())
		n.wait("nginx serves", func() bool {
			return execOutput(t, s, helper(t, "get", "http://127.0.0.1:80/")) == "200 Welcome to nginx!"
		})
		if err := s.Stop(tc.sig, time.Minute); err != nil {
			t.Fatal(err)
		}
		waitFor(t, "nginx ends", s.Exited())
		if st := s.ExitStatus(); st.Code != tc.code {
			t.Errorf("signal %d: exit status %+v, want %d; log: %s", tc.sig, st, tc.code, readTestLog(t, log, LogOptions{Stdout: true, Stderr: true, Tail: -1}))
		}
	}
}

// execOutput returns what a command in the sandbox prints.
func execOutput(t *testing.T, s *Session, c Command) string {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	p, err := s.Exec(t.Context(), Exec{Args: c.Args, Env: c.Env, Stdout: w, Stderr: w})
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	out, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}
