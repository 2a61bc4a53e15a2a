package sandbox

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// worldEnv names a state of the machine that `ovnd run` finds. It is made in
// user and mount namespaces around it.
const worldEnv = "OVND_TEST_WORLD"

var worlds = map[string]func() error{
	// As container runtimes mask parts of /proc.
	"masked proc": func() error { return unix.Mount("tmpfs", "/proc/fs", "tmpfs", unix.MS_RDONLY, "") },
	"no user namespaces": func() error {
		return os.WriteFile("/proc/sys/user/max_user_namespaces", []byte("0"), 0)
	},
	"no TUN device": func() error { return unix.Mount("tmpfs", "/dev/net", "tmpfs", 0, "") },
	"bare etc":      bareEtc,
}

// bareEtc is as minimal systems have it: links to what nobody has made yet.
func bareEtc() error {
	if err := unix.Mount("tmpfs", "/etc", "tmpfs", 0, "mode=0755"); err != nil {
		return err
	}
	return errors.Join(
		os.Symlink("../run/ovnd-none/hosts", "/etc/hosts"),
		os.Symlink("../run/ovnd-none/resolv.conf", "/etc/resolv.conf"),
		os.Symlink("dir/file", "/etc/link"),
		os.Mkdir("/etc/dir", 0o755),
		os.WriteFile("/etc/dir/file", []byte("original\n"), 0o644),
	)
}

func enterWorld() {
	name, ok := os.LookupEnv(worldEnv)
	if !ok {
		return
	}
	os.Unsetenv(worldEnv)
	if err := worlds[name](); err != nil {
		fmt.Fprintln(os.Stderr, "make world:", err)
		os.Exit(1)
	}
}

func startInWorld(t *testing.T, world string, r testRun) *cli {
	t.Helper()
	cmd := r.command(t)
	cmd.Env = append(cmd.Env, worldEnv+"="+world)
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Setsid:      true,
		Cloneflags:  unix.CLONE_NEWUSER | unix.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: os.Getuid(), HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: os.Getgid(), HostID: os.Getgid(), Size: 1}},
		AmbientCaps: []uintptr{unix.CAP_SYS_ADMIN, unix.CAP_SYS_RESOURCE},
	}
	return startProcess(t, cmd)
}

func TestMaskedProc(t *testing.T) {
	n := newFakeNode(t)
	const notice = "/proc cannot be mounted here"
	c := startInWorld(t, "masked proc", testRun{Spec: n.spec(3), Args: []string{
		"sh", "-c", `grep CapEff /proc/$$/status | tr -d '\t'; hostname; read x; exit 5`,
	}})
	c.expect("CapEff:0000000000000000")
	c.expect("000000000000")
	c.in.Close()
	c.exits(5)
	if strings.Count(c.stderr.String(), notice) != 1 {
		t.Errorf("stderr: %q, want once %q", c.stderr.String(), notice)
	}

	// Processes end together without a pid namespace, too, those that left
	// their parent and session included.
	s := n.spec(4)
	c = startInWorld(t, "masked proc", testRun{Spec: s, Args: []string{
		"sh", "-c", `setsid sh -c 'sleep 1000 & echo $!; exec sleep 1000' & exec sleep 1000`,
	}})
	line, err := c.lines.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	var orphan int
	if _, err := fmt.Sscan(line, &orphan); err != nil {
		t.Fatal(err)
	}
	n.wait("attached", func() bool { return n.attached[s.ID] != nil })
	init := n.pid(s.ID)
	prompt(t, func() {
		c.signal(unix.SIGKILL)
		n.wait("detached", func() bool { return n.attached[s.ID] == nil })
		waitGone(t, init)
		waitGone(t, orphan)
	})
}

func TestRemedies(t *testing.T) {
	n := newFakeNode(t)
	for world, text := range map[string]string{
		"no user namespaces": "sysctl -w user.max_user_namespaces=15000",
		"no TUN device":      "modprobe tun",
	} {
		t.Run(world, func(t *testing.T) {
			c := startInWorld(t, world, testRun{Spec: n.spec(3), Args: []string{"true"}})
			c.exits(ExitFailure)
			if !strings.Contains(c.stderr.String(), text) {
				t.Errorf("stderr: %q, want %q in it", c.stderr.String(), text)
			}
		})
	}
}

func TestExplainNamespaces(t *testing.T) {
	for _, c := range []struct {
		sysctl, value string
		err           error
		want          string
	}{
		{"user/max_user_namespaces", "0\n", unix.ENOSPC, "user.max_user_namespaces="},
		{"user/max_user_namespaces", "100\n", unix.ENOSPC, "too many namespaces"},
		{"kernel/unprivileged_userns_clone", "0\n", unix.EPERM, "kernel.unprivileged_userns_clone=1"},
		{"kernel/apparmor_restrict_unprivileged_userns", "1\n", unix.EACCES, "AppArmor"},
		{"kernel/apparmor_restrict_unprivileged_userns", "0\n", unix.EPERM, "--security-opt"},
		{"kernel/none", "", unix.EINVAL, "kernel was built without"},
	} {
		sys := t.TempDir()
		file := filepath.Join(sys, c.sysctl)
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, []byte(c.value), 0o644)); err != nil {
			t.Fatal(err)
		}
		err := explainNamespaces(&fs.PathError{Op: "fork/exec", Path: "x", Err: c.err}, sys)
		if !strings.Contains(err.Error(), c.want) || !errors.Is(err, c.err) {
			t.Errorf("%s = %q, %v: %v, want %q in it", c.sysctl, c.value, c.err, err, c.want)
		}
	}
}

func TestCheckTUN(t *testing.T) {
	if err := checkTUN(filepath.Join(t.TempDir(), "tun")); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "modprobe tun") {
		t.Errorf("missing: %v", err)
	}
	denied := filepath.Join(t.TempDir(), "tun")
	if err := os.WriteFile(denied, nil, 0); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() == 0 {
		return // may open it
	}
	if err := checkTUN(denied); !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), "chmod 0666") {
		t.Errorf("denied: %v", err)
	}
}

// Dangling links in /etc are replaced, the rest of /etc is as it was.
func TestPrivateEtc(t *testing.T) {
	n := newFakeNode(t)
	s := n.spec(3)
	s.ResolvConf = []byte("nameserver 127.0.0.11\n")
	c := startInWorld(t, "bare etc", testRun{Spec: s, Args: []string{
		"sh", "-c", `cat /etc/resolv.conf /etc/link /etc/dir/file; grep box3 /etc/hosts | tr '\t' ' '; ls /etc`,
	}})
	for _, line := range []string{"nameserver 127.0.0.11", "original", "original", "10.10.0.3 000000000000 box3", "dir", "hosts", "link", "resolv.conf"} {
		c.expect(line)
	}
	c.exits(0)
}

// What a kernel without mount_setattr does.
func TestRemountNosuid(t *testing.T) {
	if out, err := namespaced(t, "nosuid").CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
	// And what others do: mount_setattr.
	n := newFakeNode(t)
	out := mustOutput(t, n.spec(3), "cat", "/proc/self/mounts")
	for line := range strings.Lines(out) {
		if f := strings.Fields(line); len(f) > 3 && !strings.Contains(","+f[3]+",", ",nosuid,") {
			t.Errorf("not nosuid: %s", line)
		}
	}
}

// namespaced returns a helper in user and mount namespaces, not started.
func namespaced(t *testing.T, name string) *exec.Cmd {
	h := helper(t, name)
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), h.Env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  unix.CLONE_NEWUSER | unix.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: os.Getuid(), HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: os.Getgid(), HostID: os.Getgid(), Size: 1}},
		AmbientCaps: []uintptr{unix.CAP_SYS_ADMIN},
	}
	return cmd
}

func nosuidHelper([]string) error {
	if err := remountNosuid("/proc/self/mounts"); err != nil {
		return err
	}
	var st unix.Statfs_t
	if err := unix.Statfs("/", &st); err != nil {
		return err
	}
	if st.Flags&unix.ST_NOSUID == 0 {
		return errors.New("/ is not nosuid")
	}
	return nil
}

// Where the user cannot write to a state folder, the sandbox has a private one.
func TestStateFolders(t *testing.T) {
	if unix.Access("/var/lib", unix.W_OK) == nil {
		t.Skip("this user may write to /var/lib itself")
	}
	before, err := os.ReadDir("/var/lib")
	if err != nil {
		t.Fatal(err)
	}
	n := newFakeNode(t)
	script := `set -e
for d in /run /var/log /var/lib /var/cache; do test -d $d || continue; mkdir $d/ovnd-test; echo x >$d/ovnd-test/x; done
ls /var/lib | grep -v ovnd-test`
	got := strings.Fields(mustOutput(t, n.spec(3), "sh", "-c", script))
	for _, e := range before {
		useless := e.Type().IsRegular() && unix.Access("/var/lib/"+e.Name(), unix.R_OK) != nil
		if !useless && !slices.Contains(got, e.Name()) {
			t.Errorf("/var/lib lacks %s: %q", e.Name(), got)
		}
	}
	if _, err := os.Stat("/var/lib/ovnd-test"); err == nil {
		t.Error("the host has what the sandbox wrote")
	}
}

// Everything works for someone who may do nothing.
func TestAsOrdinaryUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("runs the tests of this package as another user, for which it needs root")
	}
	if testing.Short() {
		t.Skip("runs the other tests again")
	}
	dir, err := os.MkdirTemp("/tmp", "ovnd-test-") //nolint:usetesting // t.TempDir is root's alone
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	binary := filepath.Join(dir, "sandbox.test")
	const nobody = 65534
	if err := errors.Join(os.WriteFile(binary, self, 0o755), os.Chown(dir, nobody, nobody)); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(binary, "-test.short")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "HOME="+dir, "TMPDIR="+dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v:\n%s", err, out)
	}
}
