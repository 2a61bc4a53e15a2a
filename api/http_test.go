package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/ovnd/ovnd/api/types"
)

// request makes one request and returns status, headers and body.
func request(t *testing.T, c *http.Client, method, path, contentType, body string) (int, http.Header, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, "http://ovnd"+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	resp, err := c.Do(req)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	closeAtEnd(t, resp.Body)
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	return resp.StatusCode, resp.Header, string(b)
}

const jsonType = "application/json"

func TestErrors(t *testing.T) {
	c := serve(t, newFakeNode()).httpClient(t)
	tests := []struct {
		name, method, path, contentType, body string
		status                                int
		message                               string // a part of it
	}{
		{"unknown path", "GET", "/nonsense", "", "", 404, "page not found"},
		{"unknown path with version", "GET", "/v1.50/nonsense", "", "", 404, "page not found"},
		{"too old", "GET", "/v1.30/networks", "", "", 400, "client version 1.30 is too old. Minimum supported API version is 1.40"},
		{"too new", "GET", "/v1.99/networks", "", "", 400, "client version 1.99 is too new"},
		{"images", "GET", "/v1.50/images/json", "", "", 501, "ovnd does not have images"},
		{"containers", "POST", "/v1.50/containers/create?name=x", jsonType, "{}", 501, "ovnd creates no containers: start a process with `ovnd run`"},
		{"volumes", "GET", "/volumes", "", "", 501, "ovnd does not have volumes"},
		{"build", "POST", "/build", "", "", 501, "ovnd does not have image builds"},
		{"container for inspect", "GET", "/v1.50/containers/x/json", "", "", 404, "No such container: x"},
		{"image for inspect", "GET", "/v1.50/images/a/b/json", "", "", 404, "No such image: a/b"},
		{"volume for inspect", "GET", "/v1.50/volumes/x", "", "", 404, "get x: no such volume"},
		{"no such network", "GET", "/networks/nosuch", "", "", 404, "network nosuch not found"},
		{"other scope", "GET", "/networks/plain_net?scope=local", "", "", 404, "network plain_net not found"},
		{"ambiguous prefix", "GET", "/networks/dv", "", "", 400, "network dv is ambiguous (2 matches found based on ID prefix)"},
		{"bad verbose", "GET", "/networks/plain_net?verbose=maybe", "", "", 400, "invalid value for verbose"},
		{"remove missing", "DELETE", "/networks/nosuch", "", "", 404, "network nosuch not found"},
		{"remove used", "DELETE", "/networks/plain_net", "", "", 400, "is in use by service"},
		{"no name", "POST", "/networks/create", jsonType, `{"Name":""}`, 400, "invalid name: name is empty"},
		{"empty body", "POST", "/networks/create", "", "", 400, "invalid name: name is empty"},
		{"name taken", "POST", "/networks/create", jsonType, `{"Name":"plain_net"}`, 409, "network with name plain_net already exists"},
		{"bad subnet", "POST", "/networks/create", jsonType, `{"Name":"x","IPAM":{"Config":[{"Subnet":"10.300.0.0/16"}]}}`, 400, "invalid network config:\ninvalid subnet 10.300.0.0/16: invalid CIDR block notation"},
		{"bad gateway", "POST", "/networks/create", jsonType, `{"Name":"x","IPAM":{"Config":[{"Gateway":"one"}]}}`, 400, "invalid gateway one"},
		{"no JSON", "POST", "/networks/create", jsonType, `{"Name":`, 400, "invalid JSON"},
		{"wrong type", "POST", "/networks/create", jsonType, `{"Name":7}`, 400, "invalid JSON"},
		{"two texts", "POST", "/networks/create", jsonType, `{"Name":"x"}{}`, 400, "unexpected content after JSON"},
		{"content type", "POST", "/networks/create", "text/plain", `{"Name":"x"}`, 400, "unsupported Content-Type header (text/plain): must be 'application/json'"},
		{"no content type", "POST", "/networks/create", "", `{"Name":"x"}`, 400, "malformed Content-Type header"},
		{"huge body", "POST", "/networks/create", jsonType, `{"Name":"` + strings.Repeat("x", maxBody) + `"}`, 400, "request body too large"},
		{"connect", "POST", "/networks/plain_net/connect", jsonType, `{"Container":"x"}`, 501, "cannot connect or disconnect"},
		{"disconnect", "POST", "/networks/plain_net/disconnect", jsonType, `{"Container":"x"}`, 501, "cannot connect or disconnect"},
		{"unknown filter", "GET", `/networks?filters={"nosuch":{"x":true}}`, "", "", 400, "invalid filter 'nosuch'"},
		{"bad filter", "GET", `/networks?filters=7`, "", "", 400, "invalid filter"},
		{"bad type filter", "GET", `/networks?filters={"type":{"x":true}}`, "", "", 400, "must be 'builtin' or 'custom'"},
		{"bad dangling", "GET", `/networks?filters={"dangling":{"x":true}}`, "", "", 400, "invalid value for filter 'dangling'"},
		{"prune filter", "POST", `/networks/prune?filters={"name":{"x":true}}`, "", "", 400, "invalid filter 'name'"},
		{"prune until", "POST", `/networks/prune?filters={"until":{"soon":true}}`, "", "", 400, "invalid time"},
		{"events since", "GET", "/events?since=soon", "", "", 400, "invalid value for 'since'"},
		{"events order", "GET", "/events?since=20&until=10", "", "", 400, "cannot be after"},
		{"events filter", "GET", `/events?filters={"nosuch":{"x":true}}`, "", "", 400, "invalid filter 'nosuch'"},
		{"node", "GET", "/nodes/nosuch", "", "", 404, "node nosuch not found"},
		{"node in use", "DELETE", "/nodes/" + workerID, "", "", 400, "is not down and can't be removed"},
		{"attach nothing", "POST", "/ovnd/attach", jsonType, `{}`, 400, "no network given"},
		{"attach address", "POST", "/ovnd/attach", jsonType, `{"Networks":[{"Target":"x","IP":"10.0.0"}]}`, 400, "invalid JSON"},
		{"verbose of none here", "GET", "/ovnd/networks/spare/verbose", "", "", 404, "network spare has no endpoint on this node"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := strings.NewReplacer("{", "%7B", "}", "%7D", `"`, "%22").Replace(tt.path)
			code, header, body := request(t, c, tt.method, path, tt.contentType, tt.body)
			var answer struct{ Message string }
			if err := json.Unmarshal([]byte(body), &answer); err != nil {
				t.Fatalf("status %d, body %q is not JSON: %v", code, body, err)
			}
			if code != tt.status || !strings.Contains(answer.Message, tt.message) {
				t.Errorf("status %d, message %q; want %d, %q", code, answer.Message, tt.status, tt.message)
			}
			if ct := header.Get("Content-Type"); ct != jsonType {
				t.Errorf("Content-Type %q, want %q", ct, jsonType)
			}
		})
	}
}

func TestPing(t *testing.T) {
	c := serve(t, newFakeNode()).httpClient(t)
	for _, method := range []string{"GET", "HEAD"} {
		status, h, body := request(t, c, method, "/_ping", "", "")
		want := map[string]string{"GET": "OK", "HEAD": ""}[method]
		if status != 200 || body != want {
			t.Errorf("%s: status %d, body %q; want 200, %q", method, status, body, want)
		}
		for name, want := range map[string]string{
			"Api-Version": APIVersion, "Ostype": "linux", "Swarm": "active/manager",
			"Docker-Experimental": "false", "Cache-Control": "no-cache, no-store, must-revalidate",
		} {
			if got := h.Get(name); got != want {
				t.Errorf("%s: header %s is %q, want %q", method, name, got, want)
			}
		}
	}
}

// TestStopWithRequest: a request under way has its grace and is cut off then.
func TestStopWithRequest(t *testing.T) {
	t.Parallel()
	f := newFakeNode()
	f.block = make(chan struct{})
	s := serve(t, f)
	c := s.ovndClient(t)
	answered := make(chan error, 1)
	go func() {
		_, err := c.Attach(t.Context(), types.AttachRequest{Networks: []types.AttachNetwork{{Target: "spare"}}})
		answered <- err
	}()
	<-f.entered
	begin := time.Now()
	s.stop(t)
	if d := time.Since(begin); d < grace || d > grace+2*time.Second {
		t.Errorf("stopping took %v, want the grace of %v", d, grace)
	}
	<-f.gone
	if err := <-answered; err == nil {
		t.Error("the request was answered")
	}
}

// TestUnknownFields: Docker ignores fields that it does not know.
func TestUnknownFields(t *testing.T) {
	f := newFakeNode()
	c := serve(t, f).httpClient(t)
	status, _, body := request(t, c, "POST", "/v1.50/networks/create", "application/json; charset=utf-8",
		`{"Name":"x","Driver":"overlay","CheckDuplicate":true,"Nonsense":{"a":[1]},"IPAM":{"Driver":"default","Config":[{"Subnet":"10.10.19.0/16","Nonsense":1}]}}`)
	if status != 201 {
		t.Fatalf("status %d, body %s", status, body)
	}
	if got := f.created[0].IPAM.Config[0].Subnet.String(); got != "10.10.19.0/16" {
		t.Errorf("the backend got subnet %s, want it as it was given, 10.10.19.0/16", got)
	}
}

// TestErrorStatus: errdefs classes and gRPC codes alike.
func TestErrorStatus(t *testing.T) {
	for err, want := range map[error]int{
		cerrdefs.ErrNotFound:                         404,
		cerrdefs.ErrInvalidArgument:                  400,
		cerrdefs.ErrFailedPrecondition:               400,
		cerrdefs.ErrConflict:                         409,
		cerrdefs.ErrAlreadyExists:                    409,
		cerrdefs.ErrPermissionDenied:                 403,
		cerrdefs.ErrUnavailable:                      503,
		cerrdefs.ErrNotImplemented:                   501,
		errors.New("disk on fire"):                   500,
		status.Error(codes.NotFound, "x"):            404,
		status.Error(codes.FailedPrecondition, "x"):  400,
		status.Error(codes.AlreadyExists, "x"):       409,
		status.Error(codes.Unavailable, "no leader"): 503,
		status.Error(codes.DeadlineExceeded, "x"):    500,
	} {
		if got := errorStatus(fmt.Errorf("doing it: %w", err)); got != want {
			t.Errorf("%v: status %d, want %d", err, got, want)
		}
	}
}
