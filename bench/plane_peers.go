package bench

import (
	"bytes"
	"crypto/ecdh"
	"crypto/rand"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
)

var errIPv4Only = errors.New("measured over IPv4 only")

const (
	wireguardPort = 51820
	// wireguardOverhead is what WireGuard adds to a packet, over IPv6 at worst:
	// wg-quick(8) subtracts it from the underlay's MTU whatever the family.
	wireguardOverhead = 80
	// nebulaOverhead is the least that the underlay's MTU must exceed nebula's by:
	// its header, tag, UDP and IPv4, rounded up as its documentation does (1300 of
	// 1500 is its default, for paths across the Internet; a link takes more).
	nebulaOverhead = 60
)

// buildWireGuard connects the hosts by wireguard-go, the module.
func (p *plane) buildWireGuard() error {
	p.link()
	p.mtu = p.setup.mtu - wireguardOverhead
	var keys [2]*ecdh.PrivateKey
	for i := range keys {
		var err error
		if keys[i], err = ecdh.X25519().GenerateKey(rand.Reader); err != nil {
			return err
		}
	}
	for i, e := range p.ends {
		c, err := startChild(e.host, childSpec{WireGuard: &wireguardSpec{
			Name: "ov0", MTU: p.mtu, Port: wireguardPort,
			PrivateKey: keys[i].Bytes(), PeerKey: keys[1-i].PublicKey().Bytes(),
			Peer: netip.AddrPortFrom(p.setup.under()[1-i], wireguardPort),
		}})
		if err != nil {
			return err
		}
		p.tool(e, c)
		address(e.host, "ov0", inner[i])
	}
	p.reachInside()
	return nil
}

// program starts another's program as part of the plane.
func (p *plane) program(e *end, name string, args ...string) error {
	said := &tail{}
	cmd := exec.Command(name, args...)
	cmd.Stdout, cmd.Stderr = said, said
	proc, err := e.host.Launch(cmd)
	if err != nil {
		return err
	}
	e.tools = append(e.tools, &process{Process: proc})
	go func() {
		<-proc.Done()
		p.lose(fmt.Errorf("%w%s", hasEnded(name+" on "+e.host.Name(), proc.Wait()), said))
	}()
	return nil
}

// A tail keeps the last that a program says.
type tail struct {
	mu   sync.Mutex
	text []byte
}

func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.text = append(t.text, b...)
	t.text = t.text[max(len(t.text)-512, 0):]
	return len(b), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if text := bytes.TrimSpace(t.text); len(text) > 0 {
		return ": …" + string(text)
	}
	return ""
}

// buildSlirp connects a namespace to host a by slirp4netns.
func (p *plane) buildSlirp() error {
	sandbox, err := p.behindA()
	if err != nil {
		return err
	}
	err = p.program(p.ends[0], "slirp4netns", "--configure", "--disable-host-loopback", "--mtu", strconv.Itoa(p.mtu),
		"--netns-type=path", p.lab.NSPath(sandbox), "tap0")
	p.moveSource(sandbox)
	return err
}

// pastaBuffer are the least, usual and most bytes of a TCP send buffer behind
// pasta. Debian 12's (2023_03_09) takes in more than it can pass on: the rest is
// lost, and a flow with a larger buffer stands still for seconds. With this one it
// loses nothing, and is at its best.
const pastaBuffer = "4096 16384 212992"

// buildPasta connects a namespace to host a by pasta.
func (p *plane) buildPasta() error {
	sandbox, err := p.behindA()
	if err != nil {
		return err
	}
	sandbox.Sysctl("net/ipv4/tcp_wmem", pastaBuffer)
	err = p.program(p.ends[0], "pasta", "--foreground", "--config-net", "--no-map-gw", "--ipv4-only", "--mtu", strconv.Itoa(p.mtu),
		"--runas", "0:0", "-t", "none", "-u", "none", "-T", "none", "-U", "none", "--netns", p.lab.NSPath(sandbox))
	p.moveSource(sandbox)
	return err
}

// nebulaConfig is a host's: addresses of the other one, and no firewall.
const nebulaConfig = `pki: {ca: %[1]s/ca.crt, cert: %[1]s/%[2]s.crt, key: %[1]s/%[2]s.key}
static_host_map: {"%[3]s": ["%[4]s:4242"]}
lighthouse: {am_lighthouse: false}
listen: {host: 0.0.0.0, port: 4242}
tun: {dev: ov0, mtu: %[5]d}
logging: {level: error}
firewall:
  outbound: [{port: any, proto: any, host: any}]
  inbound: [{port: any, proto: any, host: any}]
`

// buildNebula connects the hosts by nebula, with certificates made for it.
func (p *plane) buildNebula() error {
	if p.setup.ipv6 {
		return errIPv4Only
	}
	dir := p.lab.TempDir()
	if err := nebulaCert(dir, "ca", "-name", "bench", "-out-crt", "ca.crt", "-out-key", "ca.key"); err != nil {
		return err
	}
	p.link()
	p.mtu = p.setup.mtu - nebulaOverhead
	for i, e := range p.ends {
		name := e.host.Name()
		err := nebulaCert(dir, "sign", "-name", name, "-ip", netip.PrefixFrom(inner[i], innerSubnet.Bits()).String(),
			"-out-crt", name+".crt", "-out-key", name+".key")
		if err != nil {
			return err
		}
		config := filepath.Join(dir, name+".yml")
		text := fmt.Sprintf(nebulaConfig, dir, name, inner[1-i], p.setup.under()[1-i], p.mtu)
		if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
			return err
		}
		if err := p.program(e, "nebula", "-config", config); err != nil {
			return err
		}
	}
	p.reachInside()
	return nil
}

func nebulaCert(dir string, args ...string) error {
	cmd := exec.Command("nebula-cert", args...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("nebula-cert %s: %w: %s", args[0], err, strings.TrimSpace(string(out)))
	}
	return nil
}
