package traffic

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
)

// dialTCP connects to an address of the sink, by way of the proxy if there is one.
func (s *Source) dialTCP(ctx context.Context, d *net.Dialer, to netip.AddrPort) (*net.TCPConn, error) {
	if !s.spec.SOCKS.IsValid() {
		conn, err := d.DialContext(ctx, "tcp", to.String())
		if err != nil {
			return nil, err
		}
		return conn.(*net.TCPConn), nil
	}
	conn, err := d.DialContext(ctx, "tcp", s.spec.SOCKS.String())
	if err != nil {
		return nil, err
	}
	defer onEnd(ctx, func() { _ = conn.Close() })()
	if err := connectSOCKS(conn, netip.AddrPortFrom(s.spec.SOCKSTo, to.Port())); err != nil {
		_ = conn.Close() // the first error says more
		return nil, err
	}
	return conn.(*net.TCPConn), nil
}

// connectSOCKS asks a proxy for a connection (RFC 1928 §4), without credentials.
func connectSOCKS(conn io.ReadWriter, to netip.AddrPort) error {
	const version, connect, ipv4 = 5, 1, 1
	addr := to.Addr().As4() // benchmarks' overlays have IPv4
	request := append([]byte{version, 1, 0, version, connect, 0, ipv4}, addr[:]...)
	if _, err := conn.Write(binary.BigEndian.AppendUint16(request, to.Port())); err != nil {
		return err
	}
	var answer [2 + 10]byte // to the greeting, and to the request
	if _, err := io.ReadFull(conn, answer[:]); err != nil {
		return fmt.Errorf("proxy: %w", err)
	}
	if answer[1] != 0 || answer[3] != 0 {
		return errors.New("the proxy refuses")
	}
	return nil
}
