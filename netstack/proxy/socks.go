package proxy

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strconv"
)

// Numbers of RFC 1928 and RFC 1929.
const (
	socksVersion = 5

	methodNone     = 0x00
	methodPassword = 0x02
	methodRefused  = 0xff

	passwordVersion = 1

	commandConnect   = 1
	commandAssociate = 3

	addressIPv4 = 1
	addressName = 3
	addressIPv6 = 4
)

var (
	errVersion     = errors.New("not SOCKS version 5")
	errAddressType = errors.New("unknown type of address")
	errFragment    = errors.New("fragments are not supported")
	errShort       = errors.New("cut short")
)

// readMethods reads what authentication a client offers, behind the version
// byte (RFC 1928 §3).
func readMethods(r io.Reader) (methods []byte, err error) {
	var n [1]byte
	if _, err := io.ReadFull(r, n[:]); err != nil {
		return nil, err
	}
	methods = make([]byte, n[0])
	_, err = io.ReadFull(r, methods)
	return methods, err
}

// readPassword reads a client's credentials (RFC 1929 §2).
func readPassword(r io.Reader) (user, password string, err error) {
	var version [1]byte
	if _, err := io.ReadFull(r, version[:]); err != nil {
		return "", "", err
	}
	if version[0] != passwordVersion {
		return "", "", fmt.Errorf("version %d of the password's form is unknown", version[0])
	}
	if user, err = readString(r); err != nil {
		return "", "", err
	}
	password, err = readString(r)
	return user, password, err
}

// readString reads up to 255 bytes behind their number.
func readString(r io.Reader) (string, error) {
	var n [1]byte
	if _, err := io.ReadFull(r, n[:]); err != nil {
		return "", err
	}
	b := make([]byte, n[0])
	_, err := io.ReadFull(r, b)
	return string(b), err
}

// A request is what a client wants (RFC 1928 §4).
type request struct {
	command byte
	addr    string // host:port
}

// readRequest reads a request. Its error may be errAddressType, which the client
// is told.
func readRequest(r io.Reader) (request, error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return request{}, err
	}
	if head[0] != socksVersion {
		return request{}, errVersion
	}
	n := 0
	switch head[3] {
	case addressIPv4:
		n = net.IPv4len
	case addressIPv6:
		n = net.IPv6len
	case addressName:
		var length [1]byte
		if _, err := io.ReadFull(r, length[:]); err != nil {
			return request{}, err
		}
		n = int(length[0])
	default:
		return request{command: head[1]}, errAddressType
	}
	b := make([]byte, n+2)
	if _, err := io.ReadFull(r, b); err != nil {
		return request{}, err
	}
	addr, err := joinAddress(head[3], b[:n], b[n:])
	return request{head[1], addr}, err
}

// joinAddress returns host:port of an address's bytes and its port's two.
func joinAddress(kind byte, host, port []byte) (string, error) {
	name := string(host)
	if kind != addressName {
		a, ok := netip.AddrFromSlice(host)
		if !ok {
			return "", errShort
		}
		name = a.Unmap().String()
	}
	if name == "" {
		return "", errors.New("empty name")
	}
	return net.JoinHostPort(name, strconv.Itoa(int(binary.BigEndian.Uint16(port)))), nil
}

// appendReply appends a reply with the address at which the proxy speaks to the
// far end, or listens for datagrams (RFC 1928 §6).
func appendReply(b []byte, reply byte, bound netip.AddrPort) []byte {
	b = append(b, socksVersion, reply, 0)
	return appendAddress(b, bound)
}

// appendAddress appends an address with its type and port. The zero AddrPort is
// 0.0.0.0:0.
func appendAddress(b []byte, a netip.AddrPort) []byte {
	addr := a.Addr().Unmap()
	if !addr.IsValid() {
		addr = netip.IPv4Unspecified()
	}
	kind := byte(addressIPv4)
	if addr.Is6() {
		kind = addressIPv6
	}
	b = append(append(b, kind), addr.AsSlice()...)
	return binary.BigEndian.AppendUint16(b, a.Port())
}

// parseDatagram returns where a client's datagram goes, and its payload, which
// is aliased (RFC 1928 §7).
func parseDatagram(b []byte) (addr string, payload []byte, err error) {
	const head = 4 // reserved, reserved, fragment, type of address
	if len(b) <= head {
		return "", nil, errShort
	}
	if b[2] != 0 {
		return "", nil, errFragment
	}
	kind, n, at := b[3], 0, head
	switch kind {
	case addressIPv4:
		n = net.IPv4len
	case addressIPv6:
		n = net.IPv6len
	case addressName:
		n, at = int(b[head]), head+1
	default:
		return "", nil, errAddressType
	}
	if len(b) < at+n+2 {
		return "", nil, errShort
	}
	addr, err = joinAddress(kind, b[at:at+n], b[at+n:at+n+2])
	return addr, b[at+n+2:], err
}

// datagramHead is the most that precedes a datagram to the client, in bytes.
const datagramHead = 3 + 1 + net.IPv6len + 2

// appendDatagramHead appends what precedes a datagram that came from a.
func appendDatagramHead(b []byte, a netip.AddrPort) []byte {
	return appendAddress(append(b, 0, 0, 0), a)
}
