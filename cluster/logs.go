package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"

	gogotypes "github.com/gogo/protobuf/types"
	"github.com/moby/moby/v2/daemon/server/backend"
	"github.com/moby/swarmkit/v2/agent/exec"
	swarmapi "github.com/moby/swarmkit/v2/api"
	"golang.org/x/time/rate"
)

// logRate bounds what one task sends to a manager, which keeps in memory what
// its client does not take: 10 MB a second, as dockerd.
const logRate = 10 << 20

// Logs implements exec.ControllerLogs: a manager asks for the task's output. A
// reader who has seen enough is no error.
func (tc *taskController) Logs(ctx context.Context, pub exec.LogPublisher, o swarmapi.LogSubscriptionOptions) error {
	opts, err := logOptions(o)
	if err != nil {
		return err
	}
	if o.Follow {
		select {
		case <-tc.known:
		case <-ctx.Done():
			return nil
		case <-tc.life.Done():
			return nil
		}
	}
	if err := tc.publish(ctx, pub, opts); err != nil && ctx.Err() == nil {
		return err
	}
	return nil
}

func (tc *taskController) publish(ctx context.Context, pub exec.LogPublisher, opts LogOptions) error {
	where := swarmapi.LogContext{NodeID: tc.task.NodeID, ServiceID: tc.task.ServiceID, TaskID: tc.task.ID}
	limiter := rate.NewLimiter(logRate, logRate)
	return tc.runner.TaskLogs(ctx, tc.task.ID, opts, func(m LogMessage) error {
		if err := limiter.WaitN(ctx, min(len(m.Data), logRate)); err != nil {
			return err
		}
		at, err := gogotypes.TimestampProto(m.Time)
		if err != nil {
			return err
		}
		stream := swarmapi.LogStreamStdout
		if m.Stderr {
			stream = swarmapi.LogStreamStderr
		}
		// The tasks of a subscription share a gRPC stream, which takes one
		// message at a time, and SwarmKit does not see to that.
		tc.e.c.logTurn.Lock()
		defer tc.e.c.logTurn.Unlock()
		return pub.Publish(ctx, swarmapi.LogMessage{Context: where, Timestamp: at, Stream: stream, Data: m.Data})
	})
}

func logOptions(o swarmapi.LogSubscriptionOptions) (LogOptions, error) {
	opts := LogOptions{
		Follow: o.Follow,
		Stdout: len(o.Streams) == 0 || slices.Contains(o.Streams, swarmapi.LogStreamStdout),
		Stderr: len(o.Streams) == 0 || slices.Contains(o.Streams, swarmapi.LogStreamStderr),
		Tail:   -1,
	}
	if o.Since != nil {
		since, err := gogotypes.TimestampFromProto(o.Since)
		if err != nil {
			return opts, err
		}
		opts.Since = since
	}
	switch {
	case o.Tail < 0: // -1 is no line, -2 one
		opts.Tail = int(-o.Tail - 1)
	case o.Tail > 0:
		return opts, errors.New("tail relative to start of logs not supported")
	}
	return opts, nil
}

// ServiceLogs delivers the output of services' or tasks' processes. The
// channel is closed at its end or when ctx ends; an error comes through it as
// the last message.
func (c *Cluster) ServiceLogs(ctx context.Context, sel *backend.LogSelector, o *backend.ContainerLogsOptions) (<-chan *backend.LogMessage, error) {
	opts, err := subscription(o)
	if err != nil {
		return nil, err
	}
	selector, err := onManager(ctx, c, func(ctx context.Context, ctl swarmapi.ControlClient) (*swarmapi.LogSelector, error) {
		return logSelector(ctx, ctl, sel)
	})
	if err != nil {
		return nil, fmt.Errorf("error making log selector: %w", err)
	}
	r, _ := c.current()
	conn := r.snapshot().conn
	if conn == nil {
		return nil, errManagerNotReady
	}
	stream, err := swarmapi.NewLogsClient(conn).SubscribeLogs(ctx, &swarmapi.SubscribeLogsRequest{Selector: selector, Options: opts})
	if err != nil {
		return nil, err
	}
	out := make(chan *backend.LogMessage, 1)
	go forwardLogs(ctx, stream, out)
	return out, nil
}

// subscription translates a request for logs to SwarmKit's terms.
func subscription(o *backend.ContainerLogsOptions) (*swarmapi.LogSubscriptionOptions, error) {
	opts := &swarmapi.LogSubscriptionOptions{Follow: o.Follow}
	if o.Tail != "" && o.Tail != "all" {
		n, err := strconv.Atoi(o.Tail)
		if err != nil {
			return nil, invalid(`tail value must be a positive integer or "all"`)
		}
		if n < 0 {
			return nil, invalid("negative tail values not supported")
		}
		opts.Tail = -int64(n) - 1
	}
	if o.ShowStdout {
		opts.Streams = append(opts.Streams, swarmapi.LogStreamStdout)
	}
	if o.ShowStderr {
		opts.Streams = append(opts.Streams, swarmapi.LogStreamStderr)
	}
	if !o.Since.IsZero() {
		since, err := gogotypes.TimestampProto(o.Since)
		if err != nil {
			return nil, fmt.Errorf("could not parse timestamp to proto: %w", err)
		}
		opts.Since = since
	}
	return opts, nil
}

// logSelector finds the IDs of the services and tasks that a user named.
func logSelector(ctx context.Context, ctl swarmapi.ControlClient, sel *backend.LogSelector) (*swarmapi.LogSelector, error) {
	out := &swarmapi.LogSelector{}
	for _, input := range sel.Services {
		s, err := findService(ctx, ctl, input)
		if err != nil {
			return nil, err
		}
		if s.Spec.Task.GetContainer() == nil {
			return nil, errors.New("logs only supported on container tasks")
		}
		out.ServiceIDs = append(out.ServiceIDs, s.ID)
	}
	for _, input := range sel.Tasks {
		t, err := findTask(ctx, ctl, input)
		if err != nil {
			return nil, err
		}
		if t.Spec.GetContainer() == nil {
			return nil, errors.New("logs only supported on container tasks")
		}
		out.TaskIDs = append(out.TaskIDs, t.ID)
	}
	return out, nil
}

// forwardLogs brings what a stream delivers to out and closes that at its end.
func forwardLogs(ctx context.Context, stream swarmapi.Logs_SubscribeLogsClient, out chan<- *backend.LogMessage) {
	defer close(out)
	send := func(m *backend.LogMessage) bool {
		select {
		case out <- m:
			return true
		case <-ctx.Done():
			return false
		}
	}
	for {
		batch, err := stream.Recv()
		if err != nil {
			if ctx.Err() == nil && !errors.Is(err, io.EOF) {
				send(&backend.LogMessage{Err: err})
			}
			return
		}
		for i := range batch.Messages {
			if !send(logMessage(&batch.Messages[i])) {
				return
			}
		}
	}
}

// logMessage translates one message. Its attributes say whose it is; the
// command line makes the name before each line from them.
func logMessage(msg *swarmapi.LogMessage) *backend.LogMessage {
	m := &backend.LogMessage{Line: msg.Data}
	m.Timestamp, m.Err = gogotypes.TimestampFromProto(msg.Timestamp)
	where := []backend.LogAttr{
		{Key: swarmLabelPrefix + "node.id", Value: msg.Context.NodeID},
		{Key: swarmLabelPrefix + "service.id", Value: msg.Context.ServiceID},
		{Key: swarmLabelPrefix + "task.id", Value: msg.Context.TaskID},
	}
	for _, a := range msg.Attrs {
		// A task's own attribute cannot say that it is another's.
		if !slices.ContainsFunc(where, func(w backend.LogAttr) bool { return w.Key == a.Key }) {
			m.Attrs = append(m.Attrs, backend.LogAttr{Key: a.Key, Value: a.Value})
		}
	}
	m.Attrs = append(m.Attrs, where...)
	switch msg.Stream {
	case swarmapi.LogStreamStdout:
		m.Source = "stdout"
	case swarmapi.LogStreamStderr:
		m.Source = "stderr"
	case swarmapi.LogStreamUnknown:
	}
	return m
}
