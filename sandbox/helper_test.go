package sandbox

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// helperEnv names what the test binary does as a command in a sandbox.
const helperEnv = "OVND_TEST_HELPER"

var helpers map[string]func(args []string) error

func init() {
	helpers = map[string]func(args []string) error{
		"probe":  probe,
		"attach": attachHelper,
		"change": changeNetwork,
		"serve":  echoServer,
		"talk":   echoClient,
		"leave":  leaveOrphans,
		"dial":   dialServer,
		"get":    getPage,
		"nosuid": nosuidHelper,
	}
}

// runHelper does what helperEnv says, if it says anything.
func runHelper() {
	name, ok := os.LookupEnv(helperEnv)
	if !ok {
		return
	}
	if err := helpers[name](os.Args[1:]); err != nil {
		fmt.Println(name+":", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// helper returns the command that runs a helper in a sandbox.
func helper(t *testing.T, name string, args ...string) Command {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return Command{Args: append([]string{self}, args...), Env: []string{helperEnv + "=" + name}}
}

// A probed is what a process in a sandbox finds around it.
type probed struct {
	Interfaces []probedInterface
	Routes     []string
	Status     map[string]string // of /proc/self/status
	Port80     string            // error of binding it
	PPID       int
	UID, GID   int
	Hostname   string
	Env        map[string]string
	Dir        string
	SysNet     []string // /sys/class/net
}

type probedInterface struct {
	Name  string
	MTU   int
	Addrs []string
}

func probe([]string) (err error) {
	p := probed{
		Status: make(map[string]string), Env: make(map[string]string),
		PPID: os.Getppid(), UID: os.Getuid(), GID: os.Getgid(),
	}
	if p.Interfaces, err = probeInterfaces(); err != nil {
		return err
	}
	if p.Routes, err = probeRoutes(); err != nil {
		return err
	}
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(status)) {
		k, v, _ := strings.Cut(line, ":")
		p.Status[k] = strings.TrimSpace(v)
	}
	if l, err := net.Listen("tcp", ":80"); err != nil {
		p.Port80 = err.Error()
	} else {
		l.Close()
	}
	p.Hostname, _ = os.Hostname()
	p.Dir, _ = os.Getwd()
	for _, kv := range os.Environ() {
		k, v, _ := strings.Cut(kv, "=")
		p.Env[k] = v
	}
	entries, _ := os.ReadDir("/sys/class/net")
	for _, e := range entries {
		p.SysNet = append(p.SysNet, e.Name())
	}
	return json.NewEncoder(os.Stdout).Encode(p)
}

func probeInterfaces() (out []probedInterface, err error) {
	ifs, err := net.Interfaces()
	if err != nil {
		return nil, err
	}
	for _, in := range ifs {
		p := probedInterface{Name: in.Name, MTU: in.MTU}
		addrs, err := in.Addrs()
		if err != nil {
			return nil, err
		}
		for _, a := range addrs {
			p.Addrs = append(p.Addrs, a.String())
		}
		out = append(out, p)
	}
	return out, nil
}

// probeRoutes returns the routes of the main table as "10.0.0.0/8 dev 2".
func probeRoutes() (out []string, err error) {
	routes, err := netlink.RouteList(nil, netlink.FAMILY_V4)
	if err != nil {
		return nil, err
	}
	for _, r := range routes {
		s := fmt.Sprintf("%v dev %d", r.Dst, r.LinkIndex)
		if r.Gw != nil {
			s += " via " + r.Gw.String()
		}
		out = append(out, s)
	}
	return out, nil
}

// changeNetwork fails if it can do what a command must not be able to, itself
// or, with all capabilities, in a user namespace of its own.
func changeNetwork(args []string) error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	eth, err := netlink.LinkByName("eth0")
	if err != nil {
		return err
	}
	addr, err := netlink.ParseAddr("10.10.9.9/16")
	if err != nil {
		return err
	}
	for what, err := range map[string]error{
		"set a link down":              netlink.LinkSetDown(lo),
		"set an MTU":                   netlink.LinkSetMTU(eth, 1300),
		"add an address":               netlink.AddrAdd(eth, addr),
		"change sysctls":               os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0),
		"set the hostname":             unix.Sethostname([]byte("other")),
		"unmount /etc/hosts":           unix.Unmount("/etc/hosts", 0),
		"trace the init":               unix.PtraceAttach(1),
		"read the init's environment":  readAll("/proc/1/environ"),
		"read the init's memory map":   readAll("/proc/1/maps"),
		"copy the init's descriptors":  stealDescriptor(),
		"open a raw socket on eth0":    rawSocket(),
		"join the init's descriptors'": readAll("/proc/1/fd/3"),
	} {
		if err == nil {
			return fmt.Errorf("could %s", what)
		}
	}
	if len(args) > 0 {
		return nil
	}
	nested := exec.Command("/proc/self/exe", "nested")
	nested.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER,
		AmbientCaps: []uintptr{unix.CAP_SYS_ADMIN, unix.CAP_NET_ADMIN, unix.CAP_NET_RAW, unix.CAP_SYS_PTRACE, unix.CAP_DAC_OVERRIDE},
	}
	out, err := nested.CombinedOutput()
	if err != nil {
		return fmt.Errorf("nested: %w: %s", err, out)
	}
	return nil
}

// getPage prints the status and the title of the page at args[0].
func getPage(args []string) error {
	r, err := http.Get(args[0])
	if err != nil {
		return err
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	_, rest, _ := strings.Cut(string(b), "<title>")
	title, _, _ := strings.Cut(rest, "</title>")
	fmt.Println(r.StatusCode, title)
	return err
}

func readAll(path string) error {
	_, err := os.ReadFile(path)
	return err
}

func stealDescriptor() error {
	pidfd, err := unix.PidfdOpen(1, 0)
	if err != nil {
		return err
	}
	for fd := range 32 {
		if _, err = unix.PidfdGetfd(pidfd, fd, 0); err == nil {
			return nil
		}
	}
	return err
}

func rawSocket() error {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, 0)
	if err == nil {
		unix.Close(fd)
	}
	return err
}

// echoServer answers one TCP connection to args[0] line by line.
func echoServer(args []string) error {
	l, err := net.Listen("tcp", args[0])
	if err != nil {
		return err
	}
	fmt.Println("listening")
	c, err := l.Accept()
	if err != nil {
		return err
	}
	_, err = io.Copy(c, c)
	return err
}

// echoClient sends a number to args[0] each 10 ms and prints what comes back,
// until its standard input ends.
func echoClient(args []string) error {
	c, err := net.DialTimeout("tcp", args[0], 10*time.Second)
	if err != nil {
		return err
	}
	ended := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		close(ended)
	}()
	back := bufio.NewScanner(c)
	for i := 0; ; i++ {
		if _, err := fmt.Fprintln(c, i); err != nil {
			return err
		}
		if !back.Scan() {
			return fmt.Errorf("connection lost: %w", errors.Join(back.Err(), io.ErrUnexpectedEOF))
		}
		if want := fmt.Sprint(i); back.Text() != want {
			return fmt.Errorf("sent %s, got %s", want, back.Text())
		}
		fmt.Println(i)
		select {
		case <-ended:
			return nil
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// leaveOrphans makes processes that end after their parent, and fails if the
// init leaves them as zombies.
func leaveOrphans([]string) error {
	const n = 20
	for range n {
		if err := exec.Command("sh", "-c", "sleep 0.05 & exit 0").Run(); err != nil {
			return err
		}
	}
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		stats, err := os.ReadDir("/proc")
		if err != nil {
			return err
		}
		var others []string
		for _, s := range stats {
			b, err := os.ReadFile("/proc/" + s.Name() + "/stat")
			if err != nil || s.Name() == "1" || s.Name() == "self" || s.Name() == "thread-self" || s.Name() == fmt.Sprint(os.Getpid()) {
				continue
			}
			others = append(others, string(b))
		}
		if len(others) == 0 {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("still there: %q", others)
		}
	}
}
