package packaging

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// needDocker skips where no engine answers. CI has one.
func needDocker(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("builds the program and starts containers")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if out, err := exec.CommandContext(ctx, "docker", "version", "--format", "{{.Server.Version}}").CombinedOutput(); err != nil {
		lacking(t, "no Docker engine answers on this machine: %v: %s", err, out)
	}
}

// image builds the image once, as the README says, under a name of its own.
func image(t *testing.T) string {
	t.Helper()
	needDocker(t)
	name, err := builtImage()
	if err != nil {
		t.Fatal(err)
	}
	return name
}

var builtImage = sync.OnceValues(func() (string, error) {
	name := fmt.Sprintf("ovnd-test:%d", os.Getpid())
	out, err := exec.Command("./image.sh", "import", name).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("image.sh: %w: %s", err, out)
	}
	return name, nil
})

// removeImages is for when all tests are over.
func removeImages() {
	for _, name := range []string{"ovnd-test", "ovnd-test-programs"} {
		// There is none if no test wanted it.
		_ = exec.Command("docker", "rmi", "-f", fmt.Sprintf("%s:%d", name, os.Getpid())).Run()
	}
}

func docker(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.Command("docker", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("docker %s: %v: %s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

// start starts a container that is gone with the test.
func start(t *testing.T, args ...string) (id string) {
	t.Helper()
	id = docker(t, append([]string{"run", "-d"}, args...)...)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("log of %v:\n%s", args, docker(t, "logs", id))
		}
		docker(t, "rm", "-f", id)
	})
	return id
}

// In a container with the default profile the doctor finds what is forbidden,
// fails only if that is required, and says the container's remedies.
func TestDoctorInContainer(t *testing.T) {
	img := image(t)
	type report struct {
		OK       bool
		Findings []struct{ Check, Level, Found, Remedy string }
	}
	examine := func(wantCode int, args ...string) map[string]string {
		t.Helper()
		cmd := exec.Command("docker", append(append([]string{"run", "--rm"}, args...), "--json")...)
		var out, errs bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &errs
		_ = cmd.Run() // its exit code is looked at
		var r report
		if err := json.Unmarshal(out.Bytes(), &r); err != nil || cmd.ProcessState.ExitCode() != wantCode || r.OK != (wantCode == 0) {
			t.Fatalf("exit code %d, %v: %s%s", cmd.ProcessState.ExitCode(), err, out.Bytes(), errs.Bytes())
		}
		got := make(map[string]string)
		for _, f := range r.Findings {
			got[f.Check] = f.Level + " " + f.Found + " -> " + f.Remedy
		}
		return got
	}
	got := examine(0, img, "doctor")
	for check, want := range map[string]string{
		"tun": "warn", "namespaces": "warn", "sandboxes": "warn", "machine": "a container of Docker with a seccomp filter, user 65532", "port 4789/udp": "ok", "state folder": "ok",
	} {
		if !strings.Contains(got[check], want) {
			t.Errorf("%s: %s, want %q", check, got[check], want)
		}
	}
	if !strings.HasSuffix(got["tun"], "start the container with --device /dev/net/tun") {
		t.Error(got["tun"])
	}
	examine(1, img, "doctor", "--tun", "require")
	got = examine(0, "--device", "/dev/net/tun", "--cap-add", "NET_ADMIN", "-u", "0", img, "doctor")
	if !strings.HasPrefix(got["tun here"], "ok") {
		t.Errorf("%v", got)
	}
	got = examine(0, "--device", "/dev/net/tun", "--security-opt", "seccomp=unconfined", "--security-opt", "apparmor=unconfined",
		"--security-opt", "systempaths=unconfined", img, "doctor", "--tun", "require")
	if !strings.HasPrefix(got["sandboxes"], "ok") || !strings.HasPrefix(got["proc"], "ok") {
		t.Errorf("%v", got)
	}
}

// Two nodes in containers with the default profile and no capabilities are a
// swarm; its image says whether it is healthy.
func TestTwoContainers(t *testing.T) {
	img := image(t)
	name := fmt.Sprintf("ovnd-test-%d", os.Getpid())
	docker(t, "network", "create", name)
	t.Cleanup(func() { docker(t, "network", "rm", name) })
	options := []string{"--network", name, "--cap-drop", "ALL", "--read-only", "--tmpfs", "/tmp", "-e", "OVND_STATE_DIR=/tmp/ovnd"}
	m := start(t, append(options, "--hostname", "manager", "--network-alias", "manager", img)...)
	docker(t, "exec", m, "ovnd", "status", "--wait")
	token := docker(t, "exec", m, "ovnd", "swarm", "join-token", "-q", "worker")
	w := start(t, append(options, "--hostname", "worker", img, "up", "--foreground", "--ephemeral", "--join", token, "manager:2377")...)
	docker(t, "exec", w, "ovnd", "status", "--wait")
	if got := docker(t, "exec", m, "ovnd", "node", "ls", "--format", "{{.Hostname}} {{.Status}}"); got != "manager Ready\nworker Ready" {
		t.Errorf("nodes: %s", got)
	}
	docker(t, "exec", m, "ovnd", "network", "create", "-d", "overlay", "--attachable", "app")
	docker(t, "exec", m, "ovnd", "service", "create", "-q", "--network", "app", "--name", "web", "--constraint", "node.hostname==worker", "ovnd/whoami")
	cmd := exec.Command("docker", "exec", "-i", m, "ovnd", "nc", "--network", "app", "web", "80")
	cmd.Stdin = strings.NewReader("GET / HTTP/1.0\r\n\r\n")
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "node: worker\n") {
		t.Errorf("%v: %s", err, out)
	}
	// A command beside the node leaves a process behind, which is the container's
	// first one's to wait for when it ends.
	other := []string{"exec", m, "ovnd", "--state-dir", "/tmp/other"}
	docker(t, append(other, "up", "--advertise-addr", "127.0.0.9")...)
	docker(t, append(other, "down")...)
	eventually(t, "nobody waits to be waited for", func() bool { return len(zombies(t, m)) == 0 })

	// The engine's own ten seconds are enough to leave in good order, with a task.
	stops(t, w)
	eventually(t, "the worker is down, or removed already", func() bool {
		return !strings.Contains(docker(t, "exec", m, "ovnd", "node", "ls", "--format", "{{.Hostname}} {{.Status}}"), "worker Ready")
	})
	stops(t, m)
}

// stops stops a container as the engine does by default.
func stops(t *testing.T, id string) {
	t.Helper()
	docker(t, "stop", id)
	if code := docker(t, "inspect", "-f", "{{.State.ExitCode}}", id); code != "0" {
		t.Errorf("it ended with %s: %s", code, docker(t, "logs", id))
	}
}

// zombies are the ended children of a container's first process.
func zombies(t *testing.T, id string) (list []string) {
	t.Helper()
	first := docker(t, "inspect", "-f", "{{.State.Pid}}", id)
	files, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			continue // it has ended
		}
		// State and parent stand behind the name, which is in parentheses
		// (proc_pid_stat(5)).
		_, rest, _ := strings.Cut(string(b), ") ")
		if fields := strings.Fields(rest); len(fields) > 1 && fields[0] == "Z" && fields[1] == first {
			list = append(list, string(b))
		}
	}
	return list
}

// A container is attached to a network of the host's node by its sockets alone:
// both ways carry traffic, and when it is killed its address is free.
func TestAttachInContainer(t *testing.T) {
	img := image(t)
	dir, err := os.MkdirTemp("", "ovnd-att") //nolint:usetesting // sockets have short paths
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	program, err := filepath.Abs("../bin/ovnd-linux-" + docker(t, "version", "--format", "{{.Server.Arch}}"))
	if err != nil {
		t.Fatal(err)
	}
	ovnd := func(args ...string) string {
		t.Helper()
		out, err := exec.Command(program, append([]string{"--state-dir", dir}, args...)...).CombinedOutput()
		if err != nil {
			t.Fatalf("ovnd %s: %v: %s", strings.Join(args, " "), err, out)
		}
		return strings.TrimSpace(string(out))
	}
	ovnd("up", "--advertise-addr", fmt.Sprintf("127.%d.%d.8", 100+os.Getpid()>>8&63, os.Getpid()&255))
	t.Cleanup(func() { ovnd("down") })
	ovnd("network", "create", "-d", "overlay", "--attachable", "app")
	ovnd("service", "create", "-q", "--network", "app", "--name", "web", "ovnd/whoami")
	const ip = "10.0.1.77"
	id := start(t, "--cap-add", "NET_ADMIN", "--device", "/dev/net/tun", "-u", "0", "-v", dir+"/run:/run/ovnd",
		img, "attach", "--network", "name=app,ip="+ip, "--name", "box", "--socket", "/run/ovnd/ovnd.sock", "--", "ovnd-whoami", "-port", "8081")
	eventually(t, "attached", func() bool {
		return strings.Contains(docker(t, "logs", id), "box is attached: "+ip+"/24 on app.")
	})
	// In: the container's program is reached by name.
	eventually(t, "its program answers", func() bool {
		out, err := exec.Command(program, "--state-dir", dir, "run", "--network", "app", "--", "curl", "-sS", "-m", "5", "http://box:8081/").CombinedOutput()
		return err == nil && strings.Contains(string(out), "host: "+id[:12])
	})
	// Out: the service is reached by name from what shares the namespace.
	out := docker(t, "run", "--rm", "--network", "container:"+id, "--entrypoint", "/usr/bin/ovnd", img, "demo-probe", "http", "1", "http://web/")
	if !strings.Contains(out, "service: web") {
		t.Error(out)
	}
	docker(t, "kill", id)
	eventually(t, "its address is free", func() bool {
		return exec.Command(program, "--state-dir", dir, "run", "--network", "app", "--ip", ip, "--", "true").Run() == nil
	})
}

func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(90 * time.Second); !holds(); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("waited in vain: " + what)
		}
	}
}
