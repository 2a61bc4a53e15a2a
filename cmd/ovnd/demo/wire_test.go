package demo

import (
	"os"
	"testing"
	"time"
)

// A wire counts what it is told to look for, from then on.
func TestWire(t *testing.T) {
	in, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	w := listen(in)
	defer w.close()
	send := func(b []byte) {
		t.Helper()
		_, before, _ := w.count("")
		if _, err := out.Write(b); err != nil {
			t.Fatal(err)
		}
		for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
			if _, all, err := w.count(""); err != nil || all > before {
				return
			}
			if time.Now().After(deadline) {
				t.Fatal("a frame is not counted")
			}
		}
	}
	frame := append(append([]byte("outer headers"), vxlanMark(4097)...), "inner frame"...)
	send(frame)
	w.watch("mine", vxlanMark(4097))
	w.watch("other", vxlanMark(4098))
	send(frame)
	send([]byte{8, 0, 0, 0, 0, 0x10, 1, 1}) // reserved bits differ
	for name, want := range map[string]int{"mine": 1, "other": 0} {
		if got, all, err := w.count(name); got != want || all != 3 || err != nil {
			t.Errorf("%s: %d of %d frames, %v, want %d of 3", name, got, all, err, want)
		}
	}
}
