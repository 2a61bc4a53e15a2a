package lab

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Ping configures [Host.Ping].
type Ping struct {
	Size int        // bytes of the whole IP packet; 0: 84 (IPv4) or 104 (IPv6), as ping(8)
	DF   bool       // refuse to fragment, at the sender too
	Src  netip.Addr // source address; zero: the kernel's choice
}

const (
	icmpHeader = 8
	ipv4Header = 20
	ipv6Header = 40
	// pingRetry is the interval between echo requests until one is answered.
	pingRetry = 200 * time.Millisecond
)

var pingID atomic.Uint32

// Ping sends ICMP echo requests from the host to dst until the first is
// answered, and checks that the answer carries what was sent. It fails at once
// if the kernel refuses to send (EMSGSIZE: the packet is larger than the path's
// MTU and DF is set), and when ctx ends.
func (h *Host) Ping(ctx context.Context, dst netip.Addr, p Ping) error {
	var conn *net.IPConn
	err := h.Do(func() (err error) {
		conn, err = dialICMP(dst, p)
		return err
	})
	if err != nil {
		return fmt.Errorf("lab: %s: ping %s: %w", h.name, dst, err)
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	if err := pingLoop(ctx, conn, echoRequest(dst, p.Size)); err != nil {
		return fmt.Errorf("lab: %s: ping %s: %w", h.name, dst, err)
	}
	return nil
}

func dialICMP(dst netip.Addr, p Ping) (*net.IPConn, error) {
	network, level, option, do := "ip4:icmp", unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DO
	if dst.Is6() {
		network, level, option, do = "ip6:ipv6-icmp", unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_DO
	}
	if !p.DF {
		do = unix.IP_PMTUDISC_DONT
	}
	var src *net.IPAddr
	if p.Src.IsValid() {
		src = &net.IPAddr{IP: p.Src.AsSlice()}
	}
	conn, err := net.DialIP(network, src, &net.IPAddr{IP: dst.AsSlice(), Zone: dst.Zone()})
	if err != nil {
		return nil, err
	}
	raw, err := conn.SyscallConn()
	if err == nil {
		cerr := raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), level, option, do) })
		err = errors.Join(err, cerr)
	}
	if err != nil {
		conn.Close()
		return nil, os.NewSyscallError("setsockopt", err)
	}
	return conn, nil
}

func pingLoop(ctx context.Context, conn *net.IPConn, request []byte) error {
	reply := make([]byte, 1<<16)
	for ctx.Err() == nil {
		// ECONNREFUSED and the like are reports about earlier requests.
		if _, err := conn.Write(request); errors.Is(err, syscall.EMSGSIZE) {
			return err
		}
		if err := conn.SetReadDeadline(time.Now().Add(pingRetry)); err != nil {
			break // closed because ctx ended
		}
		for {
			n, _, err := conn.ReadFromIP(reply) // unlike Read, without the IPv4 header
			if err != nil {
				// What came back at once would do so again: keep the pace.
				if !errors.Is(err, os.ErrDeadlineExceeded) {
					wait(ctx, pingRetry)
				}
				break
			}
			if isReply(request, reply[:n]) {
				return nil
			}
		}
	}
	return ctx.Err()
}

// wait sleeps for d or until ctx ends.
func wait(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// echoRequest builds the ICMP message of an IP packet of size bytes.
func echoRequest(dst netip.Addr, size int) []byte {
	header, kind := ipv4Header, byte(8) // RFC 792
	if dst.Is6() {
		header, kind = ipv6Header, 128 // RFC 4443 §4.1
	}
	if size == 0 {
		size = header + icmpHeader + 56
	}
	b := make([]byte, max(size-header, icmpHeader))
	b[0] = kind
	binary.BigEndian.PutUint32(b[4:], pingID.Add(1)<<16|1)
	for i := icmpHeader; i < len(b); i++ {
		b[i] = byte(i)
	}
	if dst.Is4() { // the kernel fills in ICMPv6 checksums
		var sum uint32
		for i, c := range b {
			sum += uint32(c) << (8 * (1 - i%2))
		}
		for sum > 0xffff {
			sum = sum>>16 + sum&0xffff
		}
		binary.BigEndian.PutUint16(b[2:], ^uint16(sum))
	}
	return b
}

// isReply reports whether message answers request: same identifier, sequence
// number and data (RFC 792, RFC 4443 §4.2).
func isReply(request, message []byte) bool {
	kind := byte(0)
	if request[0] == 128 {
		kind = 129
	}
	return len(message) == len(request) && message[0] == kind && string(message[4:]) == string(request[4:])
}
