package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/moby/moby/api/types/events"
	"github.com/moby/term"
)

const (
	// outputGrace is how long the output of a command that has ended is waited
	// for while nothing comes: what it started may hold it open for ever.
	outputGrace = 2 * time.Second
	// outputRest is more than a pipe can hold, in bytes: what comes beyond that
	// after the end of a command is not its own any more.
	outputRest = 1 << 20
)

// endOfTransmission is ^D, the end of input on a terminal.
const endOfTransmission = 0x04

// serveExec runs a command with a client at its streams, until the command has
// ended, or the client has gone or let go of it.
func (a *containerAPI) serveExec(c Container, x *execution, cfg ExecConfig, conn *hijacked, multiplexed bool) {
	stdout, stderr := outputs(conn, multiplexed)
	reading := make(chan struct{})
	defer conn.finish(reading)
	proc, err := a.launch(a.execs.ctx, c, x, cfg)
	if err != nil {
		close(reading)
		_, _ = fmt.Fprintf(stdout, "%v\r\n", err) // the client has gone: nobody to tell
		return
	}
	a.watch(c, x, proc, stdout, stderr)
	ctx, cancel := context.WithCancel(a.execs.ctx)
	defer cancel()
	left := make(chan bool, 1) // whether the client detached
	go func() {
		defer close(reading)
		left <- a.input(ctx, x, proc, conn)
	}()
	select {
	case <-x.ended:
	case detached := <-left:
		if detached {
			a.publishExec(c, events.ActionExecDetach, x, nil)
		}
	case <-ctx.Done():
	}
}

// watch passes a command's output on until it has ended, and notes how it did.
// Without writers, or when they fail, the output is dropped: a command does
// not hang because nobody reads.
func (a *containerAPI) watch(c Container, x *execution, proc ExecProcess, stdout, stderr io.Writer) {
	outs := []*output{{dst: stdout, src: proc.Stdout()}, {dst: stderr, src: proc.Stderr()}}
	drained := make(chan struct{})
	a.execs.spawn(func() {
		defer close(drained)
		var all sync.WaitGroup
		for _, o := range outs {
			all.Go(o.drain)
		}
		all.Wait()
	})
	a.execs.spawn(func() {
		code, err := proc.Wait(a.execs.ctx)
		if err != nil {
			code = exitUnknown
		}
		a.execs.awaitOutput(drained, outs)
		_ = proc.Close() // its streams are read to their end or given up
		<-drained
		a.publishExec(c, events.ActionExecDie, x, map[string]string{"exitCode": strconv.Itoa(code)})
		x.end(code)
	})
}

// awaitOutput returns when the output of a command that has just ended is
// drained, or the rest is none of the command's. A client may be slow to take
// what is.
func (e *execs) awaitOutput(drained <-chan struct{}, outs []*output) {
	begin := time.Now()
	for _, o := range outs {
		o.last.Store(o.read.Load() + outputRest)
	}
	tick := time.NewTicker(outputGrace / 20)
	defer tick.Stop()
	for {
		select {
		case <-drained:
			return
		case <-e.ctx.Done():
			return
		case now := <-tick.C:
			if now.Sub(begin) > outputGrace && !slices.ContainsFunc(outs, func(o *output) bool { return o.expected(now) }) {
				return
			}
		}
	}
}

// An output is one stream from a command to its client.
type output struct {
	dst   io.Writer // nil: nobody
	src   io.Reader // nil: none
	read  atomic.Int64
	last  atomic.Int64 // of read, from which on it is not the command's
	waits atomic.Int64 // since when nothing comes, in Unix nanoseconds; 0: it is being written
	over  atomic.Bool
}

// drain copies until the end of the stream, to the client until that fails.
func (o *output) drain() {
	defer o.over.Store(true)
	if o.src == nil {
		return
	}
	buf := make([]byte, 32<<10)
	for {
		o.waits.Store(time.Now().UnixNano())
		n, err := o.src.Read(buf)
		o.waits.Store(0)
		o.read.Add(int64(n))
		if n > 0 && o.dst != nil {
			if _, werr := o.dst.Write(buf[:n]); werr != nil {
				o.dst = nil
			}
		}
		if err != nil {
			return
		}
	}
}

// expected reports whether more of an ended command's own output may come.
func (o *output) expected(now time.Time) bool {
	since := o.waits.Load()
	idle := since != 0 && now.Sub(time.Unix(0, since)) > outputGrace
	return !o.over.Load() && !idle && o.read.Load() < o.last.Load()
}

// input passes on what the client types until it types the keys to detach or
// has gone, which it waits for, and reports which. A pipe ends for the command
// when the client's input does; a terminal gets an end of file for that. A
// client that has gone altogether may have detached on its own side, as the
// docker CLI does: the command goes on.
func (a *containerAPI) input(ctx context.Context, x *execution, proc ExecProcess, conn *hijacked) (detached bool) {
	in := conn.in
	if x.req.Tty {
		in = term.NewEscapeProxy(in, x.detachKeys)
	}
	if stdin := proc.Stdin(); stdin != nil {
		_, err := io.Copy(stdin, in)
		if _, ok := errors.AsType[term.EscapeError](err); ok {
			return true
		}
		if !x.req.Tty {
			_ = stdin.Close() // the command has gone: nobody to tell
		} else if !conn.gone() {
			_, _ = stdin.Write([]byte{endOfTransmission}) // likewise
		}
	}
	_, _ = io.Copy(io.Discard, conn.in) // what the command does not read; how it ends is looked at next
	return conn.waitGone(ctx) && x.req.Tty
}
