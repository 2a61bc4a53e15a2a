package bench

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"time"

	"github.com/ovnd/ovnd/bench/lab"
	"github.com/ovnd/ovnd/bench/traffic"
)

// childEnv holds the childSpec of a process that RunChild is to serve.
const childEnv = "OVND_BENCH_CHILD"

// childPatience bounds how long a child may take to start, answer or end.
const childPatience = 10 * time.Second

// A childSpec says what a child process does. Exactly one field is set.
type childSpec struct {
	Sink      *sinkSpec      `json:"sink,omitempty"`
	Source    *traffic.Spec  `json:"source,omitempty"`
	WireGuard *wireguardSpec `json:"wireguard,omitempty"`
	Switch    *switchSpec    `json:"switch,omitempty"`
	DNS       *dnsSpec       `json:"dns,omitempty"`
}

// A role is what a child does: run serves until ctx ends, having called ready
// once it can be used.
type role interface {
	run(ctx context.Context, ready func()) error
	counters() traffic.Counters
}

func (s childSpec) role() (role, error) {
	switch {
	case s.Sink != nil:
		return &sinkRole{spec: *s.Sink}, nil
	case s.Source != nil:
		return &sourceRole{traffic.NewSource(*s.Source)}, nil
	case s.WireGuard != nil:
		return &wireguardRole{spec: *s.WireGuard}, nil
	case s.Switch != nil:
		return &switchRole{spec: *s.Switch}, nil
	case s.DNS != nil:
		return &dnsRole{spec: *s.DNS}, nil
	}
	return nil, errors.New("bench: empty child specification")
}

// RunChild must be the first call in the main of a program that uses this
// package: benchmarks start the program again for their traffic and data
// planes, and in such a process RunChild does that work and exits.
func RunChild() {
	text := os.Getenv(childEnv)
	if text == "" {
		return
	}
	if err := serveChild(text, os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "bench child:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// serveChild plays the role that text describes. The dialogue on in and out is
// in lines: the child says "ready", then answers "counters" with its counters
// in JSON, and "stop" with the final ones once it has stopped. End of input
// stops it too.
func serveChild(text string, in io.Reader, out io.Writer) error {
	var spec childSpec
	if err := json.Unmarshal([]byte(text), &spec); err != nil {
		return err
	}
	r, err := spec.role()
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	ready, ended := make(chan struct{}), make(chan error, 1)
	go func() {
		err := r.run(ctx, func() { close(ready) })
		if err != nil && ctx.Err() == nil {
			fmt.Fprintln(os.Stderr, "bench child:", err)
			os.Exit(1) // the dialogue is blocked reading
		}
		ended <- err
	}()
	<-ready
	if _, err := fmt.Fprintln(out, "ready"); err != nil {
		return err
	}
	replies := json.NewEncoder(out)
	for lines := bufio.NewScanner(in); lines.Scan(); {
		if lines.Text() == "stop" {
			break
		}
		if err := replies.Encode(r.counters()); err != nil {
			return err
		}
	}
	stop()
	return errors.Join(<-ended, replies.Encode(r.counters()))
}

// A child is a process of this program on a host, with a role.
type child struct {
	*lab.Process
	in    io.WriteCloser
	out   *os.File
	lines *bufio.Reader // of out
}

// startChild starts a child and waits until it is ready. It inherits files as
// descriptors 3 and up.
func startChild(h *lab.Host, spec childSpec, files ...*os.File) (*child, error) {
	text, err := json.Marshal(spec)
	if err != nil {
		return nil, err
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), childEnv+"="+string(text))
	cmd.Stderr = os.Stderr
	cmd.ExtraFiles = files
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	// Not StdoutPipe: that is closed as soon as the child ends, last words and
	// all.
	out, stdout, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	cmd.Stdout = stdout
	c := &child{Process: h.Start(cmd), in: in, out: out, lines: bufio.NewReader(out)}
	stdout.Close()
	if _, err := c.line(); err != nil {
		c.end()
		return nil, fmt.Errorf("bench: child on %s did not start: %w", h.Name(), err)
	}
	return c, nil
}

// line reads one line that the child writes; a child that stays silent is
// killed.
func (c *child) line() (string, error) {
	alarm := time.AfterFunc(childPatience, c.Kill)
	defer alarm.Stop()
	return c.lines.ReadString('\n')
}

// ask sends a line of the dialogue and returns the counters that answer it.
func (c *child) ask(line string) (traffic.Counters, error) {
	var counters traffic.Counters
	if _, err := fmt.Fprintln(c.in, line); err != nil {
		return counters, fmt.Errorf("bench: ask child: %w", err)
	}
	reply, err := c.line()
	if err != nil {
		return counters, fmt.Errorf("bench: ask child: %w", err)
	}
	return counters, json.Unmarshal([]byte(reply), &counters)
}

// counters returns what the child has counted so far.
func (c *child) counters() (traffic.Counters, error) { return c.ask("counters") }

// stop ends the child and returns its final counters.
func (c *child) stop() (traffic.Counters, error) {
	defer c.end()
	counters, err := c.ask("stop")
	if err != nil {
		return counters, err
	}
	return counters, c.Wait()
}

// end kills the child if it has not ended and releases what belongs to it.
func (c *child) end() {
	c.Kill()
	c.out.Close()
}
