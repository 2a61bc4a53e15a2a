// Package demo does the walk-through of Docker's overlay networks by itself:
// three nodes on this machine, a network, services on it, and what can be seen
// of them from inside and outside, each beside what was to be expected. It
// drives real `ovnd` processes and knows nothing else of the project.
package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"
)

// Config says how a demo runs.
type Config struct {
	// Self is the path of the ovnd program.
	Self string
	// ReadyEnv names the environment variable by which `up --foreground`
	// learns which descriptor to report its start on.
	ReadyEnv string
	// Out gets the steps as they happen; nil: nobody is told. Width is the
	// number of columns it has; 0: 100.
	Out   io.Writer
	Width int
	// Keep leaves the nodes and their state when the demo ends, unless it is
	// interrupted.
	Keep bool
	// Wire, from [Isolate], makes the network encrypted, and the demo listen to
	// what the nodes send each other; nil: a plain network. Run closes it.
	Wire *os.File
	// TUN is given to each node's `up --tun`. Bare says that their tasks will have
	// no namespaces: the walk-through leaves out what they cannot show.
	TUN  string
	Bare bool
	// Dir is where the nodes' state goes, in a folder of its own; empty: the
	// system's folder for temporary files.
	Dir string
}

// errInterrupted is how a demo ends whose context did.
var errInterrupted = errors.New("interrupted")

// patience bounds a step: far more than any takes.
const patience = 30 * time.Second

// Run does the walk-through and reports it. Whatever happens it leaves no
// process and no file behind, unless Keep says otherwise. An error means that
// it could not begin or was interrupted; what it saw go wrong is in the report.
func Run(ctx context.Context, cfg Config) (Report, error) {
	w, err := newWalk(cfg)
	if err != nil {
		return Report{}, err
	}
	guard, err := startGuard(cfg.Self, w.dir)
	if err != nil {
		return Report{}, errors.Join(err, os.RemoveAll(w.dir))
	}
	defer guard.Close() //nolint:errcheck // a pipe that was written to
	if cfg.Wire != nil {
		w.wire = listen(cfg.Wire)
		defer w.wire.close()
	}
	r := newRunner(cfg.Out, cfg.Width)
	r.report.Program, r.report.StateDir = w.program.image, w.dir
	for _, m := range w.machines {
		r.report.Nodes = append(r.report.Nodes, Node{Name: m.name, Address: m.addr, StateDir: m.stateDir})
	}
	r.header(w)
	for _, s := range w.steps() {
		r.do(ctx, s)
		w.count()
	}
	if cfg.Keep && ctx.Err() == nil {
		_, err := io.WriteString(guard, kept)
		return r.end(), err
	}
	// What the user interrupted is still cleaned up.
	r.interrupted = false
	r.broken = ""
	r.do(context.WithoutCancel(ctx), step{title: "Stop: nothing is left behind", run: w.stop})
	if ctx.Err() != nil {
		return r.end(), errInterrupted
	}
	return r.end(), nil
}

// newWalk chooses a program, addresses and a folder.
func newWalk(cfg Config) (*walk, error) {
	dir, err := os.MkdirTemp(cfg.Dir, "ovnd-demo-")
	if err != nil {
		return nil, fmt.Errorf("demo: %w", err)
	}
	w := &walk{cfg: cfg, dir: dir, program: chooseProgram(), census: make(census)}
	if cfg.Bare {
		w.program = program{image: "ovnd/whoami"} // which listens where it is told to
	}
	if err := w.choosePlaces(); err != nil {
		_ = os.RemoveAll(dir) // nothing is in it
		return nil, err
	}
	return w, nil
}
