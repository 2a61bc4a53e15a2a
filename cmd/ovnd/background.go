package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/ovnd/ovnd/node"
)

// readyEnv names the descriptor on which a node in the background reports how
// its start went. It is one line of JSON; the end of the file without one
// means that the process died.
const readyEnv = "OVND_READY_FD"

// A startReport is that line.
type startReport struct {
	Ready bool   `json:",omitempty"`
	Error string `json:",omitempty"`
}

// A reporter sends the first report it is given. A nil one has nobody to tell.
type reporter struct{ pipe *os.File }

// openReport takes the descriptor that readyEnv names, so that neither a
// sandbox nor a second node inherits it.
func openReport() (*reporter, error) {
	v, ok := os.LookupEnv(readyEnv)
	if !ok {
		return nil, nil
	}
	fd, err := strconv.Atoi(v)
	if err != nil {
		return nil, fmt.Errorf("%s: %q is not a descriptor", readyEnv, v)
	}
	if err := os.Unsetenv(readyEnv); err != nil {
		return nil, err
	}
	unix.CloseOnExec(fd)
	return &reporter{os.NewFile(uintptr(fd), "ready pipe")}, nil
}

func (r *reporter) send(report startReport) {
	if r == nil || r.pipe == nil {
		return
	}
	// Whoever waited for it may have gone; the node lives on.
	_ = json.NewEncoder(r.pipe).Encode(report)
	_ = r.pipe.Close()
	r.pipe = nil
}

// startInBackground runs the command line args again with --foreground in a
// session of its own, and returns when that node is ready. If it does not get
// there, or if ctx ends, nothing of it is left running.
func startInBackground(ctx context.Context, args []string, paths node.Paths) error {
	log, err := openLog(paths)
	if err != nil {
		return err
	}
	defer log.Close() // the child writes to it
	ours, theirs, err := os.Pipe()
	if err != nil {
		return err
	}
	defer ours.Close()
	child := exec.Command("/proc/self/exe", append(slices.Clone(args), "--foreground")...)
	child.Args[0] = os.Args[0]
	child.Env = append(os.Environ(), readyEnv+"=3")
	child.ExtraFiles = []*os.File{theirs}
	child.Stdout, child.Stderr = log, log
	child.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	err = child.Start()
	_ = theirs.Close() // so that only the child holds it
	if err != nil {
		return fmt.Errorf("node: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = child.Process.Signal(unix.SIGTERM) })
	defer stop()
	var report startReport
	if json.NewDecoder(ours).Decode(&report) == nil && report.Ready {
		return child.Process.Release()
	}
	// How it ended is told below, by its state.
	_ = child.Wait()
	switch {
	case ctx.Err() != nil:
		return errors.New("interrupted: the node was stopped")
	case report.Error != "":
		return errors.New(report.Error)
	default:
		return fmt.Errorf("the node ended before it was ready (%v): see %s", child.ProcessState, paths.LogFile)
	}
}

// logKept is how much of a log, in bytes, the next start goes on with. A
// longer one becomes LogFile.1.
const logKept = 8 << 20

func openLog(paths node.Paths) (*os.File, error) {
	if err := paths.Prepare(); err != nil {
		return nil, err
	}
	if info, err := os.Stat(paths.LogFile); err == nil && info.Size() > logKept {
		if err := os.Rename(paths.LogFile, paths.LogFile+".1"); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("log: %w", err)
		}
	}
	f, err := os.OpenFile(paths.LogFile, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("log: %w", err)
	}
	return f, nil
}
