package lab

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Commands of linux/ethtool.h that read one feature, and the feature's name as
// ethtool(8) has it.
var features = []struct {
	command uint32
	name    string
}{
	{0x16, "tx-checksumming"},
	{0x14, "rx-checksumming"},
	{0x18, "scatter-gather"},
	{0x1e, "tcp-segmentation-offload"},
	{0x23, "generic-segmentation-offload"},
	{0x2b, "generic-receive-offload"},
}

// Offloads returns the offloads of an interface that are on, named as ethtool(8)
// names them.
func (h *Host) Offloads(dev string) (on []string, err error) {
	err = h.Do(func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd) //nolint:errcheck // a socket that was never used
		for _, f := range features {
			value := struct{ command, data uint32 }{command: f.command} // struct ethtool_value
			request := struct {                                         // struct ifreq
				name [unix.IFNAMSIZ]byte
				data unsafe.Pointer
				_    [16]byte
			}{data: unsafe.Pointer(&value)}
			copy(request.name[:unix.IFNAMSIZ-1], dev)
			_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&request)))
			if errno == unix.EOPNOTSUPP {
				continue
			}
			if errno != 0 {
				return fmt.Errorf("lab: %s: offloads of %s: %w", h.name, dev, errno)
			}
			if value.data != 0 {
				on = append(on, f.name)
			}
		}
		return nil
	})
	return on, err
}
