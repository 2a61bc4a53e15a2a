package node

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"os/user"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/moby/sys/signal"

	"github.com/ovnd/ovnd/cluster"
	"github.com/ovnd/ovnd/discovery/directory"
	"github.com/ovnd/ovnd/sandbox"
)

// Images that are no programs of the node.
const (
	imageHost   = "host"        // the command itself
	imageWhoami = "ovnd/whoami" // built in
)

// whoamiName is how this program is called to be the built-in server.
const whoamiName = "ovnd-whoami"

// extraPath is where system services are, which a user's PATH may lack.
const extraPath = "/usr/local/sbin:/usr/sbin:/sbin"

// command is what the sandbox of a task runs.
func (t tasks) command(task *cluster.Task) (sandbox.Task, error) {
	argv, file, err := t.program(task)
	if err != nil {
		return sandbox.Task{}, err
	}
	if err := checkUser(task.User); err != nil {
		return sandbox.Task{}, err
	}
	cmd := sandbox.Task{
		Path: file, Args: argv, Env: taskEnv(task, t.hostname), Dir: cmp.Or(task.Dir, "/"),
		TTY: task.TTY, OpenStdin: task.OpenStdin, Orphan: orphanLife,
	}
	for _, m := range task.Mounts {
		if _, err := os.Stat(m.Source); err != nil {
			return sandbox.Task{}, fmt.Errorf("invalid mount config for type \"bind\": bind source path does not exist: %s", m.Source)
		}
		cmd.Mounts = append(cmd.Mounts, sandbox.Mount{Source: m.Source, Target: m.Target, ReadOnly: m.ReadOnly})
	}
	for _, f := range task.Files {
		cmd.Files = append(cmd.Files, sandbox.File{Target: f.Target, Data: f.Data, Mode: f.Mode})
	}
	for _, u := range task.Ulimits {
		cmd.Ulimits = append(cmd.Ulimits, sandbox.Ulimit{Name: u.Name, Soft: u.Soft, Hard: u.Hard})
	}
	return cmd, nil
}

// program returns what to execute for the image of a task: its arguments, and
// the file where that is not args[0] as found on the PATH.
func (t tasks) program(task *cluster.Task) (argv []string, file string, err error) {
	if len(task.Program) > 0 {
		argv = slices.Concat(task.Program, task.Args)
		return argv, "", t.mustFind(argv[0])
	}
	switch {
	case task.Command == imageWhoami:
		return slices.Concat([]string{whoamiName}, task.Args), "/proc/self/exe", nil
	case task.Command == imageSidecar:
		file, argv = sandbox.Waiter(task.Name)
		return argv, file, nil
	case task.Command == imageHost && len(task.Args) == 0:
		return nil, "", errors.New("image host runs the command behind it, and there is none: service create … host COMMAND")
	case task.Command == imageHost:
		return task.Args, "", t.mustFind(task.Args[0])
	}
	argv = slices.Concat([]string{path.Base(task.Command)}, task.Args)
	return argv, "", t.mustFind(argv[0])
}

// mustFind makes sure that this node has a program.
func (t tasks) mustFind(name string) error {
	if strings.Contains(name, "/") {
		if st, err := os.Stat(name); err != nil || st.IsDir() || st.Mode()&0o111 == 0 {
			return fmt.Errorf("node %s has no program %s: install it there, or constrain the service to nodes that have it", t.hostname, name)
		}
		return nil
	}
	for _, dir := range filepath.SplitList(taskPath()) {
		if _, err := exec.LookPath(filepath.Join(dir, name)); err == nil && filepath.IsAbs(dir) {
			return nil
		}
	}
	return fmt.Errorf("No such image: node %s has no program %q on its PATH: install it there, or constrain the service to nodes that have it", t.hostname, name) //nolint:staticcheck // Docker's words
}

// taskPath is the PATH of tasks: this node's, and where system services are.
func taskPath() string {
	return strings.Trim(os.Getenv("PATH")+":"+extraPath, ":")
}

// taskEnv is a task's whole environment: nothing of the node's own but where
// programs and the user's files are.
func taskEnv(task *cluster.Task, node string) []string {
	env := []string{
		"PATH=" + taskPath(),
		"OVND_NODE_NAME=" + node,
		"OVND_SERVICE_NAME=" + task.ServiceName,
		"OVND_TASK_ID=" + task.ID,
		"OVND_TASK_NAME=" + task.Name,
		"OVND_TASK_SLOT=" + strconv.FormatUint(task.Slot, 10),
	}
	for _, name := range []string{"HOME", "USER", "LANG"} {
		if v, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+v)
		}
	}
	for _, kv := range task.Env {
		name, _, set := strings.Cut(kv, "=")
		env = slices.DeleteFunc(env, func(old string) bool { return strings.HasPrefix(old, name+"=") })
		if set {
			env = append(env, kv)
		}
	}
	return env
}

// checkUser refuses to run a task as somebody else: a node has one user.
func checkUser(name string) error {
	if name == "" {
		return nil
	}
	name, _, _ = strings.Cut(name, ":")
	uid := strconv.Itoa(os.Geteuid())
	if name == uid {
		return nil
	}
	if u, err := user.Lookup(name); err == nil && u.Uid == uid {
		return nil
	}
	return fmt.Errorf("--user %s: this node runs tasks as its own user, uid %s: leave the option out", name, uid)
}

func stopSignal(name string) (syscall.Signal, error) {
	s, err := signal.ParseSignal(name)
	if err != nil {
		return 0, fmt.Errorf("--stop-signal: %w", err)
	}
	return s, nil
}

// taskSpec is the sandbox of a task, before it has interfaces.
func taskSpec(task *cluster.Task) (sandbox.Spec, error) {
	spec := sandbox.Spec{Name: task.Name, Hostname: task.Hostname}
	for _, line := range task.Hosts {
		fields := strings.Fields(line)
		if len(fields) < 2 {
			return spec, fmt.Errorf("--host %q: want an address and names", line)
		}
		addr, err := netip.ParseAddr(fields[0])
		if err != nil {
			return spec, fmt.Errorf("--host %q: %w", line, err)
		}
		spec.Hosts = append(spec.Hosts, sandbox.HostEntry{Addr: addr, Names: fields[1:]})
	}
	return spec, nil
}

// taskAttachment is a task's place on one of its networks.
func taskAttachment(task *cluster.Task, nw cluster.TaskNetwork) attachment {
	b := &serviceBinding{ID: task.ServiceID, Name: task.ServiceName, VIP: nw.VIP, Aliases: nw.Aliases, Way: task.Way}
	if nw.Network.Ingress {
		b.Ports = ingressPorts(task)
	}
	return attachment{
		Attachment: cluster.Attachment{TaskID: task.ID, Network: nw.Network, Addrs: nw.Addrs},
		Service:    b,
	}
}

func ingressPorts(task *cluster.Task) []directory.Port {
	var ports []directory.Port
	for _, p := range task.Ports {
		if !p.HostMode {
			ports = append(ports, p.Port)
		}
	}
	return ports
}
