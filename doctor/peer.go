package doctor

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// dialPatience bounds a connection that nobody answers.
const dialPatience = 1200 * time.Millisecond

// peer is another node: whether it can be reached, and how large packets get
// there.
func (h *host) peer(ctx context.Context, p Peer) []Finding {
	name := p.Addr.String()
	if p.Name != "" {
		name = p.Name + " " + name
	}
	findings := make([]Finding, 3)
	done := make(chan struct{})
	go func() {
		defer close(done)
		findings[1] = h.pathMTU(ctx, "path to "+name, p.Addr)
	}()
	findings[0] = h.reach(ctx, "peer "+name, p)
	n := 2
	if f, compared := h.compareClock(ctx, "clock of "+name, p); compared {
		findings[2] = f
		n = 3
	}
	<-done
	return findings[:n]
}

// reach connects to the peer's gossip port.
func (h *host) reach(ctx context.Context, check string, p Peer) Finding {
	ctx, cancel := context.WithTimeout(ctx, dialPatience)
	defer cancel()
	at := netip.AddrPortFrom(p.Addr, h.cfg.Gossip)
	began := time.Now()
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", at.String())
	took := time.Since(began).Round(10 * time.Microsecond)
	switch {
	case err == nil:
		_ = conn.Close() // nothing was said
		return ok(check, "a node answers at port %d/tcp after %s", at.Port(), took)
	case errors.Is(err, unix.ECONNREFUSED) && !p.Node:
		return ok(check, "reached in %s: no node is up there yet", took)
	case errors.Is(err, unix.ECONNREFUSED):
		return warn(check, "see \"ovnd status\" there", "reached in %s, and no node has port %d/tcp there", took, at.Port())
	case timedOut(err), errors.Is(err, unix.EHOSTUNREACH):
		return fail(check, fmt.Sprintf("let %s through on the way: %d/tcp, %d/tcp, %d/udp, %d/udp", h.cfg.Addr, h.cfg.Control, h.cfg.Gossip, h.cfg.Gossip, h.cfg.DataPath),
			"no answer at port %d/tcp: the machine is down or something on the way drops packets", at.Port())
	}
	return fail(check, "see \"ip route get "+p.Addr.String()+"\"", "cannot be reached: %v", err)
}

func timedOut(err error) bool {
	e, is := errors.AsType[net.Error](err)
	return is && e.Timeout()
}

// pathMTU judges the way to a peer.
func (h *host) pathMTU(ctx context.Context, check string, addr netip.Addr) Finding {
	from, err := localAddr(net.JoinHostPort(addr.String(), "9"))
	if err != nil {
		return fail(check, "see \"ip route get "+addr.String()+"\"", "no route: %v", err)
	}
	_, link := interfaceOf(from)
	if link == 0 {
		link = wantedMTU
	}
	m, err := measurePath(ctx, addr, min(link, largestProbe))
	if err != nil {
		return warn(check, "", "its MTU was not found out: %v", err)
	}
	return judgePath(check, m, addr.Is6())
}

func judgePath(check string, m pathMTU, v6 bool) Finding {
	found := fmt.Sprintf("MTU %d", m.least)
	switch {
	case m.open:
		found = fmt.Sprintf("MTU at least %d", m.least)
	case m.most > m.least:
		found = fmt.Sprintf("MTU %d to %d", m.least, m.most)
	}
	found += " (by " + m.by + ")"
	if m.least >= wantedMTU {
		return ok(check, "%s", found)
	}
	return warn(check, smallerMTU(m.least, v6), "%s: full packets of networks need %d", found, wantedMTU)
}
