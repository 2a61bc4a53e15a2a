package sandbox

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// startCommand starts the command of cfg with this process's standard files and
// returns its process id. Its process group has that id too.
func startCommand(cfg *initConfig, tty *terminal) (pid int, err error) {
	path, err := lookPath(cfg.Args[0], cfg.Env, cfg.Dir)
	if err != nil {
		return 0, err
	}
	attr := &syscall.ProcAttr{
		Dir:   cfg.Dir,
		Env:   cfg.Env,
		Files: []uintptr{0, 1, 2},
		Sys:   &syscall.SysProcAttr{Setpgid: true},
	}
	if cfg.Foreground && tty != nil {
		attr.Sys.Foreground, attr.Sys.Ctty = true, tty.fd
	}
	if !cfg.PIDNS {
		// With a namespace the kernel sees to it.
		attr.Sys.Pdeathsig = unix.SIGKILL
	}
	pid, err = syscall.ForkExec(path, cfg.Args, attr)
	if err != nil {
		return 0, execError(cfg.Args[0], err)
	}
	return pid, nil
}

// lookPath finds a program as execvp(3) would, with the PATH and the folder of
// the command rather than our own.
func lookPath(name string, env []string, dir string) (string, error) {
	if strings.Contains(name, "/") {
		return name, executable(name, inDir(dir, name))
	}
	path := "/usr/local/bin:/usr/bin:/bin"
	for _, kv := range env {
		if v, ok := strings.CutPrefix(kv, "PATH="); ok {
			path = v
		}
	}
	var denied error // of a file that is there
	for _, d := range filepath.SplitList(path) {
		// An empty element is the present folder.
		candidate := inDir(dir, filepath.Join(d, name))
		if st, err := os.Stat(candidate); err != nil || st.IsDir() {
			continue
		}
		if denied = executable(name, candidate); denied == nil {
			return candidate, nil
		}
	}
	if denied != nil {
		return "", denied
	}
	return "", &exitError{ExitNotFound, fmt.Errorf("exec: %q: executable file not found in $PATH", name)}
}

func inDir(dir, path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(dir, path)
}

func executable(name, path string) error {
	st, err := os.Stat(path)
	switch {
	case err != nil:
		return execError(name, err)
	case st.IsDir():
		return execError(name, unix.EISDIR)
	}
	if err := unix.Access(path, unix.X_OK); err != nil {
		return execError(name, err)
	}
	return nil
}

// execError gives err the exit code that shells and docker give it.
func execError(name string, err error) error {
	if pe, ok := errors.AsType[*fs.PathError](err); ok {
		err = pe.Err
	}
	code := ExitNotExecutable
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
		code = ExitNotFound
	}
	return &exitError{code, fmt.Errorf("exec: %q: %w", name, err)}
}
