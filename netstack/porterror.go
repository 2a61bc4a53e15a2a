package netstack

import (
	"errors"
	"fmt"
	"io/fs"
	"syscall"

	"github.com/ovnd/ovnd/discovery/directory"
)

// A PortError says why a node cannot publish a port, and what to do about it.
type PortError struct {
	Node string // its host name
	Port directory.Port
	Err  error
}

// Error names the node, the port, the reason and the remedy.
func (e *PortError) Error() string {
	return fmt.Sprintf("node %s cannot publish port %d/%s: %s", e.Node, e.Port.Published, e.Port.Protocol, e.reason())
}

// Unwrap returns the reason.
func (e *PortError) Unwrap() error { return e.Err }

func (e *PortError) reason() string {
	switch {
	case errors.Is(e.Err, fs.ErrPermission):
		return "permission denied: choose a port of 1024 or more, or lower net.ipv4.ip_unprivileged_port_start there"
	case errors.Is(e.Err, syscall.EADDRINUSE):
		return "something else listens at it: stop that, or choose another port"
	case errors.Is(e.Err, syscall.EADDRNOTAVAIL):
		return "the node's address is not one of that machine: give the right one with --advertise-addr"
	case errors.Is(e.Err, syscall.EMFILE), errors.Is(e.Err, syscall.ENFILE):
		return "too many open files: raise the limit (ulimit -n) and restart the node"
	}
	return e.Err.Error()
}
