package node

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/network"

	"github.com/ovnd/ovnd/api"
	"github.com/ovnd/ovnd/api/types"
	"github.com/ovnd/ovnd/cluster"
	"github.com/ovnd/ovnd/discovery/directory"
	"github.com/ovnd/ovnd/discovery/resolver"
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

// errOver reports that a sandbox ended while it was furnished.
var errOver = errors.New("the node left its swarm meanwhile")

// attacher is what sandboxes need of the swarm.
type attacher interface {
	AttachNetwork(ctx context.Context, containerID, target string, addrs []string) (cluster.Attachment, error)
	DetachNetwork(ctx context.Context, taskID string) error
	GetNetworks(ctx context.Context) ([]network.Inspect, error)
}

// A record is what the node remembers of a sandbox, on disk too: with it, a
// node that was killed takes its sandboxes back.
type record struct {
	Spec        sandbox.Spec
	Attachments []attachment
	Bridge      netip.Addr // on the gateway bridge; the zero Addr: not on it
	Created     time.Time
	Task        *taskRecord `json:",omitempty"` // nil: of `ovnd run`
}

// An attachment is one interface of a sandbox: Spec.Interfaces has it at the
// same index. The gateway bridge, which comes after them, has none.
type attachment struct {
	cluster.Attachment
	Aliases []string        // of this sandbox alone
	Service *serviceBinding `json:",omitempty"`
}

// A serviceBinding is what makes an endpoint one of a service.
type serviceBinding struct {
	ID, Name string
	VIP      netip.Addr
	Way      directory.Way
	Aliases  []string
	Ports    []directory.Port // on the ingress network
}

// A sandboxState is a sandbox of this node. Until its init has connected it
// has no ports and a deadline.
type sandboxState struct {
	record
	ports    []io.Closer      // of the switch
	hosts    []dialHost       // of a bare task: where its connections come from
	deadline *time.Timer      // nil while connected, and once over
	session  *sandbox.Session // nil until the init has connected
	initPID  int              // of the init, once connected
	names    *stage           // the resolver; nil: none
	// restoreNames puts back the resolv.conf of this node's own container; nil: it
	// was not replaced.
	restoreNames func()
	task         *taskState // nil: of `ovnd run`
}

// sandboxes are those of this node, from the allocation of their addresses
// until these are given back. It implements sandbox.Handler.
type sandboxes struct {
	log      *slog.Logger
	swarm    attacher
	events   *api.EventLog
	files    recordFiles
	socket   string // of the sandbox server
	logDir   string // of tasks
	hostname string
	resolver *resolver.Server
	hostConf *resolver.HostConf
	store    *directory.Store
	tun      types.TUNState
	services map[string]uint16 // whose applications run beside the node, and where; 0: at their own port
	places   *places           // of this node itself, for programs outside sandboxes
	proxies  *proxies

	mu     sync.Mutex
	member *member       // nil: in no swarm
	joined chan struct{} // made by who waits for member, closed by join; nil: nobody
	byID   map[string]*sandboxState
}

// join makes m the swarm that sandboxes are attached to and takes back what a
// former life of the node left.
func (s *sandboxes) join(m *member) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.member, s.store = m, m.networks.store
	for _, rec := range s.files.load(s.log) {
		if s.byID[rec.Spec.ID] == nil {
			s.restoreLocked(rec)
		}
	}
	if s.joined != nil {
		close(s.joined)
		s.joined = nil
	}
}

// waitJoined waits until the node is in a swarm and has taken back what a
// former life left: SwarmKit asks for that as soon as it starts.
func (s *sandboxes) waitJoined(ctx context.Context) error {
	s.mu.Lock()
	if s.member != nil {
		s.mu.Unlock()
		return nil
	}
	if s.joined == nil {
		s.joined = make(chan struct{})
	}
	joined := s.joined
	s.mu.Unlock()
	select {
	case <-joined:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *sandboxes) restoreLocked(rec record) {
	st := &sandboxState{record: rec}
	if rec.Task != nil {
		st.task = newTaskState()
		s.claimLater(st)
		if rec.Task.Exit != nil { // kept for those who ask what became of it
			st.task.finish()
			s.byID[rec.Spec.ID] = st
			return
		}
	}
	for i, a := range rec.Attachments {
		if _, err := s.member.networks.acquire(a.Network); err != nil {
			s.log.Warn("sandbox not restored", "sandbox", rec.Spec.Name, "error", err)
			for _, acquired := range rec.Attachments[:i] {
				s.member.networks.release(acquired.Network.ID)
			}
			return
		}
	}
	if st.task != nil {
		if st.Spec.Bare {
			s.restoreProxy(st)
		}
		if st.Bridge.IsValid() {
			st.task.reach.Store(&st.Bridge)
		}
		s.restorePortsLocked(st)
	}
	s.byID[rec.Spec.ID] = st
	s.expectLocked(st, restoreContact)
}

// claimLater has a task of a former life end unless the swarm asks for it: it
// was taken away while the node was not there.
func (s *sandboxes) claimLater(st *sandboxState) {
	time.AfterFunc(claimPatience, func() {
		s.mu.Lock()
		orphan := !st.task.claimed && s.byID[st.Spec.ID] == st
		s.mu.Unlock()
		if !orphan {
			return
		}
		s.log.Info("a task is none of the swarm's any more: it ends", "task", st.Spec.Name)
		if err := (tasks{s}).RemoveTask(context.Background(), st.Task.Task.ID); err != nil {
			s.log.Warn("task not removed", "task", st.Spec.Name, "error", err)
		}
	})
}

// expectLocked gives the init time to connect; then the sandbox is over.
func (s *sandboxes) expectLocked(st *sandboxState, patience time.Duration) {
	id := st.Spec.ID
	st.deadline = time.AfterFunc(patience, func() {
		// It may have connected while the timer fired.
		if s.end(id, (*sandboxState).waits) {
			s.log.Info("no process connected for a sandbox: it is over", "sandbox", st.Spec.Name, "after", patience)
		}
	})
}

// waits reports whether the sandbox's init has yet to connect.
func (st *sandboxState) waits() bool { return st.deadline != nil }

// create allocates addresses for a sandbox that is about to start.
func (s *sandboxes) create(ctx context.Context, req types.AttachRequest) (sandbox.Spec, error) {
	if !s.tun.Sandboxes && !req.Elsewhere {
		return sandbox.Spec{}, cerrdefs.ErrFailedPrecondition.WithMessage(fmt.Sprintf("this node has no sandboxes (%s). Programs of this machine reach its networks by \"ovnd proxy\", \"ovnd forward\" and \"ovnd nc\", and are reached by \"ovnd expose\"", s.tun.Reason))
	}
	id := randomID()
	if req.Name == "" {
		req.Name = id[:12]
	}
	st, m, err := s.reserve(id, record{Spec: sandbox.Spec{Name: req.Name, Hostname: req.Hostname}})
	if err != nil {
		return sandbox.Spec{}, err
	}
	for _, want := range req.Networks {
		if err = s.attachNetwork(ctx, m, st, want); err != nil {
			break
		}
	}
	if err == nil {
		err = s.complete(m, st)
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

var errNoSwarm = cerrdefs.ErrUnavailable.WithMessage(`this node is not part of a swarm: "ovnd swarm init" or "ovnd swarm join" first`)

// inSwarm returns the swarm that the node is in.
func (s *sandboxes) inSwarm() (*member, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.member == nil {
		return nil, errNoSwarm
	}
	return s.member, nil
}

// reserve takes the name for a sandbox that begins with rec.
func (s *sandboxes) reserve(id string, rec record) (*sandboxState, *member, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.member == nil {
		return nil, nil, errNoSwarm
	}
	for _, other := range s.byID {
		if other.Spec.Name == rec.Spec.Name {
			return nil, nil, cerrdefs.ErrConflict.WithMessage(fmt.Sprintf("Conflict. The name %q is already in use by sandbox %s: choose another with --name", rec.Spec.Name, other.Spec.ID[:12]))
		}
	}
	rec.Spec.ID, rec.Spec.NodeSocket, rec.Spec.Token = id, s.socket, randomID()
	rec.Created = time.Now()
	st := &sandboxState{record: rec}
	if rec.Task != nil {
		st.task = newTaskState()
	}
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
	if err := s.addInterface(m, st, attachment{Attachment: att, Aliases: want.Aliases}); err != nil {
		return errors.Join(err, s.giveBack(att.TaskID))
	}
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

// Detach implements sandbox.Handler: the init has gone. The sandbox's addresses
// go back to the swarm.
func (s *sandboxes) Detach(id string) {
	s.end(id, func(*sandboxState) bool { return true })
}

// end takes a sandbox off its networks and gives its addresses back, if it is
// there and the condition, which is asked under the lock, holds. Of a task the
// record and the logs stay until the swarm has it removed.
func (s *sandboxes) end(id string, condition func(*sandboxState) bool) bool {
	s.mu.Lock()
	st := s.byID[id]
	if st == nil || !condition(st) || st.over() {
		s.mu.Unlock()
		return false
	}
	if st.task == nil {
		delete(s.byID, id)
	}
	if st.deadline != nil {
		st.deadline.Stop()
		st.deadline = nil
	}
	s.disconnectLocked(st)
	if m := s.member; m != nil {
		for _, a := range st.Attachments {
			m.networks.release(a.Network.ID)
		}
	}
	if st.task != nil {
		s.endTaskLocked(st)
		s.mu.Unlock()
		return true
	}
	s.mu.Unlock()
	s.announce(st, events.ActionDie, nil)
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

// over reports whether the sandbox has ended, and is only remembered.
func (st *sandboxState) over() bool { return st.task != nil && st.task.finished() }

func (s *sandboxes) giveBack(taskID string) error {
	ctx, cancel := context.WithTimeout(context.Background(), detachPatience)
	defer cancel()
	return s.swarm.DetachNetwork(ctx, taskID)
}

// leave forgets the swarm: the data plane is about to end, and with it whatever
// runs on the swarm's networks.
func (s *sandboxes) leave(server *sandbox.Server) {
	for {
		s.mu.Lock()
		var ids []string
		for id, st := range s.byID {
			if !st.over() {
				ids = append(ids, id)
			}
		}
		if len(ids) == 0 { // nor does one begin before the member is forgotten
			s.member = nil
			s.mu.Unlock()
			s.places.closeAll()
			s.proxies.closeTasks()
			return
		}
		s.mu.Unlock()
		for _, id := range ids {
			server.End(id, "the node left its swarm")
			s.Detach(id)
		}
	}
}

// lost ends the sandbox that an attachment belonged to: the swarm may give its
// address to somebody else now.
func (s *sandboxes) lost(taskID string, server *sandbox.Server) {
	id, ok := s.owner(taskID)
	if s.places.lost(taskID) || !ok {
		return // of the node itself, or detached by ourselves
	}
	s.log.Warn("the swarm took an address of a sandbox away: the sandbox ends", "sandbox", id[:12])
	server.End(id, "the swarm took its address away")
	s.Detach(id)
}

// owner returns the ID of the sandbox of `ovnd run` that a task of the swarm
// belongs to, "" for an endpoint of the node itself.
func (s *sandboxes) owner(taskID string) (id string, ok bool) {
	if s.places.owner(taskID) != nil {
		return "", true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, st := range s.byID {
		for _, a := range st.Attachments {
			if st.task == nil && a.TaskID == taskID {
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
