package demo

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// names are the walk-through's; the first node is the manager.
var names = [3]string{"localhost", "hsp1", "hsp2"}

// Ports that a node binds at its own address: the swarm's (TCP), gossip (both)
// and VXLAN (UDP).
var (
	tcpPorts = []uint16{2377, 7946}
	udpPorts = []uint16{7946, 4789}
)

// usualPort is the walk-through's published port.
const usualPort = 8080

// maxPlaces is how many addresses are tried: 127.0.0.2 and up.
const maxPlaces = 3 * 250

// choosePlaces finds an address for each node where its ports are free, and a
// port to publish that is free on all of them.
func (w *walk) choosePlaces() error {
	addr := netip.MustParseAddr("127.0.0.2")
	for range maxPlaces {
		if addr.As4()[3] != 255 && portsFree(addr) {
			name := names[len(w.machines)]
			w.machines = append(w.machines, &machine{
				name: name, addr: addr, self: w.cfg.Self, readyEnv: w.cfg.ReadyEnv, demoDir: w.dir,
				tun: w.cfg.TUN, stateDir: filepath.Join(w.dir, name), logFile: filepath.Join(w.dir, name+".log"),
			})
		}
		if len(w.machines) == len(names) {
			return w.choosePort()
		}
		addr = addr.Next()
	}
	return fmt.Errorf("demo: the ports %d, %d and %d are taken on every address of 127.0.0.0/8: stop what listens on all addresses (a Docker node?)", tcpPorts[0], udpPorts[0], udpPorts[1])
}

func portsFree(addr netip.Addr) bool {
	for _, port := range tcpPorts {
		if !tcpFree(addr, port) {
			return false
		}
	}
	for _, port := range udpPorts {
		conn, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(addr, port)))
		if err != nil {
			return false
		}
		_ = conn.Close()
	}
	return true
}

func tcpFree(addr netip.Addr, port uint16) bool {
	l, err := net.ListenTCP("tcp4", net.TCPAddrFromAddrPort(netip.AddrPortFrom(addr, port)))
	if err != nil {
		return false
	}
	_ = l.Close()
	return true
}

func (w *walk) choosePort() error {
	for port := uint16(usualPort); port < usualPort+100; port++ {
		free := true
		for _, m := range w.machines {
			free = free && tcpFree(m.addr, port)
		}
		if free {
			w.port = port
			return nil
		}
	}
	return errors.New("demo: no port from 8080 to 8179 is free to publish")
}

// hostAddr is an address of this machine that is not loopback, if there is
// one: what lies there is outside for a task.
func hostAddr() (netip.Addr, bool) {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return netip.Addr{}, false
	}
	for _, a := range addrs {
		p, err := netip.ParsePrefix(a.String())
		if err == nil && p.Addr().Is4() && p.Addr().IsGlobalUnicast() {
			return p.Addr(), true
		}
	}
	return netip.Addr{}, false
}

// A program is what the services run, and how to see which task answered.
type program struct {
	image string
	// log is the file where it notes each request; empty: its answers name
	// the task.
	log string
}

// sbin is where Debian has nginx, and an ordinary user's PATH does not look.
const sbin = "/usr/local/sbin:/usr/sbin:/sbin"

// chooseProgram takes nginx if the machine has it. Started by root it would
// change its files' owner and its user, and a sandbox has one user only.
func chooseProgram() program {
	if os.Geteuid() == 0 {
		return program{image: "ovnd/whoami"}
	}
	if _, err := exec.LookPath("nginx"); err == nil {
		return program{image: "nginx", log: nginxLog}
	}
	for dir := range strings.SplitSeq(sbin, ":") {
		if _, err := exec.LookPath(filepath.Join(dir, "nginx")); err == nil {
			return program{image: "nginx", log: nginxLog}
		}
	}
	return program{image: "ovnd/whoami"}
}

// nginxLog is where Debian's package logs requests; each task has its own.
const nginxLog = "/var/log/nginx/access.log"
