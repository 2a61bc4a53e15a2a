package lab_test

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/ovnd/ovnd/bench/lab"
)

// holderEnv has a child of the test take the machine, say so and wait to be told
// to end.
const holderEnv = "OVND_TEST_LAB_HOLDER"

func holderMain() {
	release := lab.Exclusive()
	fmt.Println("held")
	bufio.NewScanner(os.Stdin).Scan()
	release()
}

// holder starts such a child and returns its words.
func holder(t *testing.T, dir, exclusive string) (said <-chan string, end func()) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), holderEnv+"=1", "TMPDIR="+dir, "OVND_LAB_EXCLUSIVE="+exclusive)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := make(chan string, 1)
	go func() {
		if scan := bufio.NewScanner(out); scan.Scan() {
			lines <- scan.Text()
		}
	}()
	ended := false
	end = func() {
		if !ended {
			ended = true
			in.Close()
			_ = cmd.Wait()
		}
	}
	t.Cleanup(end)
	return lines, end
}

// One program at a time holds the machine; another waits until it ends, and what
// the holder starts does not.
func TestExclusive(t *testing.T) {
	dir := t.TempDir()
	says := func(who string, said <-chan string) {
		t.Helper()
		select {
		case <-said:
		case <-time.After(time.Minute):
			t.Fatalf("%s does not get the machine", who)
		}
	}
	first, end := holder(t, dir, "")
	says("the first", first)
	if st, err := os.Stat(filepath.Join(dir, "ovnd-lab.lock")); err != nil || st.Mode().Perm() != 0o666 {
		t.Errorf("%v, %v, want mode 0666", st, err)
	}
	second, _ := holder(t, dir, "")
	child, _ := holder(t, dir, "1")
	says("what the holder starts", child)
	select {
	case <-second:
		t.Error("two programs hold the machine")
	case <-time.After(200 * time.Millisecond):
	}
	end()
	says("the second", second)
}

// A file that cannot be had is no reason to fail.
func TestExclusiveRefused(t *testing.T) {
	dir := t.TempDir()
	if err := os.Symlink("/dev/null", filepath.Join(dir, "ovnd-lab.lock")); err != nil {
		t.Fatal(err)
	}
	said, _ := holder(t, dir, "")
	select {
	case <-said:
	case <-time.After(time.Minute):
		t.Fatal("waits for a file that is none")
	}
}
