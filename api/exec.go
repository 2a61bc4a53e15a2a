package api

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/v2/daemon/server/httputils"
	"github.com/moby/term"
)

// resizePatience is how long a resize waits for its command to start: clients
// send the size of their terminal while it does.
const resizePatience = 10 * time.Second

// execCreate remembers a command; execStart starts it.
func (a *containerAPI) execCreate(_ context.Context, w http.ResponseWriter, r *http.Request, vars map[string]string) error {
	req, keys, err := readExecCreate(r)
	if err != nil {
		return err
	}
	c, err := a.findRunning(vars["name"])
	if err != nil {
		return err
	}
	x := newExecution(c.ID, req, keys)
	if err := a.execs.add(x); err != nil {
		return err
	}
	a.publishExec(c, events.ActionExecCreate, x, nil)
	return httputils.WriteJSON(w, http.StatusCreated, container.ExecCreateResponse{ID: x.id})
}

// readExecCreate reads and checks the body of a request to create an exec.
func readExecCreate(r *http.Request) (req container.ExecCreateRequest, detachKeys []byte, err error) {
	if err := httputils.ReadJSON(r, &req); err != nil {
		return req, nil, err
	}
	switch {
	case len(req.Cmd) == 0 || req.Cmd[0] == "":
		return req, nil, invalid("No exec command specified")
	case req.Privileged:
		return req, nil, invalid("ovnd runs without privileges and has none to give: leave --privileged away")
	case !isOwnUser(req.User):
		return req, nil, invalid("ovnd runs every command as its own user, uid %d, and not as %q: leave --user away", os.Geteuid(), req.User)
	case req.WorkingDir != "" && !filepath.IsAbs(req.WorkingDir):
		return req, nil, invalid("the working directory %q is not an absolute path: give one with --workdir", req.WorkingDir)
	}
	for _, s := range append(append([]string{}, req.Cmd...), req.WorkingDir) {
		if strings.ContainsRune(s, 0) {
			return req, nil, invalid("%q has a zero byte, which no command can take", s)
		}
	}
	for _, s := range req.Env {
		if name, _, ok := strings.Cut(s, "="); !ok || name == "" || strings.ContainsRune(s, 0) {
			return req, nil, invalid("invalid environment variable %q: want NAME=VALUE", s)
		}
	}
	if detachKeys, err = term.ToBytes(cmp.Or(req.DetachKeys, "ctrl-p,ctrl-q")); err != nil {
		return req, nil, invalid("Invalid escape keys (%s) provided", req.DetachKeys)
	}
	return req, detachKeys, nil
}

// isOwnUser reports whether spec, USER[:GROUP] by name or number, is the
// node's own user, or empty.
func isOwnUser(spec string) bool {
	if spec == "" {
		return true
	}
	name, group, hasGroup := strings.Cut(spec, ":")
	if hasGroup && group != strconv.Itoa(os.Getegid()) {
		return false
	}
	if name == strconv.Itoa(os.Geteuid()) {
		return true
	}
	self, err := user.Current()
	return err == nil && name == self.Username
}

func (a *containerAPI) execInspect(_ context.Context, w http.ResponseWriter, _ *http.Request, vars map[string]string) error {
	x, err := a.execs.get(vars["id"])
	if err != nil {
		return err
	}
	return httputils.WriteJSON(w, http.StatusOK, x.inspect())
}

func (a *containerAPI) execResize(ctx context.Context, _ http.ResponseWriter, r *http.Request, vars map[string]string) error {
	rows, err := parseSize(r, "h", "height")
	if err != nil {
		return err
	}
	columns, err := parseSize(r, "w", "width")
	if err != nil {
		return err
	}
	x, err := a.execs.get(vars["id"])
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, resizePatience)
	defer cancel()
	select {
	case <-x.started:
	case <-ctx.Done():
		return cerrdefs.ErrConflict.WithMessage("exec command " + x.id + " has not started")
	}
	proc := x.process()
	if proc == nil {
		return invalid("exec process is not started")
	}
	return proc.Resize(rows, columns)
}

func parseSize(r *http.Request, key, what string) (uint16, error) {
	s := r.URL.Query().Get(key)
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil {
		return 0, invalid("invalid resize %s %q: want 0 to 65535", what, s)
	}
	return uint16(n), nil
}

// execStart starts a command. Unless the client lets go of it at once, the
// connection becomes the command's streams until it ends.
func (a *containerAPI) execStart(ctx context.Context, w http.ResponseWriter, r *http.Request, vars map[string]string) error {
	var req container.ExecStartRequest
	if err := httputils.ReadJSON(r, &req); err != nil {
		return err
	}
	x, err := a.execs.get(vars["id"])
	if err != nil {
		return err
	}
	c, err := a.findRunning(x.container)
	if err != nil {
		return err
	}
	if err := x.claim(); err != nil {
		return err
	}
	cfg := x.config(req)
	if req.Detach {
		cfg.Stdin, cfg.Stdout, cfg.Stderr = false, false, false
		proc, err := a.launch(ctx, c, x, cfg)
		if err != nil {
			return invalid("%w", err)
		}
		a.watch(c, x, proc, nil, nil)
		w.WriteHeader(http.StatusOK)
		return nil
	}
	conn, err := hijack(ctx, w, r, !req.Tty)
	if err != nil {
		x.failed(exitCannotStart)
		return err
	}
	a.execs.spawn(func() { a.serveExec(c, x, cfg, conn, !req.Tty) })
	return nil
}

// Exit codes of commands whose own is not known.
const (
	exitCannotStart = 126 // as of a shell
	exitUnknown     = 128
)

// launch starts the command of a claimed exec.
func (a *containerAPI) launch(ctx context.Context, c Container, x *execution, cfg ExecConfig) (ExecProcess, error) {
	a.publishExec(c, events.ActionExecStart, x, nil)
	proc, err := a.backend.ContainerExec(ctx, c.ID, cfg)
	if err == nil {
		x.run(proc)
		return proc, nil
	}
	code := exitCannotStart
	if e, ok := errors.AsType[interface {
		error
		ExitCode() int
	}](err); ok {
		code = e.ExitCode()
	}
	x.failed(code)
	return nil, fmt.Errorf("exec failed: %w", err)
}

// publishExec publishes an event of an exec. Those of its creation and start
// have the command in their action, as in Docker.
func (a *containerAPI) publishExec(c Container, action events.Action, x *execution, attributes map[string]string) {
	if action == events.ActionExecCreate || action == events.ActionExecStart {
		action += events.Action(": " + strings.Join(x.req.Cmd, " "))
	}
	all := map[string]string{"execID": x.id}
	maps.Copy(all, attributes)
	a.events.Publish(ContainerEvent(c, action, all))
}
