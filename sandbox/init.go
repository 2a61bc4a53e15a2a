package sandbox

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// How a process that is an init is called, as ps shows it.
const (
	initName      = "ovnd-init"
	stageSetup    = "setup"
	stageResident = "resident"
	stageLimit    = "limit"
)

// MaybeInit runs the init of a sandbox if this process was started as one, and
// then does not return. It must be called first in main, and first in the
// TestMain of tests that use Run.
func MaybeInit() {
	if len(os.Args) < 3 || os.Args[0] != initName {
		return
	}
	switch os.Args[1] {
	case stageLimit:
		os.Exit(limit(os.Args[2:]))
	case stageWait:
		os.Exit(wait(os.Args[2]))
	}
	// Capabilities belong to threads, and in resident the command's
	// PR_SET_PDEATHSIG does.
	runtime.LockOSThread()
	control, err := inheritedConn(dupCloexec(initControlFD), "control socket")
	if err != nil {
		fmt.Fprintln(os.Stderr, "ovnd run: this is not to be called by hand:", err)
		os.Exit(ExitFailure)
	}
	switch os.Args[1] {
	case stageSetup:
		err = setup()
	case stageResident:
		_ = unix.Close(initControlFD)
		err = reside(control)
	default:
		err = fmt.Errorf("unknown stage %q of the init", os.Args[1])
	}
	if err != nil {
		m := controlMessage{Kind: controlFailed, Code: exitCode(err), Text: err.Error()}
		switch {
		case errors.Is(err, errNoProc):
			m = controlMessage{Kind: controlNoProc}
		case errors.Is(err, errChecked):
			m = controlMessage{Kind: controlReady}
		}
		_ = control.send(m) // without Run there is nobody to tell
		os.Exit(ExitFailure)
	}
	os.Exit(0)
}

// dupCloexec returns a close-on-exec duplicate of fd, -1 on failure.
func dupCloexec(fd int) int {
	n, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, firstFreeFD)
	if err != nil {
		return -1
	}
	return n
}

// setup is the first stage: it prepares the namespaces with their
// capabilities, drops these and becomes the second stage. It returns only
// errors.
func setup() error {
	cfg, err := inheritedConfig()
	if err != nil {
		return err
	}
	if cfg.Spec.Bare {
		files, err := attachDevices(&cfg.Spec)
		if err != nil {
			return explainDevices(err)
		}
		return becomeResident(cfg.Spec.Name, files)
	}
	if err := setupMounts(&cfg); err != nil {
		return err
	}
	if err := unix.Sethostname([]byte(cfg.Spec.hostname())); err != nil {
		return fmt.Errorf("set hostname: %w", err)
	}
	files, err := setupNetwork(&cfg.Spec)
	if err != nil {
		return err
	}
	if cfg.Spec.Resolver {
		sockets, err := openResolver()
		if err != nil {
			return err
		}
		files = append(files, sockets...)
	}
	if err := dropCapabilities(); err != nil {
		return err
	}
	if cfg.Check {
		return errChecked
	}
	return becomeResident(cfg.Spec.Name, files)
}

// becomeResident executes the second stage, which inherits files.
func becomeResident(name string, files []*os.File) error {
	args, err := residentArgs(name, files)
	if err != nil {
		return err
	}
	err = syscall.Exec("/proc/self/exe", args, os.Environ())
	return fmt.Errorf("execute the resident init: %w", err)
}

// inheritedConfig reads the configuration and leaves initConfigFD open.
func inheritedConfig() (initConfig, error) {
	f := os.NewFile(uintptr(dupCloexec(initConfigFD)), "init configuration")
	defer func() { _ = f.Close() }()
	return readConfig(f)
}

// residentArgs makes the arguments of the second stage, the descriptors that it
// inherits among them.
func residentArgs(name string, queues []*os.File) ([]string, error) {
	args := []string{initName, stageResident, name}
	for _, q := range queues {
		fd, err := inheritable(q)
		if err != nil {
			return nil, err
		}
		args = append(args, strconv.Itoa(fd))
	}
	return args, nil
}

// inheritable duplicates f's descriptor into one that stays open over exec.
func inheritable(f *os.File) (fd int, err error) {
	// Not f.Fd(): that would set the device to blocking for the node, too.
	raw, err := f.SyscallConn()
	if err != nil {
		return -1, fmt.Errorf("%s: %w", f.Name(), err)
	}
	cerr := raw.Control(func(old uintptr) {
		fd, err = unix.FcntlInt(old, unix.F_DUPFD, firstFreeFD)
	})
	if err := errors.Join(cerr, err); err != nil {
		return -1, fmt.Errorf("duplicate %s: %w", f.Name(), err)
	}
	return fd, nil
}

// inheritedQueues returns the descriptors that residentArgs announced, now
// close-on-exec.
func inheritedQueues(args []string) ([]int, error) {
	fds := make([]int, 0, len(args))
	for _, a := range args {
		fd, err := strconv.Atoi(a)
		if err != nil {
			return nil, fmt.Errorf("descriptors %q: %w", strings.Join(args, " "), err)
		}
		unix.CloseOnExec(fd)
		fds = append(fds, fd)
	}
	return fds, nil
}
