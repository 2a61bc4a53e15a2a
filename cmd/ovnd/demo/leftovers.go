package demo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"time"
)

const (
	// stopPatience is for a node to stop in; it ends its tasks first.
	stopPatience = 15 * time.Second
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
	left := leftProcesses(w.dir)
	for end := time.Now().Add(orphanPatience); len(left) > 0 && time.Now().Before(end); left = leftProcesses(w.dir) {
		time.Sleep(100 * time.Millisecond)
	}
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
