package node

import (
	"context"
	"fmt"
	"time"
)

// A stage is one part of the node that runs until it is stopped or fails. The
// node stops its stages one after the other, which a shared context could not.
type stage struct {
	name   string
	cancel context.CancelFunc
	done   chan struct{}
	err    error // of run, valid once done is closed
}

// startStage runs run in a goroutine. ctx lends values only: a stage ends by
// stop alone, so that what depends on it can end first.
func startStage(ctx context.Context, name string, run func(context.Context) error) *stage {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	s := &stage{name: name, cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(s.done)
		defer cancel()
		s.err = run(ctx)
	}()
	return s
}

// stop asks the stage to end, waits for it and returns its error.
func (s *stage) stop(patience time.Duration) error {
	s.cancel()
	select {
	case <-s.done:
		return s.err
	case <-time.After(patience):
		return fmt.Errorf("%s: did not stop within %v", s.name, patience)
	}
}
