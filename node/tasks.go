package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/moby/moby/api/types/events"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/ovnd/ovnd/cluster"
	"github.com/ovnd/ovnd/discovery/directory"
	"github.com/ovnd/ovnd/sandbox"
	"github.com/ovnd/ovnd/sandbox/health"
)

const (
	// drainPatience bounds how long a task that is to stop waits for the other
	// nodes to send it nothing more.
	drainPatience = 3 * time.Second
	// killPatience is how long a sandbox may take to end after SIGKILL.
	killPatience = 5 * time.Second
	// claimPatience is how long after a restart the swarm has to ask for a task
	// that still runs. It is not the swarm's any more then.
	claimPatience = time.Minute
	// ingressPatience is how long a task waits for the swarm to give this node
	// its place on the ingress network.
	ingressPatience = 10 * time.Second

	// orphanLife is how long a task lives without a node: a little more than the
	// ten seconds within which a restarted node keeps its tasks.
	orphanLife = 12 * time.Second

	// What is kept of a task's output: the cap of each file, in bytes, and the
	// number of files.
	logFileSize = 8 << 20
	logFiles    = 2
)

// A taskRecord is what the node remembers of a task of a service.
type taskRecord struct {
	Task     cluster.Task // without its Files, which belong in memory alone
	Command  sandbox.Task `json:"-"` // until it is launched
	Launched bool         // its init was started
	Started  time.Time    // its command; zero before
	Ready    bool         // it takes the traffic of its service
	// HostPorts are those published in host mode, with the port that was found
	// for 0.
	HostPorts []directory.Port `json:",omitempty"`
	// Local are the machine's ports of a bare task.
	Local []localPort `json:",omitempty"`
	// Device says that a sidecar has devices in the node's own namespace.
	Device bool `json:",omitempty"`
	Exit   *sandbox.ExitStatus
}

// A taskState is a task in the life of this process.
type taskState struct {
	attached  chan struct{} // closed when its init has connected
	gone      chan struct{} // closed when it is over; then Exit is set
	unhealthy chan struct{} // closed when its health check has given up
	healthy   chan struct{} // closed when its health check is content
	removed   chan struct{} // closed when it is forgotten
	checks    atomic.Pointer[health.State]
	reach     atomic.Pointer[netip.Addr] // its address on the gateway bridge; nil: not there

	// The mutex of sandboxes guards these.
	draining bool
	claimed  bool // the swarm has asked for it
	health   *stage
	ports    []func() // give back its published ports

	once struct{ gone, healthy, unhealthy, removed sync.Once }
}

func newTaskState() *taskState {
	return &taskState{
		attached: make(chan struct{}), gone: make(chan struct{}),
		unhealthy: make(chan struct{}), healthy: make(chan struct{}), removed: make(chan struct{}),
	}
}

func (t *taskState) finish() { t.once.gone.Do(func() { close(t.gone) }) }

func (t *taskState) finished() bool { return closed(t.gone) }

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// tasks runs the tasks of services in sandboxes. It implements
// cluster.TaskRunner.
type tasks struct{ *sandboxes }

var errUnknownTask = errors.New("this node knows no such task: it was lost in a restart")

// find returns the sandbox of a task and notes that the swarm wants it.
func (t tasks) find(taskID string) (*sandboxState, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	st := t.taskLocked(taskID)
	if st == nil {
		return nil, errUnknownTask
	}
	st.task.claimed = true
	return st, nil
}

func (s *sandboxes) taskLocked(taskID string) *sandboxState {
	for _, st := range s.byID {
		if st.Task != nil && st.Task.Task.ID == taskID {
			return st
		}
	}
	return nil
}

// PrepareTask implements cluster.TaskRunner.
func (t tasks) PrepareTask(ctx context.Context, task *cluster.Task) error {
	if err := t.waitJoined(ctx); err != nil {
		return err
	}
	_, err := t.find(task.ID)
	if err == nil || task.Restored {
		return err
	}
	cmd, err := t.command(task)
	if err != nil {
		return err
	}
	spec, err := taskSpec(task)
	if err != nil {
		return err
	}
	reason := t.tun.Reason
	if spec.Bare = !t.tun.Sandboxes; task.Command == imageSidecar {
		if err := t.checkSidecar(task); err != nil {
			return err
		}
		spec.Bare, reason = true, "a sidecar's application has its own surroundings"
	}
	if spec.Bare {
		if err := checkBare(task, reason); err != nil {
			return err
		}
		cmd.Mounts = nil // of paths on themselves
	}
	id := randomID()
	cmd.Log = t.logConfig(id, task.Log)
	rec := &taskRecord{Task: *task, Command: cmd}
	rec.Task.Files = nil
	st, m, err := t.reserve(id, record{Spec: spec, Task: rec})
	if err != nil {
		return err
	}
	if err := t.furnish(ctx, m, st); err != nil {
		t.Detach(id)
		return errors.Join(err, t.forget(st))
	}
	t.announce(st, events.ActionCreate, nil)
	return nil
}

// furnish gives a task its ports and interfaces.
func (t tasks) furnish(ctx context.Context, m *member, st *sandboxState) error {
	if st.Spec.Bare {
		if err := t.furnishBare(st); err != nil {
			return err
		}
	}
	if err := t.holdPorts(ctx, m, st); err != nil {
		return err
	}
	for _, nw := range st.Task.Task.Networks {
		if err := t.addInterface(m, st, taskAttachment(&st.Task.Task, nw)); err != nil {
			return err
		}
	}
	return t.complete(m, st)
}

// StartTask implements cluster.TaskRunner.
func (t tasks) StartTask(ctx context.Context, taskID string) error {
	st, err := t.find(taskID)
	if err != nil {
		return err
	}
	if err := t.launch(ctx, st); err != nil {
		return err
	}
	if ok, err := t.begun(ctx, st); !ok {
		return err
	}
	t.announce(st, events.ActionStart, nil)
	return t.becomeReady(ctx, st)
}

// begun waits until the task's command runs. One that has ended by then does
// not, and how it ended is the error.
func (t tasks) begun(ctx context.Context, st *sandboxState) (bool, error) {
	select {
	case <-st.task.attached:
	case <-st.task.gone:
		return false, t.exitOf(st).Err()
	case <-ctx.Done():
		return false, ctx.Err()
	}
	select {
	case <-st.session.Started():
		return true, nil
	case <-st.task.gone:
		return false, t.exitOf(st).Err()
	case <-ctx.Done():
		return false, ctx.Err()
	}
}

// launch starts the task's init, once.
func (t tasks) launch(ctx context.Context, st *sandboxState) error {
	cmd, spec, err := t.beginLaunch(st)
	if err != nil || cmd == nil {
		return err
	}
	// Without the lock: making namespaces takes a while.
	_, err = sandbox.Start(ctx, spec, *cmd)
	if err != nil && spec.Bare && len(spec.Interfaces) > 0 {
		t.log.Warn("an application beside this node gets no device: its ports are reached at 127.0.0.1", "task", st.Spec.Name, "error", err)
		t.withoutDevice(st)
		spec.Interfaces = nil
		_, err = sandbox.Start(ctx, spec, *cmd)
	}
	if err != nil {
		t.mu.Lock()
		defer t.mu.Unlock()
		if st.deadline != nil {
			st.deadline.Stop()
			st.deadline = nil
		}
		return err
	}
	return nil
}

// beginLaunch notes that the task's init starts and expects it. It returns what
// to start, nil if there is nothing.
func (t tasks) beginLaunch(st *sandboxState) (*sandbox.Task, sandbox.Spec, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if st.Task.Launched || st.over() {
		return nil, sandbox.Spec{}, nil
	}
	st.Task.Launched = true
	if err := t.files.save(st.record); err != nil {
		return nil, sandbox.Spec{}, err
	}
	t.expectLocked(st, firstContact)
	cmd, spec := st.Task.Command, st.Spec
	st.Task.Command = sandbox.Task{}
	if spec.Bare && !st.Task.Device {
		spec.Interfaces = nil // they are ours
	}
	return &cmd, spec, nil
}

// becomeReady waits for the task's health, if it is checked, and lets the other
// nodes send to it.
func (t tasks) becomeReady(ctx context.Context, st *sandboxState) error {
	if t.watchHealth(st) {
		select {
		case <-st.task.healthy:
		case <-st.task.unhealthy:
			return cluster.ErrUnhealthy
		case <-st.task.gone:
			return t.exitOf(st).Err()
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if st.over() || t.member == nil {
		return nil
	}
	_, started := st.session.Command()
	st.Task.Ready, st.Task.Started = true, started
	for i := range st.Attachments {
		if err := t.member.disc.AddEndpoint(st.Spec.Interfaces[i].NetworkID, t.endpointLocked(st, i)); err != nil {
			return fmt.Errorf("announce the task: %w", err)
		}
	}
	return t.files.save(st.record)
}

// WaitTask implements cluster.TaskRunner. A task that a former life of the node
// started is not started again: its health is watched from here on.
func (t tasks) WaitTask(ctx context.Context, taskID string) (cluster.TaskExit, error) {
	st, err := t.find(taskID)
	if err != nil {
		return cluster.TaskExit{}, err
	}
	if ok, _ := t.begun(ctx, st); ok { // how it ended is told below
		t.watchHealth(st)
	}
	select {
	case <-st.task.gone:
		return t.exitOf(st), nil
	case <-st.task.unhealthy:
		return cluster.TaskExit{}, cluster.ErrUnhealthy
	case <-ctx.Done():
		return cluster.TaskExit{}, ctx.Err()
	}
}

func (t tasks) exitOf(st *sandboxState) cluster.TaskExit {
	t.mu.Lock()
	defer t.mu.Unlock()
	e := st.Task.Exit
	return cluster.TaskExit{Code: e.Code, Error: e.Error, FinishedAt: e.FinishedAt}
}

// ShutdownTask implements cluster.TaskRunner. The task's backends go first.
func (t tasks) ShutdownTask(ctx context.Context, taskID string) error {
	st, err := t.find(taskID)
	if err != nil {
		return nil // gone already
	}
	t.drain(ctx, st)
	sig := unix.SIGTERM
	if name := st.Task.Task.StopSignal; name != "" {
		if sig, err = stopSignal(name); err != nil {
			return err
		}
	}
	return t.stopTask(ctx, st, sig, st.Task.Task.StopGrace)
}

// TerminateTask implements cluster.TaskRunner.
func (t tasks) TerminateTask(ctx context.Context, taskID string) error {
	st, err := t.find(taskID)
	if err != nil {
		return nil
	}
	return t.stopTask(ctx, st, unix.SIGKILL, 0)
}

// drain takes the task out of its services' names and balancers, here and on
// the other nodes.
func (t tasks) drain(ctx context.Context, st *sandboxState) {
	t.mu.Lock()
	ready := st.Task.Ready && !st.over() && !st.task.draining && t.member != nil
	st.task.draining = true
	m := t.member
	t.mu.Unlock()
	if !ready {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, drainPatience)
	defer cancel()
	var g errgroup.Group
	for i, a := range st.Attachments {
		if a.Service == nil {
			continue
		}
		in := &st.Spec.Interfaces[i]
		g.Go(func() error { return m.disc.Drain(ctx, in.NetworkID, in.EndpointID) })
	}
	if err := g.Wait(); err != nil {
		t.log.Info("a task stops before all nodes know", "task", st.Spec.Name, "error", err)
	}
}

// stopTask ends the task and returns when it is gone.
func (t tasks) stopTask(ctx context.Context, st *sandboxState, sig syscall.Signal, grace time.Duration) error {
	t.mu.Lock()
	session := st.session
	t.mu.Unlock()
	if session == nil {
		// Its init never came, or has not come back yet: it finds nobody who
		// knows it then, and ends.
		t.Detach(st.Spec.ID)
		return nil
	}
	if err := session.Stop(sig, grace); err != nil && !st.task.finished() {
		t.log.Warn("task not told to stop", "task", st.Spec.Name, "error", err)
	}
	select {
	case <-st.task.gone:
		return nil
	case <-time.After(grace + killPatience):
		return fmt.Errorf("task %s did not end within %v", st.Spec.Name, grace+killPatience)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// RemoveTask implements cluster.TaskRunner.
func (t tasks) RemoveTask(ctx context.Context, taskID string) error {
	st, err := t.find(taskID)
	if err != nil {
		return nil
	}
	if err := t.stopTask(ctx, st, unix.SIGKILL, 0); err != nil {
		return err
	}
	return t.forget(st)
}

// forget removes what is kept of a task that is over.
func (t tasks) forget(st *sandboxState) error {
	t.mu.Lock()
	delete(t.byID, st.Spec.ID)
	t.mu.Unlock()
	st.task.once.removed.Do(func() { close(st.task.removed) })
	t.announce(st, events.ActionDestroy, nil)
	return errors.Join(t.files.remove(st.Spec.ID), sandbox.RemoveLogs(t.logConfig(st.Spec.ID, st.Task.Task.Log)))
}

// TaskStatus implements cluster.TaskRunner.
func (t tasks) TaskStatus(taskID string) (cluster.TaskStatus, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	st := t.taskLocked(taskID)
	if st == nil {
		return cluster.TaskStatus{}, false
	}
	status := cluster.TaskStatus{ContainerID: st.Spec.ID}
	if st.session != nil {
		status.PID, _ = st.session.Command()
	}
	if e := st.Task.Exit; e != nil {
		status.ExitCode, status.PID = e.Code, 0
	}
	status.Ports = slices.Clone(st.Task.HostPorts)
	return status, true
}

// TaskLogs implements cluster.TaskRunner.
func (t tasks) TaskLogs(ctx context.Context, taskID string, o cluster.LogOptions, each func(cluster.LogMessage) error) error {
	t.mu.Lock()
	st := t.taskLocked(taskID)
	t.mu.Unlock()
	if st == nil {
		return errUnknownTask
	}
	return t.logs(ctx, st, o, each)
}

// logs reads the log of a task; following ends with the task.
func (s *sandboxes) logs(ctx context.Context, st *sandboxState, o cluster.LogOptions, each func(cluster.LogMessage) error) error {
	opts := sandbox.LogOptions{Follow: o.Follow, Since: o.Since, Until: o.Until, Tail: o.Tail, Stdout: o.Stdout, Stderr: o.Stderr, End: st.task.gone}
	return sandbox.ReadLogs(ctx, s.logConfig(st.Spec.ID, st.Task.Task.Log), opts, func(l sandbox.LogLine) error {
		return each(cluster.LogMessage{Time: l.Time, Stderr: l.Stream == sandbox.Stderr, Data: l.Data})
	})
}

func (s *sandboxes) logConfig(id string, limits cluster.LogLimits) sandbox.LogConfig {
	return sandbox.LogConfig{
		Path:    filepath.Join(s.logDir, id+".log"),
		MaxSize: cmp.Or(limits.MaxSize, logFileSize), MaxFiles: cmp.Or(limits.MaxFiles, logFiles),
	}
}

// endTaskLocked notes how a task ended. It is off its networks already.
func (s *sandboxes) endTaskLocked(st *sandboxState) {
	exit := sandbox.ExitStatus{Error: "its init has gone", FinishedAt: time.Now(), Code: sandbox.ExitFailure}
	if st.session != nil && closed(st.session.Exited()) {
		exit = st.session.ExitStatus()
	}
	st.Task.Exit = &exit
	if st.task.health != nil {
		if err := st.task.health.stop(resolverPatience); err != nil {
			s.log.Warn("health check not stopped", "task", st.Spec.Name, "error", err)
		}
	}
	releaseAll(st.task.ports)
	st.task.ports = nil
	if err := s.files.save(st.record); err != nil {
		s.log.Warn("end of a task not recorded", "task", st.Spec.Name, "error", err)
	}
	st.task.finish()
	s.announce(st, events.ActionDie, map[string]string{"exitCode": strconv.Itoa(exit.Code)})
}

var _ cluster.TaskRunner = tasks{}
