package main

import (
	"os"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/ovnd/ovnd/api/types"
)

func TestUnready(t *testing.T) {
	for _, tc := range []struct {
		status types.Status
		want   string
	}{
		{types.Status{State: "active", Role: "worker"}, ""},
		{types.Status{State: "active"}, "its part in the swarm is not known yet"},
		{types.Status{State: "pending"}, "its swarm is pending"},
		{types.Status{State: "inactive"}, "its swarm is inactive"},
		{types.Status{State: "error", Error: "no manager"}, "no manager"},
	} {
		if err := unready(tc.status); err == nil && tc.want != "" || err != nil && err.Error() != tc.want {
			t.Errorf("%+v: %v", tc.status, err)
		}
	}
}

// The flag waits for a node that is not there, then not ready, then is; and
// gives up on one that stays as it is.
func TestStatusWait(t *testing.T) {
	dir := shortDir(t)
	r := ovndCommand(t, "--state-dir", dir, "status", "--wait=120ms")
	if r.code != 1 || !strings.Contains(r.err, "Cannot connect to the ovnd node") {
		t.Errorf("%+v", r)
	}
	if err := os.Mkdir(dir+"/run", 0o700); err != nil {
		t.Fatal(err)
	}
	n := newFakeNodeAt(t, dir+"/run/ovnd.sock")
	n.on("GET /ovnd/status", 0, `{"NodeID":"n","State":"pending"}`)
	r = ovndCommand(t, "--state-dir", dir, "status", "--wait=120ms")
	if r.code != 1 || r.out != "" || r.err != "the node is not ready after 120ms: its swarm is pending\n" {
		t.Errorf("%+v", r)
	}
	soon := &readySoon{after: 3}
	n.on("GET /ovnd/status", 0, soon)
	r = ovndCommand(t, "--state-dir", dir, "status", "--wait", "--json")
	if r.code != 0 || soon.asked.Load() != 4 || !strings.Contains(r.out, `"Role":"worker"`) {
		t.Errorf("%+v after %d questions", r, soon.asked.Load())
	}
}

// A readySoon is the status of a node that is ready once it has been asked so
// often.
type readySoon struct {
	after int32
	asked atomic.Int32
}

func (s *readySoon) MarshalJSON() ([]byte, error) {
	if s.asked.Add(1) <= s.after {
		return []byte(`{"NodeID":"n","State":"pending"}`), nil
	}
	return []byte(`{"NodeID":"n","State":"active","Role":"worker"}`), nil
}
