package api

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/moby/moby/api/pkg/stdcopy"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/network"

	"github.com/ovnd/ovnd/discovery/directory"
)

// createExec makes an exec and returns its ID.
func createExec(t *testing.T, c *http.Client, body string) string {
	t.Helper()
	code, _, answer := request(t, c, "POST", "/v1.50/containers/"+webName+"/exec", jsonType, body)
	var got container.ExecCreateResponse
	if err := json.Unmarshal([]byte(answer), &got); err != nil || code != http.StatusCreated {
		t.Fatalf("status %d, %s", code, answer)
	}
	return got.ID
}

// raw sends a request on a connection of its own and reads the answer's head.
func (s *testServer) raw(t *testing.T, request string) (net.Conn, *bufio.Reader, *http.Response) {
	t.Helper()
	conn, err := net.Dial("unix", s.path)
	if err != nil {
		t.Fatal(err)
	}
	closeAtEnd(t, conn)
	if _, err := io.WriteString(conn, request); err != nil {
		t.Fatal(err)
	}
	if err := conn.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(conn)
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatal(err)
	}
	return conn, r, resp
}

func startRequest(id, header string, tty bool) string {
	body := fmt.Sprintf(`{"Detach":false,"Tty":%t}`, tty)
	return fmt.Sprintf("POST /v1.50/exec/%s/start HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n%sContent-Length: %d\r\n\r\n%s", id, header, len(body), body)
}

const upgrade = "Connection: Upgrade\r\nUpgrade: tcp\r\n"

// TestHijack: both ways to take a connection over, with and without frames,
// and input that comes with the request rather than after the answer.
func TestHijack(t *testing.T) {
	s, _ := serveContainers(t)
	c := s.httpClient(t)
	for _, tt := range []struct {
		name, header string
		tty          bool
		status       int
		contentType  string
	}{
		{"upgrade", upgrade, false, 101, "application/vnd.docker.multiplexed-stream"},
		{"upgrade with TTY", upgrade, true, 101, "application/vnd.docker.raw-stream"},
		{"plain", "", false, 200, "application/vnd.docker.raw-stream"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			id := createExec(t, c, fmt.Sprintf(`{"AttachStdin":true,"AttachStdout":true,"AttachStderr":true,"Tty":%t,"Cmd":["sh","-c","read x; echo got $x; echo bad >&2"]}`, tt.tty))
			conn, r, resp := s.raw(t, startRequest(id, tt.header, tt.tty)+"early\n")
			if resp.StatusCode != tt.status || resp.Header.Get("Content-Type") != tt.contentType {
				t.Errorf("status %d, %v", resp.StatusCode, resp.Header)
			}
			if tt.status == 101 && resp.Header.Get("Upgrade") != "tcp" {
				t.Errorf("no upgrade: %v", resp.Header)
			}
			var out, errOut bytes.Buffer
			var err error
			if tt.tty {
				_, err = io.Copy(&out, r)
			} else {
				_, err = stdcopy.StdCopy(&out, &errOut, r)
			}
			if err != nil {
				t.Error(err)
			}
			if tt.tty && !strings.Contains(out.String(), "got early\r\nbad\r\n") || !tt.tty && (out.String() != "got early\n" || errOut.String() != "bad\n") {
				t.Errorf("stdout %q, stderr %q", out.String(), errOut.String())
			}
			if got := inspectExec(t, s, id); got.Running || got.ExitCode == nil || *got.ExitCode != 0 || got.ProcessConfig.Entrypoint != "sh" || got.ProcessConfig.Tty != tt.tty {
				t.Errorf("inspect: %+v", got)
			}
			_ = conn.Close()
		})
	}
}

// TestExecInputUnread: a client that still sends when the command ends, which
// has not read, has its answer and is not reset.
func TestExecInputUnread(t *testing.T) {
	s, _ := serveContainers(t)
	id := createExec(t, s.httpClient(t), `{"AttachStdin":true,"AttachStdout":true,"Cmd":["sh","-c","exec <&-; echo done"]}`)
	conn, r, _ := s.raw(t, startRequest(id, upgrade, false))
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		for chunk := make([]byte, 64<<10); ; {
			if _, err := conn.Write(chunk); err != nil {
				return
			}
		}
	}()
	var out bytes.Buffer
	if _, err := stdcopy.StdCopy(&out, &out, r); err != nil || out.String() != "done\n" {
		t.Errorf("read %q, %v", out.String(), err)
	}
	_ = conn.Close()
	<-sent
}

// TestExecSlowClient: a client that reads late has all of the output of a
// command that ended meanwhile, what is still in its pipe included.
func TestExecSlowClient(t *testing.T) {
	t.Parallel()
	s, fc := serveContainers(t)
	c := s.httpClient(t)
	var slow sync.WaitGroup
	defer slow.Wait()
	for size := 100_000; size <= 300_000; size += 25_000 { // around what a socket and a pipe hold
		id := createExec(t, c, fmt.Sprintf(`{"AttachStdout":true,"Cmd":["head","-c","%d","/dev/zero"]}`, size))
		_, r, _ := s.raw(t, startRequest(id, upgrade, false))
		slow.Go(func() {
			time.Sleep(outputGrace + time.Second)
			var out bytes.Buffer
			if _, err := stdcopy.StdCopy(&out, &out, r); err != nil || out.Len() != size {
				t.Errorf("%d of %d bytes, %v", out.Len(), size, err)
			}
		})
	}
	slow.Wait()
	for _, x := range fc.execs {
		<-x.ended
	}
}

// TestExecDetachKeys: a client that passes the keys on, as those that are not
// the docker CLI do.
func TestExecDetachKeys(t *testing.T) {
	s, fc := serveContainers(t)
	c := s.httpClient(t)
	id := createExec(t, c, `{"AttachStdin":true,"AttachStdout":true,"Tty":true,"DetachKeys":"ctrl-a,d","Cmd":["sleep","600"]}`)
	conn, r, _ := s.raw(t, startRequest(id, upgrade, true))
	if _, err := io.WriteString(conn, "x\x01d"); err != nil {
		t.Fatal(err)
	}
	if out, err := io.ReadAll(r); err != nil || !strings.HasPrefix("x", string(out)) {
		t.Errorf("read %q, %v; want the end", out, err)
	}
	if !inspectExec(t, s, id).Running {
		t.Error("the command ended with its client")
	}
	waitFor(t, func() bool { return len(actions(s.events, webID, events.ActionExecDetach)) == 1 })
	fc.killExecs()
	waitFor(t, func() bool { return !inspectExec(t, s, id).Running })
}

// TestExecHalfClose: the end of a client's input is an end of file on a
// terminal, and its output arrives still.
func TestExecHalfClose(t *testing.T) {
	s, _ := serveContainers(t)
	id := createExec(t, s.httpClient(t), `{"AttachStdin":true,"AttachStdout":true,"Tty":true,"Cmd":["sh","-c","cat; echo done; exit 3"]}`)
	conn, r, _ := s.raw(t, startRequest(id, upgrade, true))
	if _, err := io.WriteString(conn, "line\n"); err != nil {
		t.Fatal(err)
	}
	if err := conn.(*net.UnixConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if out, err := io.ReadAll(r); err != nil || !strings.HasSuffix(string(out), "line\r\ndone\r\n") {
		t.Errorf("read %q, %v", out, err)
	}
	if got := inspectExec(t, s, id); got.ExitCode == nil || *got.ExitCode != 3 {
		t.Errorf("exit code %v, want 3", got.ExitCode)
	}
}

// actions returns the events of a container with an action that begins so.
func actions(l *EventLog, id string, action events.Action) []events.Message {
	l.mu.Lock()
	defer l.mu.Unlock()
	var list []events.Message
	for _, m := range l.past {
		if m.Actor.ID == id && strings.HasPrefix(string(m.Action), string(action)) {
			list = append(list, m)
		}
	}
	return list
}

// TestExecEvents: what Docker publishes of an exec, with its attributes.
func TestExecEvents(t *testing.T) {
	s, _ := serveContainers(t)
	if _, _, code := s.dockerCLI(t, "exec", webName, "sh", "-c", "exit 2"); code != 2 {
		t.Fatalf("exit code %d", code)
	}
	for action, attribute := range map[events.Action]string{
		events.ActionExecCreate + ": sh -c exit 2": "image=nginx:latest",
		events.ActionExecStart + ": sh -c exit 2":  "name=" + webName,
		events.ActionExecDie:                       "exitCode=2",
	} {
		list := actions(s.events, webID, action)
		if len(list) != 1 {
			t.Fatalf("%d events %q, want 1", len(list), action)
		}
		key, want, _ := strings.Cut(attribute, "=")
		a := list[0].Actor.Attributes
		if a[key] != want || a["execID"] == "" || a["com.docker.swarm.service.name"] != "my-test" {
			t.Errorf("%s: attributes %v", action, a)
		}
	}
}

func TestContainerErrors(t *testing.T) {
	s, _ := serveContainers(t)
	c := s.httpClient(t)
	done := createExec(t, c, `{"AttachStdout":true,"Cmd":["true"]}`)
	if code, _, body := request(t, c, "POST", "/exec/"+done+"/start", jsonType, `{"Detach":true}`); code != 200 {
		t.Fatalf("start: %d %s", code, body)
	}
	waitFor(t, func() bool { return !inspectExec(t, s, done).Running })
	running := createExec(t, c, `{"Cmd":["sleep","600"]}`)
	if code, _, body := request(t, c, "POST", "/exec/"+running+"/start", jsonType, `{"Detach":true}`); code != 200 {
		t.Fatalf("start: %d %s", code, body)
	}
	missing := createExec(t, c, `{"Cmd":["./no-such-program"]}`)
	tests := []struct {
		method, path, body string
		status             int
		message            string // a part of it
	}{
		{"GET", "/containers/nosuch/json", "", 404, "No such container: nosuch"},
		{"GET", "/containers/aaf/json", "", 400, "multiple IDs found with provided prefix: aaf"},
		{"GET", "/containers/json?limit=x", "", 400, "invalid value for limit"},
		{"GET", `/containers/json?filters={"status":["dancing"]}`, "", 400, "invalid filter 'status=dancing'"},
		{"GET", `/containers/json?filters={"health":["fine"]}`, "", 400, "invalid filter 'health=fine'"},
		{"GET", `/containers/json?filters={"before":["nosuch"]}`, "", 404, "No such container: nosuch"},
		{"GET", `/containers/json?filters={"publish":["http"]}`, "", 400, "invalid filter 'publish=http'"},
		{"GET", "/containers/" + webID + "/logs", "", 400, "must specify at least one of 'stdout' or 'stderr'"},
		{"GET", "/containers/" + webID + "/logs?stdout=1&since=soon", "", 400, `invalid value for "since"`},
		{"GET", "/containers/nosuch/logs?stdout=1", "", 404, "No such container"},
		{"GET", "/containers/" + webID + "/top?ps_args=-o+pid,nonsense", "", 400, `unknown column "nonsense": ovnd has %cpu, `},
		{"POST", "/containers/" + webID + "/stop?t=x", "", 400, "invalid value for t"},
		{"POST", "/containers/" + webID + "/stop?t=99999999999", "", 400, "invalid value for t"},
		{"POST", "/containers/" + webID + "/stop?signal=99", "", 400, "invalid signal: 99"},
		{"POST", "/containers/" + runID + "/kill", "", 409, "cannot kill container: " + runID + ": container " + runID + " is not running"},
		{"POST", "/containers/nosuch/kill", "", 404, "cannot kill container: nosuch: No such container: nosuch"},
		{"POST", "/containers/" + webID + "/wait?condition=later", "", 400, `invalid condition: "later"`},
		{"POST", "/containers/" + webID + "/exec", `{"Cmd":[]}`, 400, "No exec command specified"},
		{"POST", "/containers/" + webID + "/exec", `{"Cmd":["a\u0000b"]}`, 400, "zero byte"},
		{"POST", "/containers/" + webID + "/exec", `{"Cmd":["a"],"Env":["=x"]}`, 400, "invalid environment variable"},
		{"POST", "/containers/" + webID + "/exec", `{"Cmd":["a"],"DetachKeys":"shift-x"}`, 400, "Invalid escape keys (shift-x) provided"},
		{"POST", "/containers/" + runID + "/exec", `{"Cmd":["a"]}`, 409, "container " + runID + " is not running"},
		{"GET", "/exec/nosuch/json", "", 404, "No such exec instance: nosuch"},
		{"POST", "/exec/nosuch/start", `{}`, 404, "No such exec instance: nosuch"},
		{"POST", "/exec/" + done + "/start", `{}`, 409, "exec command " + done + " has already run"},
		{"POST", "/exec/" + running + "/start", `{}`, 409, "exec command " + running + " is already running"},
		{"POST", "/exec/" + missing + "/start", `{"Detach":true}`, 400, "exec failed: "},
		{"POST", "/exec/" + missing + "/resize?h=1&w=1", "", 400, "exec process is not started"},
		{"POST", "/exec/" + running + "/resize?h=-1&w=1", "", 400, `invalid resize height "-1"`},
		{"POST", "/exec/" + running + "/resize?h=1", "", 400, `invalid resize width ""`},
		{"GET", "/containers/" + webID + "/attach/ws", "", 501, "websocket"},
		{"PUT", "/containers/" + webID + "/archive?path=/", "", 501, "no file system of their own"},
		{"POST", "/containers/prune", "", 501, "keeps no stopped containers"},
		{"POST", "/containers/" + webID + "/dance", "", 501, "ovnd does not have this call of containers"},
		{"GET", "/exec", "", 404, "page not found"},
	}
	for _, tt := range tests {
		t.Run(tt.method+" "+tt.path+" "+tt.body, func(t *testing.T) {
			path := strings.NewReplacer("{", "%7B", "}", "%7D", `"`, "%22").Replace(tt.path)
			code, _, body := request(t, c, tt.method, path, map[bool]string{true: jsonType}[tt.body != ""], tt.body)
			var answer struct{ Message string }
			if err := json.Unmarshal([]byte(body), &answer); err != nil {
				t.Fatalf("status %d, body %q is not JSON: %v", code, body, err)
			}
			if code != tt.status || !strings.Contains(answer.Message, tt.message) {
				t.Errorf("status %d, message %q; want %d, %q", code, answer.Message, tt.status, tt.message)
			}
		})
	}
	if code, _, body := request(t, c, "POST", "/containers/"+runID+"/stop", "", ""); code != 304 || body != "" {
		t.Errorf("stop of what has stopped: %d %q, want 304", code, body)
	}
	if code, _, body := request(t, c, "GET", "/distribution/nginx:latest/json", "", ""); code != 200 {
		t.Errorf("distribution: %d %s", code, body)
	}
}

// TestExecTable: what is kept, for how long and how many.
func TestExecTable(t *testing.T) {
	e := newExecs(t.Context())
	req := container.ExecCreateRequest{Cmd: []string{"x"}}
	add := func() *execution {
		t.Helper()
		x := newExecution(webID, req, nil)
		if err := e.add(x); err != nil {
			t.Fatal(err)
		}
		return x
	}
	old := add()
	old.idle = old.idle.Add(-execKept - time.Second)
	add()
	if _, err := e.get(old.id); !cerrdefs.IsNotFound(err) {
		t.Errorf("an exec that was never started is there after %v: %v", execKept, err)
	}
	first := add()
	first.idle = first.idle.Add(-time.Minute)
	for len(e.byID) < maxExecs {
		add()
	}
	last := add()
	if _, err := e.get(first.id); !cerrdefs.IsNotFound(err) || len(e.byID) != maxExecs {
		t.Errorf("%d execs with the oldest among them: %v", len(e.byID), err)
	}
	for _, x := range e.byID {
		if err := x.claim(); err != nil {
			t.Fatal(err)
		}
	}
	if err := e.add(newExecution(webID, req, nil)); !cerrdefs.IsUnavailable(err) {
		t.Errorf("more than %d at a time: %v", maxExecs, err)
	}
	last.end(0)
	add()
}

func TestIsImage(t *testing.T) {
	for _, tt := range []struct {
		image, term string
		want        bool
	}{
		{"nginx:latest", "nginx", true},
		{"nginx:latest", "nginx:latest", true},
		{"nginx", "nginx:latest", true},
		{"nginx:1.27", "nginx:latest", false},
		{"host:5000/a/nginx", "host", false},
		{"host:5000/a/nginx:1@sha256:ab", "host:5000/a/nginx", true},
		{"nginx", "ngin", false},
	} {
		if got := isImage(tt.image, tt.term); got != tt.want {
			t.Errorf("isImage(%q, %q) = %t", tt.image, tt.term, got)
		}
	}
}

func TestStatusText(t *testing.T) {
	now := time.Date(2026, 11, 22, 18, 0, 0, 0, time.UTC)
	up := ContainerState{Status: container.StateRunning, StartedAt: now.Add(-5 * time.Minute)}
	withHealth := func(h container.HealthStatus) ContainerState {
		s := up
		s.Health = &container.Health{Status: h}
		return s
	}
	for want, s := range map[string]ContainerState{
		"Up 5 minutes":                    up,
		"Up 5 minutes (health: starting)": withHealth(container.Starting),
		"Up 5 minutes (healthy)":          withHealth(container.Healthy),
		"Up 5 minutes (unhealthy)":        withHealth(container.Unhealthy),
		"Created":                         {Status: container.StateCreated},
		"Exited (137) 2 hours ago":        {Status: container.StateExited, StartedAt: now.Add(-3 * time.Hour), ExitStatus: ExitStatus{Code: 137, FinishedAt: now.Add(-2 * time.Hour)}},
	} {
		if got := statusText(s, now); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// TestInspectServices: verbose inspect has a service's ports, VIP and tasks,
// and not what is not announced yet.
func TestInspectServices(t *testing.T) {
	snap := plainSnapshot()
	for _, ep := range snap.Endpoints.All() {
		switch {
		case ep.Kind != directory.Task:
		case strings.HasPrefix(ep.Name, "my-test.2"):
			ep.Pending = true
		default:
			ep.Ports = []directory.Port{{Protocol: directory.TCP, Target: 80, Published: 8080}}
		}
	}
	snap.Services, snap.VIPs = directory.Services(snap.Endpoints)
	got := inspectNetwork(network.Network{Name: "plain_net", ID: usedID}, snap, selfName, true).Services["my-test"]
	if len(got.Ports) != 1 || got.Ports[0] != "Target: 80, Publish: 8080" || got.VIP.String() != "10.20.0.2" || len(got.Tasks) != 1 || got.Tasks[0].Info["Host IP"] != "192.0.2.11" {
		t.Errorf("services: %+v", got)
	}
}
