package api

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"net/http"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/moby/moby/api/types/system"
	"github.com/moby/moby/v2/daemon/server/httputils"
	"github.com/moby/moby/v2/daemon/server/router"
	"golang.org/x/sys/unix"
)

// systemAPI serves /_ping, /version, /info and /events.
type systemAPI struct {
	cfg  Config
	stop <-chan struct{}
}

func systemRoutes(cfg Config, stop <-chan struct{}) []router.Route {
	a := &systemAPI{cfg: cfg, stop: stop}
	return []router.Route{
		router.NewGetRoute("/_ping", a.ping),
		router.NewHeadRoute("/_ping", a.ping),
		router.NewGetRoute("/version", a.version),
		router.NewGetRoute("/info", a.info),
		router.NewGetRoute("/events", a.events),
	}
}

func (a *systemAPI) ping(_ context.Context, w http.ResponseWriter, r *http.Request, _ map[string]string) error {
	h := w.Header()
	h.Set("Cache-Control", "no-cache, no-store, must-revalidate")
	h.Set("Pragma", "no-cache")
	h.Set("Swarm", a.cfg.Swarm.Status())
	h.Set("Content-Type", "text/plain; charset=utf-8")
	if r.Method == http.MethodHead {
		h.Set("Content-Length", "0")
		return nil
	}
	_, _ = w.Write([]byte("OK")) // the client has gone: nobody to tell
	return nil
}

func (a *systemAPI) version(_ context.Context, w http.ResponseWriter, _ *http.Request, _ map[string]string) error {
	sys := a.cfg.System.System()
	kernel := kernelVersion()
	return httputils.WriteJSON(w, http.StatusOK, system.VersionResponse{
		Platform:      system.PlatformInfo{Name: "ovnd"},
		Version:       sys.Version,
		APIVersion:    APIVersion,
		MinAPIVersion: MinAPIVersion,
		Os:            runtime.GOOS,
		Arch:          runtime.GOARCH,
		GitCommit:     sys.Commit,
		GoVersion:     runtime.Version(),
		KernelVersion: kernel,
		BuildTime:     sys.BuildTime,
		Components: []system.ComponentVersion{{
			// The docker CLI adds a component of this name if there is none.
			Name:    "Engine",
			Version: sys.Version,
			Details: map[string]string{
				"ApiVersion":    APIVersion,
				"MinAPIVersion": MinAPIVersion,
				"GoVersion":     runtime.Version(),
				"GitCommit":     sys.Commit,
				"BuildTime":     sys.BuildTime,
				"Os":            runtime.GOOS,
				"Arch":          runtime.GOARCH,
				"KernelVersion": kernel,
				"Experimental":  "false",
			},
		}},
	})
}

func (a *systemAPI) info(ctx context.Context, w http.ResponseWriter, _ *http.Request, _ map[string]string) error {
	sys := a.cfg.System.System()
	info := system.Info{
		ID:                sys.ID,
		Name:              sys.Hostname,
		Containers:        sys.Running,
		ContainersRunning: sys.Running,
		Plugins:           system.PluginsInfo{Network: []string{"overlay"}},
		IPv4Forwarding:    true, // the overlay forwards in user space, whatever the kernel's sysctl
		NGoroutines:       runtime.NumGoroutine(),
		NEventsListener:   a.cfg.Events.listeners(),
		SystemTime:        time.Now().Format(time.RFC3339Nano),
		KernelVersion:     kernelVersion(),
		OperatingSystem:   operatingSystem(),
		OSType:            runtime.GOOS,
		Architecture:      machine(),
		NCPU:              runtime.NumCPU(),
		MemTotal:          memTotal(),
		DockerRootDir:     sys.StateDir,
		ServerVersion:     sys.Version,
		SecurityOptions:   []string{"name=userns"},
		// What runs survives the node's restart.
		LiveRestoreEnabled: true,
		Swarm:              a.cfg.Swarm.Info(ctx),
		Warnings:           sys.Warnings,
	}
	if a.cfg.Containers != nil {
		info.Containers, info.ContainersRunning, info.ContainersStopped = countContainers(a.cfg.Containers.Containers())
	}
	if os.Geteuid() != 0 {
		info.SecurityOptions = append(info.SecurityOptions, "name=rootless")
	}
	if fds, err := os.ReadDir("/proc/self/fd"); err == nil {
		info.NFd = len(fds)
	}
	info.Warnings = append(info.Warnings, info.Swarm.Warnings...)
	return httputils.WriteJSON(w, http.StatusOK, info)
}

// countContainers counts all, those that run, and the others.
func countContainers(list []Container) (all, running, stopped int) {
	for _, c := range list {
		if c.Running() {
			running++
		}
	}
	return len(list), running, len(list) - running
}

func kernelVersion() string { return uname(func(u *unix.Utsname) []byte { return u.Release[:] }) }
func machine() string       { return uname(func(u *unix.Utsname) []byte { return u.Machine[:] }) }

func uname(field func(*unix.Utsname) []byte) string {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return ""
	}
	return unix.ByteSliceToString(field(&u))
}

// operatingSystem is PRETTY_NAME of os-release(5).
func operatingSystem() string {
	for _, path := range []string{"/etc/os-release", "/usr/lib/os-release"} {
		b, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		lines := bufio.NewScanner(bytes.NewReader(b))
		for lines.Scan() {
			if v, ok := strings.CutPrefix(lines.Text(), "PRETTY_NAME="); ok {
				if plain, err := strconv.Unquote(v); err == nil {
					return plain
				}
				return v
			}
		}
	}
	return "Linux"
}

// memTotal is the machine's memory in bytes, 0 if unknown.
func memTotal() int64 {
	var si unix.Sysinfo_t
	if unix.Sysinfo(&si) != nil {
		return 0
	}
	return int64(si.Totalram) * int64(si.Unit)
}

// olderThan reports whether an API version such as "1.50" is less than
// major.minor. One that is not of that form is not.
func olderThan(version string, major, minor int) bool {
	var maj, mnr int
	if _, err := fmt.Sscanf(version, "%d.%d", &maj, &mnr); err != nil {
		return false
	}
	return maj < major || maj == major && mnr < minor
}
