package e2e

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/ovnd/ovnd/api/types"
	"github.com/ovnd/ovnd/bench/lab"
	"github.com/ovnd/ovnd/encap"
)

// keyState is what a node has for the swarm's data-plane keys when it starts
// and cannot ask a manager.
type keyState string

const (
	keysMissing  keyState = "missing"
	keysWrong    keyState = "wrong"
	keysRotating keyState = "rotating" // it is one rotation ahead of the others
)

// A savedKey is one of the file that a node keeps them in.
type savedKey struct {
	Tag uint64 `json:"tag"`
	Key []byte `json:"key"`
}

// keysFile is where the node keeps the data-plane keys.
func (n *node) keysFile() string { return filepath.Join(n.stateDir, "discovery", "sealing.json") }

// spoilKeys does to the node's keys, while it does not run, what a state says.
func (n *node) spoilKeys(state keyState) {
	n.t.Helper()
	data, err := os.ReadFile(n.keysFile())
	if err != nil {
		n.t.Fatal(err)
	}
	info, err := os.Stat(n.keysFile())
	if err != nil || info.Mode().Perm() != 0o600 {
		n.t.Errorf("the file of keys has mode %v, %v", info.Mode(), err)
	}
	var keys []savedKey
	if err := json.Unmarshal(data, &keys); err != nil || len(keys) != 3 {
		n.t.Fatalf("%d keys, %v", len(keys), err)
	}
	fresh := func() []byte {
		key := make([]byte, 16)
		_, _ = rand.Read(key)
		return key
	}
	switch state {
	case keysMissing:
		keys = nil
	case keysWrong:
		for i := range keys {
			keys[i].Key = fresh()
		}
	case keysRotating:
		keys = append(keys[1:], savedKey{keys[2].Tag + 1, fresh()})
	}
	if keys == nil {
		err = os.Remove(n.keysFile())
	} else if data, err = json.Marshal(keys); err == nil {
		err = os.WriteFile(n.keysFile(), data, 0o600)
	}
	if err != nil {
		n.t.Fatal(err)
	}
}

// An obstacle is in the way of a node's start, at one of its steps, until it is
// taken away.
type obstacle struct {
	name  string
	place func(n *node) (remove func(), err error)
}

// obstacles are those of the steps of a start, in their order.
var obstacles = []obstacle{
	{"none", func(*node) (func(), error) { return func() {}, nil }},
	{"host's identity", func(n *node) (func(), error) { return spoilFile(filepath.Join(n.stateDir, "identity.json")) }},
	{"certificate", func(n *node) (func(), error) {
		return spoilFile(filepath.Join(n.stateDir, "swarm", "certificates", "swarm-node.crt"))
	}},
	{"swarm's port", func(n *node) (func(), error) { return occupy(n, "tcp", 2377) }},
	{"data port", func(n *node) (func(), error) { return occupy(n, "udp", 4789) }},
	{"sealing keys", func(n *node) (func(), error) { return spoilFile(n.keysFile()) }},
	{"gossip port", func(n *node) (func(), error) { return occupy(n, "udp", 7946) }},
	{"gossip keys", func(n *node) (func(), error) { return spoilFile(filepath.Join(n.stateDir, "discovery", "keys.json")) }},
	{"known networks", func(n *node) (func(), error) {
		return spoilFile(filepath.Join(n.stateDir, "discovery", "networks.json"))
	}},
	{"API socket", func(n *node) (func(), error) {
		return spoilFile(filepath.Join(n.stateDir, "run", "ovnd.sock"))
	}},
}

// spoilFile puts a folder with something in it where a file was, or would be.
func spoilFile(path string) (restore func(), err error) {
	kept := path + ".kept"
	if err := os.Rename(path, kept); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Join(path, "in the way"), 0o700); err != nil {
		return nil, err
	}
	return func() {
		_ = os.RemoveAll(path)
		_ = os.Rename(kept, path) // if there was one
	}, nil
}

// occupy holds a port at the node's address.
func occupy(n *node, proto string, port int) (release func(), err error) {
	addr := hostPort(n.addr, port)
	err = n.host.Do(func() error {
		if proto == "udp" {
			c, err := net.ListenPacket(proto, addr)
			if err == nil {
				release = func() { c.Close() }
			}
			return err
		}
		l, err := net.Listen(proto, addr)
		if err == nil {
			release = func() { l.Close() }
		}
		return err
	})
	return release, err
}

// withoutManagers keeps a machine from reaching the swarm's port anywhere else
// until the returned function is called.
func withoutManagers(t *testing.T, h *lab.Host) (restore func()) {
	t.Helper()
	const table = 2377
	everything := &net.IPNet{IP: net.IPv4zero, Mask: net.CIDRMask(0, 32)}
	nowhere := &netlink.Route{Dst: everything, Table: table, Type: unix.RTN_UNREACHABLE}
	rule := netlink.NewRule()
	rule.Family, rule.Priority, rule.Table = netlink.FAMILY_V4, 100, table
	rule.IPProto, rule.Dport = unix.IPPROTO_TCP, netlink.NewRulePortRange(2377, 2377)
	if err := errors.Join(h.Netlink().RouteReplace(nowhere), h.Netlink().RuleAdd(rule)); err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := h.Netlink().RuleDel(rule); err != nil {
			t.Error(err)
		}
	}
}

// A row of the table of what may go wrong with an encrypted network.
type row struct {
	keys     keyState
	obstacle obstacle
}

// TestNeverClear goes through a table of 1 to 3 nodes, the state of one node's
// keys, failures at each step of its start, and a network that is older or
// younger than the swarm's other nodes. The processes on the network talk all
// the while; in no row is anything of it on the wire in clear.
func TestNeverClear(t *testing.T) {
	var rows []row
	for _, keys := range []keyState{keysMissing, keysWrong, keysRotating} {
		for _, o := range obstacles {
			rows = append(rows, row{keys, o})
		}
	}
	turn := 0
	for count := 1; count <= 3; count++ {
		for _, before := range []bool{true, false} {
			turn++
			share := rows
			if rounds(2) == 1 {
				// In short, three swarms take some of the rows each.
				if turn%2 == count%2 {
					continue
				}
				share = nil
				for i := turn; i < len(rows); i += 11 {
					share = append(share, rows[i])
				}
			}
			t.Run(fmt.Sprintf("%d nodes, network before them %v", count, before), func(t *testing.T) {
				s := newClearSwarm(t, count, before)
				defer s.check() // whatever else went wrong
				for _, r := range share {
					s.try(r)
				}
			})
		}
	}
}

// A clearSwarm is some nodes with an agent each on an encrypted network.
type clearSwarm struct {
	t      *testing.T
	nodes  []*node
	agents []*sandbox
	wire   *wiretap
}

func newClearSwarm(t *testing.T, count int, before bool) *clearSwarm {
	hosts, addrs := threeMachines(t, "192.0.2.%d", 24)
	m := newNode(t, hosts[0], "n1", addrs[0]).up()
	s := &clearSwarm{t: t, nodes: []*node{m}}
	create := func() {
		m.must("network", "create", "-d", "overlay", "--attachable", "--opt", "encrypted", "--subnet", "10.10.19.0/16", "sealed")
		m.must("network", "create", "-d", "overlay", "--attachable", "plain")
		s.wire = tapCanaries(t, "ens3", m, hosts[:]...)
	}
	join := func() {
		for i := 1; i < count; i++ {
			s.nodes = append(s.nodes, newNode(t, hosts[i], fmt.Sprintf("n%d", i+1), addrs[i]).up("--join", m.token("worker"), hostPort(addrs[0], 2377)))
		}
	}
	if before {
		create()
		s.agents = append(s.agents, m.startAgent("--network", "sealed", "--name", "agent-1"))
		join()
	} else {
		join()
		create()
		s.agents = append(s.agents, m.startAgent("--network", "sealed", "--name", "agent-1"))
	}
	if count == 1 {
		// A second agent to talk to, on the same node.
		s.nodes = append(s.nodes, m)
	}
	for i, n := range s.nodes[1:] {
		s.agents = append(s.agents, n.startAgent("--network", "sealed", "--name", fmt.Sprintf("agent-%d", i+2)))
	}
	if count > 1 {
		a := m.startAgent("--network", "plain", "--name", "plain-1")
		b := s.nodes[1].startAgent("--network", "plain", "--name", "plain-2")
		m.eventually("a plain network's agents talk", func() error { return a.ask(nil, "canary", b.addr(), plainCanary) })
	}
	return s
}

// victim is the node that rows are about.
func (s *clearSwarm) victim() *node { return s.nodes[len(s.nodes)-1] }

// try does one row: the victim is killed, its keys are spoiled, its start fails
// at an obstacle, it starts with the keys as they are, and finds a manager.
func (s *clearSwarm) try(r row) {
	s.t.Helper()
	began := time.Now()
	name := fmt.Sprintf("keys %s, failure at %s", r.keys, r.obstacle.name)
	s.talk()
	for i := range s.agents {
		to := s.agents[(i+1)%len(s.agents)]
		s.agents[i].mustAsk(nil, "spray", to.addr(), canary)
	}
	v, alone := s.victim(), s.nodes[0] == s.victim()
	reach, before := func() {}, types.Session{}
	if !alone {
		reach = withoutManagers(s.t, v.host)
		before, _ = s.nodes[0].session(v, "auto")
	}
	v.kill()
	v.spoilKeys(r.keys)
	remove, err := r.obstacle.place(v)
	if err != nil {
		s.t.Fatalf("%s: %v", name, err)
	}
	v.upAndDown()
	remove()
	v.up()
	for i, a := range s.agents {
		var out sprayed
		if err := a.tryAsk(&out, "hush"); err == nil && out.Sent == 0 {
			s.t.Errorf("%s: agent %d sent nothing: %+v", name, i+1, out)
		}
	}
	if !alone {
		s.expectSealed(name, r.keys, before)
	}
	reach()
	v.eventually("a manager brings the swarm's keys", func() error {
		want, got := s.nodes[0].status().Sealing.Epochs, v.status().Sealing.Epochs
		if !slices.Equal(want, got) {
			return fmt.Errorf("epochs %v, want %v", got, want)
		}
		return nil
	})
	s.talk()
	s.t.Logf("%s: %v", name, time.Since(began).Round(100*time.Millisecond))
}

// upAndDown starts a node that may fail at it, and ends it if it does not.
func (n *node) upAndDown() {
	n.t.Helper()
	n.start("up", "--foreground", "--hostname", n.name, "--advertise-addr", n.addr)
	n.eventually("it starts or fails", func() error {
		select {
		case <-n.process.Done():
			return nil
		default:
		}
		_, err := n.try("status")
		return err
	})
	n.process.Kill()
}

// expectSealed checks that what the keys do not allow does not get through, and
// that what they allow does. before is the session with the victim's last run.
func (s *clearSwarm) expectSealed(name string, keys keyState, before types.Session) {
	s.t.Helper()
	from, to := s.agents[0], s.agents[len(s.agents)-1]
	if to.ended() {
		return // its node was away for too long
	}
	if keys == keysRotating {
		from.node.eventually(name+": traffic goes on", func() error { return from.ask(nil, "canary", to.addr(), canary) })
		return
	}
	if err := from.ask(nil, "canary", to.addr(), canary); err == nil {
		s.t.Errorf("%s: an exchange without a common key", name)
	}
	// The session of before stays until the victim has been silent for long.
	if got, _ := s.nodes[0].session(s.victim(), "auto"); got.Established && got.Key != before.Key {
		s.t.Errorf("%s: session %+v", name, got)
	}
	if got := s.victim().status().Sealing; keys == keysMissing && (got.Error == "" || len(got.Epochs) > 0) {
		s.t.Errorf("%s: status does not say so: %+v", name, got)
	}
}

// ended says whether the agent's node was away for longer than it waits.
func (s *sandbox) ended() bool {
	select {
	case <-s.process.Done():
		return true
	default:
		return false
	}
}

// talk waits until each agent reaches the next, started again if its node was
// away for too long.
func (s *clearSwarm) talk() {
	s.t.Helper()
	for i := range s.agents {
		next := (i + 1) % len(s.agents)
		s.nodes[i].eventually(fmt.Sprintf("agent %d reaches the next", i+1), func() error {
			return errors.Join(s.revive(i), s.revive(next), s.agents[i].tryAsk(nil, "canary", s.agents[next].addr(), canary))
		})
	}
}

// revive starts an agent again that has ended.
func (s *clearSwarm) revive(i int) error {
	if !s.agents[i].ended() {
		return nil
	}
	n := s.nodes[i]
	if _, err := n.try("run", "--network", "sealed", "--", "true"); err != nil {
		return err // not yet: no manager, say
	}
	s.agents[i] = n.startAgent("--network", "sealed")
	return nil
}

func (s *clearSwarm) check() {
	s.t.Helper()
	if len(s.nodes) > 1 && s.nodes[0] != s.nodes[1] {
		s.wire.checkCanaries()
	} else {
		s.wire.expectUnseen(canary, "VXLAN of sealed")
	}
	for _, n := range s.nodes {
		checkStatus(s.t, n)
	}
}

// tryAsk is ask of an agent that may have ended.
func (s *sandbox) tryAsk(out any, command ...string) error {
	s.node.t.Helper()
	if s.ended() {
		return errors.New("the agent has ended")
	}
	return s.ask(out, command...)
}

// TestClearFramesAreRefused sends clear VXLAN frames of an encrypted network
// from the address of a node that is on it: what a VTEP of a plain network may.
func TestClearFramesAreRefused(t *testing.T) {
	hosts, addrs := threeMachines(t, "192.0.2.%d", 24)
	m := newNode(t, hosts[0], "n1", addrs[0]).up()
	w := newNode(t, hosts[1], "n2", addrs[1]).up("--join", m.token("worker"), hostPort(addrs[0], 2377))
	for _, tc := range []struct {
		network, option string
		heard           bool
	}{
		{"plain", vniOption + "=5000", true}, // as a control
		{"sealed", "encrypted", false},
	} {
		t.Run(tc.network, func(t *testing.T) {
			m.must("network", "create", "-d", "overlay", "--attachable", "--opt", tc.option, tc.network)
			here := m.startAgent("--network", tc.network)
			there := w.startAgent("--network", tc.network)
			m.eventually("they know each other", func() error { return here.ask(nil, "canary", there.addr(), "x") })
			dropped := m.status().Ledger.Dropped
			const frames = 100
			for range frames {
				sendClear(t, w, m, m.vni(tc.network), there.addr(), here.addr())
			}
			var heard int
			if tc.heard {
				m.eventually("clear frames arrive", func() error {
					if here.mustAsk(&heard, "heard"); heard < frames {
						return fmt.Errorf("%d", heard)
					}
					return nil
				})
				return
			}
			m.eventually("clear frames are dropped and counted", func() error {
				if got := m.status().Ledger.Dropped - dropped; got < frames {
					return fmt.Errorf("%d of %d; %v", got, frames, m.status().Drops)
				}
				return nil
			})
			if here.mustAsk(&heard, "heard"); heard != 0 {
				t.Errorf("%d of %d clear frames came through", heard, frames)
			}
		})
	}
}

// sendClear sends a UDP datagram with clearMark in a VXLAN frame from one node's
// machine to another's data port.
func sendClear(t *testing.T, from, to *node, vni uint32, src, dst string) {
	t.Helper()
	frame := bytes.Join([][]byte{vxlanHeader(vni), innerFrame(t, src, dst, clearMark)}, nil)
	err := from.host.Do(func() error {
		local, err := net.ResolveUDPAddr("udp", hostPort(from.addr, 0))
		if err != nil {
			return err
		}
		remote, err := net.ResolveUDPAddr("udp", hostPort(to.addr, 4789))
		if err != nil {
			return err
		}
		c, err := net.DialUDP("udp", local, remote)
		if err != nil {
			return err
		}
		defer c.Close()
		_, err = c.Write(frame)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// innerFrame is an Ethernet frame with a UDP datagram to an agent.
func innerFrame(t *testing.T, src, dst, text string) []byte {
	t.Helper()
	from, to := netip.MustParseAddr(src), netip.MustParseAddr(dst)
	b := make([]byte, encap.EthernetHeaderLen+encap.IPv4HeaderLen+encap.UDPHeaderLen+len(text))
	encap.PutEthernet(b, encap.EndpointMAC(to), encap.EndpointMAC(from), encap.EtherTypeIPv4)
	ip := encap.PutIPv4(b[encap.EthernetHeaderLen:], from, to, encap.ProtocolUDP, encap.UDPHeaderLen+len(text))
	copy(ip.Payload()[encap.UDPHeaderLen:], text)
	binary.BigEndian.PutUint16(ip.Payload(), 40000)
	binary.BigEndian.PutUint16(ip.Payload()[2:], agentPort)
	encap.UDP(ip.Payload()).SetLength(encap.UDPHeaderLen + len(text)) // and no checksum, RFC 768
	return b
}
