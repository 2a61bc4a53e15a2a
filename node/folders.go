package node

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// ErrRunning reports that another process runs the node of this state folder.
var ErrRunning = errors.New("a node is already running")

// folders are the node's folders while it runs, locked against a second one.
type folders struct {
	Paths
	lock *os.File
}

// openFolders makes the node's folders and takes their lock, which the kernel
// gives back however the process ends.
func openFolders(p Paths) (*folders, error) {
	if err := p.Prepare(); err != nil {
		return nil, err
	}
	lock, err := os.OpenFile(filepath.Join(p.StateDir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("state folder %s: %w: choose another with --state-dir", p.StateDir, err)
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = lock.Close() // only read from
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("%w in state folder %s: stop it with \"ovnd down\", or choose another folder with --state-dir", ErrRunning, p.StateDir)
		}
		return nil, fmt.Errorf("state folder %s: cannot be locked: %w", p.StateDir, err)
	}
	f := &folders{Paths: p, lock: lock}
	if err := os.WriteFile(p.PIDFile, []byte(strconv.Itoa(os.Getpid())+"\n"), 0o600); err != nil {
		f.close()
		return nil, fmt.Errorf("runtime folder %s: %w", p.RuntimeDir, err)
	}
	return f, nil
}

func (f *folders) close() {
	_ = os.Remove(f.PIDFile) // a stale one is replaced at the next start
	_ = f.lock.Close()
}

// privateDir makes dir for this user alone, or checks that it is.
func privateDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("folder %s: %w: choose another with --state-dir", dir, err)
	}
	info, err := os.Stat(dir)
	if err != nil {
		return fmt.Errorf("folder %s: %w", dir, err)
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok && int(st.Uid) != os.Geteuid() {
		return fmt.Errorf("folder %s belongs to user %d: choose another with --state-dir", dir, st.Uid)
	}
	if info.Mode().Perm()&0o077 == 0 {
		return nil
	}
	// Closing a folder that holds other things (/tmp, a home) would break them.
	if entries, err := os.ReadDir(dir); err != nil || len(entries) > 0 {
		return fmt.Errorf("folder %s is open to other users and not empty: chmod 700 it, or choose another with --state-dir", dir)
	}
	return os.Chmod(dir, 0o700)
}

// installationID reads the ID in a file, or makes one up and writes it.
func installationID(path string) (string, error) {
	data, err := os.ReadFile(path)
	if err == nil && len(data) > 0 {
		return strings.TrimSpace(string(data)), nil
	}
	id := randomID()[:32]
	if err := os.WriteFile(path, []byte(id+"\n"), 0o600); err != nil {
		return "", fmt.Errorf("state folder: %w", err)
	}
	return id, nil
}
