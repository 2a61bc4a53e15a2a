package doctor

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// A host is the machine under examination.
type host struct {
	cfg Config
	// root is where its /proc, /sys and /dev are: "/" but in tests.
	root string
	// container names what this process is contained by, empty on a machine.
	container string
}

func newHost(cfg Config) *host {
	h := &host{cfg: cfg.withDefaults(), root: "/"}
	h.container = h.findContainer()
	return h
}

// maxRead bounds what is read of a file: all but /proc/net/tcp of a busy host
// are far shorter.
const maxRead = 4 << 20

// read returns a file's text without the white space around it, empty if it
// cannot be read.
func (h *host) read(path string) string {
	f, err := os.Open(filepath.Join(h.root, path))
	if err != nil {
		return ""
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxRead))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

func (h *host) exists(path string) bool {
	_, err := os.Stat(filepath.Join(h.root, path))
	return err == nil
}

// field returns the value of a line "name: value" of a file in /proc.
func (h *host) field(path, name string) string {
	for line := range strings.Lines(h.read(path)) {
		if key, value, ok := strings.Cut(line, ":"); ok && key == name {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

func (h *host) findContainer() string {
	groups := h.read("proc/1/cgroup")
	switch {
	case h.read("proc/2/comm") == "kthreadd":
		return "" // the machine's own processes, whatever an image left lying about
	case os.Getenv("KUBERNETES_SERVICE_HOST") != "", strings.Contains(groups, "kubepods"):
		return "Kubernetes"
	case h.exists("run/.containerenv"):
		return "Podman"
	case h.exists(".dockerenv"), strings.Contains(groups, "docker"):
		return "Docker"
	case os.Getenv("container") != "":
		return os.Getenv("container")
	}
	return ""
}

// sysctl is the command that sets one of the machine.
func (h *host) sysctl(name, value string) string {
	return h.onHost("sudo sysctl -w %s=%q", name, value)
}

// netSysctl is that for one of a network namespace, which a container has.
func (h *host) netSysctl(name, value string) string {
	switch h.container {
	case "":
		return h.sysctl(name, value)
	case "Kubernetes":
		return fmt.Sprintf("securityContext of the pod: {sysctls: [{name: %s, value: %q}]}", name, value)
	}
	return fmt.Sprintf("start the container with --sysctl %s=%q", name, value)
}

// onHost is a command for the machine itself.
func (h *host) onHost(format string, args ...any) string {
	command := fmt.Sprintf(format, args...)
	if h.container != "" {
		return "on the container's host: " + command
	}
	return command
}

func ok(check, format string, args ...any) Finding {
	return Finding{Check: check, Level: OK, Found: fmt.Sprintf(format, args...)}
}

func warn(check, remedy, format string, args ...any) Finding {
	return Finding{Check: check, Level: Warn, Remedy: remedy, Found: fmt.Sprintf(format, args...)}
}

func fail(check, remedy, format string, args ...any) Finding {
	return Finding{Check: check, Level: Fail, Remedy: remedy, Found: fmt.Sprintf(format, args...)}
}
