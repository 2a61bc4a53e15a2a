package sandbox

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// beginLog returns the writer of a log and how to read it.
func beginLog(t *testing.T, cfg LogConfig) (LogConfig, *logWriter) {
	t.Helper()
	cfg.Path = filepath.Join(t.TempDir(), "log")
	dir, err := openLogFolder(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dir.Close() })
	w, err := newLogWriter(cfg, dir)
	if err != nil {
		t.Fatal(err)
	}
	return cfg, w
}

// A follower sees every line once and in order, however fast files are
// replaced; who comes later sees what is kept.
func TestLogRotation(t *testing.T) {
	cfg, w := beginLog(t, LogConfig{MaxSize: 2000, MaxFiles: 3})
	const lines = 500
	end := make(chan struct{})
	next := 0
	done := make(chan error, 1)
	go func() {
		done <- ReadLogs(context.Background(), cfg, LogOptions{Stdout: true, Tail: -1, Follow: true, End: end}, func(l LogLine) error {
			if want := fmt.Sprintf("line %d\n", next); string(l.Data) != want {
				return fmt.Errorf("followed %q, want %q", l.Data, want)
			}
			next++
			return nil
		})
	}()
	for i := range lines {
		w.write(fmt.Appendf(nil, "line %d\n", i), Stdout)
		time.Sleep(time.Millisecond) // three files last longer than a follower's pause
	}
	close(end)
	if err := <-done; err != nil || next != lines {
		t.Errorf("followed %d of %d lines, error %v", next, lines, err)
	}
	kept := readTestLog(t, cfg, LogOptions{Stdout: true, Tail: -1})
	if n := strings.Count(kept, "\n"); n == 0 || n > 3*2000/60 || !strings.HasSuffix(kept, fmt.Sprintf("line %d\n", lines-1)) {
		t.Errorf("%d of %d lines are kept:\n%s", n, lines, kept)
	}
	if got := readTestLog(t, cfg, LogOptions{Stdout: true, Tail: 2}); got != "1:line 498\n1:line 499\n" {
		t.Errorf("the last two lines:\n%s", got)
	}
	stop := errors.New("enough")
	if err := ReadLogs(t.Context(), cfg, LogOptions{Stdout: true, Tail: -1}, func(LogLine) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("got %v, want the reader's own error", err)
	}
	if err := RemoveLogs(cfg); err != nil {
		t.Error(err)
	}
	if left, _ := filepath.Glob(cfg.Path + "*"); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestLogBounds(t *testing.T) {
	cfg, w := beginLog(t, LogConfig{})
	w.write([]byte("one\n"), Stdout)
	between := time.Now()
	w.write([]byte("two\n"), Stderr)
	w.write(bytes.Repeat([]byte("\x01"), maxLogLine), Stdout)
	all := LogOptions{Stdout: true, Stderr: true, Tail: -1}
	before, after := all, all
	before.Until, after.Since = between, between
	before.Follow = true // ends all the same
	if got := readTestLog(t, cfg, before); got != "1:one\n" {
		t.Errorf("until then: %q", got)
	}
	if got := readTestLog(t, cfg, after); got != "2:two\n1:"+strings.Repeat("\x01", maxLogLine) {
		t.Errorf("since then: %.100q", got)
	}
}

// FuzzParseEntry feeds the reader of a log what may be on the disk.
func FuzzParseEntry(f *testing.F) {
	f.Add([]byte(`{"log":"x\n","stream":"stderr","time":"2026-01-02T03:04:05.6Z"}`))
	f.Add([]byte(`{"log":"x`))
	f.Fuzz(func(t *testing.T, b []byte) {
		l, ok := parseEntry(b)
		if ok && l.Stream != Stdout && l.Stream != Stderr {
			t.Fatalf("stream %d", l.Stream)
		}
	})
}

// FuzzParseInitMessage feeds the node what an attached init might say.
func FuzzParseInitMessage(f *testing.F) {
	f.Add([]byte(`{"kind":"started","time":"2026-01-02T03:04:05Z"}`), 1)
	f.Add([]byte(`{"kind":"exited","exit":{"code":137,"signal":9,"finished_at":"2026-01-02T03:04:05Z"}}`), 0)
	f.Add([]byte(`{"kind":"executed","exec":7}`), 1)
	f.Add([]byte(`{"kind":"exec-failed","exec":7,"exit":{"code":127,"error":"x"}}`), 0)
	f.Add([]byte(`{"kind":"exec-exited","exec":1,"exit":{}}`), 0)
	f.Fuzz(func(t *testing.T, b []byte, n int) {
		if n < 0 || n > maxDescriptors {
			return
		}
		m, err := parseInitMessage(b, n)
		if err != nil {
			return
		}
		// No message may panic a session, whatever came before; there are no
		// descriptors behind these numbers.
		s := newSession(nil, slog.New(slog.DiscardHandler))
		s.execs[1] = &Process{session: s, id: 1, running: make(chan struct{}), ended: make(chan struct{})}
		fds := make([]int, n)
		for i := range fds {
			fds[i] = -1
		}
		for range 2 {
			if m.Kind == eventExited {
				_ = s.end(*m.Exit) // handle would answer
			} else {
				_ = s.handle(m, fds)
			}
		}
	})
}

// FuzzParseNodeMessage feeds an init what a node might say.
func FuzzParseNodeMessage(f *testing.F) {
	f.Add([]byte(`{"kind":"attached"}`), 0)
	f.Add([]byte(`{"kind":"exec","exec":1,"command":{"args":["c2g="],"env":["QT0x"],"dir":"Lw==","tty":true}}`), stdFiles)
	f.Add([]byte(`{"kind":"stop","signal":15,"grace":10000000000}`), 0)
	f.Add([]byte(`{"kind":"signal","signal":9,"exec":3}`), 0)
	f.Fuzz(func(t *testing.T, b []byte, n int) {
		m, err := parseNodeMessage(b, n)
		if err != nil {
			return
		}
		if (m.Kind == nodeExec) != (n == stdFiles) || m.Kind == nodeExec && len(m.Command.Args) == 0 {
			t.Fatalf("accepted %+v with %d descriptors", m, n)
		}
		if m.Signal < 0 && (m.Kind == nodeSignal || m.Kind == nodeStop) || m.Grace < 0 && m.Kind == nodeStop {
			t.Fatalf("accepted %+v", m)
		}
	})
}
