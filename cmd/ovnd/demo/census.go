package demo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// A process is told from a later one with its PID by when it started, in clock
// ticks since boot.
type process struct {
	parent  int
	started uint64
	zombie  bool
}

// A census remembers the processes of a demo. Sandboxes keep nothing of their
// nodes' environment and outlive them, so they are known by descent, as long
// as somebody looks while their nodes live.
type census map[int]process

// take adds the roots and all that descends from them or from who is known.
func (c census) take(roots ...int) {
	all := processes()
	for _, pid := range roots {
		if p, ok := all[pid]; ok {
			c[pid] = p
		}
	}
	for more := true; more; {
		more = false
		for pid, p := range all {
			parent, known := c[p.parent]
			if _, old := c[pid]; old || !known || all[p.parent].started != parent.started {
				continue
			}
			c[pid] = p
			more = true
		}
	}
}

// left are those who are still there.
func (c census) left() []int {
	all := processes()
	return slices.Sorted(func(yield func(int) bool) {
		for pid, p := range c {
			now, ok := all[pid]
			if ok && now.started == p.started && !now.zombie && !yield(pid) {
				return
			}
		}
	})
}

// waitForNone gives them the time that they may take to end, and returns those
// that did not.
func (c census) waitForNone(ctx context.Context) []int {
	ctx, cancel := context.WithTimeout(ctx, orphanPatience)
	defer cancel()
	for {
		left := c.left()
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

// end waits for none, and ends those that are left then.
func (c census) end(ctx context.Context) error {
	left := c.waitForNone(ctx)
	for _, pid := range left {
		_ = syscall.Kill(pid, syscall.SIGKILL) // it may be gone
	}
	if len(left) > 0 {
		return fmt.Errorf("%d processes had to be killed", len(left))
	}
	return nil
}

// processes are all that this one can see.
func processes() map[int]process {
	all := make(map[int]process)
	files, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil // the pattern is right
	}
	for _, file := range files {
		stat, err := os.ReadFile(file)
		if err != nil {
			continue // it is gone
		}
		pid, pidErr := strconv.Atoi(filepath.Base(filepath.Dir(file)))
		p, err := parseStat(string(stat))
		if err == nil && pidErr == nil {
			all[pid] = p
		}
	}
	return all
}

// parseStat reads what proc_pid_stat(5) describes. The name, in parentheses,
// may hold anything.
func parseStat(stat string) (p process, err error) {
	// Fields behind the name, from 0: 0 state, 1 parent, 19 start time.
	fields := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])
	if len(fields) < 20 {
		return p, errors.New("too short")
	}
	if p.parent, err = strconv.Atoi(fields[1]); err != nil {
		return p, err
	}
	p.started, err = strconv.ParseUint(fields[19], 10, 64)
	p.zombie = fields[0] == "Z"
	return p, err
}

// marked finds the processes that carry the mark of the demo in dir in their
// environment: its nodes, and commands that it runs.
func marked(dir string) (pids []int) {
	mark := []byte(demoEnv + "=" + dir)
	for pid := range maps.Keys(processes()) {
		env, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "environ"))
		if err != nil {
			continue // another user's, or gone
		}
		if slices.ContainsFunc(bytes.Split(env, []byte{0}), func(kv []byte) bool { return bytes.Equal(kv, mark) }) {
			pids = append(pids, pid)
		}
	}
	return pids
}
