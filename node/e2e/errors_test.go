package e2e

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ovnd/ovnd/bench/lab"
)

// expectError checks that a command failed with an exit status and named each
// of words on standard error, in one go and without a stack trace.
func expectError(t *testing.T, r result, code int, words ...string) {
	t.Helper()
	if r.code != code {
		t.Errorf("exit %d, want %d; stderr %q", r.code, code, r.stderr)
	}
	for _, w := range words {
		if !strings.Contains(r.stderr, w) {
			t.Errorf("stderr does not say %q: %q", w, r.stderr)
		}
	}
	if strings.Contains(r.stderr, "goroutine ") || strings.Contains(r.stdout, "goroutine ") {
		t.Errorf("it panicked: %q", r.stderr)
	}
}

func TestNetworkErrors(t *testing.T) {
	n := newNode(t, lab.New(t).Host("machine"), "n1", "127.0.0.2").up()
	n.must("network", "create", "-d", "overlay", "--attachable", "--subnet", "10.10.0.0/16", "net")
	n.must("network", "create", "-d", "overlay", "plain")
	for _, tc := range []struct {
		name  string
		args  []string
		words []string
	}{
		{"bad subnet", []string{"--subnet", "10.300.0.0/16"}, []string{"10.300.0.0/16"}},
		{"overlapping subnet", []string{"--subnet", "10.10.3.0/24"}, []string{"10.10.3.0/24", "net", "10.10.0.0/16"}},
		{"gateway outside", []string{"--subnet", "10.50.0.0/16", "--gateway", "10.51.0.1"}, []string{"10.51.0.1"}},
		{"ip range outside", []string{"--subnet", "10.50.0.0/16", "--ip-range", "10.51.0.0/24"}, []string{"10.51.0.0/24"}},
		{"unknown option", []string{"--opt", "com.docker.network.mtu=1400"}, []string{"com.docker.network.mtu", "com.docker.network.driver.mtu"}},
		{"bad MTU", []string{"--opt", "com.docker.network.driver.mtu=9"}, []string{"com.docker.network.driver.mtu", "68"}},
		{"taken VXLAN id", []string{"--opt", vniOption + "=4096"}, []string{"4096"}},
		{"encrypted in some way", []string{"--opt", "encrypted=maybe"}, []string{"encrypted", "maybe", "chacha20-poly1305"}},
		{"encrypted with a VTEP", []string{"--opt", "encrypted", "--opt", "ovnd.vtep.lab=192.0.2.20,learn"}, []string{"encrypted", "ovnd.vtep.lab"}},
		{"IPv6", []string{"--ipv6"}, []string{"IPv6"}},
		{"unknown driver", []string{"--driver", "weave"}, []string{"weave", "overlay"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			args := append([]string{"network", "create", "-d", "overlay"}, tc.args...)
			expectError(t, n.run(append(args, "other")...), 1, tc.words...)
		})
	}
	t.Run("duplicate name", func(t *testing.T) {
		expectError(t, n.run("network", "create", "-d", "overlay", "net"), 1, "network with name net already exists")
	})
	t.Run("in use", func(t *testing.T) {
		n.startAgent("--network", "net", "--name", "a")
		expectError(t, n.run("network", "rm", "net"), 1, "is in use")
	})
	t.Run("name in use", func(t *testing.T) {
		expectError(t, n.run("run", "--network", "net", "--name", "a", "--", "true"), 125, "Conflict", "--name")
	})
	t.Run("address in use", func(t *testing.T) {
		expectError(t, n.run("run", "--network", "net", "--ip", "10.10.0.1", "--", "true"), 125, "10.10.0.1")
	})
	t.Run("address outside", func(t *testing.T) {
		expectError(t, n.run("run", "--network", "net", "--ip", "10.99.0.1", "--", "true"), 125, "10.99.0.1")
	})
	t.Run("no such network", func(t *testing.T) {
		expectError(t, n.run("run", "--network", "nosuch", "--", "true"), 125, "nosuch", "not found")
		expectError(t, n.run("network", "rm", "nosuch"), 1, "network nosuch not found")
		r := n.run("network", "inspect", "nosuch")
		expectError(t, r, 1, "network nosuch not found")
		if strings.TrimSpace(r.stdout) != "[]" {
			t.Errorf("inspect prints %q, want []", r.stdout)
		}
	})
	t.Run("not attachable", func(t *testing.T) {
		expectError(t, n.run("run", "--network", "plain", "--", "true"), 125, "network plain not manually attachable")
	})
	t.Run("program", func(t *testing.T) {
		expectError(t, n.run("run", "--network", "net", "--", "no-such-program"), 127, "no-such-program")
		expectError(t, n.run("run", "--network", "net", "--", "/etc/passwd"), 126, "/etc/passwd")
		if r := n.run("run", "--network", "net", "--", "sh", "-c", "exit 42"); r.code != 42 {
			t.Errorf("exit %d, want 42", r.code)
		}
	})
}

func TestUpErrors(t *testing.T) {
	h := lab.New(t).Host("machine")
	t.Run("port taken", func(t *testing.T) {
		for _, port := range []string{"tcp 2377", "tcp 7946", "udp 7946", "udp 4789"} {
			proto, num, _ := strings.Cut(port, " ")
			err := h.Do(func() error {
				return occupied(proto, net.JoinHostPort("127.0.0.2", num), func() {
					n := newNode(t, h, "n1", "127.0.0.2")
					expectError(t, n.run("up", "--advertise-addr", "127.0.0.2"), 1, "127.0.0.2", num, "already in use")
				})
			})
			if err != nil {
				t.Fatal(err)
			}
		}
	})
	t.Run("not running", func(t *testing.T) {
		n := newNode(t, h, "n1", "127.0.0.2")
		expectError(t, n.run("node", "ls"), 1, "ovnd up")
	})
	t.Run("wrong token", func(t *testing.T) {
		m := newNode(t, h, "n1", "127.0.0.2").up()
		w := newNode(t, h, "n2", "127.0.0.3")
		expectError(t, w.run("up", "--advertise-addr", "127.0.0.3", "--join", "badtoken", "127.0.0.2:2377"), 1, "invalid join token")
		token := m.token("worker")
		digit := byte('0')
		if token[12] == digit {
			digit = '1'
		}
		wrongCA := token[:12] + string(digit) + token[13:]
		expectError(t, w.run("up", "--advertise-addr", "127.0.0.3", "--join", wrongCA, "127.0.0.2:2377"), 1, "remote CA does not match fingerprint")
		last := token[len(token)-1]
		wrongSecret := token[:len(token)-1] + string('a'+(last-'a'+1)%26)
		expectError(t, w.run("up", "--advertise-addr", "127.0.0.3", "--join", wrongSecret, "127.0.0.2:2377"), 1, "token")
		w.up("--join", token, "127.0.0.2:2377") // the failures left nothing in the way
		expectError(t, w.run("network", "create", "-d", "overlay", "net"), 1, "This node is not a swarm manager.")
		expectError(t, w.run("run", "--network", "nosuch", "--", "true"), 125, "nosuch")
	})
	t.Run("already running", func(t *testing.T) {
		n := newNode(t, h, "n4", "127.0.0.5").up()
		r := n.run("up", "--foreground", "--advertise-addr", "127.0.0.5")
		expectError(t, r, 1, "already running", "ovnd down")
	})
}

// occupied runs f while a socket holds the address.
func occupied(proto, addr string, f func()) error {
	if proto == "udp" {
		c, err := net.ListenPacket(proto, addr)
		if err != nil {
			return err
		}
		defer c.Close()
	} else {
		l, err := net.Listen(proto, addr)
		if err != nil {
			return err
		}
		defer l.Close()
	}
	f()
	return nil
}

// breakEnv names something that breakMain takes away before it executes ovnd.
const breakEnv = "OVND_E2E_BREAK"

// breakMain spoils the machine for one command, in namespaces of its own.
func breakMain(what string) {
	var err error
	name, arg, _ := strings.Cut(what, "=")
	switch name {
	case "tun":
		err = unix.Mount("tmpfs", "/dev/net", "tmpfs", 0, "") // empty
	case "userns":
		err = os.WriteFile("/proc/sys/user/max_user_namespaces", []byte("0"), 0)
	case "disk":
		if err = os.MkdirAll(arg, 0o700); err == nil {
			err = unix.Mount("tmpfs", arg, "tmpfs", 0, "size=256k,mode=0700")
		}
	}
	if err != nil {
		fatal(fmt.Errorf("%s: %w", what, err))
	}
	os.Unsetenv(breakEnv)
	fatal(syscall.Exec(os.Args[1], os.Args[1:], os.Environ()))
}

// runBroken runs a command where something is missing.
func (n *node) runBroken(what string, args ...string) result {
	n.t.Helper()
	cmd := n.command(context.Background(), args...)
	exe, err := os.Executable()
	if err != nil {
		n.t.Fatal(err)
	}
	cmd.Args = append([]string{exe, cmd.Path}, args...)
	cmd.Path = exe
	cmd.Env = append(cmd.Env, breakEnv+"="+what)
	cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWNS
	// Root of its own namespace, to be allowed to break things in it.
	cmd.SysProcAttr.UidMappings[0].ContainerID = 0
	cmd.SysProcAttr.GidMappings[0].ContainerID = 0
	var stdout, stderr lockedBuffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := n.host.Do(cmd.Start); err != nil {
		n.t.Fatal(err)
	}
	_ = cmd.Wait() // the exit code says it
	return result{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
}

func TestHostLacks(t *testing.T) {
	h := lab.New(t).Host("machine")
	n := newNode(t, h, "n1", "127.0.0.2").up()
	n.must("network", "create", "-d", "overlay", "--attachable", "net")
	t.Run("TUN", func(t *testing.T) {
		expectError(t, n.runBroken("tun", "run", "--network", "net", "--", "true"), 125, "/dev/net/tun", "modprobe tun")
	})
	t.Run("user namespaces", func(t *testing.T) {
		expectError(t, n.runBroken("userns", "run", "--network", "net", "--", "true"), 125, "user.max_user_namespaces")
	})
	t.Run("disk", func(t *testing.T) {
		full := newNode(t, h, "n2", "127.0.0.3")
		r := full.runBroken("disk="+full.stateDir, "up", "--advertise-addr", "127.0.0.3")
		expectError(t, r, 1, filepath.Base(full.stateDir), "free", "--state-dir")
	})
	t.Run("addresses went back", func(t *testing.T) {
		// Nothing that failed above may keep an address or the network.
		n.eventually("the network can go", func() error {
			_, err := n.try("network", "rm", "net")
			return err
		})
	})
}
