// Package doctor examines what a host allows a node: TUN, namespaces, ports,
// sockets, the way to peers, the clock, neighbours on the machine. It needs no
// privilege, works where nothing is allowed, and leaves nothing behind: what it
// tries, it tries with sockets that it closes and in namespaces that end with a
// child process.
//
// The child is this program executed again: a program that uses the package
// calls [MaybeProbe] first in main.
package doctor

import (
	"context"
	"net/netip"
	"sync"
	"time"
)

// A Level says how much a finding stands in a node's way.
type Level string

const (
	// OK is as it should be.
	OK Level = "ok"
	// Warn works with less: slower, or without a feature.
	Warn Level = "warn"
	// Fail keeps a node from what was asked for.
	Fail Level = "fail"
)

// A Finding is one thing that was looked at.
type Finding struct {
	// Check names it, the same at each run: "tun", "port 4789/udp".
	Check string `json:"Check"`
	Level Level  `json:"Level"`
	// Found is what is the case, in one line.
	Found string `json:"Found"`
	// Remedy is what to do about it: a command, where there is one.
	Remedy string `json:"Remedy,omitempty"`
}

// A Report has what Examine found, in a fixed order.
type Report struct {
	// OK says that nothing failed.
	OK       bool      `json:"OK"`
	Warnings int       `json:"Warnings"`
	Failures int       `json:"Failures"`
	Findings []Finding `json:"Findings"`
}

// A Mode says what a node does about sandboxes, as `up --tun` has it, and with
// it what their lack means.
type Mode string

const (
	// Auto does without where sandboxes cannot be had: Warn.
	Auto Mode = "auto"
	// Require does not: Fail.
	Require Mode = "require"
	// Never makes none: they are not examined.
	Never Mode = "never"
)

// Config says what to examine. The zero value is a host without a node.
type Config struct {
	Mode Mode // empty: Auto
	// Addr is the node's own; zero: that of the default route, else loopback.
	Addr netip.Addr
	// Ports to look at; zero: Docker's.
	Control, Gossip, DataPath uint16
	// StateDir is where the node's state is or will be; empty: not looked at.
	StateDir string
	// Built is when this program was: no clock can be before that. Zero: unknown.
	Built time.Time
	// NodePID is the process of the node that is up here, 0 if none is. Its
	// ports are taken by right.
	NodePID int
	Peers   []Peer
}

// A Peer is another node, or a machine that is to be one.
type Peer struct {
	Name string // empty: its address
	Addr netip.Addr
	// Control is the port of its swarm if it is a manager's, else 0.
	Control uint16
	// Node says that it is one already.
	Node bool
}

// patience bounds a whole examination.
const patience = 2500 * time.Millisecond

// Ports of Docker's swarm mode.
const (
	controlPort  = 2377
	gossipPort   = 7946
	dataPathPort = 4789
)

func (c Config) withDefaults() Config {
	if c.Mode == "" {
		c.Mode = Auto
	}
	for _, p := range []struct {
		port *uint16
		def  uint16
	}{{&c.Control, controlPort}, {&c.Gossip, gossipPort}, {&c.DataPath, dataPathPort}} {
		if *p.port == 0 {
			*p.port = p.def
		}
	}
	if !c.Addr.IsValid() {
		c.Addr = defaultAddr()
	}
	return c
}

// Examine looks at everything, at once, and takes less than three seconds. What
// ctx cuts off is reported as not found out.
func Examine(ctx context.Context, cfg Config) Report {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return newHost(cfg).examine(ctx)
}

func (h *host) examine(ctx context.Context) Report {
	checks := []func(context.Context) []Finding{
		h.system, h.sandboxes, h.sockets, h.ports, h.underlay, h.neighbours, h.clock,
	}
	found := make([][]Finding, len(checks)+len(h.cfg.Peers))
	var wg sync.WaitGroup
	for i, check := range checks {
		wg.Go(func() { found[i] = check(ctx) })
	}
	for i, p := range h.cfg.Peers {
		wg.Go(func() { found[len(checks)+i] = h.peer(ctx, p) })
	}
	wg.Wait()
	var r Report
	for _, f := range found {
		r.add(f...)
	}
	r.OK = r.Failures == 0
	return r
}

func (r *Report) add(findings ...Finding) {
	for _, f := range findings {
		switch f.Level {
		case Warn:
			r.Warnings++
		case Fail:
			r.Failures++
		}
		r.Findings = append(r.Findings, f)
	}
}
