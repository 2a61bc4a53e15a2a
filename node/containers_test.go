package node

import (
	"bufio"
	"errors"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"golang.org/x/sys/unix"

	"github.com/ovnd/ovnd/api"
	"github.com/ovnd/ovnd/cluster"
	"github.com/ovnd/ovnd/discovery/directory"
	"github.com/ovnd/ovnd/encap"
	"github.com/ovnd/ovnd/sandbox"
	"github.com/ovnd/ovnd/sandbox/health"
)

// testTask is a task with an interface on one network and its way out.
func testTask() *sandboxState {
	id := strings.Repeat("ab", 32)
	addr := netip.MustParsePrefix("10.10.0.5/16")
	return &sandboxState{
		task: newTaskState(),
		record: record{
			Created: time.Date(2026, 11, 22, 17, 27, 30, 0, time.UTC),
			Spec: sandbox.Spec{ID: id, Name: "my-test.1.js3kw89zbb09plu86jn1xnsy6", Hostname: "box", Interfaces: []sandbox.Interface{
				{NetworkID: "net1", NetworkName: "ngx_net", EndpointID: "ep1", Addrs: []netip.Prefix{addr}, MAC: encap.EndpointMAC(addr.Addr())},
				{NetworkID: bridgeID},
			}},
			Attachments: []attachment{{Attachment: cluster.Attachment{Addrs: []netip.Prefix{addr}}, Aliases: []string{"www"}}},
			Task: &taskRecord{Task: cluster.Task{
				Image: "nginx:latest", Command: "nginx", Args: []string{"-g", "daemon off;"}, Env: []string{"A=b"},
				StopSignal: "SIGQUIT", StopGrace: 3 * time.Second,
				Health: &cluster.HealthConfig{Test: []string{"CMD", "true"}, Retries: 2},
				Mounts: []cluster.TaskMount{{Source: "/srv", Target: "/data", ReadOnly: true}},
				Ports: []cluster.TaskPort{
					{Port: directory.Port{Protocol: directory.TCP, Target: 80, Published: 8080}},
					{Port: directory.Port{Protocol: directory.UDP, Target: 53}, HostMode: true},
				},
			}},
		},
	}
}

// TestDescribe: a task in Docker's words, from its record and state.
func TestDescribe(t *testing.T) {
	st := testTask()
	st.Task.HostPorts = []directory.Port{{Protocol: directory.UDP, Target: 53, Published: 32768}}
	s := &sandboxes{member: &member{networks: &networks{publish: []netip.Addr{netip.MustParseAddr("192.0.2.11")}}}, byID: map[string]*sandboxState{st.Spec.ID: st}}
	got := containers{s}.Containers()[0]
	if got.State.Status != container.StateCreated || got.Hostname != "box" || got.StopSignal != "SIGQUIT" || got.Health.Retries != 2 || got.LogPath == "" {
		t.Errorf("%+v", got)
	}
	if want := []string{"nginx", "-g", "daemon off;"}; !slices.Equal(got.Args, want) {
		t.Errorf("command %q, want %q", got.Args, want)
	}
	if !slices.Contains(got.Env, "A=b") || len(got.Mounts) != 1 || got.Mounts[0].RW {
		t.Errorf("environment %q, mounts %+v", got.Env, got.Mounts)
	}
	wantPorts := []api.ContainerPort{
		{Protocol: "tcp", Target: 80},
		{Protocol: "udp", Target: 53, Published: 32768, HostIP: netip.MustParseAddr("192.0.2.11")},
	}
	if !slices.Equal(got.Ports, wantPorts) {
		t.Errorf("ports %+v, want %+v", got.Ports, wantPorts)
	}
	wantNetworks := []api.ContainerNetwork{{
		Name: "ngx_net", NetworkID: "net1", EndpointID: "ep1", Addr: netip.MustParsePrefix("10.10.0.5/16"),
		MAC: encap.EndpointMAC(netip.MustParseAddr("10.10.0.5")), Aliases: []string{"www"},
		DNSNames: []string{"my-test.1.js3kw89zbb09plu86jn1xnsy6", "www", "abababababab", "box"}, Static: true,
	}}
	if !reflect.DeepEqual(got.Networks, wantNetworks) {
		t.Errorf("networks %+v, want %+v", got.Networks, wantNetworks)
	}

	st.task.checks.Store(&health.State{Status: health.Unhealthy, FailingStreak: 3, Log: []health.Result{{ExitCode: 1, Output: "no"}}})
	st.Task.Ready, st.Task.Started = true, st.Created.Add(time.Second)
	got = containers{s}.Containers()[0]
	if h := got.State.Health; got.State.Status != container.StateRunning || h.Status != container.Unhealthy || h.Log[0].Output != "no" {
		t.Errorf("restored task: %+v", got.State)
	}
	st.Task.Exit = &sandbox.ExitStatus{Code: 137, Signal: 9, FinishedAt: st.Created.Add(time.Minute)}
	got = containers{s}.Containers()[0]
	if got.State.Status != container.StateExited || got.State.Code != 137 || got.State.FinishedAt.IsZero() || got.State.PID != 0 {
		t.Errorf("ended task: %+v", got.State)
	}
}

// TestContainerErrors: what is not there, or does not run.
func TestContainerErrors(t *testing.T) {
	st := testTask()
	c := containers{&sandboxes{byID: map[string]*sandboxState{st.Spec.ID: st}}}
	for _, tt := range []struct {
		name, id string
		want     string
		prepare  func()
	}{
		{"unknown", "nosuch", "No such container: nosuch", func() {}},
		{"not connected", st.Spec.ID, "is not connected to its node", func() {}},
		{"ended", st.Spec.ID, "is not running", st.task.finish},
	} {
		tt.prepare()
		_, err := c.ContainerExec(t.Context(), tt.id, api.ExecConfig{Args: []string{"true"}})
		errs := []error{
			err, c.ContainerKill(t.Context(), tt.id, unix.SIGHUP), c.ContainerStop(t.Context(), tt.id, api.StopOptions{}),
		}
		_, err = c.ContainerProcesses(tt.id)
		for _, err := range append(errs, err) {
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
			}
		}
	}
}

// TestWaitTask: the end of a task, and its removal.
func TestWaitTask(t *testing.T) {
	st := testTask()
	c := containers{&sandboxes{byID: map[string]*sandboxState{st.Spec.ID: st}}}
	ended, err := c.ContainerWait(st.Spec.ID, container.WaitConditionNotRunning)
	if err != nil {
		t.Fatal(err)
	}
	removed, err := c.ContainerWait(st.Spec.ID, container.WaitConditionRemoved)
	if err != nil {
		t.Fatal(err)
	}
	st.Task.Exit = &sandbox.ExitStatus{Code: 3}
	st.task.finish()
	if exit, err := ended(t.Context()); err != nil || exit.Code != 3 {
		t.Errorf("ended: %+v, %v", exit, err)
	}
	done := make(chan api.ExitStatus, 1)
	go func() {
		exit, _ := removed(t.Context())
		done <- exit
	}()
	select {
	case <-done:
		t.Error("removed before it is")
	case <-time.After(20 * time.Millisecond):
	}
	close(st.task.removed)
	if exit := <-done; exit.Code != 3 {
		t.Errorf("removed: %+v", exit)
	}
}

func TestStopWith(t *testing.T) {
	forever, short := -time.Second, time.Second
	task := testTask()
	for _, tt := range []struct {
		st    *sandboxState
		opts  api.StopOptions
		sig   syscall.Signal
		grace time.Duration
	}{
		{task, api.StopOptions{}, unix.SIGQUIT, 3 * time.Second},
		{task, api.StopOptions{Signal: unix.SIGINT, Grace: &short}, unix.SIGINT, short},
		{task, api.StopOptions{Grace: &forever}, unix.SIGQUIT, forever},
		{&sandboxState{}, api.StopOptions{}, unix.SIGTERM, defaultGrace},
	} {
		sig, grace, err := stopWith(tt.st, tt.opts)
		if sig != tt.sig || grace != tt.grace || err != nil {
			t.Errorf("%+v: %v, %v, %v; want %v, %v", tt.opts, sig, grace, err, tt.sig, tt.grace)
		}
	}
}

// TestDescendants: processes of all generations, and of a command that ended
// the init in its place.
func TestDescendants(t *testing.T) {
	cmd := exec.Command("sh", "-c", "sleep 100 & echo started; wait")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		_ = cmd.Wait()
	}()
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	below, err := descendants(cmd.Process.Pid)
	if err != nil || len(below) != 1 {
		t.Fatalf("below the shell: %v, %v", below, err)
	}
	all, err := descendants(os.Getpid())
	if err != nil || !slices.Contains(all, cmd.Process.Pid) || !slices.Contains(all, below[0]) || slices.Contains(all, os.Getpid()) {
		t.Errorf("below the test: %v, %v", all, err)
	}
	c := api.Container{State: api.ContainerState{PID: below[0]}}
	askProcess(&c, cmd.Process.Pid)
	if c.State.PID != below[0] || !slices.Equal(c.Args, []string{"sleep", "100"}) || c.Image != "sleep" {
		t.Errorf("asked: %+v", c)
	}
	askProcess(&c, 1)
	if c.State.PID != 1 {
		t.Errorf("the process of a command that is nobody's child is %d, want its init", c.State.PID)
	}
}

// TestPipes: a command's ends block, this process's do not, and end a read
// under way when they are closed.
func TestPipes(t *testing.T) {
	blocks := func(f *os.File) bool {
		raw, err := f.SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		var flags int
		if err := raw.Control(func(fd uintptr) { flags, _ = unix.FcntlInt(fd, unix.F_GETFL, 0) }); err != nil {
			t.Fatal(err)
		}
		return flags&unix.O_NONBLOCK == 0
	}
	reader, theirOut, err := outputPipe()
	if err != nil {
		t.Fatal(err)
	}
	theirIn, writer, err := inputPipe()
	if err != nil {
		t.Fatal(err)
	}
	master, slave, err := openPTY()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range []*os.File{theirOut, theirIn, slave} {
		if !blocks(f) {
			t.Errorf("the command's %s does not block", f.Name())
		}
		defer func() { _ = f.Close() }()
	}
	for _, f := range []*os.File{reader, writer, master} {
		if blocks(f) {
			t.Errorf("our %s blocks", f.Name())
		}
	}
	if err := writer.Close(); err != nil {
		t.Error(err)
	}
	for _, r := range []*os.File{reader, master} {
		read := make(chan error, 1)
		go func() {
			_, err := r.Read(make([]byte, 1))
			read <- err
		}()
		if err := r.Close(); err != nil {
			t.Error(err)
		}
		select {
		case err := <-read:
			if !errors.Is(err, os.ErrClosed) {
				t.Errorf("%s: %v", r.Name(), err)
			}
		case <-time.After(5 * time.Second):
			t.Errorf("%s: a read goes on after it was closed", r.Name())
		}
	}
}

// TestPTY: size and end of a terminal.
func TestPTY(t *testing.T) {
	master, slave, err := openPTY()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = master.Close() }()
	if err := setSize(master, 33, 101); err != nil {
		t.Fatal(err)
	}
	size, err := unix.IoctlGetWinsize(int(slave.Fd()), unix.TIOCGWINSZ)
	if err != nil || size.Row != 33 || size.Col != 101 {
		t.Errorf("size %+v, %v", size, err)
	}
	if _, err := slave.WriteString("last words"); err != nil {
		t.Fatal(err)
	}
	if err := slave.Close(); err != nil {
		t.Fatal(err)
	}
	if out, err := io.ReadAll(terminalReader{master}); err != nil || string(out) != "last words" {
		t.Errorf("read %q, %v", out, err)
	}
}
