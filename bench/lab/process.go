package lab

import (
	"fmt"
	"os/exec"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A Process is a command that runs in a host.
type Process struct {
	cmd  *exec.Cmd
	done chan struct{}
	err  error // result of cmd.Wait, valid once done is closed
}

// Start starts cmd in the host's namespace. It is killed by Cleanup, or by the
// kernel if this program dies first. The command must not be waited for except
// through the Process.
func (h *Host) Start(cmd *exec.Cmd) *Process {
	h.tb.Helper()
	p, err := h.Launch(cmd)
	if err != nil {
		h.tb.Fatalf("%v", err)
	}
	return p
}

// Launch is Start for goroutines other than the one that set the lab up: it
// returns what goes wrong. What it has started ends with the lab at the latest.
func (h *Host) Launch(cmd *exec.Cmd) (*Process, error) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	// A group of its own: what a terminal sends to a group, on Ctrl-C or when it is
	// lost, is for this program alone, which then ends its processes in order.
	cmd.SysProcAttr.Setpgid = true
	started := make(chan error, 1)
	select {
	case h.spawn <- func() { started <- cmd.Start() }:
	case <-h.ended:
		return nil, fmt.Errorf("lab: %s: start %s: the lab is closed", h.name, cmd.Path)
	}
	if err := <-started; err != nil {
		return nil, fmt.Errorf("lab: %s: start %s: %w", h.name, cmd.Path, err)
	}
	p := &Process{cmd: cmd, done: make(chan struct{})}
	go func() {
		p.err = cmd.Wait()
		close(p.done)
	}()
	h.tb.Cleanup(p.Kill)
	return p, nil
}

// Pid returns the process ID.
func (p *Process) Pid() int { return p.cmd.Process.Pid }

// Done is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Wait waits for the process to end and returns what exec.Cmd.Wait did.
func (p *Process) Wait() error {
	<-p.done
	return p.err
}

// CPU returns the processor time that the process has used so far, of all its
// threads, at the scheduler's precision. It may be called while the process
// runs; afterwards it is an error.
func (p *Process) CPU() (time.Duration, error) {
	// The clock of another process, as clock_getcpuclockid(3) composes it.
	const schedClock = 2
	var ts unix.Timespec
	if err := unix.ClockGettime(int32(^p.Pid())<<3|schedClock, &ts); err != nil {
		return 0, fmt.Errorf("lab: processor time of %s: %w", p.cmd.Path, err)
	}
	return time.Duration(ts.Nano()), nil
}

// Signal sends sig to the process.
func (p *Process) Signal(sig syscall.Signal) error { return p.cmd.Process.Signal(sig) }

// Kill ends the process with SIGKILL and waits for it. Repeated calls do
// nothing.
func (p *Process) Kill() {
	_ = p.cmd.Process.Kill() // fails only if it has ended
	<-p.done
}

// Usage returns the resources that the process and its waited-for children
// used. It waits for the process to end.
func (p *Process) Usage() *syscall.Rusage {
	<-p.done
	if p.cmd.ProcessState == nil {
		return &syscall.Rusage{}
	}
	return p.cmd.ProcessState.SysUsage().(*syscall.Rusage)
}
