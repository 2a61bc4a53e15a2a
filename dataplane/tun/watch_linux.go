package tun

import (
	wgtun "golang.zx2c4.com/wireguard/tun"
)

// A Watcher follows the state of one device. It holds a descriptor of the
// device until Close.
type Watcher struct {
	dev    wgtun.Device
	events chan Event
	done   chan struct{}
}

// An Event is a change of a device's state.
type Event uint8

const (
	// Up means that the device was set up.
	Up Event = iota + 1
	// Down means that the device was set down.
	Down
	// MTUChanged means that something set an MTU, maybe the same.
	MTUChanged
)

func newWatcher(dev wgtun.Device) *Watcher {
	w := &Watcher{dev: dev, events: make(chan Event, 8), done: make(chan struct{})}
	go w.run()
	return w
}

// Events returns the device's changes. Those that nobody reads are dropped;
// the channel is closed when the watcher is.
func (w *Watcher) Events() <-chan Event { return w.events }

// MTU returns the device's MTU in bytes. It must be called on a thread that is
// in the device's network namespace.
func (w *Watcher) MTU() (int, error) { return w.dev.MTU() }

// Close ends the watcher and closes its descriptor.
func (w *Watcher) Close() error {
	err := w.dev.Close()
	<-w.done
	return err
}

// run ends when dev is closed, which closes its events.
func (w *Watcher) run() {
	defer close(w.done)
	defer close(w.events)
	for e := range w.dev.Events() {
		var out Event
		switch {
		case e&wgtun.EventUp != 0:
			out = Up
		case e&wgtun.EventDown != 0:
			out = Down
		default:
			out = MTUChanged
		}
		select {
		case w.events <- out:
		default:
		}
	}
}
