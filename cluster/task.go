package cluster

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"time"

	"github.com/ovnd/ovnd/discovery/directory"
)

// A TaskRunner runs the tasks of services on this node; package node has it.
// For one task, PrepareTask, StartTask, WaitTask, ShutdownTask, TerminateTask
// and RemoveTask come one at a time; TaskStatus and TaskLogs come at any time.
// A ctx ends when the swarm has changed its mind: the method then returns the
// context's error soon, and may be called again.
//
// A task ends up RUNNING by PrepareTask, StartTask and WaitTask, in this order.
// One that ran when a former life of the node ended gets PrepareTask, with
// Task.Restored set, and WaitTask.
type TaskRunner interface {
	// PrepareTask makes a task ready to start: its program is there, its
	// addresses and ports are taken. t is the callee's. For a task that the
	// runner has it does nothing. An error rejects the task with its text, and
	// the orchestrator tries another one.
	//
	// With Task.Restored it takes a task of a former life over, for whose
	// sandbox it may wait some seconds to come back. An error fails the task:
	// it is gone.
	PrepareTask(ctx context.Context, t *Task) error
	// StartTask returns when the task's process runs and, if it has a health
	// check, is healthy; for one that is, at once. An error fails the task:
	// [TaskExit.Err] for a process that ended meanwhile, [ErrUnhealthy] for
	// one that never became healthy; the latter is then shut down.
	StartTask(ctx context.Context, id string) error
	// WaitTask waits for the end of a started task and says how it ended. It
	// returns [ErrUnhealthy] when the health check has failed for good: the
	// task is then shut down. Any other error fails the task; one for a task
	// that is not known says that it is gone.
	WaitTask(ctx context.Context, id string) (TaskExit, error)
	// ShutdownTask ends the task in good order: no new connections, the stop
	// signal, and after StopGrace a kill. It returns when nothing of it runs
	// any more; for a task that is not known or does not run, at once. Its
	// logs stay.
	ShutdownTask(ctx context.Context, id string) error
	// TerminateTask kills the task and returns when nothing of it runs.
	TerminateTask(ctx context.Context, id string) error
	// RemoveTask forgets a task that does not run: its addresses and its logs.
	// For one that is not known it does nothing.
	RemoveTask(ctx context.Context, id string) error

	// TaskStatus is what `inspect` shows; false for a task that is not known.
	TaskStatus(id string) (TaskStatus, bool)
	// TaskLogs calls each for what the task wrote, from the oldest line on. It
	// returns at the end of the log or, with Follow, when the task has ended
	// or ctx ends. An error of each ends it and is returned. A task that has
	// not written anything yet is no error.
	TaskLogs(ctx context.Context, id string, o LogOptions, each func(LogMessage) error) error
}

// ErrUnhealthy is what a TaskRunner returns for a task whose health check has
// failed for good. The word is the one that Docker's users find in `service ps`.
var ErrUnhealthy = errors.New("unhealthy container")

// A Task is one task of a service as this node has to run it, with all
// templates expanded. Its maps and slices are the receiver's to read, not to
// change.
type Task struct {
	ID          string
	Name        string // my-test.1.<id>; of a global service my-test.<node id>.<id>
	ServiceID   string
	ServiceName string
	NodeID      string
	Slot        uint64 // from 1; 0 for a task of a global service
	// Restored marks a task that ran in a former life of this node. Its Files
	// are empty: the swarm sends secrets and configs only later.
	Restored bool

	Image   string   // as users wrote it and Docker shows it: nginx:latest
	Command string   // Image without registry, tag and digest: nginx, ovnd/whoami
	Program []string // replaces what Command stands for (--entrypoint); or nil
	Args    []string

	Env       []string // NAME=value; NAME alone removes it from the defaults
	Dir, User string   // empty: the default
	Hostname  string   // empty: the default
	TTY       bool
	OpenStdin bool
	ReadOnly  bool // the root file system

	StopSignal string        // SIGTERM, TERM or 15; empty: SIGTERM
	StopGrace  time.Duration // from the stop signal to the kill; 0 is none
	Health     *HealthConfig // nil: no health check

	Mounts  []TaskMount
	Files   []TaskFile // secrets and configs
	Ulimits []Ulimit
	Sysctls map[string]string
	Log     LogLimits

	Labels        map[string]string // of the container, Docker's com.docker.swarm.* among them
	ServiceLabels map[string]string
	Way           directory.Way // by ServiceLabels: how connections to its VIPs are carried

	Hosts      []string // lines of /etc/hosts: "10.0.0.9 name alias"
	DNS        []string // upstream servers; none: the host's
	DNSSearch  []string
	DNSOptions []string

	// Networks are in the order of the task's interfaces, ingress first. The
	// gateway bridge is not among them.
	Networks []TaskNetwork
	Ports    []TaskPort
}

// A TaskNetwork is a task's place on a network.
type TaskNetwork struct {
	Network Network
	Addrs   []netip.Prefix // with the subnet's length; one IPv4 address today
	Aliases []string       // names of the service on this network
	VIP     netip.Addr     // of the service on this network; zero Addr: dnsrr
}

// A TaskPort is a port that the task's service publishes.
type TaskPort struct {
	directory.Port
	// HostMode ports are opened on the task's node alone, Published 0 standing
	// for any free port; others, in ingress mode, on every node.
	HostMode bool
}

// A HealthConfig says how to find out whether a task is healthy. Zero stands
// for Docker's defaults.
type HealthConfig struct {
	Test          []string // NONE; CMD and arguments; CMD-SHELL and a command line
	Interval      time.Duration
	Timeout       time.Duration
	StartPeriod   time.Duration
	StartInterval time.Duration
	Retries       int
}

// A TaskMount binds a file or folder of the node into the sandbox.
type TaskMount struct {
	Source, Target string // absolute
	ReadOnly       bool
}

// A TaskFile is a secret or config, which is kept in memory alone.
type TaskFile struct {
	Target string // absolute: /run/secrets/<name>, /<name> for a config
	Data   []byte
	Mode   fs.FileMode // permission bits
}

// A Ulimit is a resource limit of the task's processes, setrlimit(2). -1 is
// unlimited.
type Ulimit struct {
	Name       string // without RLIMIT_, lower case: nofile
	Soft, Hard int64
}

// LogLimits bound what is kept of a task's output; zero values stand for the
// runner's defaults.
type LogLimits struct {
	MaxSize  int64 // of one file, in bytes
	MaxFiles int
}

// A TaskExit is how a task ended.
type TaskExit struct {
	Code       int    // exit status; 128 and the signal's number for a killed one
	Error      string // why it could not run at all; or empty
	FinishedAt time.Time
}

// Err is nil for a task that ended well, else the error that Docker reports.
func (e TaskExit) Err() error {
	switch {
	case e.Code == 0 && e.Error == "":
		return nil
	case e.Error != "":
		return &exitError{code: e.Code, cause: errors.New(e.Error)}
	}
	return &exitError{code: e.Code}
}

// An exitError is a task's end in Docker's words. SwarmKit takes the exit code
// from it.
type exitError struct {
	code  int
	cause error
}

// Error implements error.
func (e *exitError) Error() string {
	switch {
	case e.cause == nil:
		return fmt.Sprintf("task: non-zero exit (%d)", e.code)
	case e.code == 0:
		return fmt.Sprintf("task: %v", e.cause)
	}
	return fmt.Sprintf("task: non-zero exit (%d): %v", e.code, e.cause)
}

// ExitCode implements SwarmKit's exec.ExitCoder.
func (e *exitError) ExitCode() int { return e.code }

// Unwrap gives errors.Is the cause.
func (e *exitError) Unwrap() error { return e.cause }

// A TaskStatus is what a runner knows of a task.
type TaskStatus struct {
	ContainerID string // 64 hexadecimal digits, as Docker's
	PID         int    // of its process on the host; 0: none runs
	ExitCode    int    // once it has ended
	// Ports are its host-mode ports that are open now, with the port that was
	// found for a Published of 0.
	Ports []directory.Port
}

// LogOptions say what to read of a task's log.
type LogOptions struct {
	Follow         bool
	Stdout, Stderr bool
	Since, Until   time.Time // zero: no bound
	Tail           int       // lines from the end; -1: all
}

// A LogMessage is a line of a task's output, or a part of a very long one.
type LogMessage struct {
	Time   time.Time
	Stderr bool   // else stdout
	Data   []byte // as written, with its newline; lent until each returns
}
