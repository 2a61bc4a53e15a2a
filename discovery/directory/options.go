package directory

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/ovnd/ovnd/encap"
)

// Keys of the driver options that a network may carry. The first three are
// Docker's.
const (
	OptionMTU       = "com.docker.network.driver.mtu"                  // bytes, of the inner IP packet
	OptionVNIs      = "com.docker.network.driver.overlay.vxlanid_list" // decimal, separated by commas, one for each subnet
	OptionEncrypted = "encrypted"
	OptionReserved  = "ovnd.vxlan.reserved" // drop or ignore
	// OptionVTEPPrefix starts the key of a VTEP outside the cluster: the rest
	// is its name, and the value is ADDR,learn or ADDR,ip=ADDR,mac=MAC.
	OptionVTEPPrefix = "ovnd.vtep."
)

const (
	maxOptions  = 1024 // on one network: far above what any has, and a bound on outside input
	maxVTEPName = 63   // bytes
)

// Options are the driver options of a network, parsed and checked.
type Options struct {
	MTU         int         // bytes, of the inner IP packet; 0: the default for the underlay
	VNIs        []encap.VNI // one for each subnet; empty: the allocator chooses
	Reserved    encap.Reserved
	StaticVTEPs []StaticVTEP // sorted by name
	Encrypted   bool         // sealed between nodes
	Cipher      Cipher       // with which, if it is encrypted
}

// ParseOptions reads the driver options of a network. It refuses keys that it
// does not know, since an option that is silently ignored is a network that
// silently does something else; the error names the key and the known ones.
// For the same reason it refuses values of [OptionEncrypted] that Docker takes
// without a word: to Docker "encrypted=false" is encrypted.
func ParseOptions(driverOpts map[string]string) (Options, error) {
	var o Options
	if len(driverOpts) > maxOptions {
		return o, fmt.Errorf("%d driver options are too many: a network takes at most %d", len(driverOpts), maxOptions)
	}
	// In order, so that of several mistakes the same one is always reported.
	for _, key := range slices.Sorted(maps.Keys(driverOpts)) {
		if err := o.set(key, driverOpts[key]); err != nil {
			return Options{}, err
		}
	}
	if err := o.checkEncrypted(driverOpts); err != nil {
		return Options{}, err
	}
	return o, o.checkVTEPs()
}

func (o *Options) set(key, value string) (err error) {
	name, isVTEP := strings.CutPrefix(key, OptionVTEPPrefix)
	switch {
	case key == OptionMTU:
		o.MTU, err = parseMTU(value)
	case key == OptionVNIs:
		o.VNIs, err = parseVNIs(value)
	case key == OptionEncrypted:
		o.Encrypted = true
		o.Cipher, err = parseCipher(value)
	case key == OptionReserved:
		o.Reserved, err = parseReserved(value)
	case isVTEP:
		var v StaticVTEP
		v, err = parseVTEP(name, value)
		o.StaticVTEPs = append(o.StaticVTEPs, v)
	default:
		return fmt.Errorf("unknown driver option %q: known are %s, %s, %s, %s and %s<name>",
			key, OptionMTU, OptionVNIs, OptionEncrypted, OptionReserved, OptionVTEPPrefix)
	}
	if err != nil {
		return fmt.Errorf("option %s=%q: %w", key, value, err)
	}
	return nil
}

func parseMTU(value string) (int, error) {
	mtu, err := strconv.Atoi(value)
	// Docker takes 0 for "the default".
	if err != nil || mtu != 0 && (mtu < encap.MinMTU4 || mtu > encap.MaxMTU) {
		return 0, fmt.Errorf("want a number of bytes from %d to %d", encap.MinMTU4, encap.MaxMTU)
	}
	return mtu, nil
}

func parseVNIs(value string) ([]encap.VNI, error) {
	var vnis []encap.VNI
	for field := range strings.SplitSeq(value, ",") {
		n, err := strconv.ParseUint(field, 10, 32)
		if err != nil || n == 0 || n > uint64(encap.MaxVNI) {
			return nil, fmt.Errorf("want VXLAN IDs from 1 to %d, separated by commas", encap.MaxVNI)
		}
		if slices.Contains(vnis, encap.VNI(n)) {
			return nil, fmt.Errorf("VXLAN ID %d stands twice: each subnet needs one of its own", n)
		}
		vnis = append(vnis, encap.VNI(n))
	}
	return vnis, nil
}

func parseReserved(value string) (encap.Reserved, error) {
	switch value {
	case "drop":
		return encap.ReservedDrop, nil
	case "ignore":
		return encap.ReservedIgnore, nil
	}
	return 0, errors.New(`want "drop" (frames with reserved bits set are dropped, as Linux does) or "ignore" (RFC 7348)`)
}

// parseVTEP reads ADDR,learn or ADDR,ip=ADDR,mac=MAC.
func parseVTEP(name, value string) (StaticVTEP, error) {
	v := StaticVTEP{Name: name}
	if name == "" || len(name) > maxVTEPName {
		return v, fmt.Errorf("the VTEP needs a name of 1 to %d bytes: %s<name>", maxVTEPName, OptionVTEPPrefix)
	}
	form := errors.New("want ADDR,learn or ADDR,ip=ADDR,mac=MAC")

	addr, rest, ok := strings.Cut(value, ",")
	if !ok {
		return v, form
	}
	var err error
	if v.VTEP, err = parseUnicast(addr); err != nil {
		return v, fmt.Errorf("address of the VTEP: %w", err)
	}
	if rest == "learn" {
		v.Learn = true
		return v, nil
	}

	for field := range strings.SplitSeq(rest, ",") {
		k, val, _ := strings.Cut(field, "=")
		switch {
		case k == "ip" && !v.Addr.IsValid():
			if v.Addr, err = parseUnicast(val); err != nil {
				return v, fmt.Errorf("ip: %w", err)
			}
		case k == "mac" && v.MAC == encap.MAC{}:
			if v.MAC, err = ParseUnicastMAC(val); err != nil {
				return v, fmt.Errorf("mac: %w", err)
			}
		default:
			return v, form
		}
	}
	if !v.Addr.IsValid() || v.MAC == (encap.MAC{}) {
		return v, form
	}
	return v, nil
}

// parseUnicast reads an address that a host can have.
func parseUnicast(s string) (netip.Addr, error) {
	a, err := netip.ParseAddr(s)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("%q is not an IP address", s)
	}
	a = a.Unmap()
	if a.IsUnspecified() || a.IsMulticast() || a.Zone() != "" || a == netip.AddrFrom4([4]byte{255, 255, 255, 255}) {
		return netip.Addr{}, fmt.Errorf("%s is not the address of one host", s)
	}
	return a, nil
}

// ParseUnicastMAC reads a MAC address that one interface can have: six bytes,
// neither all zero nor a group address (IEEE 802 §8.2).
func ParseUnicastMAC(s string) (encap.MAC, error) {
	mac, err := encap.ParseMAC(s)
	if err != nil {
		return encap.MAC{}, err
	}
	if mac == (encap.MAC{}) || mac[0]&1 != 0 {
		return encap.MAC{}, fmt.Errorf("%s is not the MAC address of one interface", s)
	}
	return mac, nil
}

// checkEncrypted refuses what only a network in clear text can have: a VTEP
// outside the cluster, which cannot open what is sealed, and VXLAN headers.
func (o *Options) checkEncrypted(driverOpts map[string]string) error {
	if !o.Encrypted {
		return nil
	}
	if len(o.StaticVTEPs) > 0 {
		return fmt.Errorf("options %s and %s%s exclude each other: a VTEP outside the cluster takes clear text only, and an encrypted network never sends any: leave one of them out",
			OptionEncrypted, OptionVTEPPrefix, o.StaticVTEPs[0].Name)
	}
	if _, ok := driverOpts[OptionReserved]; ok {
		return fmt.Errorf("options %s and %s exclude each other: the packets of an encrypted network have no VXLAN header: leave one of them out",
			OptionEncrypted, OptionReserved)
	}
	return nil
}

// checkVTEPs refuses two VTEPs that contradict each other.
func (o *Options) checkVTEPs() error {
	behind := make(map[netip.Addr]string)
	learns := make(map[netip.Addr]string)
	for _, v := range o.StaticVTEPs {
		owner, key := behind, v.Addr
		if v.Learn {
			owner, key = learns, v.VTEP
		}
		if other, ok := owner[key]; ok {
			return fmt.Errorf("options %s%s and %s%s both name %s: keep one", OptionVTEPPrefix, other, OptionVTEPPrefix, v.Name, key)
		}
		owner[key] = v.Name
	}
	return nil
}

// CheckSubnets reports whether the options fit a network with these subnets:
// the addresses behind static VTEPs lie in a subnet and are not its gateway,
// and the MTU carries IPv6 where a subnet is IPv6.
func (o *Options) CheckSubnets(subnets []Subnet) error {
	for _, s := range subnets {
		if s.Prefix.Addr().Is6() && o.MTU != 0 && o.MTU < encap.MinMTU6 {
			return fmt.Errorf("option %s=%d: subnet %s is IPv6, which needs at least %d bytes", OptionMTU, o.MTU, s.Prefix, encap.MinMTU6)
		}
	}
	for _, v := range o.StaticVTEPs {
		if v.Learn {
			continue
		}
		i := slices.IndexFunc(subnets, func(s Subnet) bool { return s.Prefix.Contains(v.Addr) })
		if i < 0 {
			return fmt.Errorf("option %s%s: %s lies in no subnet of the network", OptionVTEPPrefix, v.Name, v.Addr)
		}
		if subnets[i].Gateway == v.Addr {
			return fmt.Errorf("option %s%s: %s is the gateway of %s: choose another address", OptionVTEPPrefix, v.Name, v.Addr, subnets[i].Prefix)
		}
	}
	return nil
}
