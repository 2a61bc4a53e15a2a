package demo

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"
)

// demoEnv marks every process of a demo with the demo's folder.
const demoEnv = "OVND_DEMO"

// A machine is one node, on an address of its own.
type machine struct {
	name, self, readyEnv string
	addr                 netip.Addr
	demoDir              string
	tun                  string // of `up`; empty: its default
	stateDir, logFile    string

	process *os.Process
	ended   chan struct{} // closed when the node's process has
}

// environment is the nodes': of this process, less what would choose another
// node, and with the places where Debian has its servers.
func (m *machine) environment() []string {
	env := slices.DeleteFunc(os.Environ(), func(kv string) bool {
		name, _, _ := strings.Cut(kv, "=")
		return slices.Contains([]string{"OVND_HOST", "OVND_STATE_DIR", "PATH", m.readyEnv, demoEnv}, name)
	})
	path := strings.Trim(os.Getenv("PATH")+":"+sbin, ":")
	return append(env, "PATH="+path, "OVND_STATE_DIR="+m.stateDir, demoEnv+"="+m.demoDir)
}

// up starts the node with `ovnd up` and args, and returns when it is ready.
func (m *machine) up(ctx context.Context, args ...string) error {
	log, err := os.Create(m.logFile)
	if err != nil {
		return err
	}
	defer log.Close()
	ours, theirs, err := os.Pipe()
	if err != nil {
		return err
	}
	defer ours.Close()
	up := []string{"up", "--foreground", "--hostname", m.name, "--advertise-addr", m.addr.String()}
	if m.tun != "" {
		up = append(up, "--tun", m.tun)
	}
	cmd := exec.Command(m.self, append(up, args...)...)
	cmd.Env = append(m.environment(), m.readyEnv+"=3")
	cmd.ExtraFiles = []*os.File{theirs}
	cmd.Stdout, cmd.Stderr = log, log
	// A session of its own: Ctrl-C is for the demo, which stops its nodes in
	// order.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	err = cmd.Start()
	_ = theirs.Close() // so that only the node holds it
	if err != nil {
		return err
	}
	m.process, m.ended = cmd.Process, make(chan struct{})
	go func() {
		_ = cmd.Wait() // how it ended is in its log
		close(m.ended)
	}()
	stop := context.AfterFunc(ctx, func() { _ = ours.SetReadDeadline(time.Now()) })
	defer stop()
	var report struct {
		Ready bool
		Error string
	}
	if err := json.NewDecoder(ours).Decode(&report); err != nil {
		return errors.Join(ctx.Err(), fmt.Errorf("%s ended before it was ready: %s", m.name, m.lastWords()))
	}
	if !report.Ready {
		return fmt.Errorf("%s: %s", m.name, report.Error)
	}
	return nil
}

// lastWords is the end of the node's log.
func (m *machine) lastWords() string {
	log, err := os.ReadFile(m.logFile)
	if err != nil {
		return err.Error()
	}
	lines := bytes.Split(bytes.TrimSpace(log), []byte("\n"))
	return string(bytes.Join(lines[max(len(lines)-3, 0):], []byte("\n")))
}

// down stops the node, at last by force, and returns when it is gone.
func (m *machine) down(patience time.Duration) error {
	if m.process == nil {
		return nil
	}
	_ = m.process.Signal(syscall.SIGTERM) // it may be gone
	select {
	case <-m.ended:
		return nil
	case <-time.After(patience):
	}
	_ = m.process.Kill()
	<-m.ended
	return fmt.Errorf("%s did not stop within %v", m.name, patience)
}

// ovnd runs one command line of ovnd against the node and returns what it
// prints on standard output. The error has what it prints on the other.
func (m *machine) ovnd(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, m.self, args...)
	cmd.Env = m.environment()
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C comes by ctx
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = time.Second
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	if err == nil {
		return out.String(), nil
	}
	if text := strings.TrimSpace(errs.String()); text != "" {
		err = errors.New(text)
	}
	if ctx.Err() != nil {
		err = fmt.Errorf("took too long: %w", err)
	}
	return out.String(), err
}
