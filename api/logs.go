package api

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/moby/moby/api/pkg/stdcopy"
	"github.com/moby/moby/api/types/events"
)

// logTime is RFC 3339 with all nine digits, so that lines stand in columns.
const logTime = "2006-01-02T15:04:05.000000000Z07:00"

// logs streams what a container wrote. From the first byte on, errors can only
// be told in the stream.
func (a *containerAPI) logs(ctx context.Context, w http.ResponseWriter, r *http.Request, vars map[string]string) error {
	opts, timestamps, err := parseLogs(r, time.Now())
	if err != nil {
		return err
	}
	c, err := a.findLogged(vars["name"])
	if err != nil {
		return err
	}
	ctx, cancel := a.streamContext(ctx)
	defer cancel()
	w.Header().Set("Content-Type", streamType(ctx, !c.TTY))
	w.WriteHeader(http.StatusOK)
	flush := http.NewResponseController(w).Flush
	if flush() != nil {
		return nil // the client has gone
	}
	a.copyLogs(ctx, c, opts, timestamps, w, flush)
	return nil
}

// findLogged is find for what needs a container whose output is kept.
func (a *containerAPI) findLogged(term string) (Container, error) {
	c, err := a.find(term)
	if err == nil && c.LogPath == "" {
		err = cerrdefs.ErrNotImplemented.WithMessage("container " + c.Name + " has no log: what `ovnd run` runs writes to its own terminal")
	}
	return c, err
}

// copyLogs writes a container's log to w, framed unless the container has a
// TTY. flush is called for each line of a log that is followed.
func (a *containerAPI) copyLogs(ctx context.Context, c Container, opts LogOptions, timestamps bool, w io.Writer, flush func() error) {
	m := &multiplexer{w: w}
	var buf []byte
	err := a.backend.ContainerLogs(ctx, c.ID, opts, func(l LogLine) error {
		if l.Stderr && !opts.Stderr || !l.Stderr && !opts.Stdout {
			return nil
		}
		data := l.Data
		if timestamps {
			buf = append(l.Time.UTC().AppendFormat(buf[:0], logTime), ' ')
			buf = append(buf, l.Data...)
			data = buf
		}
		stream := stdcopy.Stdout
		if l.Stderr {
			stream = stdcopy.Stderr
		}
		var err error
		if c.TTY {
			_, err = w.Write(data)
		} else {
			err = m.frame(stream, data)
		}
		if err == nil && opts.Follow {
			err = flush()
		}
		return err
	})
	if err == nil || ctx.Err() != nil {
		return
	}
	text := fmt.Sprintf("Error grabbing logs: %v\n", err)
	if c.TTY {
		_, _ = io.WriteString(w, text) // the client has gone: nobody to tell
	} else {
		_ = m.frame(stdcopy.Systemerr, []byte(text)) // likewise
	}
}

// parseLogs reads the query of a request for logs.
func parseLogs(r *http.Request, now time.Time) (opts LogOptions, timestamps bool, err error) {
	query := r.URL.Query()
	opts = LogOptions{
		Stdout: isTrue(query.Get("stdout")), Stderr: isTrue(query.Get("stderr")),
		Follow: isTrue(query.Get("follow")), Tail: parseTail(query.Get("tail")),
	}
	if !opts.Stdout && !opts.Stderr {
		return opts, false, invalid("must specify at least one of 'stdout' or 'stderr'")
	}
	for _, p := range []struct {
		name string
		dst  *time.Time
	}{{"since", &opts.Since}, {"until", &opts.Until}} {
		if s := query.Get(p.name); s != "" && s != "0" {
			if *p.dst, err = parseTime(s, now); err != nil {
				return opts, false, invalid("invalid value for %q: %w", p.name, err)
			}
		}
	}
	return opts, isTrue(query.Get("timestamps")), nil
}

// parseTail reads a number of lines. As in Docker, whatever is none means all.
func parseTail(s string) int {
	n, err := strconv.Atoi(s)
	if err != nil || n < 0 {
		return -1
	}
	return n
}

// attach shows a client what a container writes from now on, and with logs=1
// what it wrote before. The node reads a task's output from its log, line by
// line; its input is closed, so a client's goes nowhere.
func (a *containerAPI) attach(ctx context.Context, w http.ResponseWriter, r *http.Request, vars map[string]string) error {
	query := r.URL.Query()
	c, err := a.findLogged(vars["name"])
	if err != nil {
		return err
	}
	opts := LogOptions{Stdout: isTrue(query.Get("stdout")), Stderr: isTrue(query.Get("stderr")), Follow: isTrue(query.Get("stream"))}
	if isTrue(query.Get("logs")) {
		opts.Tail = -1
	}
	conn, err := hijack(ctx, w, r, !c.TTY)
	if err != nil {
		return err
	}
	a.execs.spawn(func() { a.serveAttach(c, opts, conn) })
	return nil
}

func (a *containerAPI) serveAttach(c Container, opts LogOptions, conn *hijacked) {
	a.events.Publish(ContainerEvent(c, events.ActionAttach, nil))
	ctx, cancel := context.WithCancel(a.execs.ctx)
	reading := make(chan struct{})
	go func() {
		defer close(reading)
		_, _ = io.Copy(io.Discard, conn.in) // the container has no input; how it ends is looked at next
		if conn.waitGone(ctx) {
			cancel()
		}
	}()
	a.copyLogs(ctx, c, opts, false, conn, func() error { return nil })
	cancel()
	conn.finish(reading)
}
