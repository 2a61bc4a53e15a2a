package sandbox

import (
	"errors"
	"fmt"
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
			child, err := strconv.Atoi(f)
			if err != nil {
				continue
			}
			found = append(append(found, child), descendants(child)...)
		}
	}
	return found
}
