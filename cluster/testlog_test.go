package cluster

import (
	"bytes"
	"fmt"
	"os"
	"testing"
)

// swarmkitRace is where SwarmKit's task manager, a second after a call that it
// had cancelled, reads a variable that its end sets to nil. It costs a blocked
// goroutine at most.
var swarmkitRace = []byte("agent.(*taskManager).run.func")

// testLog sends a child's log to the test's, and fails that for a race.
type testLog struct {
	t      *testing.T
	prefix string
	report []byte // what there is of a report of the race detector
	inside bool
}

// raceBorder begins and ends each report of the race detector.
var raceBorder = []byte("==================\n")

func (l *testLog) Write(p []byte) (int, error) {
	l.report = append(l.report, p...)
	for {
		part, rest, found := bytes.Cut(l.report, raceBorder)
		if !found {
			break
		}
		if l.inside && !bytes.Contains(part, swarmkitRace) {
			l.t.Errorf("%s: %s", l.prefix, part)
		}
		l.report, l.inside = rest, !l.inside
	}
	if !l.inside {
		l.report = l.report[max(0, len(l.report)-len(raceBorder)):] // a border may come in two parts
	}
	if testing.Verbose() {
		fmt.Fprintf(os.Stderr, "%s: %s", l.prefix, p)
	}
	return len(p), nil
}
