package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"syscall"
	"time"
)

const (
	// stopPatience is for a node to stop in; it ends its tasks first.
	stopPatience = 20 * time.Second
	// orphanPatience is more than a sandbox lives without its node.
	orphanPatience = 16 * time.Second
)

// stop ends the nodes, workers first, and looks for what they left.
func (w *walk) stop(ctx context.Context, s *stepRun) error {
	w.count()
	var errs []error
	for _, m := range slices.Backward(w.machines) {
		if m.process != nil {
			s.command(m.name, "down")
		}
		errs = append(errs, m.down(stopPatience))
	}
	killed := w.census.end(ctx)
	seen := "no process"
	if killed != nil {
		seen = killed.Error()
	}
	s.equal("no process", seen)
	errs = append(errs, os.RemoveAll(w.dir))
	_, err := os.Lstat(w.dir)
	gone := errors.Is(err, os.ErrNotExist)
	s.check("no file", map[bool]string{true: "no file", false: w.dir}[gone], gone)
	return errors.Join(errs...)
}

// count looks at what descends from the nodes now.
func (w *walk) count() {
	for _, m := range w.machines {
		if m.process != nil {
			w.census.take(m.process.Pid)
		}
	}
}

// guardName is the probe that is no probe: a process that outlives the demo's
// own, should that be killed, and does then what it would have done.
const guardName = "guard"

// kept is what a guard reads whose demo leaves its nodes running.
const kept = "k"

// startGuard starts a guard for the demo in dir. It acts when the returned
// pipe is closed, unless kept was written to it.
func startGuard(self, dir string) (io.WriteCloser, error) {
	cmd := exec.Command(self, ProbeName, guardName, dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	pipe, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("demo: %w", err)
	}
	return pipe, cmd.Process.Release()
}

// guard waits for the end of in, and ends what is left of the demo in dir.
func guard(in io.Reader, dir string) error {
	last, err := io.ReadAll(in)
	if err != nil || string(last) == kept {
		return err
	}
	all := make(census)
	nodes := marked(dir)
	all.take(nodes...)
	for _, pid := range nodes {
		_ = syscall.Kill(pid, syscall.SIGTERM) // it may be gone
	}
	return errors.Join(all.end(context.Background()), os.RemoveAll(dir))
}
