package netstack

import (
	"fmt"
	"io"
	"net"
	"runtime"
	"sync"
	"testing"
	"time"
)

// TestVIPHoldsManyConnections at once, each of which moves something.
func TestVIPHoldsManyConnections(t *testing.T) {
	many := 10000
	if testing.Short() || raceEnabled {
		many = 1000
	}
	l := newLAN(t)
	h := l.addBackend("10.10.0.11")
	serveTCP(t, h, 80, func(c net.Conn) { io.CopyBuffer(onlyWriter{c}, onlyReader{c}, make([]byte, 64)) })
	client := l.addHost("10.10.0.20")
	l.publish()
	before := memory()
	conns := make([]net.Conn, many)
	var dials sync.WaitGroup
	for first := range 16 {
		dials.Go(func() {
			for i := first; i < many; i += 16 {
				c, err := dialVIP(t, client, 80)
				if err != nil {
					t.Errorf("connection %d: %v", i, err)
					return
				}
				conns[i] = c
			}
		})
	}
	dials.Wait()
	if t.Failed() {
		return
	}
	buf := make([]byte, 64)
	for i, c := range conns {
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(10 * time.Second)) // dialling them all took its time
		line := fmt.Sprint("line ", i)
		io.WriteString(c, line)
		if n, err := io.ReadFull(c, buf[:len(line)]); err != nil || string(buf[:n]) != line {
			t.Fatalf("connection %d: %q came back as %q: %v", i, line, buf[:n], err)
		}
	}
	if st := l.b.Stats(); st.Active != many {
		t.Errorf("stats %+v", st)
	}
	// The client's and the backend's ends, and the backend's goroutine, are in it.
	if per := (memory() - before) / many; per > 64<<10 && !raceEnabled {
		t.Errorf("a connection with both its ends costs %d bytes", per)
	} else {
		t.Logf("a connection with both its ends costs %d bytes", per)
	}
}

type (
	onlyReader struct{ io.Reader }
	onlyWriter struct{ io.Writer }
)

// memory returns how much the process uses, in bytes.
func memory() int {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc + m.StackInuse)
}
