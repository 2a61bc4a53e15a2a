package doctor

import (
	"crypto/x509"
	"errors"
	"math"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestKernel(t *testing.T) {
	for _, tc := range []struct {
		release string
		level   Level
		found   string
		remedy  string
	}{
		{"6.18.44-generic", OK, "Linux 6.18.44-generic", ""},
		{"6.2", OK, "Linux 6.2", ""},
		{"6.1.0-31-amd64", Warn, "(6.2)", "6.2"},
		{"5.10.0", Warn, "mount_setattr", "6.2"},
		{"4.15.0", Fail, "UDP_SEGMENT", "5.12"},
		{"", Warn, "no version", ""},
		{"next", Warn, "no version", ""},
	} {
		kernel(tc.release).want(t, tc.level, tc.found, tc.remedy)
	}
}

// Who forbids namespaces is found out from the sysctls, and the remedy is for
// the one that does.
func TestWhyNoNamespaces(t *testing.T) {
	const docker = "0::/\n1:cpu:/docker/abc\n"
	for _, tc := range []struct {
		name   string
		files  map[string]string
		err    error
		remedy string
	}{
		{"switched off", map[string]string{"proc/sys/user/max_user_namespaces": "0\n"}, unix.ENOSPC, `sudo sysctl -w user.max_user_namespaces="15000"`},
		{"too many", map[string]string{"proc/sys/user/max_user_namespaces": "10\n"}, unix.ENOSPC, `sudo sysctl -w user.max_user_namespaces="15000"`},
		{"Debian", map[string]string{"proc/sys/kernel/unprivileged_userns_clone": "0\n"}, unix.EPERM, `sudo sysctl -w kernel.unprivileged_userns_clone="1"`},
		{"Ubuntu", map[string]string{"proc/sys/kernel/apparmor_restrict_unprivileged_userns": "1\n"}, unix.EACCES, `sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns="0"`},
		{"Docker", map[string]string{"proc/1/cgroup": docker, ".dockerenv": ""}, unix.EPERM, "start the container with --security-opt seccomp=unconfined"},
		{"Docker on Debian", map[string]string{"proc/1/cgroup": docker, "proc/sys/kernel/unprivileged_userns_clone": "0"}, unix.EPERM, `on the container's host: sudo sysctl -w kernel.unprivileged_userns_clone="1"`},
		{"Kubernetes", map[string]string{"proc/1/cgroup": "0::/kubepods/x"}, unix.EPERM, "seccompProfile: {type: Unconfined}"},
		{"a filter", map[string]string{"proc/self/status": "Seccomp:\t2\n"}, unix.EPERM, "--security-opt seccomp=unconfined"},
		{"an old kernel", nil, unix.EINVAL, ""},
		{"something else", nil, errors.New("no such file"), ""},
	} {
		h := tree(t, Config{}, tc.files)
		h.container = h.findContainer()
		found, remedy := h.whyNoNamespaces(tc.err)
		warn(tc.name, remedy, "%s", found).want(t, Warn, "", tc.remedy)
	}
}

func TestContainer(t *testing.T) {
	for want, files := range map[string]map[string]string{
		"":           {"proc/1/cgroup": "0::/init.scope\n"},
		"Docker":     {".dockerenv": ""},
		"Podman":     {"run/.containerenv": ""},
		"Kubernetes": {"proc/1/cgroup": "0::/kubepods.slice/x\n", ".dockerenv": ""},
	} {
		h := tree(t, Config{}, files)
		if got := h.findContainer(); got != want {
			t.Errorf("%v: %q, want %q", files, got, want)
		}
		files["proc/2/comm"] = "kthreadd\n"
		if got := tree(t, Config{}, files).findContainer(); got != "" {
			t.Errorf("%v: %q, want none", files, got)
		}
	}
}

func TestRemediesOfContainers(t *testing.T) {
	h := tree(t, Config{}, map[string]string{"proc/sys/net/ipv4/ip_unprivileged_port_start": "1024\n"})
	for container, remedy := range map[string]string{
		"":           `sudo sysctl -w net.ipv4.ip_unprivileged_port_start="80"`,
		"Docker":     `start the container with --sysctl net.ipv4.ip_unprivileged_port_start="80"`,
		"Kubernetes": `sysctls: [{name: net.ipv4.ip_unprivileged_port_start, value: "80"}]`,
	} {
		h.container = container
		h.lowPorts().want(t, Warn, "begin at 1024", remedy)
	}
}

func TestMissingDevice(t *testing.T) {
	h := tree(t, Config{Mode: Require}, nil)
	h.tunDevice().want(t, Fail, "no such file", "modprobe tun")
	h.container = "Docker"
	h.tunDevice().want(t, Fail, "not in this container", "--device /dev/net/tun")
	h.cfg.Mode = Auto
	h.container = "Kubernetes"
	h.tunDevice().want(t, Warn, "not in this container", "hostPath")
}

func TestDeviceWithout(t *testing.T) {
	h := tree(t, Config{}, nil)
	for _, tc := range []struct {
		trial tunTrial
		level Level
		found string
	}{
		{tunTrial{Open: unix.EACCES}, Warn, "does not open"},
		{tunTrial{Create: unix.EPERM}, Warn, "no device can be made"},
		{tunTrial{}, Warn, "virtio_net_hdr"},
		{tunTrial{VnetHeader: true}, Warn, "neither TCP nor UDP"},
		{tunTrial{VnetHeader: true, TSO: true}, Warn, "none for UDP"},
		{tunTrial{VnetHeader: true, TSO: true, USO: true}, OK, "TSO"},
	} {
		if f := h.offloads("tun inside", tc.trial); f.Level != tc.level {
			t.Errorf("%+v: %+v", tc.trial, f)
		}
	}
	got := h.inside(trial{Proc: unix.EPERM, Sys: unix.EROFS, TUN: tunTrial{VnetHeader: true, TSO: true, USO: true}}, true)
	got[0].want(t, Warn, "process ids", "systempaths=unconfined")
	got[1].want(t, Warn, "below 1024", "systempaths=unconfined")
}

func TestQuota(t *testing.T) {
	for _, tc := range []struct {
		name  string
		files map[string]string
		want  float64
	}{
		{"none", nil, math.Inf(1)},
		{"v2, a parent's", map[string]string{
			"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/b/cpu.max": "max 100000\n", "sys/fs/cgroup/a/cpu.max": "50000 100000\n",
		}, 0.5},
		{"v1", map[string]string{
			"proc/self/cgroup": "4:memory:/x\n1:cpu,cpuacct:/x\n", "sys/fs/cgroup/cpu/x/cpu.cfs_quota_us": "150000", "sys/fs/cgroup/cpu/x/cpu.cfs_period_us": "100000",
		}, 1.5},
		{"v1 without", map[string]string{
			"proc/self/cgroup": "1:cpu:/\n", "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
		}, math.Inf(1)},
		{"nonsense", map[string]string{"proc/self/cgroup": "0::/\nx\n", "sys/fs/cgroup/cpu.max": "0 0"}, math.Inf(1)},
	} {
		if got := tree(t, Config{}, tc.files).cpuQuota(); got != tc.want {
			t.Errorf("%s: %v, want %v", tc.name, got, tc.want)
		}
	}
	h := tree(t, Config{}, map[string]string{"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "10000 100000", "sys/fs/cgroup/memory.max": "33554432"})
	h.processors().want(t, Warn, "gives 0.1", "docker run --cpus")
	h.memory().want(t, Fail, "32 MiB", "--memory")
}

func TestRoutes(t *testing.T) {
	const head = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n"
	line := func(dest, mask string) string {
		return "eth0\t" + dest + "\t00000000\t0001\t0\t0\t0\t" + mask + "\t0\t0\t0\n"
	}
	for _, tc := range []struct {
		name, table string
		level       Level
		found       string
		remedy      string
	}{
		{"none", head, OK, "no route", ""},
		{"the default route", head + line("00000000", "00000000"), OK, "no route", ""},
		{"a cloud's", head + line("0001010A", "00FFFFFF"), Warn, "10.1.1.0/24", "--default-addr-pool 172.24.0.0/13"},
		{"two", head + line("0001010A", "00FFFFFF") + line("000018AC", "0000FEFF"), Warn, "10.1.1.0/24", "--default-addr-pool 192.168.0.0/16"},
		{"all", head + line("0000000A", "000000FF") + line("000010AC", "0000F0FF") + line("0000A8C0", "0000FFFF"), Warn, "10.0.0.0/8", "--default-addr-pool RANGE"},
	} {
		tree(t, Config{}, map[string]string{"proc/net/route": tc.table}).routes().want(t, tc.level, tc.found, tc.remedy)
	}
}

func TestParseSocket(t *testing.T) {
	const udp6 = "  10: 00000000000000000000000000000000:12B5 00000000000000000000000000000000:0000 07 00000000:00000000 00:00000000 00000000  1000        0 12345 2 0 0"
	const tcp = "   1: 020000C0:0947 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 777 1 0 100 0 0 10 0"
	if s, valid := parseSocket(udp6); !valid || s.local != netip.MustParseAddrPort("[::]:4789") || s.uid != "1000" || s.inode != "12345" {
		t.Errorf("%+v, %v", s, valid)
	}
	if s, valid := parseSocket(tcp); !valid || s.local != netip.MustParseAddrPort("192.0.0.2:2375") || s.state != tcpListen {
		t.Errorf("%+v, %v", s, valid)
	}
	if _, valid := parseSocket("  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode"); valid {
		t.Error("the heading is no socket")
	}
}

func TestClock(t *testing.T) {
	now := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	h := tree(t, Config{Built: now.Add(-time.Hour)}, nil)
	h.judgeClock(now, true, nil).want(t, OK, "2026-11-01T12:00:00Z, synchronised", "")
	h.judgeClock(now, false, nil).want(t, Warn, "not synchronised", "timedatectl")
	h.judgeClock(now, false, unix.EPERM).want(t, OK, "cannot be asked", "")
	h.judgeClock(now.Add(-2*time.Hour), true, nil).want(t, Fail, "before this program was built", "timedatectl")

	cert := &x509.Certificate{NotBefore: now.Add(-time.Hour), NotAfter: now.Add(90 * 24 * time.Hour)}
	judgeCertificate("clock", "set it", cert, now).want(t, OK, "90 days", "")
	judgeCertificate("clock", "set it", cert, now.Add(-3*time.Hour)).want(t, Fail, "ahead of ours by 2h0m0s", "set it")
	judgeCertificate("clock", "set it", cert, now.Add(100*24*time.Hour)).want(t, Fail, "ended 240h0m0s ago", "set it")
}

func FuzzParseSocket(f *testing.F) {
	f.Add("   1: 020000C0:0947 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 777 1 0 100 0 0 10 0")
	f.Add("  10: 00000000000000000000000000000000:12B5 0:0 07 0:0 0:0 0 1000 0 1 2")
	f.Fuzz(func(t *testing.T, line string) {
		if s, valid := parseSocket(line); valid && (!s.local.Addr().IsValid() || s.inode == "") {
			t.Errorf("%q: %+v", line, s)
		}
	})
}

func FuzzParseRoute(f *testing.F) {
	f.Add("eth0\t0001010A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0")
	f.Fuzz(func(t *testing.T, line string) {
		if p, valid := parseRoute(line); valid && p != p.Masked() {
			t.Errorf("%q: %s", line, p)
		}
	})
}
