package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	cerrdefs "github.com/containerd/errdefs"

	"github.com/ovnd/ovnd/api"
	"github.com/ovnd/ovnd/sandbox"
)

// An execution is a command that was started in a sandbox beside its own. It
// implements api.ExecProcess.
type execution struct {
	process *sandbox.Process
	streams
}

// streams are this node's ends of a command's standard files.
type streams struct {
	stdin          io.WriteCloser // nil: /dev/null
	stdout, stderr io.Reader
	terminal       *os.File // the master of its pty; nil: it has none
	ours           []*os.File
	once           sync.Once
}

// ContainerExec implements api.ContainerBackend.
func (c containers) ContainerExec(ctx context.Context, id string, e api.ExecConfig) (api.ExecProcess, error) {
	_, session, err := c.awaitRunning(ctx, id)
	if err != nil {
		return nil, err
	}
	x := &execution{}
	spec := sandbox.Exec{Args: e.Args, Env: e.Env, Dir: e.Dir, TTY: e.TTY}
	if e.TTY {
		err = x.openTerminal(&spec, e)
	} else {
		err = x.openPipes(&spec, e)
	}
	if err == nil {
		x.process, err = session.Exec(ctx, spec)
	}
	closeLent(&spec)
	if err != nil {
		_ = x.Close() // nothing was written yet
		switch {
		case errors.Is(err, sandbox.ErrEnded):
			return nil, notRunning(id)
		case errors.Is(err, sandbox.ErrDetached):
			return nil, cerrdefs.ErrUnavailable.WithMessage(err.Error())
		}
		return nil, err
	}
	return x, nil
}

// openTerminal gives the command a pty of its own.
func (x *execution) openTerminal(spec *sandbox.Exec, e api.ExecConfig) error {
	master, slave, err := openPTY()
	if err != nil {
		return err
	}
	x.terminal, x.stdout, x.ours = master, terminalReader{master}, []*os.File{master}
	if e.Stdin {
		x.stdin = keptOpen{master}
	}
	spec.Stdin, spec.Stdout, spec.Stderr = slave, slave, slave
	if e.Rows == 0 || e.Columns == 0 {
		return nil
	}
	return setSize(master, e.Rows, e.Columns)
}

// openPipes gives the command a pipe for each stream that is asked for.
func (x *execution) openPipes(spec *sandbox.Exec, e api.ExecConfig) (err error) {
	if e.Stdin {
		var ours *os.File
		if spec.Stdin, ours, err = inputPipe(); err != nil {
			return err
		}
		x.stdin, x.ours = ours, append(x.ours, ours)
	}
	if e.Stdout {
		var ours *os.File
		if ours, spec.Stdout, err = outputPipe(); err != nil {
			return err
		}
		x.stdout, x.ours = ours, append(x.ours, ours)
	}
	if e.Stderr {
		var ours *os.File
		if ours, spec.Stderr, err = outputPipe(); err != nil {
			return err
		}
		x.stderr, x.ours = ours, append(x.ours, ours)
	}
	return nil
}

// closeLent closes the command's ends, which it has of its own by now.
func closeLent(spec *sandbox.Exec) {
	if spec.TTY {
		spec.Stdout, spec.Stderr = nil, nil // the same file
	}
	for _, f := range []*os.File{spec.Stdin, spec.Stdout, spec.Stderr} {
		if f != nil {
			_ = f.Close() // nothing was written to it here
		}
	}
}

// PID implements api.ExecProcess.
func (x *execution) PID() int { return x.process.PID() }

// Stdin implements api.ExecProcess.
func (x *execution) Stdin() io.WriteCloser { return x.stdin }

// Stdout implements api.ExecProcess.
func (x *execution) Stdout() io.Reader { return x.stdout }

// Stderr implements api.ExecProcess.
func (x *execution) Stderr() io.Reader { return x.stderr }

// Resize implements api.ExecProcess.
func (x *execution) Resize(rows, columns uint16) error {
	if x.terminal == nil {
		return cerrdefs.ErrInvalidArgument.WithMessage("the command has no terminal")
	}
	return setSize(x.terminal, rows, columns)
}

// Wait implements api.ExecProcess.
func (x *execution) Wait(ctx context.Context) (int, error) {
	status, err := x.process.Wait(ctx)
	if err != nil {
		return 0, fmt.Errorf("exec: %w", err)
	}
	return status.Code, nil
}

// Close implements api.ExecProcess.
func (x *execution) Close() error {
	var errs []error
	x.once.Do(func() {
		for _, f := range x.ours {
			if err := f.Close(); !errors.Is(err, os.ErrClosed) {
				errs = append(errs, err)
			}
		}
	})
	return errors.Join(errs...)
}

var _ api.ExecProcess = (*execution)(nil)
