package e2e

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// A socket is one that a process has open, as /proc tells.
type socket struct {
	proto         string // tcp, udp, icmp, unix, …; its namesakes for IPv6 are not told apart
	local, remote netip.AddrPort
	listens       bool
	path          string // of a unix socket
	abroad        bool   // of another network namespace than the process is in
}

func (s socket) String() string {
	if s.proto == "unix" {
		return fmt.Sprintf("unix %q", s.path)
	}
	return fmt.Sprintf("%s %v to %v (listens %v, in a sandbox %v)", s.proto, s.local, s.remote, s.listens, s.abroad)
}

// sockets are all that the process has open now.
func sockets(t *testing.T, pid int) []socket {
	t.Helper()
	links, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	if err != nil {
		t.Fatal(err)
	}
	tables := map[string]socket{} // by inode, of the process's own namespace
	readTables(t, pid, false, tables)
	for _, other := range otherNamespaces(pid) {
		readTables(t, other, true, tables)
	}
	var list []socket
	for _, link := range links {
		target, err := os.Readlink(link)
		inode, ok := strings.CutPrefix(target, "socket:[")
		if err != nil || !ok {
			continue // no socket, or closed meanwhile
		}
		s, ok := tables[strings.TrimSuffix(inode, "]")]
		if !ok {
			// It may have been closed while the tables were read.
			if again, err := os.Readlink(link); err == nil && again == target {
				t.Errorf("%s of process %d is in no table of /proc", target, pid)
			}
			continue
		}
		list = append(list, s)
	}
	return list
}

// otherNamespaces are processes in network namespaces other than pid's, one in
// each.
func otherNamespaces(pid int) (pids []int) {
	own, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", pid))
	if err != nil {
		return nil
	}
	seen := map[string]bool{own: true}
	all, _ := filepath.Glob("/proc/[0-9]*/ns/net")
	for _, file := range all {
		ns, err := os.Readlink(file)
		if err != nil || seen[ns] {
			continue // gone, or not ours to look at
		}
		seen[ns] = true
		var other int
		if _, err := fmt.Sscanf(file, "/proc/%d/", &other); err == nil {
			pids = append(pids, other)
		}
	}
	return pids
}

// readTables adds the sockets of a process's namespace by inode.
func readTables(t *testing.T, pid int, abroad bool, byInode map[string]socket) {
	t.Helper()
	for _, table := range []struct {
		name  string
		inode int // its column
	}{
		{"tcp", 9},
		{"tcp6", 9},
		{"udp", 9},
		{"udp6", 9},
		{"icmp", 9},
		{"icmp6", 9},
		{"raw", 9},
		{"raw6", 9},
		{"unix", 6},
		{"netlink", 9},
		{"packet", 8},
	} {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/%s", pid, table.name))
		if err != nil {
			continue // no such protocol, or the process is gone
		}
		for _, line := range strings.Split(string(text), "\n")[1:] {
			fields := strings.Fields(line)
			if len(fields) <= table.inode {
				continue
			}
			if _, known := byInode[fields[table.inode]]; known {
				continue
			}
			s := socket{proto: strings.TrimSuffix(table.name, "6"), abroad: abroad}
			switch s.proto {
			case "unix":
				if len(fields) > 7 {
					s.path = fields[7]
				}
			case "tcp", "udp", "icmp", "raw":
				s.local, s.remote = procAddr(t, fields[1]), procAddr(t, fields[2])
				s.listens = fields[3] == stateListen && s.proto == "tcp"
			}
			byInode[fields[table.inode]] = s
		}
	}
}

// securityTable is the first column of the table of sockets in SECURITY.md.
func securityTable(t *testing.T) (rows []string) {
	t.Helper()
	text, err := os.ReadFile("../../SECURITY.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, ok := strings.Cut(string(text), "\n## Sockets\n")
	if !ok {
		t.Fatal("SECURITY.md has no section on sockets")
	}
	section, _, _ = strings.Cut(section, "\n## ")
	for line := range strings.Lines(section) {
		cells := strings.Split(line, "|")
		if len(cells) != 6 || strings.HasPrefix(cells[1], "---") || strings.TrimSpace(cells[1]) == "socket" {
			continue
		}
		for _, cell := range cells[1:5] {
			if strings.TrimSpace(cell) == "" {
				t.Errorf("an empty cell: %s", line)
			}
		}
		rows = append(rows, strings.TrimSpace(cells[1]))
	}
	if len(rows) < 5 {
		t.Fatalf("SECURITY.md has a table of %d sockets", len(rows))
	}
	return rows
}

// Ports and paths of TestSocketTable.
const (
	tableDNS       = "127.0.0.1:5353"
	tableProxy     = "127.0.0.1:1080"
	tablePublished = 7101
)

// rowOf finds the row of the table that a node's socket is of; "" is none.
func rowOf(n *node, s socket) string {
	own := netip.MustParseAddr(n.addr)
	local, remote := s.local.Port(), s.remote.Port()
	is := func(port uint16) bool { return local == port || remote == port }
	switch s.proto {
	case "unix":
		switch filepath.Base(s.path) {
		case "ovnd.sock":
			return "API"
		case "sandbox.sock":
			return "sandboxes"
		case "swarm.sock":
			return "swarm control"
		case ".":
			return "within the node"
		}
	case "tcp", "udp":
		switch {
		case s.abroad && s.local.Addr().String() == "127.0.0.11":
			return "names in a sandbox"
		case s.abroad:
			return ""
		case s.proto == "tcp" && is(2377):
			return "swarm"
		case is(7946):
			return "gossip"
		case s.local.String() == tableDNS:
			return "names of the machine"
		case s.proto == "tcp" && s.local.String() == tableProxy:
			return "proxies"
		case local == tablePublished:
			return "published ports"
		case s.proto == "udp" && local == 4789 && s.local.Addr() == own:
			return "data path"
		case s.proto == "udp" && s.local.Addr() == own && s.remote == s.local:
			return "data path, to send"
		case !s.listens && remote == agentPort+1 || s.proto == "udp" && remote == agentPort:
			return "way out"
		}
	}
	return ""
}

// TestSocketTable compares the table of sockets in SECURITY.md with what nodes
// have open that do all that nodes do: each socket is in a row, and each row is
// one that exists.
func TestSocketTable(t *testing.T) {
	hosts, addrs := threeMachines(t, "192.0.2.%d", 24)
	m := newNode(t, hosts[0], "n1", addrs[0]).up("--dns", tableDNS)
	w := newNode(t, hosts[1], "n2", addrs[1]).up("--join", m.token("worker"), hostPort(addrs[0], 2377))
	m.must("network", "create", "-d", "overlay", "--attachable", "--opt", "encrypted", "net")
	m.must("service", "create", "-q", "--name", "echo", "--network", "net", "-p", "7101:7001", "-p", "7101:7000/udp",
		"--env", agentEnv+"=1", "host", testProgram(t), "serve")
	inside := m.startAgent("--network", "net")
	inside.mustAsk(nil, "lookup", "echo")
	there := w.startAgent("--network", "net")
	outside := newNode(t, hosts[2], "outside", addrs[2])
	world := startHostAgent(outside)
	world.node.eventually("the published port answers", func() error { return world.ask(nil, "open", m.addr+":7101") })
	world.mustAsk(nil, "exchange")
	inside.node.eventually("the nodes talk", func() error { return inside.ask(nil, "canary", there.addr(), canary) })
	inside.mustAsk(nil, "open", outside.addr) // by the gateway bridge
	inside.mustAsk(nil, "exchange")
	proxy := m.attend(m.command(context.Background(), "proxy", "--network", "net", "--listen", tableProxy))
	proxy.waitOutput(tableProxy)

	rows := securityTable(t)
	var seen []string
	for _, n := range []*node{m, w} {
		for _, s := range sockets(t, n.process.Pid()) {
			if s.proto == "netlink" {
				continue // to the kernel, for as long as it takes to list addresses
			}
			row := rowOf(n, s)
			switch {
			case row == "":
				t.Errorf("%s has a socket that no row is about: %v", n.name, s)
			case !slices.Contains(rows, row):
				t.Errorf("%s has a socket of the kind %q, which is not in SECURITY.md: %v", n.name, row, s)
			}
			seen = append(seen, row)
		}
		checkSocketModes(t, n)
	}
	for _, row := range rows {
		if !slices.Contains(seen, row) {
			t.Errorf("SECURITY.md tells of sockets %q, and no node has one", row)
		}
	}
}

// checkSocketModes checks that nobody else reaches a node's unix sockets.
func checkSocketModes(t *testing.T, n *node) {
	t.Helper()
	dir := filepath.Join(n.stateDir, "run")
	info, err := os.Stat(dir)
	if err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("%s: mode %v, %v, want 0700", dir, info.Mode(), err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			t.Fatal(err)
		}
		st, ok := info.Sys().(*syscall.Stat_t)
		if e.Type()&os.ModeSocket != 0 && (!ok || int(st.Uid) != os.Geteuid()) {
			t.Errorf("%s belongs to uid %d", e.Name(), st.Uid)
		}
	}
}
