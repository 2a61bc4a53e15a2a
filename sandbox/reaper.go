package sandbox

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// A childEvent is a change of state of a process that this one waits for.
type childEvent struct {
	pid    int
	status unix.WaitStatus
}

// reap waits for all descendants that become ours, and closes events once there
// are none: pid 1 and a subreaper inherit every orphan below them.
func reap(events chan<- childEvent) {
	defer close(events)
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, unix.WUNTRACED, nil)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil { // ECHILD
			return
		}
		events <- childEvent{pid, status}
	}
}

// signalAll sends a signal to every process of the sandbox but its init.
func signalAll(s unix.Signal) {
	if unix.Getpid() == 1 {
		_ = unix.Kill(-1, s)
		return
	}
	// Without a pid namespace -1 would be every process of the user.
	for _, pid := range descendants(unix.Getpid()) {
		_ = unix.Kill(pid, s)
	}
}

// descendants returns the processes below pid.
func descendants(pid int) []int {
	var found []int
	for _, child := range children(pid) {
		found = append(append(found, child), descendants(child)...)
	}
	return found
}

// children returns the processes whose parent is pid.
func children(pid int) []int {
	var found []int
	tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		return nil // it has ended
	}
	for _, t := range tasks {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/children", pid, t.Name()))
		if err != nil {
			continue
		}
		for f := range strings.FieldsSeq(string(b)) {
			if child, err := strconv.Atoi(f); err == nil {
				found = append(found, child)
			}
		}
	}
	return found
}

// startTicks returns when a process began, in clock ticks since the boot; for
// one that is not there, the end of time.
func startTicks(pid int) uint64 {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return math.MaxUint64
	}
	// The name, in parentheses, may have any byte; the rest is proc_pid_stat(5)
	// from field 3 on.
	fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	const starttime = 22 - 3
	if len(fields) <= starttime {
		return math.MaxUint64
	}
	ticks, err := strconv.ParseUint(fields[starttime], 10, 64)
	if err != nil {
		return math.MaxUint64
	}
	return ticks
}
