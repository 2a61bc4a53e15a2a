package node

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"golang.org/x/sys/unix"

	"github.com/ovnd/ovnd/api"
	"github.com/ovnd/ovnd/cluster"
	"github.com/ovnd/ovnd/sandbox"
)

// reconnectPatience is how long what is asked of a container waits for its init
// to come back to a node that restarted; they try once in a second.
const reconnectPatience = 2 * time.Second

// defaultGrace is what a process of `ovnd run` has between the stop signal and
// SIGKILL, Docker's default.
const defaultGrace = 10 * time.Second

// containers are the node's sandboxes as Docker's API has them. It implements
// api.ContainerBackend.
type containers struct{ *sandboxes }

// Containers implements api.ContainerBackend.
func (c containers) Containers() []api.Container {
	c.mu.Lock()
	list := make([]api.Container, 0, len(c.byID))
	inits := make([]int, 0, len(c.byID))
	for _, st := range c.byID {
		list = append(list, c.describeLocked(st))
		inits = append(inits, st.initPID)
	}
	c.mu.Unlock()
	for i := range list {
		askProcess(&list[i], inits[i]) // reads /proc: not under the lock
	}
	return list
}

// sandbox returns a sandbox and its session, which is nil while its init is not
// connected.
func (c containers) sandbox(id string) (*sandboxState, *sandbox.Session, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	st := c.byID[id]
	if st == nil {
		return nil, nil, cerrdefs.ErrNotFound.WithMessage("No such container: " + id)
	}
	return st, st.session, nil
}

// running is sandbox for what needs one whose command runs.
func (c containers) running(id string) (*sandboxState, *sandbox.Session, error) {
	st, session, err := c.sandbox(id)
	switch {
	case err != nil:
		return nil, nil, err
	case session == nil && st.over(), session != nil && closed(session.Exited()):
		return nil, nil, notRunning(id)
	case session == nil || closed(session.Done()):
		return nil, nil, cerrdefs.ErrUnavailable.WithMessage(fmt.Sprintf("container %s is not connected to its node: try again", id))
	case !closed(session.Started()):
		return nil, nil, notRunning(id)
	}
	return st, session, nil
}

// awaitRunning is running for what can wait a moment for the init.
func (c containers) awaitRunning(ctx context.Context, id string) (*sandboxState, *sandbox.Session, error) {
	for end := time.Now().Add(reconnectPatience); c.awaited(id) && time.Now().Before(end) && ctx.Err() == nil; {
		time.Sleep(10 * time.Millisecond)
	}
	return c.running(id)
}

// awaited reports whether the init of a container is about to connect.
func (c containers) awaited(id string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	st := c.byID[id]
	return st != nil && st.waits()
}

func notRunning(id string) error {
	return cerrdefs.ErrConflict.WithMessage(fmt.Sprintf("container %s is not running", id))
}

// ContainerLogs implements api.ContainerBackend. What `ovnd run` runs has no
// log, and its description no LogPath: nobody asks.
func (c containers) ContainerLogs(ctx context.Context, id string, opts api.LogOptions, each func(api.LogLine) error) error {
	st, _, err := c.sandbox(id)
	if err != nil {
		return err
	}
	if st.task == nil {
		return cerrdefs.ErrNotImplemented.WithMessage("what `ovnd run` runs writes to its own terminal, not to a log")
	}
	o := cluster.LogOptions{Follow: opts.Follow, Stdout: opts.Stdout, Stderr: opts.Stderr, Since: opts.Since, Until: opts.Until, Tail: opts.Tail}
	return c.logs(ctx, st, o, func(m cluster.LogMessage) error {
		return each(api.LogLine{Time: m.Time, Stderr: m.Stderr, Data: m.Data})
	})
}

// ContainerStop implements api.ContainerBackend. A task that will be gone soon
// gets no new connections; the swarm replaces it.
func (c containers) ContainerStop(ctx context.Context, id string, opts api.StopOptions) error {
	st, session, err := c.awaitRunning(ctx, id)
	if err != nil {
		return err
	}
	sig, grace, err := stopWith(st, opts)
	if err != nil {
		return err
	}
	if grace < 0 {
		if err := session.Signal(sig); err != nil {
			return err
		}
		return c.stopped(ctx, st, session, sig)
	}
	if st.task != nil {
		tasks(c).drain(ctx, st)
	}
	if err := session.Stop(sig, grace); err != nil {
		return err
	}
	return c.stopped(ctx, st, session, sig)
}

// stopWith returns the stop signal of a container and how long it has; a
// negative time has no end.
func stopWith(st *sandboxState, opts api.StopOptions) (sig syscall.Signal, grace time.Duration, err error) {
	sig, grace = unix.SIGTERM, defaultGrace
	if st.task != nil {
		grace = st.Task.Task.StopGrace
		if name := st.Task.Task.StopSignal; name != "" {
			sig, err = stopSignal(name)
		}
	}
	if opts.Signal != 0 {
		sig, err = opts.Signal, nil
	}
	if opts.Grace != nil {
		grace = *opts.Grace
	}
	return sig, grace, err
}

// stopped publishes what Docker does of a stop, once the container has ended.
func (c containers) stopped(ctx context.Context, st *sandboxState, session *sandbox.Session, sig syscall.Signal) error {
	c.announce(st, events.ActionKill, map[string]string{"signal": fmt.Sprint(int(sig))})
	if _, err := c.ended(ctx, st, session); err != nil {
		return err
	}
	c.announce(st, events.ActionStop, nil)
	return nil
}

// ContainerKill implements api.ContainerBackend. SIGKILL is for all that runs
// in the container, as the kernel does when it hits the first process of one.
func (c containers) ContainerKill(ctx context.Context, id string, sig syscall.Signal) error {
	st, session, err := c.awaitRunning(ctx, id)
	if err != nil {
		return err
	}
	if sig == unix.SIGKILL {
		err = session.Stop(sig, 0)
	} else {
		err = session.Signal(sig)
	}
	if err != nil {
		return err
	}
	c.announce(st, events.ActionKill, map[string]string{"signal": fmt.Sprint(int(sig))})
	if sig == unix.SIGKILL {
		_, err = c.ended(ctx, st, session)
	}
	return err
}

// ContainerWait implements api.ContainerBackend. No container runs twice here:
// the next exit of one that has ended is its last.
func (c containers) ContainerWait(id string, condition container.WaitCondition) (func(context.Context) (api.ExitStatus, error), error) {
	st, session, err := c.sandbox(id)
	if err != nil {
		return nil, err
	}
	if st.task == nil && session == nil {
		return nil, cerrdefs.ErrConflict.WithMessage(fmt.Sprintf("container %s has not started yet", id))
	}
	return func(ctx context.Context) (api.ExitStatus, error) {
		exit, err := c.ended(ctx, st, session)
		if err != nil || condition != container.WaitConditionRemoved || st.task == nil {
			return exit, err
		}
		select {
		case <-st.task.removed:
			return exit, nil
		case <-ctx.Done():
			return exit, ctx.Err()
		}
	}, nil
}

// ended waits for the end of a container. session may be nil of a task, whose
// end is known without.
func (c containers) ended(ctx context.Context, st *sandboxState, session *sandbox.Session) (api.ExitStatus, error) {
	if st.task != nil {
		select {
		case <-st.task.gone:
			e := tasks(c).exitOf(st)
			return api.ExitStatus{Code: e.Code, Error: e.Error, FinishedAt: e.FinishedAt}, nil
		case <-ctx.Done():
			return api.ExitStatus{}, ctx.Err()
		}
	}
	select {
	case <-session.Exited():
	case <-session.Done():
		if !closed(session.Exited()) {
			return api.ExitStatus{}, errors.New("how it ended is not known: its init has gone")
		}
	case <-ctx.Done():
		return api.ExitStatus{}, ctx.Err()
	}
	return exitStatus(session.ExitStatus()), nil
}

func exitStatus(e sandbox.ExitStatus) api.ExitStatus {
	return api.ExitStatus{Code: e.Code, Error: e.Error, FinishedAt: e.FinishedAt}
}

// ContainerProcesses implements api.ContainerBackend.
func (c containers) ContainerProcesses(id string) ([]int, error) {
	st, _, err := c.running(id)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	pid := st.initPID
	c.mu.Unlock()
	return descendants(pid)
}

// announce publishes an event of a container.
func (s *sandboxes) announce(st *sandboxState, action events.Action, attributes map[string]string) {
	d := api.Container{ID: st.Spec.ID, Name: st.Spec.Name}
	if st.Task != nil {
		d.Image, d.Labels = st.Task.Task.Image, st.Task.Task.Labels
	}
	s.events.Publish(api.ContainerEvent(d, action, attributes))
}

var _ api.ContainerBackend = containers{}
