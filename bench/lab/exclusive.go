package lab

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// exclusiveFile is what the holder of the machine has locked. The name does
	// not depend on the user, so that all of them wait for each other.
	exclusiveFile = "ovnd-lab.lock"
	// exclusiveEnv marks what the holder starts. Whoever sets it by hand has
	// taken care of the others himself.
	exclusiveEnv = "OVND_LAB_EXCLUSIVE"
)

// Exclusive waits until no other program on this machine holds what it returns,
// and takes it: `go test ./...` runs packages side by side, and those that start
// nodes and measure how long something takes would do so on each other's time.
// Packages that start processes or namespaces call it in TestMain, after [Enter];
// [Main] does so by itself. It is freed by release or by the end of the process,
// however that comes. What the holder starts, such as the workers of a fuzz test,
// has its share and does not wait.
//
// The time limit of go test -timeout does not run while a package waits here,
// but go test itself ends one a minute after that limit, waiting included. A
// machine where the file cannot be had is said so, and the program goes on: the
// tests work without, if less calmly.
func Exclusive() (release func()) {
	if os.Getenv(exclusiveEnv) != "" {
		return func() {}
	}
	path := filepath.Join(os.TempDir(), exclusiveFile)
	f, err := openShared(path)
	if err == nil {
		if err = lock(f); err != nil {
			f.Close()
		}
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "lab: this program does not wait for others of its kind: %v: remove %s\n", err, path)
		return func() {}
	}
	_ = os.Setenv(exclusiveEnv, "1") // the name is a valid one
	return sync.OnceFunc(func() {
		_ = os.Unsetenv(exclusiveEnv)
		f.Close()
	})
}

// openShared opens a file that every user of the machine may open, and makes it
// if there is none.
func openShared(path string) (*os.File, error) {
	var last error
	// Who has just made it may not have opened it to the others yet, and who has
	// just looked for it may make it first.
	for range 20 {
		// Without O_CREAT: the kernel refuses that for another user's file in a
		// folder like /tmp (sysctl fs.protected_regular).
		f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW, 0)
		if errors.Is(err, fs.ErrNotExist) {
			f, err = os.OpenFile(path, os.O_RDONLY|os.O_CREATE|os.O_EXCL, 0o666)
			if err == nil {
				if err = f.Chmod(0o666); err != nil { // whatever the umask
					f.Close()
				}
			}
		}
		if err == nil {
			return f, nil
		}
		last = err
		time.Sleep(10 * time.Millisecond)
	}
	return nil, last
}

// lock locks f and says so if that takes waiting.
func lock(f *os.File) error {
	err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		fmt.Fprintf(os.Stderr, "lab: waiting for another program's tests (lock on %s)\n", f.Name())
		for err = syscall.EINTR; errors.Is(err, syscall.EINTR); {
			err = unix.Flock(int(f.Fd()), unix.LOCK_EX)
		}
	}
	return os.NewSyscallError("flock", err)
}
