package types

import "net/netip"

// ProxyRequest is the body of POST /ovnd/proxy: the node serves SOCKS5 and HTTP
// proxies at an address of its machine for as long as the request lasts. The
// answer is a [ProxySession]; if the session ends before the request does, a
// [ProxyEnd] follows.
type ProxyRequest struct {
	// Networks by name, ID or an unambiguous prefix of it; the first that knows a
	// name wins. Empty: the only attachable network.
	Networks []string `json:"Networks,omitempty"`
	// Listen is ADDR:PORT, or the absolute path of a unix socket. Port 0: a free
	// one.
	Listen string `json:"Listen"`
	// AllUsers lets in whoever can connect, without credentials.
	AllUsers bool `json:"AllUsers,omitempty"`
}

// ForwardRequest is the body of POST /ovnd/forward: TCP connections to an address
// of the machine go to a name and port of the overlay, for as long as the request
// lasts. It is answered as a [ProxyRequest] is.
type ForwardRequest struct {
	Networks []string `json:"Networks,omitempty"`
	Listen   string   `json:"Listen"`
	AllUsers bool     `json:"AllUsers,omitempty"`
	// Target is NAME:PORT.
	Target string `json:"Target"`
}

// ExposeRequest is the body of POST /ovnd/expose: a program of the machine is an
// endpoint of a network, with an address and a name of its own, for as long as
// the request lasts. It is answered as a [ProxyRequest] is.
type ExposeRequest struct {
	Networks []string `json:"Networks,omitempty"` // one
	// Name of the endpoint, as of a sandbox.
	Name string `json:"Name"`
	// Port on the network.
	Port uint16 `json:"Port"`
	// Protocol is "tcp" or "udp"; empty: tcp.
	Protocol string `json:"Protocol,omitempty"`
	// Target is where the program listens, as seen from the node.
	Target netip.AddrPort `json:"Target"`
}

// ConnectRequest is the body of POST /ovnd/connect, which is answered with status
// 101 once the connection stands, and is that connection from then on.
type ConnectRequest struct {
	Networks []string `json:"Networks,omitempty"`
	// Target is NAME:PORT.
	Target string `json:"Target"`
}

// ProxySession says what has been opened, in one line of JSON.
type ProxySession struct {
	// Listen is the address, or path, of the machine; empty for expose.
	Listen string `json:"Listen,omitempty"`
	// Networks by name.
	Networks []string `json:"Networks"`
	// Address of the endpoint, for expose.
	Address netip.Addr `json:"Address,omitzero"`
	// Env are the lines that make programs use a proxy.
	Env []string `json:"Env,omitempty"`
}

// ProxyEnd says why a session ended, in one line of JSON.
type ProxyEnd struct {
	Error string `json:"Error"`
}

// ProxyEnv is the answer to GET /ovnd/env: how programs use the node's own proxy,
// that of `up --proxy`.
type ProxyEnv struct {
	// Listen is the proxy's address.
	Listen   string   `json:"Listen"`
	Networks []string `json:"Networks"`
	// Env are lines of NAME=VALUE, the credentials in them.
	Env []string `json:"Env"`
}

// ProxyState is one proxy, forward or exposed program of a node.
type ProxyState struct {
	// Kind is "proxy", "forward" or "expose".
	Kind string `json:"Kind"`
	// Listen is an address or path of the machine; for expose the name, address
	// and port on the network.
	Listen string `json:"Listen"`
	// Target is what a forward leads to, or the exposed program's address.
	Target   string   `json:"Target,omitempty"`
	Networks []string `json:"Networks"`
	// Connections of TCP at present.
	Connections int `json:"Connections"`
}

// TUNState says whether a node's tasks have namespaces and devices of their own.
type TUNState struct {
	// Mode is what the node was told: "auto", "require" or "never".
	Mode string `json:"Mode"`
	// Sandboxes says that tasks live in namespaces, behind TUN devices. Else they
	// are processes of the machine, and reach the networks through proxies.
	Sandboxes bool `json:"Sandboxes"`
	// Reason says why there are no sandboxes.
	Reason string `json:"Reason,omitempty"`
}
