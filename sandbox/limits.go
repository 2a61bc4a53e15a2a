package sandbox

import (
	"encoding/json"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"syscall"

	"github.com/docker/go-units"
	"golang.org/x/sys/unix"
)

// A Ulimit is a limit of setrlimit(2) for what runs in the sandbox.
type Ulimit struct {
	Name       string // nofile, as in Docker
	Soft, Hard int64  // -1: unlimited
}

func (u Ulimit) rlimit() (*units.Rlimit, error) {
	r, err := (&units.Ulimit{Name: u.Name, Soft: u.Soft, Hard: u.Hard}).GetRlimit()
	if err != nil {
		return nil, fmt.Errorf("--ulimit %s: %w", u.Name, err)
	}
	return r, nil
}

// checkUlimits refuses what this process could not set: hard limits above its
// own, which no capability in a sandbox may raise.
func checkUlimits(list []Ulimit) error {
	for _, u := range list {
		r, err := u.rlimit()
		if err != nil {
			return err
		}
		var own unix.Rlimit
		if err := unix.Getrlimit(r.Type, &own); err != nil {
			return fmt.Errorf("--ulimit %s: %w", u.Name, err)
		}
		if r.Soft > r.Hard {
			return fmt.Errorf("--ulimit %s: the soft limit %d is above the hard limit %d", u.Name, u.Soft, u.Hard)
		}
		if r.Hard > own.Max {
			return fmt.Errorf("--ulimit %s: the node's own hard limit is %d: choose no more, or start the node with a higher one",
				u.Name, own.Max)
		}
	}
	return nil
}

// limited returns what to execute so that a program has the task's limits: this
// program in between. The init itself must not have them: it needs threads,
// descriptors and memory that were not meant for it.
func limited(t *Task, path string, args []string) (string, []string) {
	if t == nil || len(t.Ulimits) == 0 {
		return path, args
	}
	b, err := json.Marshal(t.Ulimits)
	if err != nil {
		return path, args // cannot be: plain structs always encode
	}
	return "/proc/self/exe", append([]string{initName, stageLimit, string(b), path}, args...)
}

// limit is what limited interposes. It returns an exit code if it cannot
// execute the program.
func limit(args []string) int {
	if err := setLimits(args); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return exitCode(err)
	}
	return 0
}

func setLimits(args []string) error {
	if len(args) < 3 {
		return fmt.Errorf("%d arguments of %s are not enough", len(args), strconv.Quote(stageLimit))
	}
	var list []Ulimit
	if err := json.Unmarshal([]byte(args[0]), &list); err != nil {
		return fmt.Errorf("limits of the task: %w", err)
	}
	runtime.LockOSThread() // no thread more than needed once the limits hold
	for _, u := range list {
		r, err := u.rlimit()
		if err != nil {
			return err
		}
		// By this call the Go runtime learns not to restore the limit of open
		// files for what it executes.
		if err := syscall.Setrlimit(r.Type, &syscall.Rlimit{Cur: r.Soft, Max: r.Hard}); err != nil {
			return fmt.Errorf("--ulimit %s=%d:%d: %w", u.Name, u.Soft, u.Hard, err)
		}
	}
	return execError(args[2], syscall.Exec(args[1], args[2:], os.Environ()))
}
