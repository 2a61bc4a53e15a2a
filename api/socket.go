package api

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// maxSocketPath is the longest path a unix socket can be bound to: sun_path of
// unix(7) less the terminating zero.
const maxSocketPath = len(unix.RawSockaddrUnix{}.Path) - 1

// Listen binds the unix socket at path with mode 0600. Its directory is made
// with mode 0700 if it is missing, and must be nobody else's if it is there. A
// socket that a dead node left behind is replaced; one that is answered is an
// error that names the process. Closing the listener removes the socket.
func Listen(path string) (net.Listener, error) {
	if len(path) > maxSocketPath {
		return nil, fmt.Errorf("api socket: path %s has %d bytes, a unix socket takes at most %d: choose a shorter --state-dir or XDG_RUNTIME_DIR", path, len(path), maxSocketPath)
	}
	dir, err := openPrivateDir(filepath.Dir(path))
	if err != nil {
		return nil, fmt.Errorf("api socket: %w", err)
	}
	defer func() { _ = dir.Close() }() // nothing was written to it
	// Two nodes that start at once must not both find the socket dead and
	// remove each other's. The lock ends with the descriptor.
	if err := unix.Flock(int(dir.Fd()), unix.LOCK_EX); err != nil {
		return nil, fmt.Errorf("api socket: locking %s: %w", dir.Name(), err)
	}
	if err := removeStale(path); err != nil {
		return nil, fmt.Errorf("api socket: %w", err)
	}
	ln, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("api socket: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, fmt.Errorf("api socket: %w", errors.Join(err, ln.Close()))
	}
	return ln, nil
}

// openPrivateDir makes dir if need be and checks that only this user can enter.
func openPrivateDir(path string) (*os.File, error) {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, err
	}
	dir, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	info, err := dir.Stat()
	if err != nil {
		return nil, errors.Join(err, dir.Close())
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok && int(st.Uid) != os.Geteuid() {
		err = fmt.Errorf("directory %s belongs to uid %d, not to %d: give the socket a directory of your own", path, st.Uid, os.Geteuid())
	} else if info.Mode().Perm()&0o077 != 0 {
		err = fmt.Errorf("directory %s is open to others (mode %#o): chmod 700 %s", path, info.Mode().Perm(), path)
	}
	if err != nil {
		return nil, errors.Join(err, dir.Close())
	}
	return dir, nil
}

// removeStale removes the socket at path if nobody listens on it.
func removeStale(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Mode().Type() != fs.ModeSocket {
		return fmt.Errorf("%s exists and is no socket: move it away", path)
	}
	conn, err := net.DialTimeout("unix", path, time.Second)
	if errors.Is(err, syscall.ECONNREFUSED) {
		return os.Remove(path)
	}
	if err != nil {
		return fmt.Errorf("%s exists and cannot be tried: %w", path, err)
	}
	defer func() { _ = conn.Close() }() // likewise
	who := "a process"
	if cred, err := peerCred(conn); err == nil {
		who = fmt.Sprintf("process %d", cred.Pid)
	}
	return fmt.Errorf("%s is in use: %s listens on it; stop that node with `ovnd down`, or give this one a --state-dir of its own", path, who)
}

// peerCred returns the process at the other end of a unix socket when it
// connected, or, of a socket connected to, listened (unix(7), SO_PEERCRED).
func peerCred(c net.Conn) (*unix.Ucred, error) {
	uc, ok := c.(*net.UnixConn)
	if !ok {
		return nil, fmt.Errorf("%T is not a unix socket", c)
	}
	raw, err := uc.SyscallConn()
	if err != nil {
		return nil, err
	}
	var cred *unix.Ucred
	var credErr error
	if err := raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return nil, err
	}
	return cred, credErr
}

type peerKey struct{}

// withPeer puts the verdict on a connection's other end into its context: nil,
// or why its requests are refused.
func withPeer(ctx context.Context, c net.Conn) context.Context {
	cred, err := peerCred(c)
	if err == nil {
		err = allowUID(cred.Uid)
	}
	return context.WithValue(ctx, peerKey{}, err)
}

// allowUID lets the node's own user in, and root, whom nothing would stop.
func allowUID(uid uint32) error {
	if self := os.Geteuid(); uid != 0 && int(uid) != self {
		return fmt.Errorf("uid %d may not use this node, it belongs to uid %d", uid, self)
	}
	return nil
}

// checkPeer refuses requests of other users, whom the socket's mode should
// have kept out already.
func checkPeer(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err, _ := r.Context().Value(peerKey{}).(error); err != nil {
			writeError(w, http.StatusForbidden, err.Error())
			return
		}
		next.ServeHTTP(w, r)
	})
}
