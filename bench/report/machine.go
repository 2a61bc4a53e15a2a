package report

import (
	"bytes"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// features are the processor's that decide how fast packets are sealed and
// summed, as /proc/cpuinfo names them on amd64 and arm64.
var features = []string{
	"aes", "pclmulqdq", "vaes", "vpclmulqdq", "avx2", "avx512f", "sha_ni", // amd64
	"pmull", "asimd", "sve", // arm64, which has "aes" too
}

// ThisMachine describes the machine and the process. What cannot be read stays
// empty. LoadBefore is the load now, LoadAfter stays 0.
func ThisMachine() Machine {
	m := Machine{
		Arch:  runtime.GOARCH,
		CPU:   "unknown",
		Cores: runtime.NumCPU(),
		Go:    runtime.Version(),
		UID:   os.Getuid(),
	}
	var name unix.Utsname
	if unix.Uname(&name) == nil {
		m.Kernel = string(bytes.TrimRight(name.Release[:], "\x00"))
	}
	var info unix.Sysinfo_t
	if unix.Sysinfo(&info) == nil {
		m.MemoryBytes = uint64(info.Totalram) * uint64(info.Unit) //nolint:unconvert // has 32 bits on 32-bit machines
	}
	m.Governor = firstLine("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
	cpu := cpuinfo()
	for _, key := range []string{"model name", "Model", "Hardware"} { // arm64 has no model name
		if v := cpu[key]; v != "" {
			m.CPU = v
			break
		}
	}
	has := " " + cpu["flags"] + cpu["Features"] + " "
	for _, f := range features {
		if strings.Contains(has, " "+f+" ") {
			m.CPUFeatures = append(m.CPUFeatures, f)
		}
	}
	m.Virtualization = virtualization(strings.Contains(has, " hypervisor "))
	m.LoadBefore = Load()
	return m
}

// Load returns the load average over the last minute, 0 when it is not known.
func Load() float64 {
	one, _, _ := strings.Cut(firstLine("/proc/loadavg"), " ")
	load, _ := strconv.ParseFloat(one, 64)
	return load
}

// Version returns the revision this program was built from, with "-dirty" when
// it had changes; "unknown" when the build does not say.
func Version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	settings := make(map[string]string, len(info.Settings))
	for _, s := range info.Settings {
		settings[s.Key] = s.Value
	}
	revision := settings["vcs.revision"]
	switch {
	case revision == "" && (info.Main.Version == "" || info.Main.Version == "(devel)"):
		return "unknown"
	case revision == "":
		return info.Main.Version
	case settings["vcs.modified"] == "true":
		return revision + "-dirty"
	}
	return revision
}

// virtualization names what this machine runs on, as far as that can be told
// without privileges.
func virtualization(hypervisor bool) string {
	if _, err := os.Stat("/.dockerenv"); err == nil {
		return "container"
	}
	if !hypervisor {
		return "none"
	}
	if product := firstLine("/sys/class/dmi/id/product_name"); product != "" {
		return product
	}
	if clock := firstLine("/sys/devices/system/clocksource/clocksource0/current_clocksource"); clock == "kvm-clock" {
		return "kvm"
	}
	return "hypervisor"
}

// cpuinfo returns what /proc/cpuinfo says of the first processor.
func cpuinfo() map[string]string {
	out := make(map[string]string)
	text, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return out
	}
	for line := range strings.Lines(string(text)) {
		key, value, ok := strings.Cut(line, ":")
		key = strings.TrimSpace(key)
		if _, seen := out[key]; ok && !seen {
			out[key] = strings.TrimSpace(value)
		}
	}
	return out
}

func firstLine(path string) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	line, _, _ := strings.Cut(string(text), "\n")
	return strings.TrimSpace(line)
}
