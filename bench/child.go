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
	"os/signal"
	"runtime/metrics"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/ovnd/ovnd/bench/lab"
	"github.com/ovnd/ovnd/bench/traffic"
)

// childEnv holds the childSpec of a process that RunChild is to serve.
const childEnv = "OVND_BENCH_CHILD"

// ChildArgs are the arguments that a benchmark's child processes are started
// with. A program whose main does not begin with [RunChild] calls it when it is
// called with them.
var ChildArgs = []string{"bench", "child"}

// childPatience bounds how long a child may take to start, answer or end.
const childPatience = 10 * time.Second

// A childSpec says what a child process does. Exactly one field is set.
type childSpec struct {
	Sink      *traffic.SinkSpec `json:"sink,omitempty"`
	Source    *traffic.Spec     `json:"source,omitempty"`
	Trials    *traffic.Spec     `json:"trials,omitempty"`
	WireGuard *wireguardSpec    `json:"wireguard,omitempty"`
	Switch    *switchSpec       `json:"switch,omitempty"`
	DNS       *dnsSpec          `json:"dns,omitempty"`
}

// A role is what a child does: run serves until ctx ends, having called ready
// once it can be used.
type role interface {
	run(ctx context.Context, ready func()) error
	counters() traffic.Counters
}

// A trier is a role that does something on demand: arguments are words.
type trier interface {
	try(ctx context.Context, args []string) (reply, error)
}

func (s childSpec) role() (role, error) {
	switch {
	case s.Sink != nil:
		return &sinkRole{spec: *s.Sink}, nil
	case s.Source != nil:
		return &sourceRole{traffic.NewSource(*s.Source)}, nil
	case s.Trials != nil:
		return &trialRole{spec: *s.Trials}, nil
	case s.WireGuard != nil:
		return &wireguardRole{spec: *s.WireGuard}, nil
	case s.Switch != nil:
		return &switchRole{spec: *s.Switch}, nil
	case s.DNS != nil:
		return &dnsRole{spec: *s.DNS}, nil
	}
	return nil, errors.New("bench: empty child specification")
}

// name is what messages call the child.
func (s childSpec) name() string {
	switch {
	case s.Sink != nil:
		return "traffic sink"
	case s.Source != nil, s.Trials != nil:
		return "traffic source"
	case s.WireGuard != nil:
		return "wireguard-go"
	case s.Switch != nil:
		return "ovnd data plane"
	case s.DNS != nil:
		return "name server"
	}
	return "child"
}

// RunChild must be called first thing by a program that was started with
// [ChildArgs], or in the main of any program that uses this package: benchmarks
// start the program again for their traffic and data planes, and in such a
// process RunChild does that work and exits.
func RunChild() {
	text := os.Getenv(childEnv)
	if text == "" {
		return
	}
	// Whoever started it ends it. A signal for the whole group, which is its own,
	// can only come from there.
	signal.Ignore(syscall.SIGINT, syscall.SIGHUP)
	if err := serveChild(text, os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "bench child:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// A reply is what a child says of itself.
type reply struct {
	traffic.Counters
	Allocs uint64 `json:"allocs"`         // objects on the heap since the start
	Text   string `json:"text,omitempty"` // answers a "try"
	Error  string `json:"error,omitempty"`
}

func replyOf(c traffic.Counters) reply {
	sample := []metrics.Sample{{Name: "/gc/heap/allocs:objects"}}
	metrics.Read(sample)
	return reply{Counters: c, Allocs: sample[0].Value.Uint64()}
}

// serveChild plays the role that text describes. The dialogue on in and out is
// in lines: the child says "ready", then answers "counters" with a reply in JSON,
// "try …" with one when it has, and "stop" with the final one once it has
// stopped. End of input stops it too.
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
			fmt.Fprintf(os.Stderr, "bench: %s: %v\n", spec.name(), err)
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
		words := strings.Fields(lines.Text())
		if len(words) == 0 || words[0] == "stop" {
			break
		}
		var answer reply
		if t, ok := r.(trier); ok && words[0] == "try" {
			var err error
			if answer, err = t.try(ctx, words[1:]); err != nil {
				answer.Error = err.Error()
			}
		} else {
			answer = replyOf(r.counters())
		}
		if err := replies.Encode(answer); err != nil {
			return err
		}
	}
	stop()
	return errors.Join(<-ended, replies.Encode(replyOf(r.counters())))
}

// A child is a process of this program on a host, with a role.
type child struct {
	*lab.Process
	name  string // for messages
	in    io.WriteCloser
	out   *os.File
	lines *bufio.Reader // of out

	ending atomic.Bool // its end is expected
}

// startChild starts a child and waits until it is ready. It inherits files as
// descriptors 3 and up.
func startChild(h *lab.Host, spec childSpec, files ...*os.File) (*child, error) {
	text, err := json.Marshal(spec)
	if err != nil {
		return nil, err
	}
	cmd := exec.Command("/proc/self/exe", ChildArgs...)
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
	p, err := h.Launch(cmd)
	stdout.Close()
	if err != nil {
		out.Close()
		return nil, err
	}
	c := &child{Process: p, name: spec.name() + " on " + h.Name(), in: in, out: out, lines: bufio.NewReader(out)}
	if _, err := c.line(childPatience); err != nil {
		c.end()
		return nil, fmt.Errorf("bench: %s did not start: %w", c.name, err)
	}
	return c, nil
}

// line reads one line that the child writes; a child that stays silent is
// killed.
func (c *child) line(patience time.Duration) (string, error) {
	alarm := time.AfterFunc(patience, c.Kill)
	defer alarm.Stop()
	return c.lines.ReadString('\n')
}

// ask sends a line of the dialogue and returns the answer, which takes no longer
// than patience.
func (c *child) ask(line string, patience time.Duration) (r reply, err error) {
	if _, err = fmt.Fprintln(c.in, line); err == nil {
		var text string
		if text, err = c.line(patience); err == nil {
			if err = json.Unmarshal([]byte(text), &r); err == nil && r.Error != "" {
				err = errors.New(r.Error)
			}
		}
	}
	if err != nil {
		err = fmt.Errorf("bench: %s: %w", c.name, err)
	}
	return r, err
}

// counters returns what the child has counted so far.
func (c *child) counters() (reply, error) { return c.ask("counters", childPatience) }

// stop ends the child and returns its final counters.
func (c *child) stop() (reply, error) {
	defer c.end()
	c.ending.Store(true)
	r, err := c.ask("stop", childPatience)
	if err != nil {
		return r, err
	}
	return r, c.Wait()
}

// end kills the child if it has not ended and releases what belongs to it.
func (c *child) end() {
	c.ending.Store(true)
	c.Kill()
	c.out.Close()
}

// hasEnded says that a process is not there any more, and why if it says so.
func hasEnded(name string, err error) error {
	if err == nil {
		return errors.New(name + " has ended")
	}
	return fmt.Errorf("%s has ended: %w", name, err)
}

// watch calls lost when the child ends without having been told to.
func (c *child) watch(lost func(error)) {
	go func() {
		<-c.Done()
		if !c.ending.Load() {
			lost(hasEnded(c.name, c.Wait()))
		}
	}()
}
