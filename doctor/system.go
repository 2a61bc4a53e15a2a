package doctor

import (
	"context"
	"fmt"
	"math"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/cpu"
	"golang.org/x/sys/unix"
)

const mega = 1 << 20

// system is the machine: kernel, container, processors, memory, files.
func (h *host) system(context.Context) []Finding {
	var uts unix.Utsname
	_ = unix.Uname(&uts) // has no error but a bad pointer
	findings := []Finding{
		kernel(unix.ByteSliceToString(uts.Release[:])),
		h.confinement(),
		h.processors(),
		h.memory(),
		h.openFiles(),
		ciphers(),
	}
	if h.cfg.StateDir != "" {
		findings = append(findings, h.stateDir())
	}
	return findings
}

// kernel judges a release as uname(2) has it.
func kernel(release string) Finding {
	major, minor := version(release)
	name := fmt.Sprintf("Linux %s on %s", release, runtime.GOARCH)
	switch {
	case major == 0:
		return warn("kernel", "", "%s: no version that could be read", name)
	case older(major, minor, 4, 18):
		return fail("kernel", "install a kernel from 5.12 on", "%s has no UDP_SEGMENT (4.18)", name)
	case older(major, minor, 5, 12):
		return warn("kernel", "install a kernel from 6.2 on", "%s has no mount_setattr (5.12) and no UDP segmentation offload on TUN (6.2)", name)
	case older(major, minor, 6, 2):
		return warn("kernel", "install a kernel from 6.2 on", "%s has no UDP segmentation offload on TUN (6.2): UDP goes packet by packet", name)
	}
	return ok("kernel", "%s", name)
}

func version(release string) (major, minor int) {
	// The rest, "44-generic", is the distribution's.
	if _, err := fmt.Sscanf(release, "%d.%d", &major, &minor); err != nil {
		return 0, 0
	}
	return major, minor
}

func older(major, minor, thanMajor, thanMinor int) bool {
	return major < thanMajor || major == thanMajor && minor < thanMinor
}

// confinement says what else may forbid things: it is no finding by itself.
func (h *host) confinement() Finding {
	user := fmt.Sprintf("user %d", os.Geteuid())
	if h.capable(unix.CAP_NET_ADMIN) {
		user += " with CAP_NET_ADMIN"
	}
	if h.container == "" {
		return ok("machine", "no container, %s", user)
	}
	filter := "no seccomp filter"
	if h.field("proc/self/status", "Seccomp") == "2" {
		filter = "a seccomp filter"
	}
	return ok("machine", "a container of %s with %s, %s", h.container, filter, user)
}

// capable says whether this process has a capability, capabilities(7).
func (h *host) capable(capability int) bool {
	caps, err := strconv.ParseUint(h.field("proc/self/status", "CapEff"), 16, 64)
	return err == nil && caps&(1<<capability) != 0
}

// processors are those that this process may use: by affinity and by the quota
// of its control group.
func (h *host) processors() Finding {
	quota := h.cpuQuota()
	if quota >= float64(runtime.NumCPU()) {
		return ok("processors", "%d", runtime.NumCPU())
	}
	found := fmt.Sprintf("%d, of which the control group gives %.4g", runtime.NumCPU(), quota)
	if quota < 0.5 {
		return warn("processors", "raise the limit (docker run --cpus 1)", "%s: packets wait for the next period when it is used up", found)
	}
	return ok("processors", "%s", found)
}

// cpuQuota is in processors, +Inf without one.
func (h *host) cpuQuota() float64 {
	least := math.Inf(1)
	for _, dir := range h.controlGroups("cpu") {
		quota, period := "", ""
		if f := strings.Fields(h.read(path.Join(dir, "cpu.max"))); len(f) == 2 {
			quota, period = f[0], f[1]
		} else {
			quota, period = h.read(path.Join(dir, "cpu.cfs_quota_us")), h.read(path.Join(dir, "cpu.cfs_period_us"))
		}
		q, err1 := strconv.ParseFloat(quota, 64)
		p, err2 := strconv.ParseFloat(period, 64)
		if err1 == nil && err2 == nil && q > 0 && p > 0 {
			least = min(least, q/p)
		}
	}
	return least
}

// controlGroups are the folders, from this process's group upwards, where a
// controller has its files.
func (h *host) controlGroups(controller string) []string {
	var dirs []string
	for line := range strings.Lines(h.read("proc/self/cgroup")) {
		// ID:controllers:path, cgroups(7)
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(f) != 3 {
			continue
		}
		var top string
		switch {
		case f[1] == "":
			top = "sys/fs/cgroup"
		case strings.Contains(","+f[1]+",", ","+controller+","):
			top = path.Join("sys/fs/cgroup", controller)
		default:
			continue
		}
		for p := path.Join("/", f[2]); ; p = path.Dir(p) {
			dirs = append(dirs, path.Join(top, p))
			if p == "/" {
				break
			}
		}
	}
	return dirs
}

// What a node holds at rest, and what it wants with a few tasks, in bytes.
const (
	leastMemory = 64 * mega
	fairMemory  = 256 * mega
)

func (h *host) memory() Finding {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return warn("memory", "", "its size cannot be read: %v", err)
	}
	size, by := info.Totalram*uint64(info.Unit), "the machine has"
	for _, dir := range h.controlGroups("memory") {
		for _, name := range []string{"memory.max", "memory.limit_in_bytes"} {
			if v, err := strconv.ParseUint(h.read(path.Join(dir, name)), 10, 64); err == nil && v < size {
				size, by = v, "the control group gives"
			}
		}
	}
	found := fmt.Sprintf("%s %d MiB", by, size/mega)
	const remedy = "raise the limit (docker run --memory 256m)"
	switch {
	case size < leastMemory:
		return fail("memory", remedy, "%s: a node needs %d", found, leastMemory/mega)
	case size < fairMemory:
		return warn("memory", remedy, "%s: enough for a node with few connections", found)
	}
	return ok("memory", "%s", found)
}

// fairFiles is what a node with a thousand proxied connections has open.
const fairFiles = 4096

func (h *host) openFiles() Finding {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return warn("open files", "", "their limit cannot be read: %v", err)
	}
	if limit.Max < fairFiles {
		return warn("open files", fmt.Sprintf("raise the hard limit (ulimit -Hn %d, docker run --ulimit nofile=%d)", fairFiles, fairFiles),
			"a process may have %d: each proxied connection takes two", limit.Max)
	}
	return ok("open files", "a process may have %d", limit.Max)
}

// ciphers says what encrypted networks have for them in hardware.
func ciphers() Finding {
	aes, vectors := cpu.X86.HasAES && cpu.X86.HasPCLMULQDQ, cpu.X86.HasAVX2
	if runtime.GOARCH == "arm64" {
		aes, vectors = cpu.ARM64.HasAES && cpu.ARM64.HasPMULL, cpu.ARM64.HasASIMD
	}
	switch {
	case aes:
		return ok("ciphers", "AES in hardware: encrypted networks use AES-256-GCM with peers that have it too, else ChaCha20-Poly1305")
	case vectors:
		return ok("ciphers", "no AES in hardware: encrypted networks use ChaCha20-Poly1305, with vector instructions")
	}
	return warn("ciphers", "", "neither AES nor wide vectors in hardware: encrypted networks are slow here")
}

// stateSize is what a manager writes at its start, in bytes: SwarmKit's raft log
// takes 123 MB of it at once.
const stateSize = 160 * mega

func (h *host) stateDir() Finding {
	dir := h.cfg.StateDir
	for !h.exists(dir) && dir != filepath.Dir(dir) {
		dir = filepath.Dir(dir)
	}
	const remedy = "choose another folder with --state-dir"
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return fail("state folder", remedy, "%s: %v", dir, err)
	}
	free := fs.Bavail * uint64(fs.Bsize)
	if err := unix.Access(dir, unix.W_OK|unix.X_OK); err != nil {
		return fail("state folder", remedy, "%s cannot be written to: %v", dir, err)
	}
	if free < stateSize && h.cfg.NodePID == 0 {
		return fail("state folder", remedy, "%s has %d MiB free: a manager needs %d", dir, free/mega, stateSize/mega)
	}
	return ok("state folder", "%s has %d MiB free", dir, free/mega)
}
