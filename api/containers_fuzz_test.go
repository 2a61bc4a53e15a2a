package api

import (
	"bytes"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/moby/moby/api/pkg/stdcopy"
	"github.com/moby/moby/api/types/container"
)

func get(query string) *http.Request {
	return &http.Request{Method: http.MethodGet, URL: &url.URL{Path: "/", RawQuery: query}}
}

// refused fails unless the error is the client's fault.
func refused(t *testing.T, err error) {
	t.Helper()
	if !cerrdefs.IsInvalidArgument(err) && !cerrdefs.IsNotFound(err) {
		t.Fatalf("class of error: %v", err)
	}
}

// FuzzListQuery: queries of GET /containers/json choose from a list and do not
// lose the order.
func FuzzListQuery(f *testing.F) {
	f.Add(`all=1&limit=2&filters={"name":["my-test"],"status":{"running":true}}`)
	f.Add(`filters={"before":["821f"],"since":["aaf"],"health":["none"],"is-task":["true"],"exited":["3"]}`)
	f.Add(`filters={"publish":["80/tcp","8000-9000"],"expose":["1-65535/udp"],"ancestor":["nginx"],"network":[""],"volume":["/x"]}`)
	f.Add(`limit=-9&all=maybe`)
	list := []Container{task(webID, webName), task(webTwo, "my-test.2.rbmhtcqabx5tfiyux21qtd6g8"), {ID: runID, Name: "lone"}}
	list[0].State.Status = container.StateRunning
	f.Fuzz(func(t *testing.T, query string) {
		q, err := parseListQuery(get(query))
		if err != nil {
			refused(t, err)
			return
		}
		got, err := q.choose(list)
		if err != nil {
			refused(t, err)
			return
		}
		if q.limit > 0 && len(got) > q.limit {
			t.Fatalf("%d of at most %d", len(got), q.limit)
		}
		for i := range got {
			if i > 0 && got[i].Created.After(got[i-1].Created) {
				t.Fatal("not the newest first")
			}
			if !q.all && q.limit <= 0 && !got[i].Running() {
				t.Fatal("one that does not run, and nobody asked for all")
			}
		}
	})
}

// FuzzExecCreate: bodies of POST /containers/{id}/exec. What is accepted can be
// given to a command.
func FuzzExecCreate(f *testing.F) {
	f.Add(`{"AttachStdin":true,"Tty":true,"Cmd":["sh","-c","x"],"Env":["A=b"],"WorkingDir":"/tmp","ConsoleSize":[24,80],"DetachKeys":"ctrl-p,ctrl-q"}`)
	f.Add(`{"Cmd":["a"],"User":"0:0","Privileged":true}`)
	f.Add(`{"Cmd":["a"],"ConsoleSize":[4294967296,18446744073709551615],"Tty":true}`)
	f.Add(`{"Cmd":[""]}`)
	f.Add(`{"Cmd":"x"}`)
	f.Fuzz(func(t *testing.T, body string) {
		req, keys, err := readExecCreate(post(body))
		if err != nil {
			refused(t, err)
			return
		}
		cfg := newExecution(webID, req, keys).config(container.ExecStartRequest{})
		if len(cfg.Args) == 0 || cfg.Args[0] == "" || len(keys) == 0 || strings.ContainsRune(strings.Join(cfg.Args, "")+strings.Join(cfg.Env, "")+cfg.Dir, 0) {
			t.Fatalf("accepted %+v", cfg)
		}
		if cfg.Dir != "" && !filepath.IsAbs(cfg.Dir) {
			t.Fatalf("accepted the directory %q", cfg.Dir)
		}
	})
}

// FuzzContainerQueries: the queries of logs, stop, kill, top and resize.
func FuzzContainerQueries(f *testing.F) {
	f.Add("stdout=1&stderr=true&tail=10&since=1700000000.5&until=2026-11-22T17:27:30Z&follow=1&timestamps=0", "-eo pid,comm")
	f.Add("t=-5&signal=SIGKILL&h=24&w=80", "aux")
	f.Add("t=10&signal=9&tail=all&since=10m", "-o pid -o ppid,args")
	f.Add("signal=RTMAX-3&h=65536", "-ef --forest")
	f.Fuzz(func(t *testing.T, query, ps string) {
		r := get(query)
		if opts, _, err := parseLogs(r, time.Unix(1700000000, 0)); err != nil {
			refused(t, err)
		} else if opts.Tail < -1 || !opts.Stdout && !opts.Stderr {
			t.Fatalf("accepted %+v", opts)
		}
		if opts, err := parseStop(r); err != nil {
			refused(t, err)
		} else if opts.Signal < 0 || opts.Signal > 64 || opts.Grace != nil && (*opts.Grace < -time.Second || *opts.Grace > maxGrace) {
			t.Fatalf("accepted %+v", opts)
		}
		if _, err := parseSize(r, "h", "height"); err != nil {
			refused(t, err)
		}
		if columns, err := parsePS(ps); err != nil {
			refused(t, err)
		} else if len(columns) == 0 {
			t.Fatal("no column")
		}
	})
}

// FuzzStat: /proc/PID/stat, whose name field a process chooses.
func FuzzStat(f *testing.F) {
	own, err := os.ReadFile("/proc/self/stat")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(own)
	f.Add(bytes.Replace(own, []byte("("), []byte("() 1 R) ("), 1))
	f.Add([]byte("1 (x) R 1"))
	f.Fuzz(func(_ *testing.T, stat []byte) {
		p, err := parseStat(stat)
		if err != nil {
			return
		}
		for _, c := range psColumns {
			_ = c.value(p)
		}
	})
}

// FuzzFrames: what the multiplexer writes, stdcopy reads.
func FuzzFrames(f *testing.F) {
	f.Add([]byte("out"), []byte("err"))
	f.Add([]byte{}, []byte{1, 0, 0, 0, 0, 0, 0, 9})
	f.Fuzz(func(t *testing.T, a, b []byte) {
		var wire, out, errOut bytes.Buffer
		stdout, stderr := outputs(&wire, true)
		for _, p := range []struct {
			w io.Writer
			b []byte
		}{{stdout, a}, {stderr, b}, {stdout, b}} {
			if n, err := p.w.Write(p.b); n != len(p.b) || err != nil {
				t.Fatal(n, err)
			}
		}
		if _, err := stdcopy.StdCopy(&out, &errOut, &wire); err != nil {
			t.Fatal(err)
		}
		if out.String() != string(a)+string(b) || errOut.String() != string(b) {
			t.Fatalf("%q and %q came back", out.String(), errOut.String())
		}
	})
}

// TestRefuseWithoutContainers: a node without a ContainerBackend answers as if
// it had no containers.
func TestRefuseWithoutContainers(t *testing.T) {
	c := serve(t, newFakeNode()).httpClient(t)
	for path, want := range map[string]int{
		"/containers/json": http.StatusOK, "/containers/x/json": http.StatusNotFound, "/containers/x/logs": http.StatusNotImplemented, "/exec/x/json": http.StatusNotImplemented,
	} {
		if code, _, body := request(t, c, "GET", path, "", ""); code != want {
			t.Errorf("%s: %d %s", path, code, body)
		}
	}
}
