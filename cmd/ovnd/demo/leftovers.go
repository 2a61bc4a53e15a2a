package demo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
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
	var errs []error
	for _, m := range slices.Backward(w.machines) {
		if m.process != nil {
			s.command(m.name, "down")
		}
		errs = append(errs, m.down(stopPatience))
	}
	left := waitForNone(ctx, w.dir)
	s.equal("0 processes", fmt.Sprintf("%d processes", len(left)))
	for _, pid := range left {
		_ = syscall.Kill(pid, syscall.SIGKILL) // it may be gone
	}
	errs = append(errs, os.RemoveAll(w.dir))
	_, err := os.Lstat(w.dir)
	gone := errors.Is(err, os.ErrNotExist)
	s.check("no file", map[bool]string{true: "no file", false: w.dir}[gone], gone)
	return errors.Join(errs...)
}

// waitForNone gives the processes of a demo the time that they may take to
// end, and returns those that did not.
func waitForNone(ctx context.Context, dir string) []int {
	ctx, cancel := context.WithTimeout(ctx, orphanPatience)
	defer cancel()
	for {
		left := leftProcesses(dir)
		if len(left) == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return left
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// leftProcesses finds the processes of the demo in a folder by the mark in
// their environment. This process has none.
func leftProcesses(dir string) (pids []int) {
	mark := []byte(demoEnv + "=" + dir)
	files, err := filepath.Glob("/proc/[0-9]*/environ")
	if err != nil {
		return nil
	}
	for _, file := range files {
		env, err := os.ReadFile(file)
		if err != nil || !slices.ContainsFunc(bytes.Split(env, []byte{0}), func(kv []byte) bool { return bytes.Equal(kv, mark) }) {
			continue // another user's, or gone
		}
		if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file))); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
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
	for _, pid := range leftProcesses(dir) {
		_ = syscall.Kill(pid, syscall.SIGTERM) // it may be gone
	}
	for _, pid := range waitForNone(context.Background(), dir) {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	return os.RemoveAll(dir)
}
