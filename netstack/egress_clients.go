package netstack

import (
	"net/netip"
	"sync"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// egressClients counts what each sandbox has under way, so that none has it all.
type egressClients struct {
	cfg    *EgressConfig
	mu     sync.Mutex
	closed bool
	by     map[netip.Addr]*egressUse
	total  egressUse
	dials  map[stack.TransportEndpointID]*egressDial
	conns  map[*egressConn]struct{}
}

// An egressUse is how much one sandbox, or all, have.
type egressUse struct{ dials, conns, flows int }

// An egressDial is a connection that is not established yet.
type egressDial struct {
	client netip.Addr
	seq    uint32 // of the client's SYN, by which it recognises errors
}

func (c *egressClients) init(cfg *EgressConfig) {
	c.cfg = cfg
	c.by = make(map[netip.Addr]*egressUse)
	c.dials = make(map[stack.TransportEndpointID]*egressDial)
	c.conns = make(map[*egressConn]struct{})
}

// use returns what a client has. c.mu is held.
func (c *egressClients) use(client netip.Addr) *egressUse {
	u := c.by[client]
	if u == nil {
		u = &egressUse{}
		c.by[client] = u
	}
	return u
}

// tidy forgets a client that has nothing. c.mu is held.
func (c *egressClients) tidy(client netip.Addr) {
	if u := c.by[client]; u != nil && *u == (egressUse{}) {
		delete(c.by, client)
	}
}

// dial admits a connection that a client asks for. begin is called if it is.
func (c *egressClients) dial(id stack.TransportEndpointID, d *egressDial, begin func()) admission {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.dials[id]; ok {
		return repeated
	}
	defer c.tidy(d.client)
	u := c.use(d.client)
	if c.closed ||
		c.total.dials >= c.cfg.MaxDials || u.dials >= share(c.cfg.MaxDials) ||
		c.total.conns >= c.cfg.MaxConnections || u.conns >= share(c.cfg.MaxConnections) {
		return refused
	}
	c.dials[id] = d
	c.total.dials++
	u.dials++
	begin()
	return admitted
}

// dialed ends the dial id and returns it.
func (c *egressClients) dialed(id stack.TransportEndpointID) *egressDial {
	c.mu.Lock()
	defer c.mu.Unlock()
	d := c.dials[id]
	if d != nil {
		delete(c.dials, id)
		c.total.dials--
		c.by[d.client].dials--
		c.tidy(d.client)
	}
	return d
}

// open counts a connection. It returns false if there is no room, or the egress
// ends.
func (c *egressClients) open(conn *egressConn) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	defer c.tidy(conn.client)
	u := c.use(conn.client)
	if c.closed || c.total.conns >= c.cfg.MaxConnections || u.conns >= share(c.cfg.MaxConnections) {
		return false
	}
	c.conns[conn] = struct{}{}
	c.total.conns++
	u.conns++
	return true
}

// ended takes an open connection out.
func (c *egressClients) ended(conn *egressConn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.conns, conn)
	c.total.conns--
	c.by[conn.client].conns--
	c.tidy(conn.client)
}

// addFlow counts a flow. full is set if the client, or all, have too many.
func (c *egressClients) addFlow(client netip.Addr) (ok, full bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	defer c.tidy(client)
	u := c.use(client)
	if full = c.total.flows >= c.cfg.MaxFlows || u.flows >= share(c.cfg.MaxFlows); full || c.closed {
		return false, full
	}
	c.total.flows++
	u.flows++
	return true, false
}

// flowsFull reports whether a client has as many flows as it may.
func (c *egressClients) flowsFull(client netip.Addr) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	u := c.by[client]
	return u != nil && u.flows >= share(c.cfg.MaxFlows)
}

func (c *egressClients) removeFlow(client netip.Addr) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.total.flows--
	c.by[client].flows--
	c.tidy(client)
}

func (c *egressClients) count() (dials, conns, flows int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.total.dials, c.total.conns, c.total.flows
}

// close resets all connections; from now on nothing is admitted.
func (c *egressClients) close() {
	c.mu.Lock()
	c.closed = true
	all := make([]*egressConn, 0, len(c.conns))
	for conn := range c.conns {
		all = append(all, conn)
	}
	c.mu.Unlock()
	for _, conn := range all {
		conn.reset()
	}
}

// clientOf returns who sent a packet, and where to.
func clientOf(id stack.TransportEndpointID) (from, to netip.AddrPort) {
	port := func(a tcpip.Address, p uint16) netip.AddrPort { return netip.AddrPortFrom(fromAddr(a), p) }
	return port(id.RemoteAddress, id.RemotePort), port(id.LocalAddress, id.LocalPort)
}
