package sandbox

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// Waits between an init's attempts to reach its node.
const (
	firstRetry = 50 * time.Millisecond
	lastRetry  = 250 * time.Millisecond
	// answerTimeout bounds how long a node may think about an attachment.
	answerTimeout = 30 * time.Second
)

// A nodeLink is an init's connection to whichever node serves its socket. Its
// goroutine connects and receives; the init's own sends.
type nodeLink struct {
	spec     *Spec
	queues   []int // descriptors, in the order of spec.Interfaces
	resolver []int // UDP and TCP, or none

	mu    sync.Mutex
	state commandState
	pidfd int // of the command, -1 before it is there
}

// A nodeEvent is what the link tells the init.
type nodeEvent struct {
	// conn is the connection that it is about, nil if there is none: the node
	// could not be reached, or refused.
	conn  *packetConn
	lost  bool         // conn has ended
	state commandState // attached: what the node was told
	m     nodeMessage
	fds   []int // m's, the receiver closes them
}

// set changes what a node is told when it is attached to.
func (l *nodeLink) set(state commandState, pidfd int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.state, l.pidfd = state, pidfd
}

// run keeps the sandbox attached. It reports every answer but the failures to
// come back, which it repeats for as long as ctx lasts; a first attachment is
// tried once.
func (l *nodeLink) run(ctx context.Context, events chan<- nodeEvent) {
	report := func(e nodeEvent) {
		select {
		case events <- e:
		case <-ctx.Done():
			closeAll(e.fds)
		}
	}
	wait := firstRetry
	for attached := false; ctx.Err() == nil; {
		e := l.attach(ctx)
		switch {
		case e.m.Kind == nodeAttached:
			attached, wait = true, firstRetry
			report(e)
			l.listen(ctx, e.conn, report)
			continue
		case e.m.Kind == nodeGone, !attached:
			report(e)
			return
		}
		pause(ctx, wait)
		wait = min(2*wait, lastRetry)
	}
}

// attach offers the devices to the node and returns its answer, with the
// connection if the devices were accepted.
func (l *nodeLink) attach(ctx context.Context) nodeEvent {
	refused := func(format string, err error) nodeEvent {
		return nodeEvent{m: nodeMessage{Kind: nodeRefused, Text: fmt.Sprintf(format, err)}}
	}
	conn, err := dialPacket(ctx, l.spec.NodeSocket)
	if err != nil {
		return refused("reach the node: %v: is it up? See ovnd status", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	state, m, err := l.offer(conn)
	if err != nil {
		_ = conn.Close()
		return refused("hand the network devices to the node: %v", err)
	}
	if m.Kind != nodeAttached {
		_ = conn.Close()
		return nodeEvent{m: m}
	}
	return nodeEvent{conn: conn, state: state, m: m}
}

func (l *nodeLink) offer(conn *packetConn) (state commandState, m nodeMessage, err error) {
	if err := conn.SetDeadline(time.Now().Add(answerTimeout)); err != nil {
		return state, m, err
	}
	if state, err = l.introduce(conn); err != nil {
		return state, m, err
	}
	b, fds, err := conn.receive()
	if err != nil {
		return state, m, err
	}
	defer closeAll(fds)
	if m, err = parseNodeMessage(b, len(fds)); err != nil {
		return state, m, err
	}
	return state, m, conn.SetDeadline(time.Time{})
}

func (l *nodeLink) introduce(conn *packetConn) (commandState, error) {
	l.mu.Lock()
	defer l.mu.Unlock() // pidfd must stay what it is until it is sent
	fds := append(append([]int(nil), l.queues...), l.resolver...)
	state := l.state
	if state.PIDFD = l.pidfd >= 0; state.PIDFD {
		fds = append(fds, l.pidfd)
	}
	return state, conn.send(attachMessage{
		Version: protocolVersion, ID: l.spec.ID, Token: l.spec.Token, Interfaces: l.spec.Interfaces,
		Resolver: len(l.resolver) > 0, State: state,
	}, fds...)
}

// listen reports what an attached node says until the connection ends, and
// closes it.
func (l *nodeLink) listen(ctx context.Context, conn *packetConn, report func(nodeEvent)) {
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	for {
		b, fds, err := conn.receive()
		if err != nil {
			break
		}
		m, err := parseNodeMessage(b, len(fds))
		if err != nil {
			closeAll(fds)
			break
		}
		report(nodeEvent{conn: conn, m: m, fds: fds})
	}
	_ = conn.Close()
	report(nodeEvent{conn: conn, lost: true})
}
