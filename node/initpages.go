package node

import (
	"bufio"
	"bytes"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// releaseInitPages lets go of the program's own code and constants that were read
// while it started: most of the binary, of which a running node needs a third.
// What is needed again is mapped again from the page cache. It says why it could
// not; the node works all the same.
func releaseInitPages() error {
	exe, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return err
	}
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		return err
	}
	lines := bufio.NewScanner(bytes.NewReader(maps))
	for lines.Scan() {
		var start, end uintptr
		var perms, offset, device, path string
		var inode uint64
		n, _ := fmt.Sscanf(lines.Text(), "%x-%x %s %s %s %d %s", &start, &end, &perms, &offset, &device, &inode, &path)
		// Not what may be written to: its changes are nowhere else.
		if n < 7 || path != exe || perms[1] == 'w' {
			continue
		}
		if _, _, errno := unix.Syscall(unix.SYS_MADVISE, start, end-start, unix.MADV_DONTNEED); errno != 0 {
			return fmt.Errorf("madvise: %w", errno)
		}
	}
	return lines.Err()
}
