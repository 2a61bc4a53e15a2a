package api

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/common"
	"github.com/moby/moby/v2/daemon/server"
	"github.com/moby/moby/v2/daemon/server/httpstatus"
	"github.com/moby/moby/v2/daemon/server/httputils"
	"github.com/moby/moby/v2/daemon/server/middleware"
	"github.com/moby/moby/v2/daemon/server/router"
	swarmrouter "github.com/moby/moby/v2/daemon/server/router/swarm"
)

const (
	// APIVersion is the Docker Engine API version spoken, that of the moby
	// release in go.mod.
	APIVersion = "1.56"
	// MinAPIVersion is the oldest version answered, as in that moby: Docker
	// 19.03's.
	MinAPIVersion = "1.40"

	// maxBody bounds a request's body, in bytes. The largest that is any use
	// is a config's 1,000 KiB in base64.
	maxBody = 4 << 20
	// maxHeader bounds a request's line and headers, in bytes; filters travel
	// in the request line.
	maxHeader = 256 << 10
	// headerTimeout is how long a client may take over its headers.
	headerTimeout = 10 * time.Second
	// grace is how long requests under way may take once the node stops.
	grace = 2 * time.Second
)

// Config is what a [Server] needs. All fields are required but Containers, Proxies
// and Log.
type Config struct {
	Networks   NetworkBackend
	Swarm      SwarmBackend
	Containers ContainerBackend // nil: there are none
	System     SystemBackend
	Ovnd       OvndBackend
	Proxies    ProxyBackend // nil: there are none
	Events     *EventLog
	Log        *slog.Logger // slog.Default if nil
}

// Server serves the API. It is made by [New].
type Server struct {
	log        *slog.Logger
	handler    http.Handler
	execs      *execs
	endStreams context.CancelFunc
}

// New returns a server over the backends of cfg.
func New(cfg Config) (*Server, error) {
	if cfg.Networks == nil || cfg.Swarm == nil || cfg.System == nil || cfg.Ovnd == nil || cfg.Events == nil {
		return nil, errors.New("api: Config needs Networks, Swarm, System, Ovnd and Events")
	}
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	streams, endStreams := context.WithCancel(context.Background())
	s := &Server{log: cfg.Log, execs: newExecs(streams), endStreams: endStreams}
	version, err := middleware.NewVersionMiddleware(cfg.System.System().Version, APIVersion, MinAPIVersion)
	if err != nil {
		return nil, fmt.Errorf("api: %w", err)
	}
	var srv server.Server
	srv.UseMiddleware(version)
	srv.UseMiddleware(middleware.NewExperimentalMiddleware(false))
	srv.UseMiddleware(errorAnswers{cfg.Log}) // outermost
	mux := srv.CreateMux(context.Background(),
		routes(systemRoutes(cfg, streams.Done())),
		routes(networkRoutes(cfg)),
		swarmrouter.NewRouter(cfg.Swarm),
		routes(containerRoutes(cfg, s.execs)),
		routes(ovndRoutes(cfg)),
		routes(proxyRoutes(streams, cfg.Proxies)),
		routes(missingRoutes()), // last: its patterns cover what is left
	)
	s.handler = checkPeer(http.MaxBytesHandler(mux, maxBody))
	return s, nil
}

// Run serves on ln, which must be of unix sockets, until ctx ends; then streams
// end at once, requests under way have two seconds, and ln is closed. It
// returns nil if ctx ended, and must be called once.
func (s *Server) Run(ctx context.Context, ln net.Listener) error {
	base, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	srv := &http.Server{
		Handler:           s.handler,
		ReadHeaderTimeout: headerTimeout,
		MaxHeaderBytes:    maxHeader,
		BaseContext:       func(net.Listener) context.Context { return base },
		ConnContext:       withPeer,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelWarn),
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(ln) }()
	select {
	case err := <-served:
		s.endStreams()
		s.execs.wait()
		return fmt.Errorf("api: %w", err)
	case <-ctx.Done():
	}
	s.endStreams()
	wait, stopWaiting := context.WithTimeout(base, grace)
	defer stopWaiting()
	if err := srv.Shutdown(wait); err != nil {
		s.log.Warn("api requests cut off", "after", grace)
		cancel()
		_ = srv.Close() // the listener is closed already; how connections end is of no use
	}
	<-served
	s.execs.wait()
	return nil
}

// routes is a moby router that is nothing but its routes.
type routes []router.Route

func (r routes) Routes() []router.Route { return r }

// errorAnswers is the middleware that answers errors. Moby's server would too,
// but logs each of status 5xx as a failure of its own, in another format:
// "not implemented" and "not a manager" are plain answers here.
type errorAnswers struct{ log *slog.Logger }

func (e errorAnswers) WrapHandler(next func(context.Context, http.ResponseWriter, *http.Request, map[string]string) error) func(context.Context, http.ResponseWriter, *http.Request, map[string]string) error {
	return func(ctx context.Context, w http.ResponseWriter, r *http.Request, vars map[string]string) error {
		err := next(ctx, w, r, vars)
		if err == nil {
			return nil
		}
		if r.Context().Err() != nil {
			e.log.Debug("api client went away", "method", r.Method, "path", r.URL.Path, "err", err)
			return nil
		}
		status := errorStatus(err)
		if status == http.StatusInternalServerError {
			e.log.Error("api request failed", "method", r.Method, "path", r.URL.Path, "err", err)
		}
		writeError(w, status, err.Error())
		return nil
	}
}

// errorStatus is the HTTP status for an error, as moby has it, and for two
// classes that moby knows as gRPC codes only.
func errorStatus(err error) int {
	switch {
	case cerrdefs.IsAlreadyExists(err):
		return http.StatusConflict
	case cerrdefs.IsFailedPrecondition(err):
		return http.StatusBadRequest
	}
	return httpstatus.FromError(err)
}

// writeError answers as Docker does.
func writeError(w http.ResponseWriter, status int, message string) {
	_ = httputils.WriteJSON(w, status, &common.ErrorResponse{Message: message}) // the client has gone: nobody to tell
}
