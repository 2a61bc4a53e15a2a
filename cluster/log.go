package cluster

import (
	"context"
	"io"
	"log/slog"
	"strings"

	"github.com/sirupsen/logrus"
	"google.golang.org/grpc/grpclog"
)

// routeLogs sends what SwarmKit, libnetwork and gRPC say to log. They speak
// through process-wide loggers, so the last Cluster made has them all.
func routeLogs(log *slog.Logger) {
	std := logrus.StandardLogger()
	std.SetOutput(io.Discard)
	std.SetLevel(logrus.WarnLevel)
	if log.Enabled(context.Background(), slog.LevelDebug) {
		std.SetLevel(logrus.DebugLevel)
	}
	hooks := make(logrus.LevelHooks)
	hooks.Add(logHook{log.Handler()})
	std.ReplaceHooks(hooks)

	// gRPC reports each refused connection as an error; SwarmKit repeats the
	// ones that matter with their context.
	grpcLog := slog.NewLogLogger(log.Handler(), slog.LevelDebug).Writer()
	grpclog.SetLoggerV2(grpclog.NewLoggerV2(io.Discard, io.Discard, grpcLog))
}

// A logHook is a logrus hook that hands entries to an slog handler.
type logHook struct{ h slog.Handler }

func (logHook) Levels() []logrus.Level { return logrus.AllLevels }

// Fire implements [logrus.Hook].
func (l logHook) Fire(e *logrus.Entry) error {
	ctx := e.Context
	if ctx == nil {
		ctx = context.Background()
	}
	level := slogLevel(e.Level)
	if benign(e) {
		level = slog.LevelDebug
	}
	if !l.h.Enabled(ctx, level) {
		return nil
	}
	r := slog.NewRecord(e.Time, level, "swarmkit: "+e.Message, 0)
	for k, v := range e.Data {
		r.AddAttrs(slog.Any(k, v))
	}
	return l.h.Handle(ctx, r)
}

// benign recognises errors that SwarmKit reports of what is in order: a
// manager that restarts finds its cluster object there, and the dispatcher of
// one that starts or stops turns its own agent away for a moment.
func benign(e *logrus.Entry) bool {
	if e.Message == "error creating cluster object" {
		return true
	}
	err, ok := e.Data[logrus.ErrorKey].(error)
	return ok && strings.HasSuffix(err.Error(), "dispatcher is stopped")
}

// slogLevel lowers SwarmKit's levels by one step: its Info tells each step of
// a start, and its Error is mostly a peer that is away for a moment and is
// tried again. What ends the node is returned by Run as well.
func slogLevel(l logrus.Level) slog.Level {
	switch l {
	case logrus.PanicLevel, logrus.FatalLevel:
		return slog.LevelError
	case logrus.ErrorLevel, logrus.WarnLevel:
		return slog.LevelWarn
	default:
		return slog.LevelDebug
	}
}
