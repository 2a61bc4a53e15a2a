package directory

import (
	"cmp"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
)

// A Store holds the current snapshot of each network that this node has
// joined. Reading takes no lock. All methods are safe for concurrent use;
// Publish and Remove are for package discovery alone.
type Store struct {
	networks atomic.Pointer[map[string]*Snapshot] // replaced as a whole, never changed

	mu   sync.Mutex // one writer at a time; guards subs
	subs map[*subscription]struct{}
}

// NewStore returns an empty store.
func NewStore() *Store {
	s := &Store{subs: make(map[*subscription]struct{})}
	s.networks.Store(&map[string]*Snapshot{})
	return s
}

// Load returns the current snapshot of the network, nil if this node has not
// joined it.
func (s *Store) Load(networkID string) *Snapshot {
	return (*s.networks.Load())[networkID]
}

// Networks returns the current snapshots of all networks, sorted by name.
func (s *Store) Networks() []*Snapshot {
	return slices.SortedFunc(maps.Values(*s.networks.Load()), func(a, b *Snapshot) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID, b.ID))
	})
}

// Publish installs snap as the current version of its network. The caller
// gives it away: neither it nor what it points to may change afterwards.
func (s *Store) Publish(snap *Snapshot) {
	s.replace(snap.ID, snap)
}

// Remove forgets a network that this node has left.
func (s *Store) Remove(networkID string) {
	s.replace(networkID, nil)
}

func (s *Store) replace(id string, snap *Snapshot) {
	s.mu.Lock()
	defer s.mu.Unlock()

	next := maps.Clone(*s.networks.Load())
	if snap != nil {
		next[id] = snap
	} else if _, ok := next[id]; ok {
		delete(next, id)
	} else {
		return
	}
	s.networks.Store(&next)
	for sub := range s.subs {
		sub.notify(id)
	}
}

// Subscribe returns a channel that carries the ID of each network that changed
// or was removed; Load then tells which. Changes are coalesced: however many
// versions were published while the subscriber was busy, it receives the ID
// once and finds the newest, so a slow subscriber holds nobody up. The networks
// that exist already are reported first. Call cancel when done: it ends the
// subscription and closes the channel.
func (s *Store) Subscribe() (changes <-chan string, cancel func()) {
	sub := &subscription{
		out:  make(chan string),
		wake: make(chan struct{}, 1),
		done: make(chan struct{}),
	}

	s.mu.Lock()
	for _, snap := range s.Networks() {
		sub.notify(snap.ID)
	}
	s.subs[sub] = struct{}{}
	s.mu.Unlock()

	go sub.deliver()
	return sub.out, sync.OnceFunc(func() {
		s.mu.Lock()
		delete(s.subs, sub)
		s.mu.Unlock()
		close(sub.done)
	})
}

// A subscription queues IDs for one subscriber. The queue holds each network
// at most once, which bounds it.
type subscription struct {
	out  chan string
	wake chan struct{} // has room for one: something is pending
	done chan struct{}

	mu      sync.Mutex
	pending []string
}

// notify adds id to what the subscriber has yet to see. It does not block.
func (s *subscription) notify(id string) {
	s.mu.Lock()
	if !slices.Contains(s.pending, id) {
		s.pending = append(s.pending, id)
	}
	s.mu.Unlock()

	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func (s *subscription) next() (id string, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.pending) == 0 {
		return "", false
	}
	id = s.pending[0]
	s.pending = slices.Delete(s.pending, 0, 1)
	return id, true
}

// deliver hands the pending IDs over, oldest first, until done is closed.
func (s *subscription) deliver() {
	defer close(s.out)
	for {
		id, ok := s.next()
		if !ok {
			select {
			case <-s.wake:
				continue
			case <-s.done:
				return
			}
		}
		select {
		case s.out <- id:
		case <-s.done:
			return
		}
	}
}
