package node

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/events"

	"github.com/ovnd/ovnd/api"
	"github.com/ovnd/ovnd/api/types"
	"github.com/ovnd/ovnd/cluster"
	"github.com/ovnd/ovnd/dataplane"
	"github.com/ovnd/ovnd/discovery/directory"
	"github.com/ovnd/ovnd/encap"
	"github.com/ovnd/ovnd/sandbox"
)

const (
	// firstContact is how long the init of a new sandbox has to connect.
	firstContact = 30 * time.Second
	// restoreContact is how long a restarted node waits for the inits of the
	// sandboxes that it had before.
	restoreContact = 15 * time.Second
	detachPatience = 5 * time.Second
)

// attacher is what sandboxes need of the swarm.
type attacher interface {
	AttachNetwork(ctx context.Context, containerID, target string, addrs []string) (cluster.Attachment, error)
	DetachNetwork(ctx context.Context, taskID string) error
}

// A record is what the node remembers of a sandbox, on disk too: with it, a
// node that was killed takes its sandboxes back.
type record struct {
	Spec        sandbox.Spec
	Attachments []attachment
	Created     time.Time
}

// An attachment is one interface of a sandbox: Spec.Interfaces has it at the
// same index.
type attachment struct {
	cluster.Attachment
	Aliases []string
}

// A sandboxState is a sandbox of this node. Until its init has connected it
// has no ports and a deadline.
type sandboxState struct {
	record
	ports    []*dataplane.Port
	deadline *time.Timer // nil while connected
}

// sandboxes are those of this node, from the allocation of their addresses
// until these are given back. It implements sandbox.Handler.
type sandboxes struct {
	log    *slog.Logger
	swarm  attacher
	events *api.EventLog
	files  recordFiles
	socket string // of the sandbox server

	mu     sync.Mutex
	member *member // nil: in no swarm
	byID   map[string]*sandboxState
}

// join makes m the swarm that sandboxes are attached to and takes back what a
// former life of the node left.
func (s *sandboxes) join(m *member) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.member = m
	for _, rec := range s.files.load(s.log) {
		if s.byID[rec.Spec.ID] == nil {
			s.restoreLocked(rec)
		}
	}
}

func (s *sandboxes) restoreLocked(rec record) {
	for i, a := range rec.Attachments {
		if _, err := s.member.networks.acquire(a.Network); err != nil {
			s.log.Warn("sandbox not restored", "sandbox", rec.Spec.Name, "error", err)
			for _, acquired := range rec.Attachments[:i] {
				s.member.networks.release(acquired.Network.ID)
			}
			return
		}
	}
	st := &sandboxState{record: rec}
	s.byID[rec.Spec.ID] = st
	s.expectLocked(st, restoreContact)
}

// expectLocked gives the init time to connect; then the sandbox is over.
func (s *sandboxes) expectLocked(st *sandboxState, patience time.Duration) {
	id := st.Spec.ID
	st.deadline = time.AfterFunc(patience, func() {
		// It may have connected while the timer fired.
		if s.end(id, (*sandboxState).waits) {
			s.log.Info("no process connected for a sandbox: its addresses go back", "sandbox", st.Spec.Name, "after", patience)
		}
	})
}

// waits reports whether the sandbox's init has yet to connect.
func (st *sandboxState) waits() bool { return st.deadline != nil }

// create allocates addresses for a sandbox that is about to start.
func (s *sandboxes) create(ctx context.Context, req types.AttachRequest) (sandbox.Spec, error) {
	id := randomID()
	if req.Name == "" {
		req.Name = id[:12]
	}
	st, m, err := s.reserve(id, req)
	if err != nil {
		return sandbox.Spec{}, err
	}
	for _, want := range req.Networks {
		if err = s.attachNetwork(ctx, m, st, want); err != nil {
			break
		}
	}
	if err == nil {
		err = s.files.save(st.record)
	}
	if err == nil {
		err = ctx.Err() // the caller has gone
	}
	if err != nil {
		s.Detach(id)
		return sandbox.Spec{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.expectLocked(st, firstContact)
	return st.Spec, nil
}

// reserve takes the name.
func (s *sandboxes) reserve(id string, req types.AttachRequest) (*sandboxState, *member, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.member == nil {
		return nil, nil, cerrdefs.ErrUnavailable.WithMessage(`this node is not part of a swarm: "ovnd swarm init" or "ovnd swarm join" first`)
	}
	for _, other := range s.byID {
		if other.Spec.Name == req.Name {
			return nil, nil, cerrdefs.ErrConflict.WithMessage(fmt.Sprintf("Conflict. The name %q is already in use by sandbox %s: choose another with --name", req.Name, other.Spec.ID[:12]))
		}
	}
	st := &sandboxState{record: record{
		Spec:    sandbox.Spec{ID: id, Name: req.Name, Hostname: req.Hostname, NodeSocket: s.socket, Token: randomID()},
		Created: time.Now(),
	}}
	s.byID[id] = st
	return st, s.member, nil
}

// attachNetwork adds one interface to a sandbox that nobody else uses yet.
func (s *sandboxes) attachNetwork(ctx context.Context, m *member, st *sandboxState, want types.AttachNetwork) error {
	var addrs []string
	if want.IP.IsValid() {
		addrs = []string{want.IP.String()}
	}
	att, err := s.swarm.AttachNetwork(ctx, st.Spec.ID, want.Target, addrs)
	if err != nil {
		return err
	}
	snap, err := m.networks.acquire(att.Network)
	if err != nil {
		return errors.Join(err, s.giveBack(att.TaskID))
	}
	in := sandbox.Interface{
		Name:      fmt.Sprintf("eth%d", len(st.Spec.Interfaces)),
		NetworkID: att.Network.ID, NetworkName: att.Network.Name, EndpointID: randomID(),
		Addrs: att.Addrs, MAC: encap.EndpointMAC(att.Addrs[0].Addr()), MTU: snap.MTU, Queues: m.sw.Workers(),
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	st.Attachments = append(st.Attachments, attachment{Attachment: att, Aliases: want.Aliases})
	st.Spec.Interfaces = append(st.Spec.Interfaces, in)
	return nil
}

// release ends a sandbox whose init has not connected.
func (s *sandboxes) release(id, token string) error {
	if !s.end(id, func(st *sandboxState) bool { return st.waits() && st.holds(token) }) {
		return cerrdefs.ErrNotFound.WithMessage(fmt.Sprintf("no sandbox %s waits for its process", id))
	}
	return nil
}

// holds reports whether token is the sandbox's, in constant time.
func (st *sandboxState) holds(token string) bool {
	return subtle.ConstantTimeCompare([]byte(token), []byte(st.Spec.Token)) == 1
}

// Attach implements sandbox.Handler: an init presents its devices, at its start
// and again after the node restarted.
func (s *sandboxes) Attach(_ context.Context, id, token string, _ int, devs []sandbox.Devices) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.byID[id]
	if st == nil || s.member == nil {
		return fmt.Errorf("%w: its addresses were given back", sandbox.ErrGone)
	}
	if !st.holds(token) {
		return errors.New("wrong token")
	}
	if len(devs) != len(st.Spec.Interfaces) {
		return fmt.Errorf("%d devices for %d interfaces", len(devs), len(st.Spec.Interfaces))
	}
	if !st.waits() {
		return errors.New("its devices are connected already")
	}
	for i := range devs {
		if err := s.connectLocked(st, i, devs[i]); err != nil {
			s.disconnectLocked(st)
			return err
		}
	}
	st.deadline.Stop()
	st.deadline = nil
	return nil
}

// connectLocked gives the data plane the device of the sandbox's interface i
// and announces its address. What the interface is comes from our own record,
// never from the init.
func (s *sandboxes) connectLocked(st *sandboxState, i int, dev sandbox.Devices) error {
	in := &st.Spec.Interfaces[i]
	if dev.Interface.Name != in.Name {
		return fmt.Errorf("device %q where %s belongs", dev.Interface.Name, in.Name)
	}
	addrs := make([]netip.Addr, len(in.Addrs))
	for j, p := range in.Addrs {
		addrs[j] = p.Addr()
	}
	port, err := s.member.sw.AddPort(dataplane.PortConfig{
		NetworkID: in.NetworkID, EndpointID: in.EndpointID, Name: st.Spec.Name,
		Addrs: addrs, MAC: in.MAC, Queues: dev.Queues, MTU: in.MTU,
	})
	if err != nil {
		return fmt.Errorf("interface %s: %w", in.Name, err)
	}
	st.ports = append(st.ports, port)
	err = s.member.disc.AddEndpoint(in.NetworkID, directory.Endpoint{
		ID: in.EndpointID, Name: st.Spec.Name, SandboxID: st.Spec.ID,
		Addr: addrs[0], MAC: in.MAC, VTEP: s.member.networks.vtep, Kind: directory.Task,
		TaskAliases: st.Attachments[i].Aliases,
	})
	if err != nil {
		return fmt.Errorf("interface %s: announce %s: %w", in.Name, addrs[0], err)
	}
	s.publish(events.ActionConnect, in, st)
	return nil
}

// disconnectLocked takes the sandbox's interfaces off the network. Its
// addresses stay its own.
func (s *sandboxes) disconnectLocked(st *sandboxState) {
	for i, port := range st.ports {
		in := &st.Spec.Interfaces[i]
		// The record goes first: nobody should send what cannot be delivered.
		if err := s.member.disc.RemoveEndpoint(in.NetworkID, in.EndpointID); err != nil {
			s.log.Warn("endpoint not withdrawn", "sandbox", st.Spec.Name, "network", in.NetworkName, "error", err)
		}
		if err := port.Close(); err != nil {
			s.log.Warn("port not closed properly", "sandbox", st.Spec.Name, "network", in.NetworkName, "error", err)
		}
		s.publish(events.ActionDisconnect, in, st)
	}
	st.ports = nil
}

// Detach implements sandbox.Handler: the init has gone. The sandbox's addresses
// go back to the swarm.
func (s *sandboxes) Detach(id string) {
	s.end(id, func(*sandboxState) bool { return true })
}

// end takes a sandbox off its networks and gives its addresses back, if it is
// there and the condition, which is asked under the lock, holds.
func (s *sandboxes) end(id string, condition func(*sandboxState) bool) bool {
	s.mu.Lock()
	st := s.byID[id]
	if st == nil || !condition(st) {
		s.mu.Unlock()
		return false
	}
	delete(s.byID, id)
	if st.deadline != nil {
		st.deadline.Stop()
	}
	if m := s.member; m != nil {
		s.disconnectLocked(st)
		for _, a := range st.Attachments {
			m.networks.release(a.Network.ID)
		}
	}
	s.mu.Unlock()
	for _, a := range st.Attachments {
		if err := s.giveBack(a.TaskID); err != nil {
			s.log.Info("address not given back yet", "sandbox", st.Spec.Name, "network", a.Network.Name, "error", err)
		}
	}
	if err := s.files.remove(id); err != nil {
		s.log.Warn("record of a sandbox not removed", "sandbox", st.Spec.Name, "error", err)
	}
	return true
}

func (s *sandboxes) giveBack(taskID string) error {
	ctx, cancel := context.WithTimeout(context.Background(), detachPatience)
	defer cancel()
	return s.swarm.DetachNetwork(ctx, taskID)
}

// leave forgets the swarm: the data plane is about to end.
func (s *sandboxes) leave() {
	s.mu.Lock()
	ids := make([]string, 0, len(s.byID))
	for id := range s.byID {
		ids = append(ids, id)
	}
	s.mu.Unlock()
	for _, id := range ids {
		s.Detach(id)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.member = nil
}

// lost ends the sandbox that an attachment belonged to: the swarm may give its
// address to somebody else now.
func (s *sandboxes) lost(taskID string, server *sandbox.Server) {
	id, ok := s.owner(taskID)
	if !ok {
		return // detached by ourselves
	}
	s.log.Warn("the swarm took an address of a sandbox away: the sandbox ends", "sandbox", id[:12])
	server.End(id, "the swarm took its address away")
	s.Detach(id)
}

// owner returns the ID of the sandbox that a task of the swarm belongs to.
func (s *sandboxes) owner(taskID string) (id string, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, st := range s.byID {
		for _, a := range st.Attachments {
			if a.TaskID == taskID {
				return id, true
			}
		}
	}
	return "", false
}

// running counts the sandboxes whose init is connected.
func (s *sandboxes) running() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, st := range s.byID {
		if len(st.ports) > 0 {
			n++
		}
	}
	return n
}

func (s *sandboxes) publish(action events.Action, in *sandbox.Interface, st *sandboxState) {
	s.events.Publish(events.Message{
		Type: events.NetworkEventType, Action: action,
		Actor: events.Actor{ID: in.NetworkID, Attributes: map[string]string{
			"container": st.Spec.ID, "name": in.NetworkName, "type": "overlay",
		}},
	})
}
