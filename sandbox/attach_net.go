package sandbox

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/ovnd/ovnd/dataplane/tun"
)

// attachDevices makes the spec's interfaces beside those that the namespace has,
// which keep their names: ours are ovnd0 and so on. A namespace that has a way
// out keeps that too; the interface of the node's gateway is made, for the node
// expects it, and stays down.
func attachDevices(s *Spec) ([]*os.File, error) {
	out, err := hasDefaultRoute()
	if err != nil {
		return nil, err
	}
	var queues []*os.File
	number := 0
	for i := range s.Interfaces {
		in := s.Interfaces[i]
		if in.Name, err = freeName(&number); err != nil {
			return queues, err
		}
		var q []*os.File
		if in.Gateway.IsValid() && out {
			q, _, err = tun.Create(in.Name, in.MTU, in.Queues)
		} else {
			q, err = in.create()
		}
		queues = append(queues, q...)
		if err != nil {
			return queues, fmt.Errorf("interface %s of network %s: %w", in.Name, in.NetworkName, err)
		}
	}
	return queues, nil
}

// freeName returns the next name for a device that none has, from number on.
func freeName(number *int) (string, error) {
	for {
		name := fmt.Sprintf("ovnd%d", *number)
		*number++
		_, err := netlink.LinkByName(name)
		if _, missing := errors.AsType[netlink.LinkNotFoundError](err); missing {
			return name, nil
		}
		if err != nil {
			return "", fmt.Errorf("find a name for an interface: %w", err)
		}
	}
}

func hasDefaultRoute() (bool, error) {
	routes, err := netlink.RouteList(nil, netlink.FAMILY_V4)
	if err != nil {
		return false, fmt.Errorf("list routes: %w", err)
	}
	for _, r := range routes {
		if r.Dst == nil || r.Dst.IP.IsUnspecified() {
			return true, nil
		}
	}
	return false, nil
}

// attachResolver opens the resolver's sockets at a loopback address that no
// other resolver of the namespace has. Docker's own is at 127.0.0.11.
func attachResolver(s *Spec, path string) (*resolvFile, []*os.File, error) {
	f, err := readResolv(path)
	if err != nil {
		return nil, nil, err
	}
	addr := ResolverAddr.Addr()
	for range 16 {
		if f.serves(addr) {
			addr = addr.Next()
			continue
		}
		sockets, err := openResolverAt(netip.AddrPortFrom(addr, ResolverAddr.Port()))
		if err == nil {
			f.ours = bytes.ReplaceAll(s.ResolvConf, []byte(ResolverAddr.Addr().String()), []byte(addr.String()))
			return f, sockets, nil
		}
		if !errors.Is(err, unix.EADDRINUSE) {
			return nil, nil, fmt.Errorf("open the resolver's socket: %w", err)
		}
		addr = addr.Next()
	}
	return nil, nil, fmt.Errorf("no loopback address from %s on is free for a resolver", ResolverAddr.Addr())
}

// A resolvFile is a resolv.conf that another replaces for a while. Containers
// that share a namespace share the file too, by a mount: it is written in place.
// What it was stays in it as comments, for whoever comes after a kill.
type resolvFile struct {
	path      string // empty: none
	was, ours []byte
}

const resolvMark = "#ovnd# "

// readResolv reads the file as it is without us.
func readResolv(path string) (*resolvFile, error) {
	f := &resolvFile{path: path}
	if path == "" {
		return f, nil
	}
	b, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	f.was = unmarkResolv(b)
	return f, nil
}

// unmarkResolv returns what a file was before one of us replaced it.
func unmarkResolv(b []byte) []byte {
	if !bytes.HasPrefix(b, []byte(resolvMark)) {
		return b
	}
	var was []byte
	for line := range bytes.Lines(b) {
		if rest, marked := bytes.CutPrefix(line, []byte(resolvMark)); marked {
			was = append(was, rest...)
		}
	}
	// The first line says what this is.
	_, was, _ = bytes.Cut(was, []byte("\n"))
	return was
}

// markResolv is ours, with what the file was as comments before it.
func markResolv(was, ours []byte) []byte {
	out := []byte(resolvMark + "replaced by ovnd: what it was, and is again afterwards\n")
	for line := range bytes.Lines(was) {
		out = append(append(out, resolvMark...), line...)
	}
	if len(was) > 0 && was[len(was)-1] != '\n' {
		out = append(out, '\n')
	}
	return append(out, ours...)
}

// serves says whether the file, as it was, names this resolver.
func (f *resolvFile) serves(addr netip.Addr) bool {
	for line := range strings.Lines(string(f.was)) {
		if w := strings.Fields(line); len(w) > 1 && w[0] == "nameserver" && w[1] == addr.String() {
			return true
		}
	}
	return false
}

func (f *resolvFile) replace() error {
	if f.path == "" || len(f.ours) == 0 {
		return nil
	}
	if err := os.WriteFile(f.path, markResolv(f.was, f.ours), 0o644); err != nil {
		return fmt.Errorf("names: %w", err)
	}
	return nil
}

// restore puts back what was there, unless somebody else wrote meanwhile.
func (f *resolvFile) restore() {
	if f.path == "" {
		return
	}
	if b, err := os.ReadFile(f.path); err == nil && bytes.Equal(b, markResolv(f.was, f.ours)) {
		_ = os.WriteFile(f.path, f.was, 0o644) // the comments in it tell what it was
	}
}
