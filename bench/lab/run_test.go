package lab_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/ovnd/ovnd/bench/lab"
)

func TestRun(t *testing.T) {
	reached := false
	err := lab.Run(func(l *lab.Lab) error {
		h := l.Host("h")
		h.Up("nonesuch")
		reached = true
		return nil
	})
	if err == nil || !strings.Contains(err.Error(), "nonesuch") || reached {
		t.Errorf("a failed set-up method: error %v, went on: %t", err, reached)
	}
	want := errors.New("own")
	if err := lab.Run(func(*lab.Lab) error { return want }); !errors.Is(err, want) {
		t.Errorf("error %v, want fn's own", err)
	}
	if err := lab.Run(func(l *lab.Lab) error { l.Host("h"); return nil }); err != nil {
		t.Error(err)
	}
}
