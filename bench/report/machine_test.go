package report

import (
	"runtime"
	"testing"
)

func TestThisMachine(t *testing.T) {
	m := ThisMachine()
	if m.Kernel == "" || m.CPU == "" || m.Cores < 1 || m.MemoryBytes < 1<<20 || m.Go != runtime.Version() || m.Arch != runtime.GOARCH || m.Virtualization == "" {
		t.Errorf("%+v", m)
	}
	r := example()
	r.Machine = m
	if err := r.Validate(); err != nil {
		t.Error(err)
	}
	if Version() == "" {
		t.Error("no version")
	}
}
