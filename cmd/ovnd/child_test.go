package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ovnd/ovnd/node"
)

// childMain is what stands for a node in the background.
func childMain(kind string) {
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, unix.SIGTERM)
	time.AfterFunc(time.Minute, func() { os.Exit(8) }) // whatever became of the test
	fmt.Fprintln(os.Stderr, "child:", kind, strings.Join(os.Args[1:], " "), os.Getpid())
	switch kind {
	case "serve": // a node that takes its time to stop
		serveDown(os.Args[1])
	default:
		report, err := openReport()
		flags, fdErr := unix.FcntlInt(3, unix.F_GETFD, 0)
		if err != nil || fdErr != nil || flags&unix.FD_CLOEXEC == 0 || os.Getenv(readyEnv) != "" {
			os.Exit(9) // what the node starts would inherit it
		}
		switch kind {
		case "ready":
			report.send(startReport{Ready: true})
			<-stop
		case "fail":
			report.send(startReport{Error: "port 4789 is taken"})
			os.Exit(1)
		case "die":
			os.Exit(3)
		case "hang":
			<-stop
		}
	}
	os.Exit(0)
}

// slowness is how long the child takes to stop after it answered that it will.
const slowness = 300 * time.Millisecond

func serveDown(socket string) {
	listener, err := net.Listen("unix", socket)
	if err != nil {
		panic(err)
	}
	http.HandleFunc("POST /ovnd/down", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = fmt.Fprintf(w, `{"PID":%d}`, os.Getpid())
		time.AfterFunc(slowness, func() { os.Exit(0) })
	})
	panic(http.Serve(listener, nil))
}

// startChild starts this program in the background as the given child.
func startChild(t *testing.T, kind string) (paths node.Paths, err error) {
	t.Helper()
	paths, err = node.ResolvePaths(shortDir(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv(childEnv, kind)
	return paths, startInBackground(t.Context(), []string{"up", "--hostname", "h"}, paths)
}

// childPID reads from the log what the child said of itself.
func childPID(t *testing.T, paths node.Paths, kind string) int {
	t.Helper()
	log, err := os.ReadFile(paths.LogFile)
	if err != nil {
		t.Fatal(err)
	}
	rest, ok := strings.CutPrefix(string(log), "child: "+kind+" up --hostname h --foreground ")
	pid, err := strconv.Atoi(strings.TrimSpace(rest))
	if !ok || err != nil {
		t.Fatalf("log %q", log)
	}
	return pid
}

func gone(pid int) bool { return errors.Is(unix.Kill(pid, 0), unix.ESRCH) }

func TestStartInBackground(t *testing.T) {
	paths, err := startChild(t, "ready")
	if err != nil {
		t.Fatal(err)
	}
	pid := childPID(t, paths, "ready")
	if sid, err := unix.Getsid(pid); err != nil || sid != pid {
		t.Errorf("session %d of %d, %v: want one of its own", sid, pid, err)
	}
	if info, err := os.Stat(paths.LogFile); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("log: %v %v, want mode 0600", info, err)
	}
	if err := unix.Kill(pid, unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if _, err := unix.Wait4(pid, nil, 0, nil); err != nil { // it is our child
		t.Error(err)
	}
}

func TestStartInBackgroundFails(t *testing.T) {
	paths, err := startChild(t, "fail")
	if err == nil || err.Error() != "port 4789 is taken" {
		t.Errorf("%v, want the node's own words", err)
	}
	if pid := childPID(t, paths, "fail"); !gone(pid) {
		t.Errorf("process %d is still there", pid)
	}
	paths, err = startChild(t, "die")
	if want := "the node ended before it was ready (exit status 3): see " + paths.LogFile; err == nil || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
}

func TestStartInBackgroundInterrupted(t *testing.T) {
	paths, err := node.ResolvePaths(shortDir(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv(childEnv, "hang")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() {
		for ctx.Err() == nil { // until the child runs
			if log, _ := os.ReadFile(paths.LogFile); len(log) > 0 {
				cancel()
			}
			time.Sleep(time.Millisecond)
		}
	}()
	if err := startInBackground(ctx, []string{"up", "--hostname", "h"}, paths); err == nil || err.Error() != "interrupted: the node was stopped" {
		t.Error(err)
	}
	if pid := childPID(t, paths, "hang"); !gone(pid) {
		t.Errorf("process %d is still there", pid)
	}
}

func TestLogDoesNotGrowForEver(t *testing.T) {
	paths, err := node.ResolvePaths(shortDir(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(paths.LogFile, make([]byte, logKept+1), 0o600); err != nil {
		t.Fatal(err)
	}
	log, err := openLog(paths)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	now, err := log.Stat()
	if err != nil {
		t.Fatal(err)
	}
	old, err := os.Stat(paths.LogFile + ".1")
	if err != nil || now.Size() != 0 || old.Size() != logKept+1 {
		t.Errorf("log of %v bytes, old one %v, %v", now.Size(), old, err)
	}
}

func TestDownWaits(t *testing.T) {
	socket := filepath.Join(shortDir(t), "ovnd.sock")
	child := exec.Command("/proc/self/exe", socket)
	child.Env = append(os.Environ(), childEnv+"=serve")
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	for { // until it listens
		conn, err := net.Dial("unix", socket)
		if err == nil {
			conn.Close()
			break
		}
		time.Sleep(time.Millisecond)
	}
	began := time.Now()
	ovndCommand(t, "-H", "unix://"+socket, "down").want(t, "Node stopped.\n", "", 0)
	if took := time.Since(began); took < slowness {
		t.Errorf("down returned after %v, before the node ended", took)
	}
	if err := child.Wait(); err != nil {
		t.Error(err)
	}
	ovndCommand(t, "-H", "unix://"+socket, "down").want(t, "",
		`Cannot connect to the ovnd node at unix://`+socket+`. Is it running? Start one with "ovnd up".`+"\n", 1)
}
