package sandbox

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// A peer is one init's connection. id and attached are the Server's mutex's.
type peer struct {
	conn     *packetConn
	session  *Session
	pid      int
	id       string // of the sandbox, once claimed
	attached bool
}

// answer sends a message without parts. One that is gone needs none.
func (p *peer) answer(k nodeKind, text string) {
	_ = p.conn.sendInTime(nodeMessage{Kind: k, Text: text})
}

// serve handles one connection until it or ctx ends.
func (s *Server) serve(ctx context.Context, c *net.UnixConn) {
	defer func() { _ = c.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = c.Close() })
	defer stop()
	p, err := s.admit(c)
	if err != nil {
		s.log.Warn("sandbox connection refused", "error", err)
		return
	}
	defer s.forget(p)

	m, err := s.attach(ctx, p)
	if err != nil {
		answer := nodeRefused
		if Gone(err) {
			answer = nodeGone
		}
		p.answer(answer, err.Error())
		s.log.Warn("sandbox not attached", "sandbox", m.ID, "pid", p.pid, "error", err)
		return
	}
	defer s.handler.Detach(m.ID)
	s.log.Info("sandbox attached", "sandbox", m.ID, "pid", p.pid, "interfaces", len(m.Interfaces))
	_ = p.conn.SetReadDeadline(time.Time{})
	s.confirm(p)
	p.session.listen()
	s.log.Info("sandbox detached", "sandbox", m.ID)
}

// admit takes in a connection of a process of our own user, or of root, who has
// every user's rights anyway: in a container, whoever mounted the socket gave
// them.
func (s *Server) admit(c *net.UnixConn) (*peer, error) {
	cred, err := peerCredentials(c)
	if err != nil {
		return nil, err
	}
	if int(cred.Uid) != os.Geteuid() && cred.Uid != 0 {
		return nil, fmt.Errorf("peer has uid %d, not %d", cred.Uid, os.Geteuid())
	}
	p := &peer{conn: newPacketConn(c), pid: int(cred.Pid)}
	p.session = newSession(p.conn, s.log)
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.peers) >= maxConnections {
		return nil, fmt.Errorf("there are %d connections already", maxConnections)
	}
	s.peers[p] = true
	return p, nil
}

func (s *Server) forget(p *peer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.peers, p)
	if s.ids[p.id] == p {
		delete(s.ids, p.id)
	}
	close(s.changed)
	s.changed = make(chan struct{})
}

func peerCredentials(c *net.UnixConn) (*unix.Ucred, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	var cred *unix.Ucred
	cerr := raw.Control(func(fd uintptr) {
		cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err := errors.Join(cerr, err); err != nil {
		return nil, fmt.Errorf("peer's credentials: %w", err)
	}
	return cred, nil
}

// attach receives a sandbox's devices and gives them to the handler.
func (s *Server) attach(ctx context.Context, p *peer) (attachMessage, error) {
	if err := p.conn.SetReadDeadline(time.Now().Add(helloTimeout)); err != nil {
		return attachMessage{}, err
	}
	b, fds, err := p.conn.receive()
	if err != nil {
		return attachMessage{}, err
	}
	m, err := parseAttach(b, len(fds))
	if err != nil {
		closeAll(fds)
		return m, err
	}
	if m.State.PIDFD { // the last one
		last := len(fds) - 1
		defer closeAll(fds[last:])
		err = p.session.restore(m.State, fds[last])
		fds = fds[:last:last]
	} else {
		err = p.session.restore(m.State, -1)
	}
	files := make([]*os.File, len(fds))
	for i, fd := range fds {
		files[i] = os.NewFile(uintptr(fd), tunPath)
	}
	if err == nil {
		err = s.handOver(ctx, p, m, files)
	}
	if err != nil {
		for _, f := range files {
			_ = f.Close()
		}
	}
	return m, err
}

// handOver gives the handler the devices, and the resolver's sockets behind them.
func (s *Server) handOver(ctx context.Context, p *peer, m attachMessage, files []*os.File) error {
	a := Attachment{
		ID: m.ID, Token: m.Token, PID: p.pid, Session: p.session,
		Devices: make([]Devices, len(m.Interfaces)),
	}
	for i, in := range m.Interfaces {
		a.Devices[i] = Devices{Interface: in, Queues: files[:in.Queues:in.Queues]}
		files = files[in.Queues:]
		for _, f := range a.Devices[i].Queues {
			if err := checkQueue(f, in.Name); err != nil {
				return err
			}
		}
	}
	if m.Resolver {
		a.Resolver = &Resolver{UDP: files[0], TCP: files[1]}
		if err := a.Resolver.check(); err != nil {
			return err
		}
	}
	if err := s.claim(p, m.ID); err != nil {
		return err
	}
	return s.handler.Attach(ctx, a)
}

// claim makes p the one connection of sandbox id.
func (s *Server) claim(p *peer, id string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing {
		return errClosing
	}
	if s.ids[id] != nil {
		return fmt.Errorf("sandbox %s is attached already", id)
	}
	p.id = id
	s.ids[id] = p
	return nil
}

// confirm tells p that it is attached, and goodbye if that was said meanwhile.
func (s *Server) confirm(p *peer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p.attached = true
	p.answer(nodeAttached, "")
	close(p.session.confirmed)
	if s.closing {
		p.answer(nodeGoodbye, "")
	}
}

// checkQueue makes sure that f is a queue of a TUN device that carries
// super-packets. The device's name is the sandbox's business.
func checkQueue(f *os.File, name string) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return fmt.Errorf("interface %s: %w", name, err)
	}
	ifr, err := unix.NewIfreq("")
	if err != nil {
		return fmt.Errorf("interface %s: %w", name, err)
	}
	cerr := raw.Control(func(fd uintptr) { err = unix.IoctlIfreq(int(fd), unix.TUNGETIFF, ifr) })
	if err := errors.Join(cerr, err); err != nil {
		return fmt.Errorf("interface %s: descriptor is not a TUN device's: %w", name, err)
	}
	const want = unix.IFF_TUN | unix.IFF_NO_PI | unix.IFF_VNET_HDR
	if got := ifr.Uint16(); got&want != want {
		return fmt.Errorf("interface %s: TUN device has flags %#x, lacks some of %#x", name, got, want)
	}
	return nil
}
