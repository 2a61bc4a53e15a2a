package sandbox

import (
	"context"
	"encoding/gob"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// initConfig is what an init needs to know. It travels in a memfd rather than
// in arguments or environment, where every process of the user could read the
// token; as gob, because arguments need not be UTF-8.
type initConfig struct {
	Spec       Spec
	Args, Env  []string
	Dir        string
	PIDNS      bool  // a pid namespace of its own
	Foreground bool  // start the command in the terminal's foreground
	Task       *Task // nil: of Run
	Root       bool  // the user is root
	Check      bool  // end where the sandbox would begin
}

// Descriptors of an init.
const (
	initControlFD = 3
	initConfigFD  = 4
	initLogFD     = 5 // the folder of the log; of a task only
	firstFreeFD   = 6
)

// taskUser is the user and group ID that a task of root's has in its sandbox.
const taskUser = 1000

var errNoProc = errors.New("/proc cannot be mounted")

// Run runs a command in a sandbox from the user's terminal, as if it ran
// alone, and returns once nothing in the sandbox runs any more: signals,
// terminal and job control reach the command, standard files are the caller's
// own. The exit code is the command's, 128 + n if signal n killed it;
// with an error it is ExitFailure, ExitNotExecutable or ExitNotFound.
//
// When ctx ends, when the terminal goes away or when this process dies, the
// sandbox gets SIGTERM and, ten seconds later, SIGKILL.
//
// Run installs handlers for the process's signals while it runs: one Run at a
// time.
func Run(ctx context.Context, spec Spec, cmd Command) (exitCode int, err error) {
	if len(cmd.Args) == 0 {
		return ExitFailure, errors.New("no command given")
	}
	if err := spec.validate(); err != nil {
		return ExitFailure, err
	}
	cmd = cmd.withDefaults()
	if cmd.Dir, err = workdir(cmd.Dir); err != nil {
		return ExitFailure, err
	}
	if err := checkTUN(tunPath); err != nil {
		return ExitFailure, err
	}
	code, err := runOnce(ctx, spec, cmd, true)
	if errors.Is(err, errNoProc) {
		fmt.Fprintln(cmd.Stderr, "ovnd run: /proc cannot be mounted here (it is masked in a container): the command shares the host's process ids")
		code, err = runOnce(ctx, spec, cmd, false)
	}
	return code, err
}

func (c Command) withDefaults() Command {
	for _, f := range []struct{ file, def **os.File }{
		{&c.Stdin, &os.Stdin},
		{&c.Stdout, &os.Stdout},
		{&c.Stderr, &os.Stderr},
	} {
		if *f.file == nil {
			*f.file = *f.def
		}
	}
	return c
}

// workdir returns dir as an absolute path, or the present folder.
func workdir(dir string) (string, error) {
	if dir == "" {
		wd, err := os.Getwd()
		if err != nil {
			return "", nil // removed or unreadable: the command inherits it as it is
		}
		return wd, nil
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", fmt.Errorf("--workdir: %w", err)
	}
	st, err := os.Stat(dir)
	if err == nil && !st.IsDir() {
		err = &os.PathError{Op: "chdir", Path: dir, Err: syscall.ENOTDIR}
	}
	if err != nil {
		return "", fmt.Errorf("--workdir must name a folder of this machine: %w", err)
	}
	return dir, nil
}

// environment returns the caller's environment with HOSTNAME and the command's
// own variables in it.
func environment(spec *Spec, own []string) []string {
	return lastWins(slices.Concat(os.Environ(), []string{"HOSTNAME=" + spec.hostname()}, own))
}

// lastWins returns env without what is set again later, or not at all.
func lastWins(env []string) []string {
	last := make(map[string]int, len(env))
	for i, kv := range env {
		k, _, _ := strings.Cut(kv, "=")
		last[k] = i
	}
	out := env[:0:0]
	for i, kv := range env {
		if k, _, ok := strings.Cut(kv, "="); ok && last[k] == i {
			out = append(out, kv)
		}
	}
	return out
}

func runOnce(ctx context.Context, spec Spec, cmd Command, pidns bool) (int, error) {
	tty := openTerminal()
	defer tty.close()
	cfg := initConfig{
		Spec: spec, Args: cmd.Args, Env: environment(&spec, cmd.Env), Dir: cmd.Dir, PIDNS: pidns,
		// A command that stands in a pipeline leaves the foreground to others
		// (a pager, say) until it reads from the terminal itself.
		Foreground: tty.ours() && isTerminal(cmd.Stdin.Fd()) && isTerminal(cmd.Stdout.Fd()),
	}
	return newAttendant(tty, cmd.Stderr).run(ctx, cfg, cmd)
}

// startInit starts the first stage of an init, which inherits the files.
func startInit(cfg initConfig, cmd Command, more ...*os.File) (*exec.Cmd, *packetConn, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	theirs := os.NewFile(uintptr(fds[1]), "control socket")
	defer func() { _ = theirs.Close() }()
	control, err := inheritedConn(fds[0], "control socket")
	if err != nil {
		return nil, nil, err
	}

	flags := unix.CLONE_NEWUSER | unix.CLONE_NEWNET | unix.CLONE_NEWNS | unix.CLONE_NEWUTS
	if cfg.PIDNS {
		flags |= unix.CLONE_NEWPID
	}
	uid, gid := os.Geteuid(), os.Getegid()
	if cfg.Root = uid == 0; cfg.Root && cfg.Task != nil {
		// Programs that find themselves root want to become somebody else, which
		// nobody in a sandbox can.
		uid, gid = taskUser, taskUser
	}
	attr := &syscall.SysProcAttr{
		// Not in the caller's process group: what the terminal sends there
		// reaches the command once, through Run. A task has nothing to do
		// with the caller's session either.
		Setpgid: cfg.Task == nil,
		Setsid:  cfg.Task != nil,
	}
	if !cfg.Spec.Bare {
		attr.Cloneflags = uintptr(flags)
		attr.UidMappings = []syscall.SysProcIDMap{{ContainerID: uid, HostID: os.Geteuid(), Size: 1}}
		attr.GidMappings = []syscall.SysProcIDMap{{ContainerID: gid, HostID: os.Getegid(), Size: 1}}
		attr.AmbientCaps = []uintptr{unix.CAP_SYS_ADMIN, unix.CAP_NET_ADMIN, unix.CAP_SETPCAP}
	}
	config, err := configFile(cfg)
	if err != nil {
		return nil, nil, err
	}
	defer func() { _ = config.Close() }()
	proc := &exec.Cmd{
		Path:        "/proc/self/exe",
		Args:        []string{initName, stageSetup, cfg.Spec.Name},
		Env:         os.Environ(),
		Stdin:       cmd.Stdin,
		Stdout:      cmd.Stdout,
		Stderr:      cmd.Stderr,
		ExtraFiles:  append([]*os.File{theirs, config}, more...), // from initControlFD on
		SysProcAttr: attr,
	}
	if err := proc.Start(); err != nil {
		_ = control.Close()
		if cfg.Spec.Bare {
			return nil, nil, fmt.Errorf("start the task's init: %w", err)
		}
		return nil, nil, explainNamespaces(fmt.Errorf("make namespaces: %w", err), procSys)
	}
	return proc, control, nil
}

// configFile returns a memfd that holds cfg, at its beginning.
func configFile(cfg initConfig) (*os.File, error) {
	fd, err := unix.MemfdCreate("ovnd-init", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	f := os.NewFile(uintptr(fd), "init configuration")
	if err := gob.NewEncoder(f).Encode(cfg); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("write init configuration: %w", err)
	}
	if _, err := f.Seek(0, 0); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("rewind init configuration: %w", err)
	}
	return f, nil
}

func readConfig(f *os.File) (cfg initConfig, err error) {
	if _, err := f.Seek(0, 0); err != nil {
		return initConfig{}, fmt.Errorf("rewind init configuration: %w", err)
	}
	if err := gob.NewDecoder(f).Decode(&cfg); err != nil {
		return initConfig{}, fmt.Errorf("read init configuration: %w", err)
	}
	return cfg, nil
}
