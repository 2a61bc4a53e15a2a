package doctor

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// clock is this machine's, on which the validity of certificates hangs.
func (h *host) clock(context.Context) []Finding {
	now := time.Now()
	var t unix.Timex
	state, err := unix.Adjtimex(&t) // no mode set: only asks
	return []Finding{h.judgeClock(now, err == nil && state != unix.TIME_ERROR && t.Status&unix.STA_UNSYNC == 0, err)}
}

func (h *host) judgeClock(now time.Time, synchronised bool, err error) Finding {
	text := now.UTC().Format(time.RFC3339)
	remedy := h.onHost("sudo timedatectl set-ntp true")
	switch {
	case now.Before(h.cfg.Built):
		return fail("clock", remedy, "%s is before this program was built (%s): certificates will not be valid", text, h.cfg.Built.UTC().Format(time.DateOnly))
	case err != nil:
		return ok("clock", "%s; whether it is synchronised cannot be asked (%v)", text, err)
	case !synchronised:
		return warn("clock", remedy, "%s, not synchronised: certificates stop being valid if it is an hour off", text)
	}
	return ok("clock", "%s, synchronised", text)
}

// compareClock compares the clock with a manager's: its certificate was made
// valid from an hour before its issue, so that a clock outside of it is wrong.
// It reports false where no manager's certificate could be had.
func (h *host) compareClock(ctx context.Context, check string, p Peer) (f Finding, compared bool) {
	port := p.Control
	if port == 0 {
		port = h.cfg.Control
	}
	cert := certificate(ctx, netip.AddrPortFrom(p.Addr, port))
	if cert == nil {
		return f, false
	}
	return judgeCertificate(check, h.onHost("sudo timedatectl set-ntp true"), cert, time.Now()), true
}

func judgeCertificate(check, remedy string, cert *x509.Certificate, now time.Time) Finding {
	const day = 24 * time.Hour
	switch {
	case now.Before(cert.NotBefore):
		return fail(check, remedy, "it is ahead of ours by %s at least: its certificate begins then", cert.NotBefore.Sub(now).Round(time.Minute))
	case now.After(cert.NotAfter):
		return fail(check, remedy+", here or there", "ours is ahead, or its certificate was not renewed: it ended %s ago", now.Sub(cert.NotAfter).Round(time.Minute))
	}
	return ok(check, "its certificate is valid by our clock, for %d days more", int(cert.NotAfter.Sub(now)/day))
}

// certificate is what a swarm's manager shows, nil if nobody does.
func certificate(ctx context.Context, at netip.AddrPort) *x509.Certificate {
	ctx, cancel := context.WithTimeout(ctx, dialPatience)
	defer cancel()
	d := tls.Dialer{
		NetDialer: new(net.Dialer),
		// Nothing is trusted: the dates of what is shown are read.
		Config: &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}, MinVersion: tls.VersionTLS12},
	}
	conn, err := d.DialContext(ctx, "tcp", at.String())
	if err != nil {
		return nil
	}
	defer conn.Close()
	c, isTLS := conn.(*tls.Conn)
	if !isTLS || len(c.ConnectionState().PeerCertificates) == 0 {
		return nil
	}
	return c.ConnectionState().PeerCertificates[0]
}
