package crypto

import (
	"crypto/rand"
	"encoding/binary"
	"maps"
	"slices"
)

// The sessions of an engine, by the index by which peers name them.

// add enters a new session. What is then too old is closed. The lock is held.
func (e *Engine) add(s *Session) {
	p := s.peer
	table := maps.Clone(*e.receiving.Load())
	table[s.local] = s
	e.receiving.Store(&table)
	p.sessions = slices.Insert(p.sessions, 0, s)
	for i := len(p.sessions) - 1; i > 0 && len(p.sessions) > maxSessions; i-- {
		if old := p.sessions[i]; old != p.sending.Load() {
			e.drop(old)
		}
	}
}

// drop closes a session and forgets it. The lock is held.
func (e *Engine) drop(s *Session) {
	s.close()
	p := s.peer
	i := slices.Index(p.sessions, s)
	if i < 0 {
		return
	}
	p.sessions = slices.Delete(p.sessions, i, i+1)
	if s.pending.Load() {
		e.halfOpen--
	}
	table := maps.Clone(*e.receiving.Load())
	delete(table, s.local)
	e.receiving.Store(&table)
	if p.sending.Load() == s {
		i = slices.IndexFunc(p.sessions, func(s *Session) bool { return !s.pending.Load() && !s.closed.Load() })
		if i < 0 {
			p.sending.Store(nil)
		} else {
			p.sending.Store(p.sessions[i])
		}
	}
}

// newIndex returns an index, not 0, that is in no use. Only the engine's goroutine gives
// out indexes, so it stays free until that uses it. The lock is held.
func (e *Engine) newIndex() uint32 {
	var b [4]byte
	for {
		_, _ = rand.Read(b[1:]) // never fails
		i := binary.BigEndian.Uint32(b[:])
		if i != 0 && e.initiated[i] == nil && e.Receiving(i) == nil {
			return i
		}
	}
}
