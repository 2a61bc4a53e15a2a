// Command ovnd runs a node of a rootless Docker Swarm and talks to it. It
// parses and prints; what happens is done by package node, behind the Docker
// Engine API on the node's socket, and by package sandbox.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	dockercli "github.com/docker/cli/cli"

	"github.com/ovnd/ovnd/doctor"
	"github.com/ovnd/ovnd/sandbox"
	"github.com/ovnd/ovnd/sandbox/whoami"
)

// whoamiName is the program's name when it is the built-in image ovnd/whoami:
// the node starts itself under it.
const whoamiName = "ovnd-whoami"

func main() {
	sandbox.MaybeInit()
	doctor.MaybeProbe()
	if filepath.Base(os.Args[0]) == whoamiName {
		os.Exit(whoami.Main(os.Args[1:]))
	}
	if os.Getpid() == 1 {
		os.Exit(runAsFirst())
	}
	os.Exit(execute(context.Background(), &cli{in: os.Stdin, out: os.Stdout, err: os.Stderr}, os.Args[1:]))
}

// Exit codes, as docker has them.
const (
	exitFailed     = 1
	exitBadFormat  = 64  // version's template cannot be used
	exitOwnFailure = 125 // a flag is wrong, or `run` failed before its command began
)

// An exitError is an error with an exit code of its own. Its text is printed
// unless it is empty.
type exitError struct {
	code int
	text string
}

func (e *exitError) Error() string { return e.text }

// cli is what the commands share: streams and global flags.
type cli struct {
	args     []string // of the command line, without the program
	in       io.Reader
	out, err io.Writer

	host     string // of the API, "unix:///path" or "tcp://host:port"; empty: the socket of stateDir
	stateDir string
	logLevel string
}

// execute runs one command line and returns its exit code.
func execute(ctx context.Context, c *cli, args []string) int {
	c.args = args
	out := &stickyWriter{w: c.out}
	c.out = out
	root := newRootCommand(c)
	root.SetArgs(args)
	root.SetIn(c.in)
	root.SetOut(c.out)
	root.SetErr(c.err)
	err := root.ExecuteContext(ctx)
	if err == nil && out.err != nil {
		err = fmt.Errorf("cannot write the output: %w", out.err)
	}
	if err == nil {
		return 0
	}
	text, code := c.explain(err), exitFailed
	if e, ok := errors.AsType[*exitError](err); ok {
		text, code = e.text, e.code
	} else if e, ok := errors.AsType[dockercli.StatusError](err); ok && e.StatusCode != 0 {
		code = e.StatusCode // `exec`: the command's
	}
	if text != "" {
		fmt.Fprintln(c.err, text)
	}
	return code
}

// A stickyWriter remembers the first error, so that those who print need not
// look at each line's.
type stickyWriter struct {
	w   io.Writer
	err error
}

func (s *stickyWriter) Write(p []byte) (int, error) {
	n, err := s.w.Write(p)
	if s.err == nil {
		s.err = err
	}
	return n, err
}
