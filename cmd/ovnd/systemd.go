package main

import (
	"context"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/ovnd/ovnd/node"
)

// A systemd is the service manager's end of sd_notify(3), for a unit of
// Type=notify. A nil one stands for a node that was started by somebody else.
type systemd struct {
	conn     net.Conn
	watchdog time.Duration // it expects a sign of life this often; 0: never
}

// openSystemd takes what the service manager left in the environment, so that
// nothing the node starts inherits it.
func openSystemd() *systemd {
	socket, usec, pid := takeEnv("NOTIFY_SOCKET"), takeEnv("WATCHDOG_USEC"), takeEnv("WATCHDOG_PID")
	if socket == "" {
		return nil
	}
	if name, abstract := strings.CutPrefix(socket, "@"); abstract {
		socket = "\x00" + name
	}
	conn, err := net.Dial("unixgram", socket)
	if err != nil {
		return nil // it will see that nobody says READY=1
	}
	s := &systemd{conn: conn}
	if n, err := strconv.ParseInt(usec, 10, 64); err == nil && n > 0 && (pid == "" || pid == strconv.Itoa(os.Getpid())) {
		s.watchdog = time.Duration(n) * time.Microsecond
	}
	return s
}

func takeEnv(name string) string {
	v := os.Getenv(name)
	_ = os.Unsetenv(name) // fails for impossible names only
	return v
}

// send makes a datagram of lines. There is nobody to tell that it failed.
func (s *systemd) send(lines ...string) {
	if s != nil {
		_, _ = s.conn.Write([]byte(strings.Join(lines, "\n")))
	}
}

// ready says that the node of a state folder has started, and from then on,
// until ctx ends, that it lives: as long as it answers on its socket.
func (s *systemd) ready(ctx context.Context, stateDir string) {
	if s == nil {
		return
	}
	s.send("READY=1", "STATUS=ready")
	paths, err := node.ResolvePaths(stateDir)
	if err != nil || s.watchdog == 0 {
		return // the node itself has resolved them
	}
	go s.watch(ctx, "unix://"+paths.APISocket)
}

// watch asks twice a period, sd_watchdog_enabled(3).
func (s *systemd) watch(ctx context.Context, host string) {
	for {
		asked, cancel := context.WithTimeout(ctx, s.watchdog/2)
		if status, err := nodeStatus(asked, host); err == nil {
			s.send("WATCHDOG=1", "STATUS="+describe(status))
		}
		cancel()
		select {
		case <-time.After(s.watchdog / 2):
		case <-ctx.Done():
			return
		}
	}
}

// stopping says that the node is about to stop, which may take as long as its
// tasks do.
func (s *systemd) stopping() { s.send("STOPPING=1", "STATUS=stopping") }
