package dataplane

import (
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"testing"
	"time"

	"github.com/ovnd/ovnd/bench/lab"
)

// TestForward has two sandboxes on two nodes, over both kinds of underlay: ping
// of every size that fits, TCP both ways, UDP.
func TestForward(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		t.Run(fmt.Sprintf("underlay6=%t", v6), func(t *testing.T) {
			mtu := 1450
			if v6 {
				mtu = 1430
			}
			w := twoNodes(t, 1500, v6)
			w.network("net", 4097, mtu, "10.10.0.0/16")
			a := w.nodes[0].sandbox("sa", "net", "10.10.0.3/16")
			b := w.nodes[1].sandbox("sb", "net", "10.10.0.4/16")
			a.ping(b, lab.Ping{})
			a.ping(b, lab.Ping{Size: mtu, DF: true})
			if err := a.tryPing(b.addr, lab.Ping{Size: mtu + 1, DF: true}, time.Second); err == nil {
				t.Errorf("a ping of %d bytes with DF was answered", mtu+1)
			}
			transfer(t, a, b, 20<<20)
			transfer(t, b, a, 20<<20)
			w.closed()
		})
	}
}

// transfer sends n random bytes by TCP and compares checksums.
func transfer(t *testing.T, from, to *sandbox, n int64) {
	t.Helper()
	var l net.Listener
	err := to.host.Do(func() (err error) {
		l, err = net.Listen("tcp", net.JoinHostPort(to.addr.String(), "0"))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var c net.Conn
	if err := from.host.Do(func() (err error) {
		c, err = net.DialTimeout("tcp", l.Addr().String(), 3*time.Second)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	got := make(chan [32]byte, 1)
	go func() {
		defer close(got)
		r, err := l.Accept()
		if err != nil {
			return
		}
		defer r.Close()
		_ = r.SetDeadline(time.Now().Add(30 * time.Second))
		h := sha256.New()
		if _, err := io.Copy(h, r); err == nil {
			got <- [32]byte(h.Sum(nil))
		}
	}()
	h := sha256.New()
	_ = c.SetDeadline(time.Now().Add(30 * time.Second))
	src := rand.NewChaCha8([32]byte{1})
	if _, err := io.CopyN(io.MultiWriter(c, h), src, n); err != nil {
		t.Fatal(err)
	}
	_ = c.Close()
	if sum := <-got; sum != [32]byte(h.Sum(nil)) {
		t.Errorf("%d bytes %s → %s arrived different", n, from.addr, to.addr)
	}
}
