package discovery

import (
	"context"
	"io"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	mobylog "github.com/containerd/log"
	"github.com/sirupsen/logrus"
)

// NetworkDB and memberlist write to a logger that is global to moby's packages.
// bridge takes its place and passes on to slog what an operator may want.
var (
	bridgeOnce sync.Once
	bridge     logBridge
)

// routeLogs sends what NetworkDB logs to log. The last caller wins: the logger
// is one for the process, and so is the node.
func routeLogs(log *slog.Logger) {
	bridge.to.Store(log)
	bridgeOnce.Do(func() {
		l := logrus.New()
		l.SetOutput(io.Discard)
		// At debug level NetworkDB logs parts of the keys.
		l.SetLevel(logrus.InfoLevel)
		l.AddHook(&bridge)
		mobylog.L = logrus.NewEntry(l)
	})
}

// At most logBurst messages pass in one logWindow: with a peer gone NetworkDB
// repeats itself several times a second.
const (
	logBurst  = 20
	logWindow = 10 * time.Second
)

type logBridge struct {
	to atomic.Pointer[slog.Logger]

	mu         sync.Mutex
	window     time.Time // when the current one began
	passed     int       // messages in it
	suppressed int
}

// Levels implements [logrus.Hook].
func (b *logBridge) Levels() []logrus.Level { return logrus.AllLevels }

// Fire implements [logrus.Hook]. Every level goes down one step: what NetworkDB
// calls an error (a peer that did not answer) is at most a warning for a node
// that carries on and tries again.
func (b *logBridge) Fire(e *logrus.Entry) error {
	// It prints its whole configuration when it starts: keys included.
	if strings.HasPrefix(e.Message, "New memberlist node") {
		return nil
	}
	level := slog.LevelDebug
	switch {
	case e.Level <= logrus.ErrorLevel:
		level = slog.LevelWarn
	case e.Level == logrus.WarnLevel:
		level = slog.LevelInfo
	}
	log := b.to.Load()
	if !log.Enabled(context.Background(), level) || !b.admit(log) {
		return nil
	}
	args := make([]any, 0, 2*len(e.Data))
	for k, v := range e.Data {
		args = append(args, k, v)
	}
	log.Log(context.Background(), level, e.Message, args...) //nolint:sloglint // the message is moby's own
	return nil
}

// admit reports whether one more message may pass now.
func (b *logBridge) admit(log *slog.Logger) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if now := time.Now(); now.Sub(b.window) > logWindow {
		if b.suppressed > 0 {
			log.Info("gossip messages suppressed", "count", b.suppressed)
		}
		b.window, b.passed, b.suppressed = now, 0, 0
	}
	if b.passed >= logBurst {
		b.suppressed++
		return false
	}
	b.passed++
	return true
}
