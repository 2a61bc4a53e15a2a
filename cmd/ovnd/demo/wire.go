package demo

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// wireBuffer is asked for, in bytes; without root the kernel gives less.
const wireBuffer = 4 << 20

// openWire returns a packet(7) socket that receives what the interface carries.
// It stays open when the process executes another program.
func openWire(dev string) (fd int, err error) {
	iface, err := net.InterfaceByName(dev)
	if err != nil {
		return -1, err
	}
	// Protocol 0 receives nothing until bind.
	fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	var all [2]byte
	binary.BigEndian.PutUint16(all[:], unix.ETH_P_ALL)
	err = errors.Join(
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, wireBuffer),
		unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: binary.NativeEndian.Uint16(all[:]), Ifindex: iface.Index}),
	)
	if err != nil {
		_ = unix.Close(fd) // nothing was received by it
		return -1, err
	}
	return fd, nil
}

// A wire counts frames of this process's network by what is in them.
type wire struct {
	file *os.File
	done chan struct{}

	mu     sync.Mutex
	marks  map[string][]byte
	counts map[string]int
	frames int
	err    error // that ended it
}

// listen starts to count the frames that come from file.
func listen(file *os.File) *wire {
	w := &wire{file: file, done: make(chan struct{}), marks: map[string][]byte{}, counts: map[string]int{}}
	go w.run()
	return w
}

func (w *wire) run() {
	defer close(w.done)
	frame := make([]byte, 1<<17)
	for {
		n, err := w.file.Read(frame)
		w.mu.Lock()
		if err != nil {
			if !errors.Is(err, os.ErrClosed) && !errors.Is(err, io.EOF) {
				w.err = err
			}
			w.mu.Unlock()
			return
		}
		w.frames++
		for name, mark := range w.marks {
			if bytes.Contains(frame[:n], mark) {
				w.counts[name]++
			}
		}
		w.mu.Unlock()
	}
}

// watch counts the frames that hold mark from now on.
func (w *wire) watch(name string, mark []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.marks[name] = mark
}

// count is how many frames held the mark of a name, and how many there were.
func (w *wire) count(name string) (marked, all int, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.counts[name], w.frames, w.err
}

func (w *wire) close() {
	_ = w.file.Close() // it was read from
	<-w.done
}

// vxlanMark is the VXLAN header of a network's frames (RFC 7348 §5). They may
// begin anywhere in what a wire shows: the kernel has not cut runs of datagrams
// yet.
func vxlanMark(vni uint32) []byte {
	mark := binary.BigEndian.AppendUint32(nil, 0x08<<24)
	return binary.BigEndian.AppendUint32(mark, vni<<8)
}
