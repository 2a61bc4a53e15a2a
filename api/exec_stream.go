package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"sync"
	"time"

	"github.com/moby/moby/api/types/events"
	"github.com/moby/term"
)

// outputGrace is how long the output of a command that has ended is waited
// for: what it started may hold it open for ever.
const outputGrace = 2 * time.Second

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
	drained := make(chan struct{})
	a.execs.spawn(func() {
		defer close(drained)
		var both sync.WaitGroup
		both.Go(func() { drain(stdout, proc.Stdout()) })
		both.Go(func() { drain(stderr, proc.Stderr()) })
		both.Wait()
	})
	a.execs.spawn(func() {
		code, err := proc.Wait(a.execs.ctx)
		if err != nil {
			code = exitUnknown
		}
		grace := time.NewTimer(outputGrace)
		defer grace.Stop()
		select {
		case <-drained:
		case <-grace.C:
		case <-a.execs.ctx.Done():
		}
		_ = proc.Close() // its streams are read to their end or given up
		<-drained
		a.publishExec(c, events.ActionExecDie, x, map[string]string{"exitCode": strconv.Itoa(code)})
		x.end(code)
	})
}

// drain copies from src, which may be nil, until its end, to dst until that
// fails.
func drain(dst io.Writer, src io.Reader) {
	if src == nil {
		return
	}
	buf := make([]byte, 32<<10)
	for {
		n, err := src.Read(buf)
		if n > 0 && dst != nil {
			if _, werr := dst.Write(buf[:n]); werr != nil {
				dst = nil
			}
		}
		if err != nil {
			return
		}
	}
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
