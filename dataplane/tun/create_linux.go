package tun

import (
	"errors"
	"fmt"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	wgtun "golang.zx2c4.com/wireguard/tun"

	"github.com/ovnd/ovnd/encap"
)

const clonePath = "/dev/net/tun"

// MaxQueues is the kernel's limit on the queues of one device (MAX_TAP_QUEUES
// in drivers/net/tun.c).
const MaxQueues = 256

// Create makes the TUN device name in the calling thread's network namespace,
// with checksum, TSO and, where the kernel has it, USO offload, an MTU in bytes
// and a GSO limit that lets one super-packet leave in one UDP_SEGMENT send. The
// caller needs CAP_NET_ADMIN there, which the owner of the namespace has.
// Addresses, routes and setting it up are the caller's.
//
// It returns one file a queue. They are in blocking mode and stay out of the
// runtime's poller, so that a process which only keeps them is not woken by
// traffic. The device lives as long as one of the files or a duplicate does.
// The watcher has a descriptor of its own: close it as well.
func Create(name string, mtu, queues int) (files []*os.File, w *Watcher, err error) {
	if queues < 1 || queues > MaxQueues {
		return nil, nil, fmt.Errorf("TUN device %s: %d queues: must be 1 to %d", name, queues, MaxQueues)
	}
	defer func() {
		if err != nil {
			closeAll(files)
			files = nil
		}
	}()
	for range queues {
		f, err := openQueue(name, queues > 1)
		if err != nil {
			return files, nil, err
		}
		files = append(files, f)
	}
	own, err := Duplicate(files[0])
	if err != nil {
		return files, nil, fmt.Errorf("TUN device %s: duplicate descriptor: %w", name, err)
	}
	dev, err := wgtun.CreateTUNFromFile(own, mtu)
	if err != nil {
		_ = own.Close()
		return files, nil, fmt.Errorf("TUN device %s: offloads and MTU %d: %w", name, mtu, err)
	}
	if err := setLimits(name, mtu); err != nil {
		_ = dev.Close()
		return files, nil, err
	}
	return files, newWatcher(dev), nil
}

func openQueue(name string, multi bool) (*os.File, error) {
	fd, err := unix.Open(clonePath, unix.O_RDWR|unix.O_CLOEXEC, 0)
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENXIO):
		return nil, fmt.Errorf("open %s: %w: load the module (modprobe tun) or pass the device into this container", clonePath, err)
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		return nil, fmt.Errorf("open %s: %w: it must be readable and writable for this user (mode 0666 is usual)", clonePath, err)
	case err != nil:
		return nil, fmt.Errorf("open %s: %w", clonePath, err)
	}
	ifr, err := unix.NewIfreq(name)
	if err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("TUN device name %q: %w", name, err)
	}
	flags := uint16(unix.IFF_TUN | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
	if multi {
		flags |= unix.IFF_MULTI_QUEUE
	}
	ifr.SetUint16(flags)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr); err != nil {
		_ = unix.Close(fd)
		if errors.Is(err, unix.EPERM) {
			return nil, fmt.Errorf("TUN device %s: %w: CAP_NET_ADMIN is missing in this network namespace", name, err)
		}
		return nil, fmt.Errorf("TUN device %s: %w", name, err)
	}
	return os.NewFile(uintptr(fd), clonePath), nil
}

// Duplicate returns another file for the same queue, in the same mode.
func Duplicate(f *os.File) (*os.File, error) {
	fd, err := dupFD(f)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), f.Name()), nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		_ = f.Close()
	}
}

// maxTCPHeader is what the kernel keeps back of gso_max_size for headers when
// it sizes a TCP super-packet: MAX_TCP_HEADER + 1, at its largest
// configuration.
const maxTCPHeader = 320 + 1

// GSOMaxSize returns the gso_max_size in bytes at which one TCP super-packet of
// a device with this MTU still fits one UDP_SEGMENT send once every segment has
// its VXLAN and Ethernet headers: a UDP payload has at most 65,507 bytes over
// IPv4, and fewer over IPv6.
func GSOMaxSize(mtu int) int {
	const (
		maxPayload = 65535 - encap.IPv6HeaderLen - encap.UDPHeaderLen
		tcpIPv4    = encap.IPv4HeaderLen + 20 + 12 // with timestamps
		legacyMax  = 65536                         // GSO_LEGACY_MAX_SIZE: beyond it are IPv6 jumbograms
	)
	segments := maxPayload / (mtu + encap.VXLANHeaderLen + encap.EthernetHeaderLen)
	size := segments*(mtu-tcpIPv4) + maxTCPHeader
	return max(min(size, legacyMax), mtu)
}

// queueLen is how many super-packets wait in the device for its reader; what
// exceeds it is dropped. The kernel's own 500 are full in 6 ms at 80,000 packets
// per second, and on a busy machine the reader waits that long for a processor.
const queueLen = 1000

// setLimits sets what the device's driver does not know to be different here.
func setLimits(name string, mtu int) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return fmt.Errorf("TUN device %s: find link: %w", name, err)
	}
	size := GSOMaxSize(mtu)
	if err := netlink.LinkSetGSOMaxSize(link, size); err != nil {
		return fmt.Errorf("TUN device %s: gso_max_size %d: %w", name, size, err)
	}
	if err := netlink.LinkSetTxQLen(link, queueLen); err != nil {
		return fmt.Errorf("TUN device %s: queue length %d: %w", name, queueLen, err)
	}
	return nil
}
