package cluster

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/swarm"
)

// tmpfsEnv makes a child mount a tmpfs of this many bytes over its state
// folder, of which fillEnv bytes are taken.
const (
	tmpfsEnv = "OVND_CLUSTER_TMPFS"
	fillEnv  = "OVND_CLUSTER_FILL"
)

func mountSmallDisk(stateDir string) error {
	size := os.Getenv(tmpfsEnv)
	if size == "" {
		return nil
	}
	if err := os.MkdirAll(stateDir, 0o700); err != nil {
		return err
	}
	if err := syscall.Mount("tmpfs", stateDir, "tmpfs", 0, "mode=0700,size="+size); err != nil {
		return fmt.Errorf("tmpfs: %w", err)
	}
	var fill int
	_, _ = fmt.Sscan(os.Getenv(fillEnv), &fill)
	return os.WriteFile(filepath.Join(stateDir, "fill"), make([]byte, fill), 0o600)
}

// inUserNamespace lets a child mount.
func inUserNamespace() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{
		Pdeathsig:   syscall.SIGKILL,
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}},
	}
}

func TestFullDisk(t *testing.T) {
	for _, tt := range []struct{ size, fill, want string }{
		{"8m", "0", "and a manager's raft log needs 24 MB: free space there or choose another with --state-dir"},
		{"64k", "65536", "cannot be written: "},
	} {
		t.Setenv(tmpfsEnv, tt.size)
		t.Setenv(fillEnv, tt.fill)
		n := startChildWith(t, testConfig(t, "127.0.0.2", testPort(t)), inUserNamespace())
		if err := n.exited(); !strings.Contains(err, tt.want) {
			t.Errorf("disk of %s: ended with %q, want %q", tt.size, err, tt.want)
		}
	}
}

func TestIPv6Underlay(t *testing.T) {
	m := startChild(t, testConfig(t, "::1", testPort(t))).ready()
	cfg := m.join("::1", swarm.NodeRoleManager)
	port := testPort(t)
	cfg.Hostname = "second"
	cfg.ListenAddr = netip.AddrPortFrom(netip.IPv6Loopback(), port)
	cfg.AdvertiseAddr = cfg.ListenAddr
	w := startChild(t, cfg).ready()
	w.must(request{Op: "create", Create: network.CreateRequest{Name: "net", Attachable: true}}, nil)
	w.must(request{Op: "attach", Container: "c", Target: "net"}, nil)
	var node swarm.Node
	m.must(request{Op: "node", Target: "second"}, &node)
	if node.Status.Addr != "::1" || node.ManagerStatus.Addr != cfg.AdvertiseAddr.String() {
		t.Errorf("node: %+v", node)
	}
}

// A dead node's address is taken until the node is removed from the swarm.
func TestRemoveDeadNode(t *testing.T) {
	m := startChild(t, testConfig(t, "127.0.0.2", testPort(t))).ready()
	m.must(request{Op: "create", Create: network.CreateRequest{Name: "net", Attachable: true}}, nil)
	w := startChild(t, m.join("127.0.0.3", swarm.NodeRoleWorker)).ready()
	var a Attachment
	w.must(request{Op: "attach", Container: "c1", Target: "net", Addrs: []string{"10.0.1.50"}}, &a)
	w.kill()
	again := request{Op: "attach", Container: "c2", Target: "net", Addrs: []string{"10.0.1.50"}}
	if err := m.call(again, nil); !strings.Contains(err, "is in use on network net by task") {
		t.Errorf("attach: %q", err)
	}
	m.must(request{Op: "rmnode", Target: "node-3", Force: true}, nil)
	eventually(t, "address free", 20e9, func() bool { return m.call(again, nil) == "" })
}

// Many attachments at once get an address each, and a second request for one
// that is on its way is refused.
func TestAttachMany(t *testing.T) {
	m := startChild(t, testConfig(t, "127.0.0.2", testPort(t))).ready()
	m.must(request{Op: "create", Create: network.CreateRequest{Name: "net", Attachable: true}}, nil)
	var (
		wg    sync.WaitGroup
		mu    sync.Mutex
		addrs = make(map[netip.Prefix]string)
	)
	for i := range 40 {
		wg.Go(func() {
			var a Attachment
			name := fmt.Sprintf("c%d", i)
			if err := m.call(request{Op: "attach", Container: name, Target: "net"}, &a); err != "" {
				t.Errorf("%s: %s", name, err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			if other, taken := addrs[a.Addrs[0]]; taken {
				t.Errorf("%s and %s both have %s", name, other, a.Addrs[0])
			}
			addrs[a.Addrs[0]] = name
			if a.ContainerID != name {
				t.Errorf("%s got the attachment of %s", name, a.ContainerID)
			}
		})
	}
	wg.Wait()
	if err, _ := m.stop(); err != "" {
		t.Errorf("stop: %s", err)
	}
	m = m.again().ready()
	var atts []Attachment
	if m.must(request{Op: "attachments"}, &atts); len(atts) != 0 {
		t.Errorf("%d attachments after a graceful stop", len(atts))
	}
}

func TestOnePerProcess(t *testing.T) {
	dir := t.TempDir()
	conf := func(name string) Config {
		return Config{StateDir: filepath.Join(dir, name), ControlSocket: filepath.Join(dir, "run", "s")}
	}
	c, err := New(conf("a"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := New(conf("b")); err == nil {
		t.Error("a second Cluster was made")
	}
	c.Close()
	c, err = New(conf("a"))
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
}
