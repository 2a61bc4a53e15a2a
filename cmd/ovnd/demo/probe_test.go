package demo

import (
	"bytes"
	"context"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func runProbe[T any](t *testing.T, args ...string) T {
	t.Helper()
	var out bytes.Buffer
	if err := Probe(t.Context(), &out, args); err != nil {
		t.Fatal(err)
	}
	v, err := decode[T](out.String())
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestProbes(t *testing.T) {
	at, stop, err := servePage(netip.MustParseAddrPort("127.0.0.1:0"), "hello")
	if err != nil {
		t.Fatal(err)
	}
	pages := runProbe[[]httpAnswer](t, "http", "2", "http://"+at.String()+"/")
	if len(pages) != 2 || pages[1] != (httpAnswer{Status: 200, Bytes: 5, Start: "hello"}) {
		t.Errorf("%+v", pages)
	}
	if a := runProbe[dialAnswer](t, "dial", at.String()); a.Error != "" {
		t.Error(a)
	}
	stop()
	if a := runProbe[dialAnswer](t, "dial", at.String()); !strings.Contains(a.Error, "connection refused") {
		t.Error(a)
	}
	if pages := runProbe[[]httpAnswer](t, "http", "1", "http://"+at.String()+"/"); !strings.Contains(pages[0].Error, "connection refused") {
		t.Errorf("%+v", pages)
	}
	file := filepath.Join(t.TempDir(), "log")
	if err := os.WriteFile(file, []byte("a\nb\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if a := runProbe[linesAnswer](t, "lines", file); a.Lines != 2 {
		t.Error(a)
	}
	lo := runProbe[[]ifaceAnswer](t, "interfaces")[0]
	if lo.Name != "lo" || len(lo.Addrs) == 0 || lo.Addrs[0] != "127.0.0.1/8" {
		t.Errorf("%+v", lo)
	}
}

func TestProbeMisuse(t *testing.T) {
	for _, args := range [][]string{{}, {"sing"}, {"dns", "x"}, {"dns", "x", "Y"}, {"http", "many", "http://x/"}, {"watch", "x", "10.0.0.1", "long"}} {
		if err := Probe(t.Context(), &bytes.Buffer{}, args); err == nil {
			t.Errorf("%q is taken", args)
		}
	}
}

func TestPagesOfProgram(t *testing.T) {
	nginx, who := program{image: "nginx", log: nginxLog}, program{image: "ovnd/whoami"}
	page := httpAnswer{Status: 200, Bytes: 615, Start: "<title>Welcome to nginx!</title>"}
	if !nginx.pages([]httpAnswer{page, page}, 2) || nginx.pages([]httpAnswer{page}, 2) || !who.pages([]httpAnswer{{Status: 200, Bytes: 9}}, 1) {
		t.Error("a page is no page")
	}
	short, failed := page, httpAnswer{Error: "connection refused"}
	short.Bytes = 600
	if nginx.pages([]httpAnswer{short}, 1) || who.pages([]httpAnswer{failed}, 1) || who.pages([]httpAnswer{{Status: 502}}, 1) {
		t.Error("no page is a page")
	}
	if got, want := nginx.describe([]httpAnswer{page, failed, page, {Status: 502}}), "2 pages of 615 bytes, 1 connection refused, 1 answers with status 502"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestHitsByPages(t *testing.T) {
	w := &walk{program: program{image: "ovnd/whoami"}, tasks: []task{{name: "my-test.1.aaa"}, {name: "my-test.2.bbb"}}}
	hits, err := w.hits(t.Context(), []httpAnswer{{Start: "task my-test.2.bbb"}, {Start: "task my-test.1.aaa"}, {Start: "task my-test.2.bbb"}, {Error: "x"}})
	if err != nil || hits[0] != 1 || hits[1] != 2 {
		t.Errorf("%v, %v", hits, err)
	}
}

func TestEventually(t *testing.T) {
	n := 0
	seen, ok, err := eventually(t.Context(), time.Minute, func(context.Context) (string, bool, error) {
		n++
		return "seen", n == 3, errors.New("not yet")
	})
	if seen != "seen" || !ok || n != 3 || err == nil {
		t.Errorf("%q %v %v after %d", seen, ok, err, n)
	}
	// What it was cut off from is not what it saw.
	seen, ok, err = eventually(t.Context(), 50*time.Millisecond, func(ctx context.Context) (string, bool, error) {
		if n++; n > 4 {
			<-ctx.Done()
			return "", false, ctx.Err()
		}
		return "4/5", false, nil
	})
	if seen != "4/5" || ok || err != nil {
		t.Errorf("%q %v %v", seen, ok, err)
	}
}

func TestLastLine(t *testing.T) {
	out := "overall progress: 0 out of 5 tasks\nverify: Waiting 1 seconds to verify that tasks are stable...\noverall progress: 5 out of 5 tasks\nverify: Service x converged\n"
	if got := lastLine(out, "overall progress: "); got != "overall progress: 5 out of 5 tasks" {
		t.Error(got)
	}
	if got := lastLine(out, "rollback: "); got != "nothing" {
		t.Error(got)
	}
}
