package lab

import (
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// TempDir returns a new folder in memory that nobody outside the lab sees. It goes
// with the lab; of a program that is killed an empty folder is left.
func (l *Lab) TempDir() string {
	l.tb.Helper()
	dir, err := os.MkdirTemp("", "ovnd-lab-")
	if err != nil {
		l.tb.Fatalf("lab: %v", err)
	}
	l.tb.Cleanup(func() { _ = os.Remove(dir) })
	if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=700"); err != nil {
		l.tb.Fatalf("lab: mount on %s: %v", dir, err)
	}
	l.tb.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) }) // with what is mounted in it
	return dir
}

// NSPath returns a path of a host's network namespace, for programs that are told
// where to go by one, and that may lack the privileges to look into /proc.
func (l *Lab) NSPath(h *Host) string {
	l.tb.Helper()
	path := filepath.Join(l.TempDir(), h.name)
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		l.tb.Fatalf("lab: %v", err)
	}
	f.Close()
	source := fmt.Sprintf("/proc/self/fd/%d", h.ns.Fd())
	if err := unix.Mount(source, path, "", unix.MS_BIND, ""); err != nil {
		l.tb.Fatalf("lab: mount the namespace of %s: %v", h.name, err)
	}
	return path
}
