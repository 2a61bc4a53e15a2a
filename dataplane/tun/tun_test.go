package tun

import (
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/ovnd/ovnd/bench/lab"
)

func TestMain(m *testing.M) { lab.Main(m) }

// create makes a device on a host of its own.
func create(t *testing.T, mtu, queues int) (*lab.Host, []*os.File, *Watcher) {
	t.Helper()
	h := lab.New(t).Host("a")
	var files []*os.File
	var w *Watcher
	if err := h.Do(func() (err error) {
		files, w, err = Create("eth0", mtu, queues)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeAll(files) })
	return h, files, w
}

func TestCreate(t *testing.T) {
	for _, queues := range []int{1, 4} {
		h, files, w := create(t, 1450, queues)
		link, err := h.Netlink().LinkByName("eth0")
		if err != nil {
			t.Fatal(err)
		}
		if a := link.Attrs(); a.MTU != 1450 || int(a.GSOMaxSize) != GSOMaxSize(1450) || a.TxQLen != queueLen || len(files) != queues {
			t.Errorf("MTU %d, gso_max_size %d, queue length %d, %d files", a.MTU, a.GSOMaxSize, a.TxQLen, len(files))
		}
		for _, f := range files {
			flags, err := f.SyscallConn()
			if err != nil {
				t.Fatal(err)
			}
			_ = flags.Control(func(fd uintptr) {
				if fl, err := unix.FcntlInt(fd, unix.F_GETFL, 0); err != nil || fl&unix.O_NONBLOCK != 0 {
					t.Errorf("flags %#x, %v: the runtime would poll the file", fl, err)
				}
			})
		}
		h.Up("eth0")
		select {
		case <-w.Events():
		case <-time.After(5 * time.Second):
			t.Error("the watcher did not see the device change")
		}
		if err := w.Close(); err != nil {
			t.Errorf("close watcher: %v", err)
		}
	}
}

// TestWatcherEnds leaves no goroutine.
func TestWatcherEnds(t *testing.T) {
	h := lab.New(t).Host("a")
	opts := goleak.IgnoreCurrent()
	if err := h.Do(func() error {
		files, w, err := Create("eth0", 1450, 2)
		if err != nil {
			return err
		}
		defer closeAll(files)
		return w.Close()
	}); err != nil {
		t.Fatal(err)
	}
	goleak.VerifyNone(t, opts)
}

// TestGSOMaxSize: a super-packet of that size fits one send, and one segment
// more does not.
func TestGSOMaxSize(t *testing.T) {
	for _, mtu := range []int{576, 1280, 1400, 1430, 1450, 8950, 65485} {
		size := GSOMaxSize(mtu)
		mss := mtu - 52
		segments := (size - maxTCPHeader) / mss
		if size > 65536 || size < mtu {
			t.Errorf("MTU %d: gso_max_size %d", mtu, size)
		}
		if bytes := segments * (mtu + 22); bytes > 65507 {
			t.Errorf("MTU %d: %d segments make %d bytes, more than a send takes", mtu, segments, bytes)
		}
	}
}

func TestAdopt(t *testing.T) {
	h, files, w := create(t, 1450, 1)
	defer w.Close()
	dup, err := Duplicate(files[0])
	if err != nil {
		t.Fatal(err)
	}
	q, err := Adopt(dup)
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	if _, err := dup.Stat(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("the file is still open: %v", err)
	}
	buf := make([]byte, 1<<17)
	if _, err := q.Read(buf); !errors.Is(err, unix.EAGAIN) {
		t.Errorf("Read of an empty queue: %v, want EAGAIN", err)
	}
	packet := make([]byte, 10+28)
	packet[10] = 0x45
	if err := q.Write(packet); !errors.Is(err, unix.EIO) {
		t.Errorf("Write to a device that is down: %v, want EIO", err)
	}
	h.Up("eth0")
	if err := q.Write(packet); err != nil {
		t.Errorf("Write: %v", err)
	}
	packet[1] = 99 // no GSO type
	if err := q.Write(packet); !errors.Is(err, unix.EINVAL) {
		t.Errorf("Write with wrong metadata: %v, want EINVAL", err)
	}

	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Adopt(null); err == nil || !strings.Contains(err.Error(), "not a TUN") {
		t.Errorf("Adopt of %s: %v", os.DevNull, err)
	}
}

func TestCreateRefuses(t *testing.T) {
	_, _, w := create(t, 1450, 1)
	defer w.Close()
	for _, tt := range []struct {
		name   string
		queues int
		want   string
	}{
		{"eth1", 0, "queues"},
		{"a-name-that-is-too-long", 1, "name"},
	} {
		if _, _, err := Create(tt.name, 1450, tt.queues); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("Create(%q, %d queues): %v", tt.name, tt.queues, err)
		}
	}
}
