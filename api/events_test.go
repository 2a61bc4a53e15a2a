package api

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/client"
)

// created is the event of a network's creation.
func created(name string) events.Message {
	return events.Message{Type: events.NetworkEventType, Action: events.ActionCreate, Scope: "swarm", Actor: events.Actor{ID: usedID, Attributes: map[string]string{"name": name}}}
}

// next waits for one event of a stream.
func next(t *testing.T, r client.EventsResult) events.Message {
	t.Helper()
	select {
	case m := <-r.Messages:
		return m
	case err := <-r.Err:
		t.Fatalf("stream ended: %v", err)
	case <-time.After(5 * time.Second):
		t.Fatal("no event within 5 s")
	}
	return events.Message{}
}

// ended waits for the end of a stream.
func ended(t *testing.T, r client.EventsResult) error {
	t.Helper()
	for {
		select {
		case err := <-r.Err:
			return err
		case m := <-r.Messages:
			t.Errorf("event %v, want the end", m)
		case <-time.After(5 * time.Second):
			t.Fatal("stream has not ended within 5 s")
		}
	}
}

// waitListeners waits until n streams are subscribed.
func (s *testServer) waitListeners(t *testing.T, n int) {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); s.events.listeners() != n; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d listeners, want %d", s.events.listeners(), n)
		}
	}
}

func TestEventsLive(t *testing.T) {
	s := serve(t, newFakeNode())
	c := s.mobyClient(t)
	s.events.Publish(created("before"))
	ctx, cancel := context.WithCancel(t.Context())
	r := c.Events(ctx, client.EventsListOptions{})
	s.waitListeners(t, 1)
	s.events.Publish(created("plain_net"))
	m := next(t, r)
	if m.Actor.Attributes["name"] != "plain_net" || m.Scope != "swarm" || m.Time == 0 || m.TimeNano/1e9 != m.Time {
		t.Errorf("got %+v, want the creation of plain_net with its time", m)
	}
	s.events.Publish(events.Message{Type: events.NodeEventType, Action: events.ActionUpdate})
	if m := next(t, r); m.Type != events.NodeEventType || m.Scope != "local" {
		t.Errorf("got %+v, want the node's update in scope local", m)
	}
	cancel()
	if err := ended(t, r); !errors.Is(err, context.Canceled) {
		t.Errorf("stream ended with %v", err)
	}
	s.waitListeners(t, 0) // the server noticed that the client went
}

func TestEventsPast(t *testing.T) {
	s := serve(t, newFakeNode())
	c := s.mobyClient(t)
	start := time.Now().Add(-time.Hour)
	for i := range eventsKept + 10 {
		at := start.Add(time.Duration(i) * time.Second)
		m := created(strconv.Itoa(i))
		m.Time, m.TimeNano = at.Unix(), at.UnixNano()
		s.events.Publish(m)
	}
	at := func(i int) string { return start.Add(time.Duration(i) * time.Second).Format(time.RFC3339Nano) }
	for _, tt := range []struct {
		since, until string
		first, last  int
	}{
		{at(0), at(1000), 10, eventsKept + 9}, // the ten oldest are gone
		{at(100), at(103), 100, 103},
		{"", at(12), 10, 12},
	} {
		r := c.Events(t.Context(), client.EventsListOptions{Since: tt.since, Until: tt.until})
		for i := tt.first; i <= tt.last; i++ {
			if m := next(t, r); m.Actor.Attributes["name"] != strconv.Itoa(i) {
				t.Fatalf("since %q until %q: got event %s, want %d", tt.since, tt.until, m.Actor.Attributes["name"], i)
			}
		}
		if err := ended(t, r); !errors.Is(err, io.EOF) {
			t.Errorf("stream of the past ended with %v, want EOF", err)
		}
	}
}

func TestEventsUntil(t *testing.T) {
	s := serve(t, newFakeNode())
	until := strconv.FormatFloat(float64(time.Now().Add(300*time.Millisecond).UnixNano())/1e9, 'f', 9, 64)
	r := s.mobyClient(t).Events(t.Context(), client.EventsListOptions{Until: until})
	if err := ended(t, r); !errors.Is(err, io.EOF) {
		t.Errorf("stream ended with %v, want EOF at --until", err)
	}
}

// TestEventsStop: streams do not hold up the node's stop.
func TestEventsStop(t *testing.T) {
	s := serve(t, newFakeNode())
	r := s.mobyClient(t).Events(t.Context(), client.EventsListOptions{})
	s.waitListeners(t, 1)
	begin := time.Now()
	s.stop(t)
	if err := ended(t, r); !errors.Is(err, io.EOF) {
		t.Errorf("stream ended with %v, want EOF", err)
	}
	if d := time.Since(begin); d >= grace {
		t.Errorf("stopping took %v, the grace of requests", d)
	}
}

func TestEventFilters(t *testing.T) {
	m := events.Message{
		Type: events.NetworkEventType, Action: events.ActionConnect, Scope: "local",
		Actor: events.Actor{ID: usedID, Attributes: map[string]string{"name": "plain_net", "container": "821f"}},
	}
	for filter, want := range map[string]bool{
		"":                               true,
		`{"type":["network"]}`:           true,
		`{"type":["node"]}`:              false,
		`{"type":["node","network"]}`:    true,
		`{"event":["connect"]}`:          true,
		`{"event":["create"]}`:           false,
		`{"scope":["local"]}`:            true,
		`{"scope":["swarm"]}`:            false,
		`{"network":["plain_net"]}`:      true,
		`{"network":["dvdq"]}`:           true,
		`{"network":["other"]}`:          false,
		`{"node":["x"]}`:                 false,
		`{"label":["container=821f"]}`:   true,
		`{"label":["container=x"]}`:      false,
		`{"image":["nginx"]}`:            false,
		`{"type":["network"],"node":[]}`: true,
	} {
		r, err := http.NewRequest(http.MethodGet, "/events", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.URL.RawQuery = "filters=" + filter
		q, err := parseEventQuery(r, time.Now())
		if err != nil {
			t.Errorf("%s: %v", filter, err)
		} else if got := q.match(m); got != want {
			t.Errorf("filter %s: match %t, want %t", filter, got, want)
		}
	}
}

// TestEventContentType: old clients are told application/json, and those that
// want records separated get them.
func TestEventContentType(t *testing.T) {
	s := serve(t, newFakeNode())
	s.events.Publish(created("plain_net"))
	c := s.httpClient(t)
	for _, tt := range []struct{ path, accept, want, begins string }{
		{"/events?since=1h&until=0s", "", "application/jsonl", `{"Type":"network"`},
		{"/v1.50/events?since=1h&until=0s", "", "application/json", `{"Type":"network"`},
		{"/events?since=1h&until=0s", "application/json-seq", "application/json-seq", "\x1e{"},
	} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://ovnd"+tt.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if tt.accept != "" {
			req.Header.Set("Accept", tt.accept)
		}
		resp, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		closeAtEnd(t, resp.Body)
		if ct := resp.Header.Get("Content-Type"); err != nil || ct != tt.want || !strings.HasPrefix(string(body), tt.begins) {
			t.Errorf("%s: %s, body %q, %v; want %s, %q…", tt.path, ct, body, err, tt.want, tt.begins)
		}
	}
}

// TestEventsBounded: neither a slow reader nor many of them hold the node up.
func TestEventsBounded(t *testing.T) {
	l := NewEventLog()
	_, slow, cancel, err := l.subscribe()
	if err != nil {
		t.Fatal(err)
	}
	defer cancel()
	for range eventsBehind + 1 {
		l.Publish(created("x"))
	}
	got := 0
	for range slow {
		got++
	}
	if got != eventsBehind || l.listeners() != 0 {
		t.Errorf("slow reader got %d events and %d are left subscribed; want %d and its end", got, l.listeners(), eventsBehind)
	}
	for range eventsSubs {
		_, _, cancel, err := l.subscribe()
		if err != nil {
			t.Fatal(err)
		}
		defer cancel()
	}
	if _, _, _, err := l.subscribe(); err == nil {
		t.Errorf("subscriber %d was let in", eventsSubs+1)
	}
}
