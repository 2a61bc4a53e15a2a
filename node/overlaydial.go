package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/ovnd/ovnd/discovery/resolver"
	"github.com/ovnd/ovnd/encap"
	"github.com/ovnd/ovnd/netstack/proxy"
)

const (
	// gossipPatience is how long names of a network that was just joined may take
	// to become known: NetworkDB's exchanges are repeated after 1 s and 4 s.
	gossipPatience = 5 * time.Second
	namePause      = 50 * time.Millisecond
	// dialPatience is how long the addresses of one name are tried in all, and
	// leastPatience each of them.
	dialPatience  = 10 * time.Second
	leastPatience = 2 * time.Second
)

// An overlayDialer connects programs of this machine: to the names and addresses
// of networks from an endpoint there, to all else from the machine itself, as
// sandboxes do by the gateway bridge. It implements proxy.Dialer.
type overlayDialer struct {
	s *sandboxes
	// hosts returns the endpoints to connect from, one to a network, in the order
	// in which names are looked up. They stay while their connections do.
	hosts func(ctx context.Context) ([]dialHost, error)
}

// A dialHost is an endpoint that connections may come from.
type dialHost struct {
	*stackHost
	networkID, network string
	internal           bool
	since              time.Time // of its network on this node
}

var _ proxy.Dialer = (*overlayDialer)(nil)

// DialContext implements proxy.Dialer.
func (d *overlayDialer) DialContext(ctx context.Context, network, addr string) (net.Conn, error) {
	name, port, err := splitTarget(addr)
	if err != nil {
		return nil, fmt.Errorf("%s: %w: %w", addr, proxy.ErrNoName, err)
	}
	hosts, err := d.hosts(ctx)
	if err != nil {
		return nil, err
	}
	c := call{d: d, hosts: hosts, network: network, name: name, port: port}
	if ip, err := netip.ParseAddr(name); err == nil {
		return c.dialAddr(ctx, ip.Unmap())
	}
	return c.dialName(ctx)
}

// splitTarget reads NAME:PORT.
func splitTarget(s string) (name string, port uint16, err error) {
	name, portText, err := net.SplitHostPort(s)
	if err != nil || name == "" {
		return "", 0, errors.New("want NAME:PORT")
	}
	if strings.ContainsAny(name, "/ ") {
		return "", 0, errors.New("want NAME:PORT, with nothing before or behind it")
	}
	n, err := strconv.ParseUint(portText, 10, 16)
	if err != nil || n == 0 {
		return "", 0, errors.New("want a port from 1 to 65535")
	}
	return name, uint16(n), nil
}

// A call is one connection that is asked for.
type call struct {
	d       *overlayDialer
	hosts   []dialHost
	network string // "tcp" or "udp"
	name    string
	port    uint16
}

func (c *call) String() string { return net.JoinHostPort(c.name, strconv.Itoa(int(c.port))) }

// dialAddr connects to an address: on the network that it belongs to, or outside.
// While a network's subnets are not known, it does neither: what is meant for an
// encrypted network must not leave in clear text.
func (c *call) dialAddr(ctx context.Context, ip netip.Addr) (net.Conn, error) {
	for _, h := range c.hosts {
		snap := c.d.s.store.Load(h.networkID)
		if snap == nil {
			return nil, fmt.Errorf("%s: a network of the proxy is just being joined or left: try again", c)
		}
		if snap.Contains(ip) {
			return c.dialEach(ctx, []netip.Addr{ip}, h.DialContext)
		}
	}
	return c.dialOutside(ctx, []netip.Addr{ip})
}

// dialName connects to a name. What no network knows is asked of the machine's
// resolver, as sandboxes have it: a name without dots only once the networks have
// had the time to know it.
func (c *call) dialName(ctx context.Context) (net.Conn, error) {
	askedOutside := false
	for {
		addrs, h, known := c.lookup()
		if len(addrs) > 0 {
			return c.dialEach(ctx, addrs, h.DialContext)
		}
		young := c.young()
		if !known && (!young || strings.Contains(c.name, ".")) && !askedOutside {
			askedOutside = true
			addrs, err := c.lookupOutside(ctx)
			if err == nil {
				return c.dialOutside(ctx, addrs)
			}
			if !young || !errors.Is(err, proxy.ErrNoName) {
				return nil, err
			}
		}
		if !young {
			return nil, c.unknown(known)
		}
		select {
		case <-time.After(namePause):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (c *call) unknown(known bool) error {
	if known {
		return fmt.Errorf("%s: %w: nothing of that name takes connections now", c, proxy.ErrUnavailable)
	}
	return fmt.Errorf("%s: %w on %s", c, proxy.ErrNoName, c.networks())
}

func (c *call) networks() string {
	if len(c.hosts) == 0 {
		return "any network"
	}
	names := make([]string, len(c.hosts))
	for i, h := range c.hosts {
		names[i] = h.network
	}
	return "network " + strings.Join(names, ", ")
}

// lookup asks the networks.
func (c *call) lookup() (addrs []netip.Addr, at dialHost, known bool) {
	ids := make([]string, len(c.hosts))
	for i, h := range c.hosts {
		ids[i] = h.networkID
	}
	addrs, id, known := c.d.s.resolver.Lookup(resolver.Scope{Networks: ids}, c.name)
	if i := slices.Index(ids, id); i >= 0 {
		at = c.hosts[i]
	}
	return addrs, at, known
}

// young reports whether a network was joined so lately that it may not know all
// its names.
func (c *call) young() bool {
	return slices.ContainsFunc(c.hosts, func(h dialHost) bool { return time.Since(h.since) < gossipPatience })
}

// internal reports whether the world outside is closed: all networks are
// --internal.
func (c *call) internal() bool {
	return len(c.hosts) > 0 && !slices.ContainsFunc(c.hosts, func(h dialHost) bool { return !h.internal })
}

func (c *call) lookupOutside(ctx context.Context) ([]netip.Addr, error) {
	if c.internal() {
		return nil, c.unknown(false)
	}
	if slices.ContainsFunc(c.hosts, func(h dialHost) bool { return c.d.s.store.Load(h.networkID) == nil }) {
		return nil, fmt.Errorf("%s: a network of the proxy is just being joined or left: try again", c) // the name is its, maybe
	}
	addrs, err := net.DefaultResolver.LookupNetIP(ctx, "ip", c.name)
	var dnsErr *net.DNSError
	switch {
	case err == nil:
		return addrs, nil
	case errors.As(err, &dnsErr) && !dnsErr.IsTemporary && !dnsErr.IsTimeout:
		return nil, c.unknown(false)
	}
	return nil, fmt.Errorf("%w, and this machine's resolver does not answer: %w", c.unknown(false), err)
}

// dialEach connects to the first of several addresses that answers.
func (c *call) dialEach(ctx context.Context, addrs []netip.Addr, dial func(context.Context, string, netip.AddrPort) (net.Conn, error)) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialPatience)
	defer cancel()
	var last error
	for i, a := range addrs {
		deadline, _ := ctx.Deadline()
		each := max(time.Until(deadline)/time.Duration(len(addrs)-i), leastPatience)
		attempt, cancelOne := context.WithTimeout(ctx, each)
		conn, err := dial(attempt, c.network, netip.AddrPortFrom(a, c.port))
		cancelOne()
		if err == nil {
			return conn, nil
		}
		if last = err; ctx.Err() != nil {
			break
		}
	}
	if errors.Is(last, syscall.ETIMEDOUT) || errors.Is(last, context.DeadlineExceeded) {
		return nil, fmt.Errorf("%s: no answer: %w", c, last)
	}
	return nil, fmt.Errorf("%s: %w", c, last)
}

// dialOutside connects from the machine, to where sandboxes may go too.
func (c *call) dialOutside(ctx context.Context, addrs []netip.Addr) (net.Conn, error) {
	m, err := c.d.s.inSwarm()
	if err != nil {
		return nil, err
	}
	if c.internal() {
		return nil, fmt.Errorf("%s: %w: %s is --internal", c, proxy.ErrForbidden, c.networks())
	}
	protocol := encap.ProtocolTCP
	if c.network == "udp" {
		protocol = encap.ProtocolUDP
	}
	permitted := slices.DeleteFunc(slices.Clone(addrs), func(a netip.Addr) bool {
		_, ok := m.bridge.Permits(protocol, netip.AddrPortFrom(a.Unmap(), c.port))
		return !ok
	})
	if len(permitted) == 0 {
		return nil, fmt.Errorf("%s: %w: neither an address of %s nor one of the world outside", c, proxy.ErrForbidden, c.networks())
	}
	return c.dialEach(ctx, permitted, func(ctx context.Context, network string, to netip.AddrPort) (net.Conn, error) {
		target, _ := m.bridge.Permits(protocol, to) // it was permitted
		return new(net.Dialer).DialContext(ctx, network, target.String())
	})
}
