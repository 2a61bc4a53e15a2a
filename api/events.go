package api

import (
	"context"
	"net/http"
	"slices"
	"sync"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	mobytypes "github.com/moby/moby/api/types"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/v2/daemon/server/httputils"
	"github.com/moby/moby/v2/daemon/server/httputils/contenttype"
)

const (
	eventsKept   = 256 // past events that --since can reach, as Docker
	eventsBehind = 256 // events a subscriber may fall behind
	eventsSubs   = 256 // subscribers at a time
)

// EventLog has the node's latest events and passes new ones on to who listens.
// The node publishes; GET /events reads. It is made by [NewEventLog].
type EventLog struct {
	mu   sync.Mutex
	past []events.Message // the latest eventsKept, oldest first
	subs map[chan events.Message]struct{}
}

// NewEventLog returns an empty log.
func NewEventLog() *EventLog {
	return &EventLog{subs: map[chan events.Message]struct{}{}}
}

// Publish adds an event and does not block. Without a time it gets the present
// one, without a scope "local". A subscriber that has fallen 256 events behind
// loses its subscription rather than single events that it could not miss.
func (l *EventLog) Publish(m events.Message) {
	if m.TimeNano == 0 {
		now := time.Now()
		m.Time, m.TimeNano = now.Unix(), now.UnixNano()
	}
	if m.Scope == "" {
		m.Scope = "local"
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.past) == eventsKept {
		l.past = slices.Delete(l.past, 0, 1)
	}
	l.past = append(l.past, m)
	for sub := range l.subs {
		select {
		case sub <- m:
		default:
			delete(l.subs, sub)
			close(sub)
		}
	}
}

// subscribe returns the events kept and a channel of those that follow, with
// none lost or twice in between. The channel is closed if its reader is too
// slow. cancel ends the subscription and must be called.
func (l *EventLog) subscribe() (past []events.Message, live <-chan events.Message, cancel func(), err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.subs) >= eventsSubs {
		return nil, nil, nil, cerrdefs.ErrUnavailable.WithMessage("too many clients read events: end some of them")
	}
	sub := make(chan events.Message, eventsBehind)
	l.subs[sub] = struct{}{}
	return slices.Clone(l.past), sub, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.subs, sub)
	}, nil
}

// listeners counts the subscriptions.
func (l *EventLog) listeners() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.subs)
}

// eventQuery is what a client asked of GET /events. A zero time is none.
type eventQuery struct {
	since, until time.Time
	filters      filters
}

func parseEventQuery(r *http.Request, now time.Time) (eventQuery, error) {
	var q eventQuery
	var err error
	query := r.URL.Query()
	for _, p := range []struct {
		name string
		dst  *time.Time
	}{{"since", &q.since}, {"until", &q.until}} {
		if s := query.Get(p.name); s != "" {
			if *p.dst, err = parseTime(s, now); err != nil {
				return q, invalid("invalid value for '%s': %w", p.name, err)
			}
		}
	}
	if !q.until.IsZero() && q.until.Before(q.since) {
		return q, invalid("`since` time (%s) cannot be after `until` time (%s)", query.Get("since"), query.Get("until"))
	}
	q.filters, err = parseFilters(query.Get("filters"), "config", "container", "daemon", "event", "image", "label",
		"network", "node", "plugin", "scope", "secret", "service", "type", "volume")
	return q, err
}

// wantsPast reports whether m, an event from before the request, is asked for.
func (q eventQuery) wantsPast(m events.Message) bool {
	t := time.Unix(0, m.TimeNano)
	return (!q.since.IsZero() || !q.until.IsZero()) && !t.Before(q.since) && (q.until.IsZero() || !t.After(q.until)) && q.match(m)
}

func (q eventQuery) match(m events.Message) bool {
	f := q.filters
	if !f.exact("event", string(m.Action)) || !f.exact("type", string(m.Type)) ||
		!f.exact("scope", m.Scope) || !f.labels("label", m.Actor.Attributes) {
		return false
	}
	// A filter that names an object, such as network=NAME, matches whatever
	// begins with that ID or name, as in Docker.
	for _, kind := range []string{"config", "container", "daemon", "network", "node", "plugin", "secret", "service", "volume"} {
		if !f.prefix(kind, m.Actor.ID) && !f.prefix(kind, m.Actor.Attributes["name"]) {
			return false
		}
	}
	return f.exact("image", m.Actor.ID) || f.exact("image", m.Actor.Attributes["image"])
}

// events streams until the client goes, the time asked for has come, or the
// node stops.
func (a *systemAPI) events(ctx context.Context, w http.ResponseWriter, r *http.Request, _ map[string]string) error {
	now := time.Now()
	q, err := parseEventQuery(r, now)
	if err != nil {
		return err
	}
	past, live, cancel, err := a.cfg.Events.subscribe()
	if err != nil {
		return err
	}
	defer cancel()

	contentType := eventContentType(ctx, r)
	w.Header().Set("Content-Type", contentType)
	w.WriteHeader(http.StatusOK)
	flush := http.NewResponseController(w).Flush
	encode := httputils.NewJSONStreamEncoder(w, contentType)
	for _, m := range past {
		if q.wantsPast(m) {
			if err := encode(m); err != nil {
				return nil // the client has gone, and the status is sent
			}
		}
	}
	if err := flush(); err != nil || !q.until.IsZero() && !q.until.After(now) {
		return nil
	}
	var until <-chan time.Time
	if !q.until.IsZero() {
		timer := time.NewTimer(q.until.Sub(now))
		defer timer.Stop()
		until = timer.C
	}
	for {
		select {
		case m, ok := <-live:
			if !ok {
				a.cfg.Log.Warn("events: a client fell behind and was cut off", "behind", eventsBehind)
				return nil
			}
			if !q.match(m) {
				continue
			}
			if encode(m) != nil || flush() != nil {
				return nil
			}
		case <-until:
			return nil
		case <-a.stop:
			return nil
		case <-ctx.Done():
			return nil
		}
	}
}

// eventContentType is what the client accepts, else what Docker sends for its
// version: one JSON text after another, called application/json before 1.52.
func eventContentType(ctx context.Context, r *http.Request) string {
	offers := []string{mobytypes.MediaTypeJSONLines, mobytypes.MediaTypeNDJSON, mobytypes.MediaTypeJSONSequence}
	if t := contenttype.MatchAcceptStrict(r.Header, offers); t != "" {
		return t
	}
	if olderThan(httputils.VersionFromContext(ctx), 1, 52) {
		return mobytypes.MediaTypeJSON
	}
	return mobytypes.MediaTypeJSONLines
}
