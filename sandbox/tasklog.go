package sandbox

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// maxLogLine is the longest piece of a line that is one entry, as Docker's
	// copier has it.
	maxLogLine = 16 << 10
	// logPatience is how long the log waits, after the last process, for what
	// still is in the pipes.
	logPatience = time.Second

	defaultLogSize  = 8 << 20
	defaultLogFiles = 2
)

// A LogConfig says where the output of a task goes: to files of limited size,
// numbered in the order of their beginning. None is ever renamed, so that a
// reader, which is another process, can follow from one to the next.
type LogConfig struct {
	Path     string // the files have .1, .2 and so on behind it
	MaxSize  int64  // of each, in bytes; 0: 8 MiB
	MaxFiles int    // the newest are kept; 0: 2
}

func (c LogConfig) withDefaults() LogConfig {
	if c.MaxSize <= 0 {
		c.MaxSize = defaultLogSize
	}
	if c.MaxFiles <= 0 {
		c.MaxFiles = defaultLogFiles
	}
	return c
}

// file returns the name of the nth file.
func (c LogConfig) file(n int) string { return c.Path + "." + strconv.Itoa(n) }

// files returns the numbers of the files that are there, oldest first.
func (c LogConfig) files() ([]int, error) {
	entries, err := os.ReadDir(filepath.Dir(c.Path))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("log of the task: %w", err)
	}
	var numbers []int
	for _, e := range entries {
		suffix, ok := strings.CutPrefix(e.Name(), filepath.Base(c.Path)+".")
		if n, err := strconv.Atoi(suffix); ok && err == nil && n > 0 {
			numbers = append(numbers, n)
		}
	}
	slices.Sort(numbers)
	return numbers, nil
}

// RemoveLogs removes what a task has written.
func RemoveLogs(c LogConfig) error {
	numbers, err := c.files()
	if err != nil {
		return err
	}
	var errs []error
	for _, n := range numbers {
		if err := os.Remove(c.file(n)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// A Stream is one of a process's outputs.
type Stream uint8

// The streams, numbered as their descriptors.
const (
	Stdout Stream = 1
	Stderr Stream = 2
)

// logEntry is a line of a log file, Docker's json-file format.
type logEntry struct {
	Log    string    `json:"log"`
	Stream string    `json:"stream"`
	Time   time.Time `json:"time"`
}

var streamNames = map[Stream]string{Stdout: "stdout", Stderr: "stderr"}

// A logWriter is the init's end of a task's output.
type logWriter struct {
	cfg     LogConfig
	dir     *os.File // the folder, which may have no name in the sandbox
	readers sync.WaitGroup
	kept    []io.Closer

	mu     sync.Mutex
	file   *os.File // nil if it could not be made: what is written is lost
	number int      // of file
	size   int64
}

// newLogWriter begins a log. The folder is the writer's from now on.
func newLogWriter(cfg LogConfig, dir *os.File) (*logWriter, error) {
	w := &logWriter{cfg: cfg.withDefaults(), dir: dir}
	return w, w.next()
}

// openLogFolder returns the folder that the log is in.
func openLogFolder(cfg LogConfig) (*os.File, error) {
	f, err := os.Open(filepath.Dir(cfg.Path))
	if err != nil {
		return nil, fmt.Errorf("log of the task: %w", err)
	}
	return f, nil
}

// next begins a new file behind those that are there; the oldest may go.
func (w *logWriter) next() error {
	name := filepath.Base(w.cfg.file(w.number + 1))
	fd, err := unix.Openat(int(w.dir.Fd()), name, unix.O_CREAT|unix.O_EXCL|unix.O_APPEND|unix.O_WRONLY|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return fmt.Errorf("log of the task: %w", &fs.PathError{Op: "open", Path: name, Err: err})
	}
	w.number++
	w.file, w.size = os.NewFile(uintptr(fd), name), 0
	if old := w.number - w.cfg.MaxFiles; old > 0 {
		_ = unix.Unlinkat(int(w.dir.Fd()), filepath.Base(w.cfg.file(old)), 0) // a reader may still have it open
	}
	return nil
}

// capture logs what comes out of r until it ends, and closes it.
func (w *logWriter) capture(r *os.File, s Stream) {
	w.readers.Go(func() {
		defer func() { _ = r.Close() }()
		in := bufio.NewReaderSize(r, maxLogLine)
		for {
			line, err := in.ReadSlice('\n')
			if len(line) > 0 {
				w.write(line, s)
			}
			if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
				return // EOF, or EIO of a terminal without a process
			}
		}
	})
}

func (w *logWriter) write(line []byte, s Stream) {
	b, err := json.Marshal(logEntry{Log: string(line), Stream: streamNames[s], Time: time.Now().UTC()})
	if err != nil {
		return // cannot be: a string always encodes
	}
	b = append(b, '\n')
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.file != nil && w.size > 0 && w.size+int64(len(b)) > w.cfg.MaxSize {
		_ = w.file.Close() // was only appended to
		w.file = nil
	}
	if w.file == nil && w.next() != nil {
		return // no space, or no descriptor: the next line tries again
	}
	n, _ := w.file.Write(b) // a full disk must not stop the task
	w.size += int64(n)
}

// keep closes files when the log is closed.
func (w *logWriter) keep(files []io.Closer) { w.kept = append(w.kept, files...) }

// close waits a moment for the last output.
func (w *logWriter) close() {
	done := make(chan struct{})
	go func() {
		w.readers.Wait()
		close(done)
	}()
	for _, c := range w.kept {
		_ = c.Close()
	}
	select {
	case <-done:
	case <-time.After(logPatience):
	}
}

// taskFiles returns the command's standard files, and what the init keeps of
// them.
func taskFiles(t *Task, log *logWriter) (files [3]*os.File, keep []io.Closer, err error) {
	if t.TTY {
		files, err = terminalFiles(log)
		return files, nil, err
	}
	if files[0], err = os.Open(os.DevNull); err != nil {
		return files, nil, err
	}
	if t.OpenStdin {
		_ = files[0].Close()
		r, w, err := os.Pipe()
		if err != nil {
			return files, nil, err
		}
		files[0], keep = r, []io.Closer{w}
	}
	for i, s := range []Stream{Stdout, Stderr} {
		r, w, err := os.Pipe()
		if err != nil {
			return files, nil, err
		}
		files[i+1] = w
		log.capture(r, s)
	}
	return files, keep, nil
}

// terminalFiles opens a terminal for the command.
func terminalFiles(log *logWriter) (files [3]*os.File, err error) {
	master, slave, err := OpenTerminal()
	if err != nil {
		return files, err
	}
	log.capture(master, Stdout)
	files[0] = slave
	for i := 1; i < 3; i++ {
		fd, err := unix.FcntlInt(slave.Fd(), unix.F_DUPFD_CLOEXEC, 3)
		if err != nil {
			return files, err
		}
		files[i] = os.NewFile(uintptr(fd), slave.Name())
	}
	return files, nil
}

// OpenTerminal makes a pseudo terminal, pty(7).
func OpenTerminal() (master, slave *os.File, err error) {
	master, err = os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("make a terminal: %w", err)
	}
	raw, err := master.SyscallConn()
	if err != nil {
		_ = master.Close()
		return nil, nil, err
	}
	slaveFD := -1
	cerr := raw.Control(func(fd uintptr) {
		if err = unix.IoctlSetPointerInt(int(fd), unix.TIOCSPTLCK, 0); err != nil {
			return
		}
		// Not by name: /dev/pts may be another one in here.
		n, _, errno := unix.Syscall(unix.SYS_IOCTL, fd, unix.TIOCGPTPEER, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC)
		if slaveFD = int(n); errno != 0 {
			err = errno
		}
	})
	if err := errors.Join(cerr, err); err != nil {
		_ = master.Close()
		return nil, nil, fmt.Errorf("make a terminal: %w", err)
	}
	return master, os.NewFile(uintptr(slaveFD), "terminal"), nil
}
