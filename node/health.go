package node

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/moby/moby/api/types/events"
	"golang.org/x/sys/unix"

	"github.com/ovnd/ovnd/sandbox"
	"github.com/ovnd/ovnd/sandbox/health"
)

// maxProbeOutput is how much of a health command's output is kept, in bytes,
// as Docker does.
const maxProbeOutput = 4096

// watchHealth starts the health check of a task, if it has one that does not
// run yet, and reports whether it has one.
func (t tasks) watchHealth(st *sandboxState) bool {
	cfg, check, ok := healthCheck(st)
	if !ok {
		return false
	}
	_, cfg.Started = st.session.Command() // the start period is not begun again by a restarted node
	t.mu.Lock()
	defer t.mu.Unlock()
	if st.task.health != nil || st.over() {
		return true
	}
	st.task.health = startStage(context.Background(), "health of "+st.Spec.Name, func(ctx context.Context) error {
		return health.Run(ctx, cfg, check, func(state health.State) { t.healthChanged(st, state) })
	})
	return true
}

// healthCheck returns how the health of a task is found out, and false if nobody
// asks.
func healthCheck(st *sandboxState) (cfg health.Config, check func(context.Context) (int, string, error), ok bool) {
	h := st.Task.Task.Health
	if h == nil {
		return sidecarHealth, sidecarProbe(st.Task), st.Task.Task.Command == imageSidecar
	}
	args, ok, err := health.Command(h.Test)
	if err != nil || !ok {
		return cfg, nil, false // refused where the service was created, or switched off
	}
	cfg = health.Config{
		Interval: h.Interval, Timeout: h.Timeout, StartPeriod: h.StartPeriod,
		StartInterval: h.StartInterval, Retries: h.Retries,
	}
	session := st.session
	return cfg, func(ctx context.Context) (int, string, error) { return probe(ctx, session, args) }, true
}

// healthChanged is told of each check.
func (t tasks) healthChanged(st *sandboxState, now health.State) {
	before := st.task.checks.Swap(&now)
	if before != nil && before.Status == now.Status {
		return
	}
	switch now.Status {
	case health.Healthy:
		st.task.once.healthy.Do(func() { close(st.task.healthy) })
		t.announce(st, events.ActionHealthStatusHealthy, nil)
	case health.Unhealthy:
		st.task.once.unhealthy.Do(func() { close(st.task.unhealthy) })
		t.announce(st, events.ActionHealthStatusUnhealthy, nil)
	}
}

// probe runs a health command in a sandbox.
func probe(ctx context.Context, session *sandbox.Session, args []string) (code int, output string, err error) {
	r, w, err := outputPipe()
	if err != nil {
		return 0, "", err
	}
	defer func() { _ = r.Close() }()
	p, err := session.Exec(ctx, sandbox.Exec{Args: args, Stdout: w, Stderr: w})
	if err := errors.Join(err, w.Close()); err != nil {
		return 0, "", err
	}
	text := make(chan []byte, 1)
	go func() {
		b, _ := io.ReadAll(io.LimitReader(r, maxProbeOutput))
		text <- b
		_, _ = io.Copy(io.Discard, r) // so that the command does not block
	}()
	exit, err := p.Wait(ctx)
	if err != nil {
		_ = p.Signal(unix.SIGKILL) // it had its time
		return 0, "", err
	}
	_ = r.SetReadDeadline(time.Now()) // what it left behind may hold the pipe
	return exit.Code, string(<-text), nil
}
