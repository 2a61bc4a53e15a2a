package sandbox

import (
	"context"
	"fmt"
	"time"
)

// Waits between an init's attempts to reach its node.
const (
	firstRetry = 100 * time.Millisecond
	lastRetry  = time.Second
	// answerTimeout bounds how long a node may think about an attachment.
	answerTimeout = 30 * time.Second
)

// A nodeLink is an init's connection to whichever node serves its socket.
type nodeLink struct {
	spec   *Spec
	queues []int // descriptors, in the order of spec.Interfaces
}

// run keeps the sandbox attached. It reports every answer but the failures to
// come back, which it repeats for as long as ctx lasts; a first attachment is
// tried once.
func (l *nodeLink) run(ctx context.Context, answers chan<- nodeMessage) {
	report := func(m nodeMessage) {
		select {
		case answers <- m:
		case <-ctx.Done():
		}
	}
	wait := firstRetry
	for attached := false; ctx.Err() == nil; {
		conn, m := l.attach(ctx)
		switch {
		case m.Answer == nodeAttached:
			attached, wait = true, firstRetry
			report(m)
			l.listen(ctx, conn, report)
			continue
		case m.Answer == nodeGone, !attached:
			report(m)
			return
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
		}
		wait = min(2*wait, lastRetry)
	}
}

// attach offers the devices to the node and returns its answer, with the
// connection if the devices were accepted.
func (l *nodeLink) attach(ctx context.Context) (*packetConn, nodeMessage) {
	conn, err := dialPacket(ctx, l.spec.NodeSocket)
	if err != nil {
		return nil, nodeMessage{nodeRefused, fmt.Sprintf("reach the node: %v: is it up? See ovnd status", err)}
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	m, err := l.offer(conn)
	if err != nil {
		m = nodeMessage{nodeRefused, fmt.Sprintf("hand the network devices to the node: %v", err)}
	}
	if m.Answer != nodeAttached {
		_ = conn.Close()
		return nil, m
	}
	return conn, m
}

func (l *nodeLink) offer(conn *packetConn) (m nodeMessage, err error) {
	if err := conn.SetDeadline(time.Now().Add(answerTimeout)); err != nil {
		return m, err
	}
	if err := conn.send(attachMessage{
		Version: protocolVersion, ID: l.spec.ID, Token: l.spec.Token, Interfaces: l.spec.Interfaces,
	}, l.queues...); err != nil {
		return m, err
	}
	if err := conn.receiveInto(&m); err != nil {
		return m, err
	}
	return m, conn.SetDeadline(time.Time{})
}

// listen reports what an attached node says until the connection ends, and
// closes it.
func (l *nodeLink) listen(ctx context.Context, conn *packetConn, report func(nodeMessage)) {
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	defer func() { _ = conn.Close() }()
	for {
		var m nodeMessage
		if err := conn.receiveInto(&m); err != nil {
			return
		}
		report(m)
	}
}
