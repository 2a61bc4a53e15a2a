package encap

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
)

// A MAC is an Ethernet address. It is comparable.
type MAC [6]byte

// BroadcastMAC is the address of every station.
var BroadcastMAC = MAC{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

// String returns m as Docker prints it: 02:42:0a:0a:00:09.
func (m MAC) String() string { return net.HardwareAddr(m[:]).String() }

// IsMulticast reports whether m is a group address, the broadcast address
// included (IEEE 802: the low bit of the first byte).
func (m MAC) IsMulticast() bool { return m[0]&1 != 0 }

// MarshalText implements [encoding.TextMarshaler] with the form of String.
func (m MAC) MarshalText() ([]byte, error) { return []byte(m.String()), nil }

// UnmarshalText implements [encoding.TextUnmarshaler] with [ParseMAC].
func (m *MAC) UnmarshalText(text []byte) error {
	parsed, err := ParseMAC(string(text))
	if err != nil {
		return err
	}
	*m = parsed
	return nil
}

// errMACLength is for the 8- and 20-byte addresses that net.ParseMAC also takes.
var errMACLength = errors.New("not six bytes")

// ParseMAC reads a MAC in any form that [net.ParseMAC] accepts and that has six
// bytes.
func ParseMAC(s string) (MAC, error) {
	hw, err := net.ParseMAC(s)
	if err != nil {
		return MAC{}, fmt.Errorf("encap: MAC address %q: %w", s, err)
	}
	if len(hw) != len(MAC{}) {
		return MAC{}, fmt.Errorf("encap: MAC address %q: %w", s, errMACLength)
	}
	return MAC(hw), nil
}

// EndpointMAC returns the MAC that an endpoint with the address addr has on an
// overlay network: 02:42 followed by the four bytes of an IPv4 address, as
// Docker has it. For an IPv6 address, of which Docker has no rule, 02:42 is
// followed by the 32-bit FNV-1a hash of its 16 bytes, big endian: two addresses
// of a network may share a MAC then, which harms nobody, since forwarding is by
// inner IP address.
func EndpointMAC(addr netip.Addr) MAC {
	addr = addr.Unmap()
	if addr.Is4() {
		a := addr.As4()
		return MAC{0x02, 0x42, a[0], a[1], a[2], a[3]}
	}
	const offset32, prime32 = 2166136261, 16777619
	h := uint32(offset32)
	for _, c := range addr.As16() {
		h = (h ^ uint32(c)) * prime32
	}
	return MAC{0x02, 0x42, byte(h >> 24), byte(h >> 16), byte(h >> 8), byte(h)}
}

// MulticastMAC returns the MAC to which packets for the multicast address addr
// go: 01:00:5e and the low 23 bits for IPv4 (RFC 1112 §6.4), 33:33 and the low 32
// bits for IPv6 (RFC 2464 §7).
func MulticastMAC(addr netip.Addr) MAC {
	addr = addr.Unmap()
	if addr.Is4() {
		a := addr.As4()
		return MAC{0x01, 0x00, 0x5e, a[1] & 0x7f, a[2], a[3]}
	}
	a := addr.As16()
	return MAC{0x33, 0x33, a[12], a[13], a[14], a[15]}
}
