package node

import (
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"

	"github.com/moby/moby/api/types/swarm"

	"github.com/ovnd/ovnd/cluster"
)

// Default ports, as Docker's swarm mode has them.
const (
	DefaultSwarmPort    = 2377 // TCP: SwarmKit's remote API
	DefaultGossipPort   = 7946 // TCP and UDP: NetworkDB, the same on every node of a swarm
	DefaultDataPathPort = 4789 // UDP: VXLAN (RFC 7348 §8)
)

// Config says how one node runs. Its zero value starts a one-node swarm from
// (or in) the default state folder, on the address of the default route.
type Config struct {
	// StateDir holds certificates, the raft log, keys and peers. Empty: the
	// default of DefaultStateDir, or, for an ephemeral node, a fresh folder.
	StateDir string
	// Ephemeral nodes leave the swarm and delete their state when they stop.
	Ephemeral bool

	// Hostname is shown by `node ls`; empty: that of the last run, or the host's.
	Hostname string

	// AdvertiseAddr is the address that other nodes use. A zero address is
	// chosen by DefaultAdvertiseAddr, a zero port is DefaultSwarmPort.
	AdvertiseAddr netip.AddrPort
	// ListenAddr is what the swarm port binds; zero: AdvertiseAddr.
	ListenAddr netip.AddrPort
	// DataPathAddr carries VXLAN; zero: the address of AdvertiseAddr.
	DataPathAddr netip.Addr
	// DataPathPort is the VXLAN port of the swarm, chosen by its first node;
	// 0: DefaultDataPathPort.
	DataPathPort uint16

	// JoinAddr (host:port) and JoinToken make an empty node join a swarm
	// rather than start one.
	JoinAddr, JoinToken string

	// Availability is the node's at first, as Docker's --availability has it:
	// active, pause or drain; empty: active.
	Availability swarm.NodeAvailability

	// DefaultAddrPool and SubnetSize say where a new swarm takes subnets from;
	// empty: 10.0.0.0/8 cut in /24s.
	DefaultAddrPool []netip.Prefix
	SubnetSize      uint32

	// Labels are engine labels: placement constraints see them as
	// engine.labels. Nil: those of the last run.
	Labels map[string]string

	// DNSAddr is where the node answers for the names of all its networks to
	// the machine itself; zero: nowhere.
	DNSAddr netip.AddrPort
	// HostLoopback lets sandboxes reach the machine's 127.0.0.1, at the
	// address of their gateway bridge.
	HostLoopback bool

	// ProxyAddr is where the node serves proxies to its user's programs, as
	// ADDR:PORT or the path of a unix socket; empty: nowhere. They lead to
	// ProxyNetworks; none means the only attachable network.
	ProxyAddr     string
	ProxyNetworks []string
	// Services are those whose applications run beside the node, in its network
	// namespace, and the port of 127.0.0.1 where each listens; 0: the service's.
	Services map[string]uint16

	// TUN is what becomes of tasks where no sandbox can be had: TUNAuto (the
	// default), TUNRequire or TUNNever.
	TUN string

	Log *slog.Logger // nil: slog.Default
}

// Paths are the files that a node and its clients meet at.
type Paths struct {
	StateDir      string // 0700
	RuntimeDir    string // 0700: sockets
	APISocket     string // Docker Engine API and ovnd's own calls
	SandboxSocket string // sandboxes hand their devices over here
	SwarmSocket   string // SwarmKit's control API, not for users
	LogFile       string // of a node in the background
	PIDFile       string
}

// clusterDir is the part of the state folder that package cluster owns.
func clusterDir(stateDir string) string { return filepath.Join(stateDir, "swarm") }

// HasSwarm reports whether the state folder makes the node a member of a
// swarm, so that starting it joins or makes no other.
func (p Paths) HasSwarm() bool { return cluster.HasState(clusterDir(p.StateDir)) }

// Prepare makes the folders, for this user alone. One that exists and belongs
// to somebody else, or that others may enter, is refused: it will hold keys.
func (p Paths) Prepare() error {
	for _, dir := range []string{p.StateDir, p.RuntimeDir} {
		if err := privateDir(dir); err != nil {
			return err
		}
	}
	return nil
}

// maxSocketPath is the size of sun_path less its NUL (unix(7)).
const maxSocketPath = 107

// ResolvePaths names the files of the node whose state is in stateDir. Empty
// means the default node: /var/lib/ovnd for root, else the XDG state folder,
// with sockets in the XDG runtime folder. A node elsewhere keeps its sockets
// beside its state, so that several nodes of one user do not meet.
func ResolvePaths(stateDir string) (Paths, error) {
	runtimeDir := ""
	if stateDir == "" {
		stateDir = DefaultStateDir()
		runtimeDir = defaultRuntimeDir()
	}
	stateDir, err := filepath.Abs(stateDir)
	if err != nil {
		return Paths{}, fmt.Errorf("--state-dir: %w", err)
	}
	if runtimeDir == "" {
		runtimeDir = filepath.Join(stateDir, "run")
	}
	p := Paths{
		StateDir:      stateDir,
		RuntimeDir:    runtimeDir,
		APISocket:     filepath.Join(runtimeDir, "ovnd.sock"),
		SandboxSocket: filepath.Join(runtimeDir, "sandbox.sock"),
		SwarmSocket:   filepath.Join(runtimeDir, "swarm.sock"),
		LogFile:       filepath.Join(stateDir, "ovnd.log"),
		PIDFile:       filepath.Join(runtimeDir, "ovnd.pid"),
	}
	if n := len(p.SandboxSocket); n > maxSocketPath {
		return Paths{}, fmt.Errorf("--state-dir: socket path %s has %d bytes, a unix socket's may have %d: choose a shorter folder", p.SandboxSocket, n, maxSocketPath)
	}
	return p, nil
}

// DefaultStateDir is where the default node of this user keeps its state
// (XDG Base Directory Specification; root: /var/lib/ovnd).
func DefaultStateDir() string {
	if os.Geteuid() == 0 {
		return "/var/lib/ovnd"
	}
	if dir := os.Getenv("XDG_STATE_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "ovnd")
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return filepath.Join(os.TempDir(), "ovnd-state-"+strconv.Itoa(os.Getuid()))
	}
	return filepath.Join(home, ".local", "state", "ovnd")
}

// defaultRuntimeDir is empty where the system offers no runtime folder.
func defaultRuntimeDir() string {
	if os.Geteuid() == 0 {
		return "/run/ovnd"
	}
	if dir := os.Getenv("XDG_RUNTIME_DIR"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "ovnd")
	}
	return ""
}

// ParseAddr reads what the address flags take: an IP address or the name of an
// interface, each with an optional port. A port that is not given is 0.
func ParseAddr(flag, s string) (netip.AddrPort, error) {
	ap, err := cluster.ResolveAddr(s, 0)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("%s: %w", flag, err)
	}
	return ap, nil
}
