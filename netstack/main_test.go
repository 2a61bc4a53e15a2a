package netstack

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/ovnd/ovnd/bench/lab"
)

// TestMain fails if a test leaves a goroutine behind.
func TestMain(m *testing.M) {
	lab.Exclusive()
	goleak.VerifyTestMain(m)
}
