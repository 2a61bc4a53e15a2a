package api

import (
	"context"
	"io"
	"net/netip"
	"syscall"
	"time"

	"github.com/moby/moby/api/types/container"
)

// Container describes a task or a process of `ovnd run`. What it points to
// belongs to the backend and does not change: a change makes new values.
type Container struct {
	ID      string // 64 hexadecimal digits
	Name    string // "my-test.1.js3kw89zbb09plu86jn1xnsy6", no slash in front
	Image   string // as the service has it; of `ovnd run`, the program's name
	Args    []string
	Env     []string // empty if unknown
	Dir     string
	User    string
	Created time.Time
	// Labels of the container. A task's have com.docker.swarm.task.id among
	// them, which tells it from a process of `ovnd run`.
	Labels   map[string]string
	Hostname string

	TTY, OpenStdin, ReadOnly bool

	StopSignal string        // "SIGQUIT"; empty: SIGTERM
	StopGrace  time.Duration // 0: Docker's 10 s
	Health     *container.HealthConfig
	Mounts     []container.MountPoint
	Ulimits    []container.Ulimit

	Hosts, DNS, DNSSearch, DNSOptions []string

	LogPath string // empty: what it writes is not kept
	State   ContainerState
	// Networks in the order of the interfaces.
	Networks []ContainerNetwork
	Ports    []ContainerPort
}

// ContainerState is where a container is in its life.
type ContainerState struct {
	// Status is created, running or exited.
	Status     container.ContainerState
	PID        int // of the command, in the node's PID namespace; 0 unless running
	ExitStatus     // once it has ended
	StartedAt  time.Time
	Health     *container.Health // nil: there are no checks
}

// ExitStatus is how a container ended.
type ExitStatus struct {
	// Code as Docker has it: 128 plus the signal for a command that a signal
	// ended, 126 or 127 for one that could not be started.
	Code       int
	Error      string // why it could not be started
	FinishedAt time.Time
}

// ContainerNetwork is one interface of a container.
type ContainerNetwork struct {
	Name, NetworkID, EndpointID string
	// Addr with the length of its subnet.
	Addr    netip.Prefix
	Gateway netip.Addr // the zero Addr: none, as Docker shows of an overlay
	MAC     [6]byte
	// Aliases were given by the user; DNSNames are all names of the endpoint.
	Aliases, DNSNames []string
	// Static says that the address was asked for or is that of a task, which
	// inspect shows as IPAMConfig.
	Static bool
}

// ContainerPort is a port of a container.
type ContainerPort struct {
	Protocol string // "tcp", "udp", "sctp"
	Target   uint16
	// Published on HostIP of this node in mode host; 0: only exposed.
	Published uint16
	HostIP    netip.Addr
}

// LogOptions say which lines of a log are wanted.
type LogOptions struct {
	Stdout, Stderr bool
	Follow         bool
	// Since and Until are the first and last moments; zero: no bound.
	Since, Until time.Time
	Tail         int // so many of the last lines; negative: all
}

// LogLine is one line of a log.
type LogLine struct {
	Time   time.Time
	Stderr bool
	// Data with its line end, if the container wrote one.
	Data []byte
}

// ExecConfig is a command to run in a container.
type ExecConfig struct {
	Args []string
	Env  []string // besides the container's own
	Dir  string   // empty: the container's
	TTY  bool
	// Rows and Columns of the terminal, 0 if unknown.
	Rows, Columns uint16
	// Stdin, Stdout and Stderr that are false are /dev/null. With a TTY its
	// one stream is Stdin and Stdout.
	Stdin, Stdout, Stderr bool
}

// ExecProcess is a command that was started by ContainerExec.
type ExecProcess interface {
	// PID in the node's PID namespace.
	PID() int
	// Stdin is the command's; closing it is the command's end of file. Nil if
	// it was not asked for.
	Stdin() io.WriteCloser
	// Stdout and Stderr end with io.EOF when the command and all that shares
	// its output have closed it. Nil if not asked for, Stderr with a TTY too.
	Stdout() io.Reader
	Stderr() io.Reader
	// Resize sets the size of the terminal. Without one it is an error.
	Resize(rows, columns uint16) error
	// Wait returns the exit code when the command has ended, 128 plus the
	// signal if one ended it; an error if that cannot be known any more.
	Wait(ctx context.Context) (code int, err error)
	// Close closes this end of all streams: reads under way return, and a
	// command on a TTY gets SIGHUP. The command may go on. Calls after the
	// first do nothing.
	Close() error
}

// StopOptions say how to stop a container.
type StopOptions struct {
	Signal syscall.Signal // 0: the container's own
	// Grace before SIGKILL. Nil: the container's own; negative: for ever.
	Grace *time.Duration
}
