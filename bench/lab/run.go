package lab

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"sync"
)

// Run is [New] for programs that are not tests. It calls fn with an empty lab
// and tears that down when fn has returned. It returns fn's error, or that of
// the set-up method which failed and so ended fn; set-up methods must be called
// from fn's own goroutine.
func Run(fn func(*Lab) error) error {
	tb := &program{}
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer tb.cleanup()
		if err := fn(New(tb)); err != nil {
			tb.fail(err)
		}
	}()
	<-done
	return tb.err
}

// A program is the TB of Run.
type program struct {
	mu       sync.Mutex
	err      error // the first
	cleanups []func()
}

func (p *program) Helper() {}

func (p *program) Logf(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }

func (p *program) Fatalf(format string, args ...any) {
	p.fail(fmt.Errorf(format, args...))
	runtime.Goexit()
}

func (p *program) Cleanup(fn func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cleanups = append(p.cleanups, fn)
}

func (p *program) fail(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err == nil {
		p.err = err
	}
}

func (p *program) cleanup() {
	p.mu.Lock()
	fns := slices.Backward(p.cleanups)
	p.mu.Unlock()
	for _, fn := range fns {
		fn()
	}
}
