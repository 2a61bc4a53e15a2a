package sandbox

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"time"
)

const (
	// followInterval is how often a follower looks for more.
	followInterval = 50 * time.Millisecond
	// maxEntry bounds a line of a log file, in bytes: JSON takes up to six for
	// one of output.
	maxEntry = 8 * maxLogLine
)

// LogOptions say what to read of a log.
type LogOptions struct {
	Stdout, Stderr bool
	Since, Until   time.Time // zero: no bound
	Tail           int       // lines from the end; negative: all
	// Follow goes on at the end of the log, until End is closed and what was
	// written until then is read.
	Follow bool
	End    <-chan struct{}
}

// A LogLine is a line of a task's output with its newline, or a part of a very
// long one.
type LogLine struct {
	Time   time.Time
	Stream Stream
	Data   []byte // each's until it returns
}

// ReadLogs calls each for what a task wrote, from the oldest line on. It returns
// at the end of the log or, following, when End or ctx ends; an error of each
// ends it and is returned. A log that is not there yet is an empty one.
func ReadLogs(ctx context.Context, cfg LogConfig, o LogOptions, each func(LogLine) error) error {
	r := &logReader{cfg: cfg.withDefaults(), o: o, each: each}
	defer r.close()
	if err := r.history(ctx); err != nil || !o.Follow {
		return err
	}
	return r.follow(ctx)
}

type logReader struct {
	cfg  LogConfig
	o    LogOptions
	each func(LogLine) error

	file   *os.File // the newest that was opened
	number int      // of it
	in     *bufio.Reader
	part   []byte // of a line that is not whole yet
}

func (r *logReader) close() {
	if r.file != nil {
		_ = r.file.Close() // only read from
	}
}

// history reads what is there. The newest file stays open.
func (r *logReader) history(ctx context.Context) error {
	var tail []LogLine
	take := r.each
	if r.o.Tail == 0 {
		take = func(LogLine) error { return nil }
	} else if r.o.Tail > 0 {
		take = func(l LogLine) error {
			l.Data = bytes.Clone(l.Data)
			if tail = append(tail, l); len(tail) > r.o.Tail {
				tail = tail[1:]
			}
			return nil
		}
	}
	if err := r.newer(ctx, take); err != nil {
		return err
	}
	for _, l := range tail {
		if err := r.each(l); err != nil {
			return err
		}
	}
	return nil
}

// newer reads the files that have begun since the open one did.
func (r *logReader) newer(ctx context.Context, take func(LogLine) error) error {
	numbers, err := r.cfg.files()
	if err != nil {
		return err
	}
	// What was written to the open file until the next one began.
	if r.file != nil {
		if err := r.read(ctx, take); err != nil {
			return err
		}
	}
	for _, n := range numbers {
		if n <= r.number {
			continue
		}
		err := r.open(n)
		if errors.Is(err, fs.ErrNotExist) {
			continue // too old by now
		}
		if err != nil {
			return err
		}
		if err := r.read(ctx, take); err != nil {
			return err
		}
	}
	return nil
}

func (r *logReader) open(n int) error {
	f, err := os.Open(r.cfg.file(n))
	if err != nil {
		return err
	}
	r.close()
	r.file, r.number, r.in, r.part = f, n, bufio.NewReader(f), nil
	return nil
}

// read passes on what the open file has.
func (r *logReader) read(ctx context.Context, take func(LogLine) error) error {
	for ctx.Err() == nil {
		b, err := r.in.ReadSlice('\n')
		r.part = append(r.part, b...)
		switch {
		case errors.Is(err, bufio.ErrBufferFull) && len(r.part) <= maxEntry:
			continue
		case errors.Is(err, io.EOF):
			return nil
		case err != nil && !errors.Is(err, bufio.ErrBufferFull):
			return err
		}
		line, ok := parseEntry(r.part)
		r.part = r.part[:0]
		if !ok || !r.wanted(line) {
			continue
		}
		if err := take(line); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// parseEntry reads a line of a log file. One that the writer was killed over is
// none.
func parseEntry(b []byte) (LogLine, bool) {
	var e logEntry
	if err := json.Unmarshal(b, &e); err != nil {
		return LogLine{}, false
	}
	l := LogLine{Time: e.Time, Stream: Stdout, Data: []byte(e.Log)}
	if e.Stream == streamNames[Stderr] {
		l.Stream = Stderr
	}
	return l, true
}

func (r *logReader) wanted(l LogLine) bool {
	if l.Stream == Stdout && !r.o.Stdout || l.Stream == Stderr && !r.o.Stderr {
		return false
	}
	return (r.o.Since.IsZero() || !l.Time.Before(r.o.Since)) && (r.o.Until.IsZero() || !l.Time.After(r.o.Until))
}

// follow goes on where history ended.
func (r *logReader) follow(ctx context.Context) error {
	tick := time.NewTicker(followInterval)
	defer tick.Stop()
	for {
		ended := false
		select {
		case <-r.o.End:
			ended = true
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		past := !r.o.Until.IsZero() && time.Now().After(r.o.Until)
		if err := r.newer(ctx, r.each); err != nil || ended || past {
			return err
		}
	}
}
