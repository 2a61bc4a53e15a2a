package sandbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// maxMessage is the largest message in bytes, on either socket. The largest
// legitimate one, 64 interfaces, is about half of it.
const maxMessage = 64 << 10

// maxSocketPath is what sockaddr_un holds, unix(7).
const maxSocketPath = 107

var (
	errMessageSize = fmt.Errorf("message exceeds %d bytes or %d descriptors", maxMessage, maxDescriptors)
	errNoFiles     = errors.New("message carries descriptors where none are expected")
)

// A packetConn carries JSON messages, one to a packet of a SOCK_SEQPACKET
// socket, so that descriptors belong to exactly one message.
// Several goroutines may send while one receives.
type packetConn struct {
	*net.UnixConn
	buf, oob []byte
}

func newPacketConn(c *net.UnixConn) *packetConn {
	return &packetConn{
		UnixConn: c,
		buf:      make([]byte, maxMessage),
		oob:      make([]byte, unix.CmsgSpace(maxDescriptors*4)),
	}
}

// inheritedConn makes a packetConn of descriptor fd, which is closed.
func inheritedConn(fd int, name string) (*packetConn, error) {
	f := os.NewFile(uintptr(fd), name)
	defer func() { _ = f.Close() }()
	c, err := net.FileConn(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	u, ok := c.(*net.UnixConn)
	if !ok {
		_ = c.Close()
		return nil, fmt.Errorf("%s is a %s, not a unix socket", name, c.LocalAddr().Network())
	}
	return newPacketConn(u), nil
}

// dialPacket connects to the socket at path.
func dialPacket(ctx context.Context, path string) (*packetConn, error) {
	addr, done, err := socketAddr(path)
	if err != nil {
		return nil, err
	}
	defer done()
	var d net.Dialer
	c, err := d.DialUnix(ctx, "unixpacket", nil, addr)
	if err != nil {
		return nil, err
	}
	return newPacketConn(c), nil
}

// socketAddr returns an address for path, going through a descriptor of its
// folder where the path is too long for a socket's. The address is valid until
// done is called.
func socketAddr(path string) (addr *net.UnixAddr, done func(), err error) {
	if len(path) <= maxSocketPath {
		return &net.UnixAddr{Name: path, Net: "unixpacket"}, func() {}, nil
	}
	fd, err := unix.Open(filepath.Dir(path), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, nil, &os.PathError{Op: "open", Path: filepath.Dir(path), Err: err}
	}
	short := fmt.Sprintf("/proc/self/fd/%d/%s", fd, filepath.Base(path))
	return &net.UnixAddr{Name: short, Net: "unixpacket"}, func() { _ = unix.Close(fd) }, nil
}

// send writes one message; the descriptors stay the caller's.
func (c *packetConn) send(m any, fds ...int) error {
	b, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("encode message: %w", err)
	}
	if len(b) > maxMessage || len(fds) > maxDescriptors {
		return errMessageSize
	}
	var oob []byte
	if len(fds) > 0 {
		oob = unix.UnixRights(fds...)
	}
	_, _, err = c.WriteMsgUnix(b, oob, nil)
	return err
}

// sendInTime is send to a peer that may not read: it gives up after
// sendTimeout.
func (c *packetConn) sendInTime(m any, fds ...int) error {
	if err := c.SetWriteDeadline(time.Now().Add(sendTimeout)); err != nil {
		return err
	}
	return c.send(m, fds...)
}

// receive returns the next message and its descriptors, which the caller
// closes; they are close-on-exec. b is valid until the next call.
func (c *packetConn) receive() (b []byte, fds []int, err error) {
	n, oobn, flags, _, err := c.ReadMsgUnix(c.buf, c.oob)
	if err != nil {
		return nil, nil, err
	}
	if n == 0 && oobn == 0 {
		return nil, nil, io.EOF
	}
	fds, err = parseRights(c.oob[:oobn])
	if err == nil && flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0 {
		err = errMessageSize
	}
	if err != nil {
		closeAll(fds)
		return nil, nil, err
	}
	return c.buf[:n], fds, nil
}

// receiveInto decodes the next message into m. Descriptors are not expected.
func (c *packetConn) receiveInto(m any) error {
	b, fds, err := c.receive()
	if err != nil {
		return err
	}
	if len(fds) > 0 {
		closeAll(fds)
		return errNoFiles
	}
	if err := json.Unmarshal(b, m); err != nil {
		return fmt.Errorf("decode message: %w", err)
	}
	return nil
}

func parseRights(oob []byte) (fds []int, err error) {
	if len(oob) == 0 {
		return nil, nil
	}
	cmsgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, fmt.Errorf("parse control message: %w", err)
	}
	for i := range cmsgs {
		if cmsgs[i].Header.Type != unix.SCM_RIGHTS {
			continue
		}
		got, err := unix.ParseUnixRights(&cmsgs[i])
		if err != nil {
			return fds, fmt.Errorf("parse descriptors: %w", err)
		}
		fds = append(fds, got...)
	}
	return fds, nil
}

func closeAll(fds []int) {
	for _, fd := range fds {
		_ = unix.Close(fd)
	}
}
