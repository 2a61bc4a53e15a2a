package lab

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A Frame is one packet as an interface carried it.
type Frame struct {
	Data     []byte // from the Ethernet header on; from the IP header on TUN devices
	Outgoing bool   // sent by the host rather than received
	// Super marks a packet that the kernel has not segmented or not finished
	// the checksum of: on a link without hardware both happen only if the
	// packet leaves for a device that needs it.
	Super bool
}

// A Wire is an AF_PACKET socket on one interface: it sees what the interface
// sends and receives, and can send frames of its own. It holds frames from its
// creation on, as far as its 4 MB buffer lasts.
type Wire struct {
	file *os.File
	raw  func(func(fd uintptr) bool) error
	buf  []byte
}

// captureBuffer is asked for in bytes; without root the kernel caps it at
// net.core.rmem_max, which suffices for tests.
const captureBuffer = 4 << 20

// Wire opens a Wire on the interface. It is closed by Cleanup.
func (h *Host) Wire(dev string) *Wire {
	h.tb.Helper()
	index := h.link(dev).Attrs().Index
	var w *Wire
	h.must("open AF_PACKET on "+dev, h.Do(func() (err error) {
		w, err = openWire(index)
		return err
	}))
	h.tb.Cleanup(func() { w.file.Close() })
	return w
}

func openWire(index int) (*Wire, error) {
	// Protocol 0 receives nothing until bind: no frame of another interface
	// slips in between.
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	file := os.NewFile(uintptr(fd), "wire")
	err = errors.Join(
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, captureBuffer),
		unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_AUXDATA, 1),
		unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: bigEndian(unix.ETH_P_ALL), Ifindex: index}),
	)
	if err != nil {
		file.Close()
		return nil, err
	}
	conn, err := file.SyscallConn()
	if err != nil {
		file.Close()
		return nil, err
	}
	return &Wire{file: file, raw: conn.Read, buf: make([]byte, 1<<17)}, nil
}

// Next returns the next frame. It waits until ctx ends, whose error it returns
// then. One goroutine may call it at a time.
func (w *Wire) Next(ctx context.Context) (Frame, error) {
	stop := context.AfterFunc(ctx, func() { _ = w.file.SetReadDeadline(time.Unix(1, 0)) })
	defer func() {
		if !stop() {
			_ = w.file.SetReadDeadline(time.Time{})
		}
	}()
	var (
		frame Frame
		rerr  error
	)
	err := w.raw(func(fd uintptr) bool {
		frame, rerr = w.receive(int(fd))
		return !errors.Is(rerr, unix.EAGAIN)
	})
	if ctx.Err() != nil {
		return Frame{}, ctx.Err()
	}
	if err = errors.Join(err, rerr); err != nil {
		return Frame{}, fmt.Errorf("lab: capture: %w", err)
	}
	return frame, nil
}

// Find returns the next frame that match accepts, dropping others.
func (w *Wire) Find(ctx context.Context, match func(Frame) bool) (Frame, error) {
	for {
		f, err := w.Next(ctx)
		if err != nil || match(f) {
			return f, err
		}
	}
}

// Send puts a frame, from its Ethernet header on, on the interface as if the
// host had sent it.
func (w *Wire) Send(frame []byte) error {
	_, err := w.file.Write(frame)
	return err
}

func (w *Wire) receive(fd int) (Frame, error) {
	var oob [128]byte
	n, oobn, _, from, err := unix.Recvmsg(fd, w.buf, oob[:], 0)
	if err != nil {
		return Frame{}, err
	}
	f := Frame{Data: append([]byte(nil), w.buf[:n]...)}
	if ll, ok := from.(*unix.SockaddrLinklayer); ok {
		f.Outgoing = ll.Pkttype == unix.PACKET_OUTGOING
	}
	messages, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil {
		return Frame{}, err
	}
	for _, m := range messages {
		if m.Header.Level != unix.SOL_PACKET || m.Header.Type != unix.PACKET_AUXDATA ||
			len(m.Data) < int(unsafe.Sizeof(unix.TpacketAuxdata{})) {
			continue
		}
		aux := (*unix.TpacketAuxdata)(unsafe.Pointer(&m.Data[0]))
		f.Super = aux.Status&unix.TP_STATUS_CSUMNOTREADY != 0
		if aux.Status&unix.TP_STATUS_VLAN_VALID != 0 {
			f.Data = retag(f.Data, aux.Vlan_tpid, aux.Vlan_tci)
		}
	}
	return f, nil
}

// retag puts back the 802.1Q tag that the kernel keeps beside the frame.
func retag(frame []byte, tpid, tci uint16) []byte {
	const macs = 12
	if len(frame) < macs {
		return frame
	}
	out := append(make([]byte, 0, len(frame)+4), frame[:macs]...)
	out = binary.BigEndian.AppendUint16(out, tpid)
	out = binary.BigEndian.AppendUint16(out, tci)
	return append(out, frame[macs:]...)
}

// bigEndian returns v in network byte order, as packet sockets want it.
func bigEndian(v uint16) uint16 {
	var b [2]byte
	binary.BigEndian.PutUint16(b[:], v)
	return binary.NativeEndian.Uint16(b[:])
}
