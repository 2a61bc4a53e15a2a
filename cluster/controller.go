package cluster

import (
	"context"
	"errors"
	"sync"
	"time"

	swarmapi "github.com/moby/swarmkit/v2/api"
)

const (
	// attachPatience is how long a task may wait for this node to get its own
	// address on the task's networks; dockerd waits as long.
	attachPatience = 30 * time.Second
	// removePatience is how long a task that is taken away while it runs, since
	// the node stops or leaves, has for a stop in good order.
	removePatience = 11 * time.Second
	// killPatience bounds what comes after that.
	killPatience = 3 * time.Second
)

// A taskController drives one task of a service (SwarmKit's exec.Controller):
// it brings the agent's calls to the TaskRunner, one at a time.
type taskController struct {
	e      *executor
	api    *swarmapi.Task // as assigned, for its secrets and configs
	task   *Task
	runner TaskRunner

	turn chan struct{} // holds an element while the runner is called
	life context.Context
	end  context.CancelFunc // ends life, and with it what is under way

	// adopt is set while the runner may not know yet of a task that a former
	// life of this node, or of its swarm node, has started. Guarded by turn.
	adopt bool
	// prepared is set once the runner has got the task from this controller.
	// Guarded by turn.
	prepared bool
	// gone is set once the runner has forgotten the task. Guarded by turn.
	gone bool
	// known is closed once the runner has, or had, the task: there are logs.
	known     chan struct{}
	knownOnce sync.Once
}

func newTaskController(e *executor, t *swarmapi.Task, task *Task) *taskController {
	tc := &taskController{
		e: e, api: t, task: task, runner: e.c.cfg.Tasks,
		turn: make(chan struct{}, 1), known: make(chan struct{}),
	}
	tc.life, tc.end = context.WithCancel(context.Background())
	state := t.Status.State
	tc.adopt = state == swarmapi.TaskStateStarting || state == swarmapi.TaskStateRunning
	if state >= swarmapi.TaskStateStarting {
		tc.isKnown()
	}
	return tc
}

func (tc *taskController) isKnown() { tc.knownOnce.Do(func() { close(tc.known) }) }

// do calls f when no other call is under way. What SwarmKit has cancelled fails
// with exactly the context's error, by which it recognises that. A call that
// ends with the controller returns when SwarmKit has cancelled it as well, as
// it is about to: it must not count as the task's end.
func (tc *taskController) do(ctx context.Context, f func(context.Context) error) error {
	opCtx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(tc.life, cancel)()
	err := tc.life.Err()
	if err == nil {
		err = tc.take(opCtx)
	}
	if err == nil {
		err = f(opCtx)
		tc.give()
	}
	if err != nil && tc.life.Err() != nil {
		<-ctx.Done()
	}
	if err != nil && ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

func (tc *taskController) take(ctx context.Context) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	select {
	case tc.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (tc *taskController) give() { <-tc.turn }

// Update has nothing to take over: what a task is does not change, and its
// desired state reaches it by the other methods.
func (tc *taskController) Update(context.Context, *swarmapi.Task) error { return nil }

// Prepare implements exec.Controller.
func (tc *taskController) Prepare(ctx context.Context) error { return tc.do(ctx, tc.prepare) }

func (tc *taskController) prepare(ctx context.Context) error {
	if err := tc.e.c.waitAttached(ctx, tc.task.Networks); err != nil {
		return err
	}
	task := *tc.task
	var err error
	if task.Files, err = tc.e.taskFiles(tc.api); err != nil {
		return err
	}
	if err := tc.runner.PrepareTask(ctx, &task); err != nil {
		return err
	}
	tc.prepared = true
	tc.isKnown()
	return nil
}

// takeOver makes the runner know a task of a former life.
func (tc *taskController) takeOver(ctx context.Context) error {
	if !tc.adopt {
		return nil
	}
	task := *tc.task
	task.Restored = true
	if err := tc.runner.PrepareTask(ctx, &task); err != nil {
		return err
	}
	tc.adopt, tc.prepared = false, true
	return nil
}

// Start implements exec.Controller. A node that ended between Prepare and Start
// has to prepare the task again.
func (tc *taskController) Start(ctx context.Context) error {
	return tc.do(ctx, func(ctx context.Context) error {
		if err := tc.takeOver(ctx); err != nil {
			return err
		}
		if !tc.prepared {
			if err := tc.prepare(ctx); err != nil {
				return err
			}
		}
		return tc.judge(ctx, tc.runner.StartTask(ctx, tc.task.ID))
	})
}

// Wait implements exec.Controller.
func (tc *taskController) Wait(ctx context.Context) error {
	return tc.do(ctx, func(ctx context.Context) error {
		if err := tc.takeOver(ctx); err != nil {
			return err
		}
		exit, err := tc.runner.WaitTask(ctx, tc.task.ID)
		if err != nil {
			return tc.judge(ctx, err)
		}
		return exit.Err()
	})
}

// judge shuts a task down that is unhealthy, and puts that in Docker's words.
func (tc *taskController) judge(ctx context.Context, err error) error {
	if !errors.Is(err, ErrUnhealthy) {
		return err
	}
	if err := tc.runner.ShutdownTask(ctx, tc.task.ID); err != nil {
		return err
	}
	st, _ := tc.runner.TaskStatus(tc.task.ID)
	return &exitError{code: st.ExitCode, cause: ErrUnhealthy}
}

// Shutdown implements exec.Controller.
func (tc *taskController) Shutdown(ctx context.Context) error {
	return tc.do(ctx, func(ctx context.Context) error {
		tc.tryTakeOver(ctx)
		return tc.runner.ShutdownTask(ctx, tc.task.ID)
	})
}

// tryTakeOver takes a task over whose end is wanted: one that is gone has ended.
func (tc *taskController) tryTakeOver(ctx context.Context) {
	if err := tc.takeOver(ctx); err != nil && ctx.Err() == nil {
		tc.e.c.log.Debug("task of a former life is gone", "task", tc.task.Name, "error", err)
		tc.adopt = false
	}
}

// Terminate implements exec.Controller.
func (tc *taskController) Terminate(ctx context.Context) error {
	return tc.do(ctx, func(ctx context.Context) error {
		tc.tryTakeOver(ctx)
		return tc.runner.TerminateTask(ctx, tc.task.ID)
	})
}

// Remove implements exec.Controller: the task is deleted. Whatever is under way
// ends; a process that does not stop in time is killed. ctx may have ended: the
// agent does not wait when it stops.
func (tc *taskController) Remove(ctx context.Context) error {
	tc.end()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), removePatience+killPatience)
	defer cancel()
	if err := tc.take(ctx); err != nil {
		return err
	}
	defer tc.give()
	if tc.gone {
		return nil
	}
	tc.gone = true
	defer tc.e.c.tasks.forget(tc)
	stopCtx, cancelStop := context.WithTimeout(ctx, removePatience)
	defer cancelStop()
	tc.tryTakeOver(stopCtx)
	id := tc.task.ID
	if err := tc.runner.ShutdownTask(stopCtx, id); err != nil {
		tc.e.c.log.Info("task does not stop and is killed", "task", tc.task.Name, "error", err)
		if err := tc.runner.TerminateTask(ctx, id); err != nil {
			return err
		}
	}
	return tc.runner.RemoveTask(ctx, id)
}

// Close implements exec.Controller.
func (tc *taskController) Close() error {
	tc.end()
	tc.e.c.tasks.forget(tc)
	return nil
}

// ContainerStatus implements exec.ContainerStatuser.
func (tc *taskController) ContainerStatus(context.Context) (*swarmapi.ContainerStatus, error) {
	st, ok := tc.runner.TaskStatus(tc.task.ID)
	if !ok {
		return nil, nil
	}
	return &swarmapi.ContainerStatus{
		ContainerID: st.ContainerID,
		PID:         int32(st.PID),
		ExitCode:    int32(st.ExitCode),
	}, nil
}

// PortStatus implements exec.PortStatuser.
func (tc *taskController) PortStatus(context.Context) (*swarmapi.PortStatus, error) {
	st, ok := tc.runner.TaskStatus(tc.task.ID)
	if !ok {
		return nil, nil
	}
	ps := &swarmapi.PortStatus{}
	for _, p := range st.Ports {
		ps.Ports = append(ps.Ports, hostPortToAPI(p))
	}
	return ps, nil
}

// waitAttached waits until this node has an address of its own on each of the
// networks, without which they do not work here.
func (c *Cluster) waitAttached(ctx context.Context, nets []TaskNetwork) error {
	ctx, cancel := context.WithTimeout(ctx, attachPatience)
	defer cancel()
	for {
		missing, changed := c.missingNetwork(nets)
		if missing == "" {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return errors.New("node is missing network attachments, ip addresses may be exhausted: network " + missing + " has no address for this node")
		}
	}
}

// missingNetwork is the name of a network that this node has no address on,
// and the channel that closes when that may have changed.
func (c *Cluster) missingNetwork(nets []TaskNetwork) (name string, changed <-chan struct{}) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	own := make(map[string]bool, len(c.nodeState.LoadBalancers))
	for _, lb := range c.nodeState.LoadBalancers {
		own[lb.Network.ID] = true
	}
	for _, n := range nets {
		if !own[n.Network.ID] {
			return n.Network.Name, c.changed
		}
	}
	return "", nil
}
