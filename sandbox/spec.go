package sandbox

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/ovnd/ovnd/encap"
)

// An Interface is one network device of a sandbox. The JSON form travels on
// the node's socket.
type Interface struct {
	Name        string         `json:"name"` // "eth0"; at most 15 bytes
	NetworkID   string         `json:"network_id"`
	NetworkName string         `json:"network_name"`
	EndpointID  string         `json:"endpoint_id"`
	Addrs       []netip.Prefix `json:"addrs"` // address and length of its subnet
	MAC         encap.MAC      `json:"mac"`   // on the wire; a TUN device itself has none
	MTU         int            `json:"mtu"`   // of inner IP packets
	Queues      int            `json:"queues"`
	Gateway     netip.Addr     `json:"gateway,omitzero"` // of the default route; zero: none
	Routes      []netip.Prefix `json:"routes,omitempty"` // beyond the subnets, without gateway
}

// A HostEntry is one line of /etc/hosts.
type HostEntry struct {
	Addr  netip.Addr
	Names []string
}

// A Spec says what surrounds a command. The node makes it when it attaches a
// sandbox to networks.
type Spec struct {
	ID         string // 64 hexadecimal digits, the container ID
	Name       string
	Hostname   string // empty: the first 12 digits of ID, as Docker
	Interfaces []Interface
	Hosts      []HostEntry // beyond localhost and the sandbox's own addresses
	ResolvConf []byte      // nil: the host's file stays
	Resolver   bool        // the init opens 127.0.0.11:53 for the node
	// Bare has the command of a task be a process of the machine: no namespaces,
	// the machine's files and network. The init looks after it as after any.
	// Interfaces, if there are any, are made in the network namespace that the
	// node is in, which takes CAP_NET_ADMIN there. Hosts, ResolvConf and Resolver
	// are of no use, nor are a Task's Mounts and Files.
	Bare       bool
	NodeSocket string // path of the node's sandbox socket
	Token      string // secret that proves to the node that the ID is ours
}

// A Command is what runs in a sandbox.
type Command struct {
	Args []string // Args[0] is looked up in PATH
	// Env is added to the environment of the calling process and wins over it.
	Env []string
	Dir string // empty: the caller's
	// Nil means the caller's own file. The init inherits them: no goroutine
	// copies.
	Stdin, Stdout, Stderr *os.File
}

// Limits of a Spec. A descriptor message carries 253 descriptors at most
// (SCM_MAX_FD, include/net/scm.h).
const (
	maxDevices     = 64
	maxDescriptors = 253
	maxQueues      = maxDescriptors - resolverSockets - 1 // and the command's pidfd
	maxDeviceName  = 15                                   // IFNAMSIZ - 1
	maxHostname    = 64                                   // __NEW_UTS_LEN
	maxToken       = 256                                  // bytes
	idLen          = 64
	minMTU         = 68 // RFC 791
	maxMTU         = 65535
)

func (s *Spec) validate() error {
	if err := validateID(s.ID); err != nil {
		return err
	}
	if len(s.hostname()) > maxHostname {
		return fmt.Errorf("hostname %q is longer than %d bytes: choose a shorter --hostname", s.hostname(), maxHostname)
	}
	if s.NodeSocket == "" || s.Token == "" {
		return errors.New("sandbox: spec without node socket or token")
	}
	return validateInterfaces(s.Interfaces)
}

func (s *Spec) hostname() string {
	if s.Hostname != "" {
		return s.Hostname
	}
	return s.ID[:12]
}

func validateID(id string) error {
	if len(id) != idLen || strings.Trim(id, "0123456789abcdef") != "" {
		return fmt.Errorf("sandbox ID %q is not %d hexadecimal digits", id, idLen)
	}
	return nil
}

func validateInterfaces(ifs []Interface) error {
	if len(ifs) > maxDevices {
		return fmt.Errorf("%d interfaces: a sandbox has at most %d", len(ifs), maxDevices)
	}
	names := make(map[string]bool, len(ifs))
	queues := 0
	for i := range ifs {
		in := &ifs[i]
		if err := in.validate(); err != nil {
			return fmt.Errorf("interface %q: %w", in.Name, err)
		}
		if names[in.Name] {
			return fmt.Errorf("interface %q is there twice", in.Name)
		}
		names[in.Name] = true
		queues += in.Queues
	}
	if queues > maxQueues {
		return fmt.Errorf("%d queues: a sandbox has at most %d", queues, maxQueues)
	}
	return nil
}

func (in *Interface) validate() error {
	if in.Name == "" || len(in.Name) > maxDeviceName || strings.ContainsAny(in.Name, "/% \t\n") ||
		in.Name == "." || in.Name == ".." || in.Name == "lo" {
		return errors.New("not a name for a network device")
	}
	if in.MTU < minMTU || in.MTU > maxMTU {
		return fmt.Errorf("MTU %d is not in %d to %d", in.MTU, minMTU, maxMTU)
	}
	if in.Queues < 1 || in.Queues > maxQueues {
		return fmt.Errorf("%d queues are not in 1 to %d", in.Queues, maxQueues)
	}
	for _, p := range slices.Concat(in.Addrs, in.Routes) {
		if !p.IsValid() {
			return errors.New("an address or route is missing or malformed")
		}
	}
	return nil
}

func (in *Interface) hasIPv6() bool {
	for _, p := range in.Addrs {
		if p.Addr().Is6() {
			return true
		}
	}
	return false
}
