package sandbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Attached says how Attach connects the network namespace that this process is
// in.
type Attached struct {
	// ResolvConf is the file that names are looked up by, which has the node's
	// resolver in it while attached: "/etc/resolv.conf". Empty: none is touched.
	ResolvConf string
	// Ready is called once the node forwards and names are answered.
	Ready func()
	// Notice is called with what whoever looks after the process should read.
	Notice func(string)
}

// ErrStopped is what Attach returns if somebody stopped it by the node.
var ErrStopped = errors.New("stopped by the node")

// Attach connects this process's own network namespace, a container's say, to
// the networks of a spec: the devices are made here, forwarding is the node's,
// which gets their descriptors. That takes CAP_NET_ADMIN and the TUN device here,
// and no key. NodeSocket must be the path of the node's socket as this process
// sees it.
//
// Attach returns nil when ctx ends, and an error if the node ends it: until then
// it follows the node through restarts. The devices go with it, and with this
// process however that ends.
func Attach(ctx context.Context, spec Spec, opts Attached) error {
	if err := spec.validate(); err != nil {
		return err
	}
	if err := checkTUN(tunPath); err != nil {
		return err
	}
	devices, err := attachDevices(&spec)
	defer closeFiles(devices)
	if err != nil {
		return explainDevices(err)
	}
	names, sockets, err := attachResolver(&spec, opts.ResolvConf)
	defer closeFiles(sockets)
	if err != nil {
		return err
	}
	a := attachment{opts: opts, names: names}
	defer a.names.restore()
	return a.run(ctx, &spec, devices, sockets)
}

// explainDevices adds what a container needs.
func explainDevices(err error) error {
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
		return fmt.Errorf("this network namespace is not ours to add a device to: start the container as root with --cap-add NET_ADMIN --device %s: %w", tunPath, err)
	}
	return err
}

// An attachment is a namespace between two states of its node.
type attachment struct {
	opts  Attached
	names *resolvFile
	ready bool
	node  *packetConn // nil: none at present
}

// run hands the devices over and deals with what the node says.
func (a *attachment) run(ctx context.Context, spec *Spec, devices, sockets []*os.File) error {
	queues, err := descriptors(devices)
	if err != nil {
		return err
	}
	resolver, err := descriptors(sockets)
	if err != nil {
		return err
	}
	self, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		self = -1 // `ovnd ps` shows no process then
	}
	defer closePIDFD(self)
	link := &nodeLink{spec: spec, queues: queues, resolver: resolver, pidfd: -1}
	link.set(commandState{Started: time.Now()}, self)

	linked, cancel := context.WithCancel(context.WithoutCancel(ctx))
	events, done := make(chan nodeEvent), make(chan struct{})
	go func() {
		defer close(done)
		link.run(linked, events)
	}()
	defer func() { <-done }()
	defer cancel()
	defer a.tellExited()
	for {
		select {
		case <-ctx.Done():
			return nil
		case e := <-events:
			err := a.event(e)
			closeAll(e.fds)
			if err != nil {
				return err
			}
		}
	}
}

// tellExited is the last word to the node: this end was meant.
func (a *attachment) tellExited() {
	if a.node != nil {
		// One that is gone needs none.
		_ = a.node.sendInTime(initMessage{Kind: eventExited, Exit: &ExitStatus{FinishedAt: time.Now()}})
	}
}

// event returns an error if it ends the attachment.
func (a *attachment) event(e nodeEvent) error {
	if e.lost {
		a.node = nil
		a.opts.Notice("the node is gone: its networks are silent until it is back")
		return nil
	}
	switch e.m.Kind {
	case nodeAttached:
		a.node = e.conn
		if a.ready {
			a.opts.Notice("the node is back")
			return nil
		}
		a.ready = true
		if err := a.names.replace(); err != nil {
			return fmt.Errorf("%w (--dns=false leaves the file alone)", err)
		}
		a.opts.Ready()
	case nodeRefused:
		return errors.New(e.m.Text)
	case nodeGone, nodeGoodbye:
		return fmt.Errorf("the node has ended the attachment: %s", orUnsaid(e.m.Text))
	case nodeStop:
		return ErrStopped
	case nodeSignal:
		if e.m.Exec == 0 && deadly(syscall.Signal(e.m.Signal)) {
			return ErrStopped
		}
	case nodeExec:
		// Nothing here may be told from the node what to run.
		status := ExitStatus{Code: ExitNotExecutable, Error: "nothing can be executed here by the node: use the container's own exec", FinishedAt: time.Now()}
		_ = e.conn.sendInTime(initMessage{Kind: eventExecFailed, Exec: e.m.Exec, Exit: &status}) // a node that is gone waits for none
	}
	return nil
}

func orUnsaid(text string) string {
	if text == "" {
		return "it is going down"
	}
	return text
}

// descriptors returns the files' own, which stay theirs.
func descriptors(files []*os.File) ([]int, error) {
	fds := make([]int, 0, len(files))
	for _, f := range files {
		raw, err := f.SyscallConn() // not Fd, which would make it blocking
		if err == nil {
			err = raw.Control(func(fd uintptr) { fds = append(fds, int(fd)) })
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", f.Name(), err)
		}
	}
	return fds, nil
}

func closeFiles(files []*os.File) {
	for _, f := range files {
		_ = f.Close()
	}
}
