package doctor

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// ports tries to listen where a node will, and finds out who does.
func (h *host) ports(ctx context.Context) []Finding {
	findings := make([]Finding, 0, 4)
	for _, p := range []struct {
		number         uint16
		protocol, what string
	}{
		{h.cfg.Control, "tcp", "managers"},
		{h.cfg.Gossip, "tcp", "gossip"},
		{h.cfg.Gossip, "udp", "gossip"},
		{h.cfg.DataPath, "udp", "VXLAN"},
	} {
		findings = append(findings, h.port(ctx, netip.AddrPortFrom(h.cfg.Addr, p.number), p.protocol, p.what))
	}
	return findings
}

func (h *host) port(ctx context.Context, at netip.AddrPort, protocol, what string) Finding {
	check := fmt.Sprintf("port %d/%s", at.Port(), protocol)
	err := listen(at, protocol)
	switch {
	case err == nil:
		return ok(check, "free at %s (%s)", at.Addr(), what)
	case errors.Is(err, unix.EADDRNOTAVAIL):
		return fail(check, "name an address of this machine: --advertise-addr ADDR", "%s is no address of this machine", at.Addr())
	case !errors.Is(err, unix.EADDRINUSE):
		return fail(check, "", "%s: %v", what, err)
	}
	by := h.owner(ctx, at, protocol)
	if by.pid != 0 && by.pid == h.cfg.NodePID {
		return ok(check, "the node's that is up here (pid %d)", by.pid)
	}
	return fail(check, h.freePort(at.Port(), by), "taken at %s by %s: no node can use it for %s", at.Addr(), by, what)
}

// listen opens a port for a moment.
func listen(at netip.AddrPort, protocol string) error {
	if protocol == "tcp" {
		l, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(at))
		if err != nil {
			return err
		}
		return l.Close()
	}
	c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(at))
	if err != nil {
		return err
	}
	return c.Close()
}

// freePort says how to get a port, or round it.
func (h *host) freePort(port uint16, by owner) string {
	end := "end that program"
	switch {
	case by.pid != 0:
		end = fmt.Sprintf("kill %d", by.pid)
	case by.device != "":
		end = "sudo ip link del " + by.device
	}
	if port == h.cfg.DataPath {
		return end + `, or give a new swarm another port: ovnd up --data-path-port 4790`
	}
	return end + ", or give the node another address: ovnd up --advertise-addr ADDR"
}

// An owner is who holds a socket, as far as this user may know.
type owner struct {
	pid     int // 0: not this user's to see
	command string
	uid     string // empty: not even a socket was found
	device  string // of the kernel's, which has it rather than a process
}

func (o owner) String() string {
	switch {
	case o.pid != 0:
		return fmt.Sprintf("%s (pid %d)", o.command, o.pid)
	case o.device != "":
		return "the kernel's VXLAN device " + o.device
	case o.uid == "":
		return "a program in another namespace or of another user"
	}
	name := "user " + o.uid
	if u, err := user.LookupId(o.uid); err == nil {
		name = "user " + u.Username
	}
	return "a program of " + name
}

// owner finds who listens at an address, or at all of them.
func (h *host) owner(ctx context.Context, at netip.AddrPort, protocol string) owner {
	for _, table := range []string{protocol, protocol + "6"} {
		for line := range strings.Lines(h.read("proc/net/" + table)) {
			s, valid := parseSocket(line)
			if !valid || s.local.Port() != at.Port() || protocol == "tcp" && s.state != tcpListen {
				continue
			}
			if a := s.local.Addr(); a != at.Addr() && !a.IsUnspecified() {
				continue
			}
			o := owner{uid: s.uid}
			if o.pid, o.command = h.holder(ctx, s.inode); o.pid == 0 && protocol == "udp" {
				o.device = vxlanAt(at.Port())
			}
			return o
		}
	}
	return owner{}
}

// tcpListen is TCP_LISTEN of the kernel's include/net/tcp_states.h.
const tcpListen = 0x0a

// A socket is a line of /proc/net/tcp, udp, tcp6 or udp6.
type socket struct {
	local      netip.AddrPort
	state      uint64
	uid, inode string
}

// parseSocket reads one; the table's heading is no socket.
func parseSocket(line string) (s socket, valid bool) {
	f := strings.Fields(line)
	if len(f) < 10 {
		return s, false
	}
	address, port, found := strings.Cut(f[1], ":")
	raw, err := hex.DecodeString(address)
	if !found || err != nil || len(raw) != 4 && len(raw) != 16 {
		return s, false
	}
	for word := range len(raw) / 4 { // each 32 bits in the host's order
		b := raw[4*word:][:4]
		binary.NativeEndian.PutUint32(b, binary.BigEndian.Uint32(b))
	}
	addr, _ := netip.AddrFromSlice(raw)
	number, err := strconv.ParseUint(port, 16, 16)
	if err != nil {
		return s, false
	}
	if s.state, err = strconv.ParseUint(f[3], 16, 8); err != nil {
		return s, false
	}
	s.local = netip.AddrPortFrom(addr.Unmap(), uint16(number))
	s.uid, s.inode = f[7], f[9]
	return s, true
}

// holder finds the process that has a socket open, among those whose
// descriptors this user may list.
func (h *host) holder(ctx context.Context, inode string) (pid int, command string) {
	want := "socket:[" + inode + "]"
	processes, err := filepath.Glob(filepath.Join(h.root, "proc/[0-9]*"))
	if err != nil {
		return 0, ""
	}
	for _, dir := range processes {
		if ctx.Err() != nil {
			return 0, ""
		}
		descriptors, err := os.ReadDir(filepath.Join(dir, "fd"))
		if err != nil {
			continue // another user's, or gone
		}
		for _, fd := range descriptors {
			if to, err := os.Readlink(filepath.Join(dir, "fd", fd.Name())); err == nil && to == want {
				pid, _ := strconv.Atoi(filepath.Base(dir))
				comm, _ := os.ReadFile(filepath.Join(dir, "comm"))
				return pid, string(bytes.TrimSpace(comm))
			}
		}
	}
	return 0, ""
}
