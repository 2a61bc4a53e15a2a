package sandbox

import (
	"bytes"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// hostPID returns the ID, in this process's pid namespace, of the process that
// a pidfd stands for: an init knows the IDs of its own namespace only. It is 0
// for a process that is not there any more, or no pidfd.
func hostPID(pidfd int) int {
	if pidfd < 0 {
		return 0
	}
	b, err := os.ReadFile(fmt.Sprintf("/proc/self/fdinfo/%d", pidfd))
	if err != nil {
		return 0
	}
	for line := range bytes.Lines(b) {
		if v, ok := bytes.CutPrefix(line, []byte("Pid:")); ok {
			pid, _ := strconv.Atoi(string(bytes.TrimSpace(v)))
			return max(pid, 0) // -1: reaped
		}
	}
	return 0
}

// closePIDFD closes one that may not be there.
func closePIDFD(fd int) {
	if fd >= 0 {
		_ = unix.Close(fd)
	}
}
