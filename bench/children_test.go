package bench_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// children lists the processes whose parent is this one.
func children(t *testing.T) (out []string) {
	t.Helper()
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range stats {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended
		}
		// proc_pid_stat(5): the parent follows the name in parentheses and the
		// state.
		var state string
		var parent int
		rest := string(text[strings.LastIndexByte(string(text), ')')+1:])
		if _, err := fmt.Sscan(rest, &state, &parent); err == nil && parent == os.Getpid() {
			out = append(out, strings.TrimSpace(string(text[:40])))
		}
	}
	return out
}
