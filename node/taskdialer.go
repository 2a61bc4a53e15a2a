package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/ovnd/ovnd/discovery/directory"
	"github.com/ovnd/ovnd/netstack/proxy"
	"github.com/ovnd/ovnd/sandbox"
)

// startPatience is how long a program may take to listen before that is said.
const startPatience = 10 * time.Second

// taskUserPrefix precedes the first digits of a task's container ID in the name
// by which its programs use the proxy.
const taskUserPrefix = "task-"

func taskUser(st *sandboxState) string { return taskUserPrefix + st.Spec.ID[:12] }

// furnishBare gives a bare task its ports and its environment.
func (t tasks) furnishBare(st *sandboxState) error {
	task := &st.Task.Task
	if task.Command == imageSidecar {
		return t.furnishSidecar(st)
	}
	targets, err := targetPorts(task)
	if err != nil {
		return err
	}
	at, err := t.proxies.tasksAt()
	if err != nil {
		return err
	}
	if err := t.assignPorts(st, targets); err != nil {
		return err
	}
	env := st.Task.Command.Env
	st.Task.Command.Env = bareEnv(env, task.Command == imageWhoami, st.Task.Local, t.proxies.proxyEnv(at, taskUser(st)))
	return nil
}

// restoreProxy serves the proxy again that a bare task of a former life knows.
func (s *sandboxes) restoreProxy(st *sandboxState) {
	if _, err := s.proxies.tasksAt(); err != nil {
		s.log.Error("a task reaches nothing any more", "task", st.Spec.Name, "error", err)
	}
}

// connectBareLocked gives the data plane a stack for each interface of a bare
// task, and announces its addresses.
func (s *sandboxes) connectBareLocked(st *sandboxState, a sandbox.Attachment) error {
	if st.Task.Device {
		if err := s.connectDevicesLocked(st, a); err != nil {
			return err
		}
		s.serveBesideLocked(st)
		return nil
	}
	if len(a.Devices) > 0 || a.Resolver != nil {
		return errors.New("devices of a task that has none")
	}
	for i := range st.Spec.Interfaces {
		in, att := &st.Spec.Interfaces[i], &st.Attachments[i]
		h, err := startHost(s.log, s.member.sw, hostConfig{
			networkID: in.NetworkID, endpointID: in.EndpointID, name: st.Spec.Name,
			addr: in.Addrs[0], mtu: in.MTU, target: st.Task.localTarget, refused: s.tellRefused(st),
		})
		if err != nil {
			return fmt.Errorf("interface %s: %w", in.Name, err)
		}
		st.ports = append(st.ports, h)
		if !att.Network.Ingress {
			st.hosts = append(st.hosts, dialHost{
				stackHost: h, networkID: in.NetworkID, network: in.NetworkName, internal: att.Network.Internal, since: time.Now(),
			})
		}
		if err := s.announceLocked(st, i); err != nil {
			return err
		}
	}
	return nil
}

// tellRefused returns what says, once in the life of a task, that its program does
// not listen where it was told to. Sidecars' health checks say so for them.
func (s *sandboxes) tellRefused(st *sandboxState) func(port uint16) {
	var once sync.Once
	began := time.Now()
	return func(port uint16) {
		to, ok := st.Task.localTarget(directory.TCP, port)
		if !ok || time.Since(began) < startPatience || st.Task.Task.Command == imageSidecar {
			return
		}
		once.Do(func() {
			s.log.Warn("a task without namespaces does not listen where its environment says", "task", st.Spec.Name, "port", port, "expected", to, "variable", fmt.Sprintf("PORT_%d", port))
		})
	}
}

// taskDialer returns what a bare task may reach, by the name of its user; nil:
// nothing.
func (s *sandboxes) taskDialer(user string) proxy.Dialer {
	id, ok := strings.CutPrefix(user, taskUserPrefix)
	if !ok || id == "" {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, st := range s.byID {
		if st.Spec.Bare && strings.HasPrefix(st.Spec.ID, id) && !st.over() {
			return &overlayDialer{s: s, hosts: func(context.Context) ([]dialHost, error) { return s.hostsOf(st) }}
		}
	}
	return nil
}

var errNoTask = errors.New("the task is not on its networks")

func (s *sandboxes) hostsOf(st *sandboxState) ([]dialHost, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(st.ports) == 0 {
		return nil, errNoTask
	}
	return st.hosts, nil
}

// dialLocal connects to what stands for a port of a bare task.
func (r *taskRecord) dialLocal(ctx context.Context, network string, p directory.Port) (net.Conn, error) {
	to, ok := r.localTarget(p.Protocol, p.Target)
	if !ok {
		return nil, fmt.Errorf("port %d of the task is closed", p.Target)
	}
	return new(net.Dialer).DialContext(ctx, network, to.String())
}
