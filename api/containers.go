package api

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/v2/daemon/server/httputils"
	"github.com/moby/moby/v2/daemon/server/router"
	"github.com/moby/moby/v2/errdefs"
	"github.com/moby/sys/signal"
)

// maxGrace bounds the grace period of a stop, which a duration must hold.
const maxGrace = 365 * 24 * time.Hour

// containerAPI serves /containers, but for what refuseContainer answers.
type containerAPI struct {
	backend ContainerBackend
	events  *EventLog
	execs   *execs
}

func containerRoutes(cfg Config, e *execs) []router.Route {
	if cfg.Containers == nil {
		return nil
	}
	a := &containerAPI{backend: cfg.Containers, events: cfg.Events, execs: e}
	return a.routes()
}

func (a *containerAPI) routes() []router.Route {
	return []router.Route{
		router.NewGetRoute("/containers/json", a.list),
		router.NewGetRoute("/containers/{name:.*}/json", a.inspect),
		router.NewGetRoute("/containers/{name:.*}/logs", a.logs),
		router.NewGetRoute("/containers/{name:.*}/top", a.top),
		router.NewPostRoute("/containers/{name:.*}/stop", a.stopOne),
		router.NewPostRoute("/containers/{name:.*}/kill", a.kill),
		router.NewPostRoute("/containers/{name:.*}/wait", a.wait),
		router.NewPostRoute("/containers/{name:.*}/attach", a.attach),
		router.NewPostRoute("/containers/{name:.*}/exec", a.execCreate),
		router.NewGetRoute("/exec/{id:.*}/json", a.execInspect),
		router.NewPostRoute("/exec/{id:.*}/start", a.execStart),
		router.NewPostRoute("/exec/{id:.*}/resize", a.execResize),
	}
}

// find resolves what a user calls a container: its ID, else its name with or
// without Docker's slash, else the beginning of its ID, of one container only.
func (a *containerAPI) find(term string) (Container, error) {
	return findContainer(a.backend.Containers(), term)
}

func findContainer(list []Container, term string) (Container, error) {
	if term == "" {
		return Container{}, invalid("No container name or ID supplied")
	}
	name := strings.TrimPrefix(term, "/")
	var named, prefixed []Container
	for _, c := range list {
		switch {
		case c.ID == term:
			return c, nil
		case c.Name == name:
			named = append(named, c)
		case strings.HasPrefix(c.ID, term):
			prefixed = append(prefixed, c)
		}
	}
	// A name may stay with a container that has ended: the one that runs is meant.
	slices.SortStableFunc(named, func(a, b Container) int { return cmp.Compare(liveliness(b), liveliness(a)) })
	switch {
	case len(named) > 0:
		return named[0], nil
	case len(prefixed) == 1:
		return prefixed[0], nil
	case len(prefixed) > 1:
		return Container{}, invalid("multiple IDs found with provided prefix: %s", term)
	}
	return Container{}, noSuchContainer(term)
}

func liveliness(c Container) int {
	if c.Running() {
		return 1
	}
	return 0
}

// findRunning is find for what needs a container that runs.
func (a *containerAPI) findRunning(term string) (Container, error) {
	c, err := a.find(term)
	if err == nil && !c.Running() {
		err = notRunning(c.ID)
	}
	return c, err
}

func noSuchContainer(term string) error {
	return cerrdefs.ErrNotFound.WithMessage("No such container: " + term)
}

func notRunning(id string) error {
	return cerrdefs.ErrConflict.WithMessage(fmt.Sprintf("container %s is not running", id))
}

func (a *containerAPI) list(_ context.Context, w http.ResponseWriter, r *http.Request, _ map[string]string) error {
	q, err := parseListQuery(r)
	if err != nil {
		return err
	}
	list, err := q.choose(a.backend.Containers())
	if err != nil {
		return err
	}
	now := time.Now()
	out := make([]container.Summary, 0, len(list))
	for _, c := range list {
		out = append(out, summary(c, now))
	}
	return httputils.WriteJSON(w, http.StatusOK, out)
}

func (a *containerAPI) inspect(_ context.Context, w http.ResponseWriter, _ *http.Request, vars map[string]string) error {
	c, err := a.find(vars["name"])
	if err != nil {
		return err
	}
	out := inspectContainer(c)
	out.ExecIDs = a.execs.running(c.ID)
	return httputils.WriteJSON(w, http.StatusOK, out)
}

// stopOne is told to stop a container. The stop goes on if the client goes.
func (a *containerAPI) stopOne(ctx context.Context, w http.ResponseWriter, r *http.Request, vars map[string]string) error {
	opts, err := parseStop(r)
	if err != nil {
		return err
	}
	c, err := a.find(vars["name"])
	if err != nil {
		return err
	}
	if !c.Running() {
		w.WriteHeader(http.StatusNotModified)
		return nil
	}
	if err := a.backend.ContainerStop(ctx, c.ID, opts); err != nil {
		return fmt.Errorf("cannot stop container: %s: %w", vars["name"], err)
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func parseStop(r *http.Request) (StopOptions, error) {
	var opts StopOptions
	query := r.URL.Query()
	var err error
	if s := query.Get("signal"); s != "" {
		if opts.Signal, err = parseSignal(s); err != nil {
			return opts, err
		}
	}
	if s := query.Get("t"); s != "" {
		seconds, err := strconv.Atoi(s)
		if err != nil || seconds > int(maxGrace/time.Second) {
			return opts, invalid("invalid value for t: %q: want seconds, at most %d, -1 for no limit", s, int(maxGrace/time.Second))
		}
		grace := time.Duration(max(seconds, -1)) * time.Second
		opts.Grace = &grace
	}
	return opts, nil
}

// parseSignal reads a signal's name or number.
func parseSignal(s string) (syscall.Signal, error) {
	sig, err := signal.ParseSignal(s)
	if err == nil && sig > 64 {
		err = fmt.Errorf("invalid signal: %s", s)
	}
	if err != nil {
		return 0, errdefs.InvalidParameter(err)
	}
	return sig, nil
}

func (a *containerAPI) kill(ctx context.Context, w http.ResponseWriter, r *http.Request, vars map[string]string) error {
	sig := syscall.SIGKILL
	if s := r.URL.Query().Get("signal"); s != "" {
		var err error
		if sig, err = parseSignal(s); err != nil {
			return err
		}
	}
	c, err := a.findRunning(vars["name"])
	if err == nil {
		err = a.backend.ContainerKill(ctx, c.ID, sig)
	}
	if err != nil {
		return fmt.Errorf("cannot kill container: %s: %w", vars["name"], err)
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// wait sends the status at once, so that a client knows that the wait has
// begun, and the answer when the condition holds.
func (a *containerAPI) wait(ctx context.Context, w http.ResponseWriter, r *http.Request, vars map[string]string) error {
	condition := container.WaitConditionNotRunning
	if s := r.URL.Query().Get("condition"); s != "" {
		condition = container.WaitCondition(s)
	}
	switch condition {
	case container.WaitConditionNotRunning, container.WaitConditionNextExit, container.WaitConditionRemoved:
	default:
		return invalid("invalid condition: %q", condition)
	}
	c, err := a.find(vars["name"])
	if err != nil {
		return err
	}
	wait, err := a.backend.ContainerWait(c.ID, condition)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusOK)
	if http.NewResponseController(w).Flush() != nil {
		return nil // the client has gone
	}
	ctx, cancel := a.streamContext(ctx)
	defer cancel()
	var resp container.WaitResponse
	exit, err := wait(ctx)
	switch {
	case ctx.Err() != nil:
		return nil
	case err != nil:
		resp.StatusCode, resp.Error = -1, &container.WaitExitError{Message: err.Error()}
	default:
		resp.StatusCode = int64(exit.Code)
		if exit.Error != "" {
			resp.Error = &container.WaitExitError{Message: exit.Error}
		}
	}
	_ = json.NewEncoder(w).Encode(resp) // the client has gone: nobody to tell
	return nil
}

// streamContext ends with ctx, or when the server's streams are to end.
func (a *containerAPI) streamContext(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(a.execs.ctx, cancel)
	return ctx, func() {
		stop()
		cancel()
	}
}

// ContainerEvent is an event of a container, with Docker's attributes: its
// labels, image and name, and what belongs to the action, such as "signal" to
// kill and "exitCode" to die. The node publishes create, start, kill, die,
// stop, destroy and health_status; this package what is of execs and attach.
func ContainerEvent(c Container, action events.Action, attributes map[string]string) events.Message {
	all := make(map[string]string, len(c.Labels)+len(attributes)+2)
	maps.Copy(all, c.Labels)
	maps.Copy(all, attributes)
	if c.Image != "" {
		all["image"] = c.Image
	}
	all["name"] = c.Name
	return events.Message{Type: events.ContainerEventType, Action: action, Actor: events.Actor{ID: c.ID, Attributes: all}}
}
