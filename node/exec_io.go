package node

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// The ends that a command gets must block, as its author expects; those of this
// process must not, so that closing them ends a read under way. O_NONBLOCK
// belongs to an end, which os.Pipe sets on both.

// outputPipe returns a pipe for what a command writes.
func outputPipe() (ours, theirs *os.File, err error) {
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
		return nil, nil, fmt.Errorf("pipe: %w", err)
	}
	return ownEnd(fds[0], fds[1])
}

// inputPipe returns a pipe for what a command reads.
func inputPipe() (theirs, ours *os.File, err error) {
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
		return nil, nil, fmt.Errorf("pipe: %w", err)
	}
	ours, theirs, err = ownEnd(fds[1], fds[0])
	return theirs, ours, err
}

// ownEnd makes files of both ends, of which own does not block.
func ownEnd(own, other int) (ours, theirs *os.File, err error) {
	if err := unix.SetNonblock(own, true); err != nil {
		return nil, nil, errors.Join(fmt.Errorf("pipe: %w", err), unix.Close(own), unix.Close(other))
	}
	return os.NewFile(uintptr(own), "pipe"), os.NewFile(uintptr(other), "pipe"), nil
}

// openPTY returns the two sides of a new pseudo terminal (pty(7)).
func openPTY() (master, slave *os.File, err error) {
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("no terminal to be had: /dev/ptmx: %w", err)
	}
	master = os.NewFile(uintptr(fd), "/dev/ptmx")
	number, err := unix.IoctlGetUint32(fd, unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
	}
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("pseudo terminal: %w", err), master.Close())
	}
	path := fmt.Sprintf("/dev/pts/%d", number)
	other, err := unix.Open(path, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("pseudo terminal: %s: %w", path, err), master.Close())
	}
	return master, os.NewFile(uintptr(other), path), nil
}

// setSize sets the size of a terminal.
func setSize(terminal *os.File, rows, columns uint16) error {
	raw, err := terminal.SyscallConn()
	if err != nil {
		return err
	}
	var ioctlErr error
	err = raw.Control(func(fd uintptr) {
		ioctlErr = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: columns})
	})
	return errors.Join(err, ioctlErr)
}

// A terminalReader reads what a command writes to its terminal. Linux reports
// that nobody has the other side open any more as EIO.
type terminalReader struct{ *os.File }

func (r terminalReader) Read(p []byte) (int, error) {
	n, err := r.File.Read(p)
	if errors.Is(err, unix.EIO) {
		err = io.EOF
	}
	return n, err
}

// keptOpen is the input of a terminal: it cannot be closed alone.
type keptOpen struct{ io.Writer }

func (keptOpen) Close() error { return nil }
