package encap

// Every number about sizes is here; see the drawing in the package comment.
const (
	overhead4 = IPv4HeaderLen + UDPHeaderLen + VXLANHeaderLen + EthernetHeaderLen
	overhead6 = IPv6HeaderLen + UDPHeaderLen + VXLANHeaderLen + EthernetHeaderLen

	// A sealed packet has a header of 12 bytes, then VNI and flags of 4, sealed
	// like the inner frame, and a tag of 16 in place of VXLAN's 8.
	sealedHeaderLen = 12
	sealedShimLen   = 4
	sealedTagLen    = 16
	sealedExtra     = sealedHeaderLen + sealedShimLen + sealedTagLen - VXLANHeaderLen

	// encryptedExtra is how much less an encrypted network's MTU is: Docker's
	// figure, with which its walk-through shows 1424. Of these bytes a sealed
	// packet needs sealedExtra, two less.
	encryptedExtra = 26
)

// MTUs in bytes, of inner packets.
const (
	// DefaultMTU is that of a network over an IPv4 underlay of 1500 bytes, as
	// Docker has it.
	DefaultMTU = 1500 - overhead4
	// DefaultMTU6 is the same over an IPv6 underlay.
	DefaultMTU6 = 1500 - overhead6
	// DefaultEncryptedMTU is that of an encrypted network over IPv4.
	DefaultEncryptedMTU = DefaultMTU - encryptedExtra
	// DefaultEncryptedMTU6 is that of an encrypted network over IPv6.
	DefaultEncryptedMTU6 = DefaultMTU6 - encryptedExtra

	// MinMTU4 is the least that IPv4 works with (RFC 791 §3.2).
	MinMTU4 = 68
	// MinMTU6 is the least that IPv6 works with (RFC 8200 §5).
	MinMTU6 = 1280
	// MaxMTU is the most that one UDP datagram over IPv4 can carry.
	MaxMTU = 65535 - overhead4
)

// Overhead returns how many bytes a network adds to each inner packet: 50 over an
// IPv4 underlay, 70 over IPv6.
func Overhead(v6 bool) int {
	if v6 {
		return overhead6
	}
	return overhead4
}

// EncryptedOverhead returns how many bytes an encrypted network sets aside for
// each inner packet: 76 over an IPv4 underlay, 96 over IPv6.
func EncryptedOverhead(v6 bool) int { return Overhead(v6) + encryptedExtra }

// InnerMTU returns the largest inner packet that a plain network carries over an
// underlay of this MTU without fragments (RFC 7348 §4.3).
func InnerMTU(underlayMTU int, v6 bool) int { return underlayMTU - Overhead(v6) }

// EncryptedInnerMTU returns the same of an encrypted network.
func EncryptedInnerMTU(underlayMTU int, v6 bool) int { return underlayMTU - EncryptedOverhead(v6) }

// MSS returns the TCP payload of a full packet on a link of this MTU, without
// options: what a SYN announces there (RFC 9293 §3.7.1).
func MSS(mtu int, v6 bool) int {
	if v6 {
		return mtu - IPv6HeaderLen - TCPHeaderLen
	}
	return mtu - IPv4HeaderLen - TCPHeaderLen
}
