package sandbox

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// DefaultOrphan is how long a task lives while no node answers.
const DefaultOrphan = 10 * time.Second

// startTimeout bounds the wait for a task's init.
const startTimeout = 10 * time.Second

// A Task is what a sandbox runs that Start made: a command without a terminal of
// the user's, whose life is the node's business.
type Task struct {
	Path      string   // executed; empty: Args[0] is looked up in Env's PATH
	Args, Env []string // Env is the whole environment, HOSTNAME apart
	Dir       string   // empty: /
	TTY       bool     // a terminal of its own, whose output goes to the log
	OpenStdin bool     // standard input stays open; else it is /dev/null

	Mounts  []Mount
	Files   []File
	Ulimits []Ulimit
	Log     LogConfig
	// Orphan is how long the task lives while no node answers; then everything
	// in it is killed. 0: DefaultOrphan.
	Orphan time.Duration
}

// A Mount binds a file or folder of the host to another place.
type Mount struct {
	Source, Target string // absolute
	ReadOnly       bool
}

// A File is one that exists in memory alone: a secret or config.
type File struct {
	Target string // absolute
	Data   []byte
	Mode   fs.FileMode // permission bits
}

// A Child is a task's init, as its parent sees it.
type Child struct {
	pid  int
	done chan struct{}
}

// PID returns the host's process ID of the init.
func (c *Child) PID() int { return c.pid }

// Done is closed when the init has ended. It is still to be read from the
// Session how the command did.
func (c *Child) Done() <-chan struct{} { return c.done }

// Start makes a sandbox and returns when its init runs. The init connects to the
// node's Server, and starts the task when that has attached it. It is in a
// session of its own and does not depend on this process: neither its death nor
// its signals concern it. A ctx that ends kills an init that is not ready yet.
func Start(ctx context.Context, spec Spec, t Task) (*Child, error) {
	if len(t.Args) == 0 {
		return nil, errors.New("no command given")
	}
	if err := spec.validate(); err != nil {
		return nil, err
	}
	if err := checkUlimits(t.Ulimits); err != nil {
		return nil, err
	}
	if spec.Bare {
		if len(t.Mounts)+len(t.Files) > 0 || spec.Resolver {
			return nil, errors.New("a task without namespaces has neither names nor files of its own")
		}
	} else if err := checkTUN(tunPath); err != nil {
		return nil, err
	}
	if t.Orphan <= 0 {
		t.Orphan = DefaultOrphan
	}
	if t.Dir == "" {
		t.Dir = "/"
	}
	c, err := startTask(ctx, spec, t, !spec.Bare)
	if errors.Is(err, errNoProc) {
		c, err = startTask(ctx, spec, t, false)
	}
	return c, err
}

func startTask(ctx context.Context, spec Spec, t Task, pidns bool) (*Child, error) {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = null.Close() }()
	cfg := initConfig{
		Spec: spec, Args: t.Args, Env: append(t.Env, "HOSTNAME="+spec.hostname()), Dir: t.Dir, PIDNS: pidns, Task: &t,
	}
	log, err := openLogFolder(t.Log)
	if err != nil {
		return nil, err
	}
	defer func() { _ = log.Close() }()
	proc, control, err := startInit(cfg, Command{Stdin: null, Stdout: null, Stderr: null}, log)
	if err != nil {
		return nil, err
	}
	c := &Child{pid: proc.Process.Pid, done: make(chan struct{})}
	go func() {
		defer close(c.done)
		_ = proc.Wait() // the status says nothing: see Session
	}()
	if err := awaitInit(ctx, control); err != nil {
		_ = proc.Process.Kill()
		<-c.done
		return nil, err
	}
	return c, nil
}

// awaitInit waits until the init has made its sandbox, and lets go of it.
func awaitInit(ctx context.Context, control *packetConn) error {
	defer func() { _ = control.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = control.Close() })
	defer stop()
	if err := control.SetReadDeadline(time.Now().Add(startTimeout)); err != nil {
		return err
	}
	var m controlMessage
	if err := control.receiveInto(&m); err != nil {
		return errors.Join(ctx.Err(), fmt.Errorf("the sandbox's init did not start: %w", err))
	}
	switch m.Kind {
	case controlReady:
		return nil
	case controlNoProc:
		return errNoProc
	}
	return &exitError{m.Code, errors.New(m.Text)}
}

// stage puts a task's files in their places and makes the targets of its
// mounts.
func (t *Task) stage(ts *targets) error {
	if t == nil {
		return nil
	}
	for i, m := range t.Mounts {
		if below(m.Target, staging) {
			continue // the user's own: see bind
		}
		if _, err := ts.make(m.Target, ts.sources[i].folder); err != nil {
			return fmt.Errorf("bind mount of %s on %s: %w", m.Source, m.Target, err)
		}
	}
	for i, f := range t.Files {
		if err := f.put(ts, filepath.Join(staging, fmt.Sprintf("file%d", i))); err != nil {
			return fmt.Errorf("secret or config %s: %w", f.Target, err)
		}
	}
	return nil
}

// below reports whether path is in the folder dir.
func below(path, dir string) bool {
	return strings.HasPrefix(filepath.Clean(path)+"/", dir+"/")
}

// bindMounts makes a task's mounts.
func (t *Task) bindMounts(sources []mountSource) error {
	if t == nil {
		return nil
	}
	for i, m := range t.Mounts {
		if err := m.bind(sources[i]); err != nil {
			return fmt.Errorf("bind mount of %s on %s: %w", m.Source, m.Target, err)
		}
	}
	return nil
}

func (m *Mount) bind(from mountSource) error {
	defer func() { _ = unix.Close(from.fd) }()
	if below(m.Target, staging) {
		if err := m.makeTarget(from.folder); err != nil {
			return err
		}
	}
	if err := attach(from.fd, m.Target); err != nil {
		return err
	}
	if !m.ReadOnly {
		return nil
	}
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}
	if err := unix.MountSetattr(unix.AT_FDCWD, m.Target, unix.AT_RECURSIVE, &attr); err != nil {
		return fmt.Errorf("make it read-only: %w", err)
	}
	return nil
}

// makeTarget makes something to mount on, if there is nothing.
func (m *Mount) makeTarget(folder bool) error {
	if _, err := os.Stat(m.Target); err == nil {
		return nil
	}
	if folder {
		return os.MkdirAll(m.Target, 0o755)
	}
	return emptyFile(m.Target)
}

// emptyFile makes a file to mount on, unless there is one.
func emptyFile(path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDONLY, 0o600)
	if err != nil {
		return err
	}
	return f.Close()
}

// put makes the file at its target, by way of the file tmp.
func (f *File) put(ts *targets, tmp string) error {
	if below(f.Target, staging) {
		return fmt.Errorf("its target is in %s, which is the user's: choose another", staging)
	}
	if err := os.WriteFile(tmp, f.Data, f.Mode.Perm()); err != nil {
		return err
	}
	if err := os.Chmod(tmp, f.Mode.Perm()); err != nil { // whatever the umask
		return err
	}
	target, err := ts.make(f.Target, false)
	if err != nil {
		return err
	}
	return unix.Mount(tmp, target, "", unix.MS_BIND, "")
}

// startTaskCommand starts the command of a task in a session of its own, its
// output going to the log.
func startTaskCommand(cfg *initConfig, log *logWriter) (pid, pidfd int, err error) {
	if err := checkDir(cfg.Dir); err != nil {
		return 0, -1, err
	}
	path, err := cfg.taskPath()
	if err != nil {
		return 0, -1, err
	}
	path, args := limited(cfg.Task, path, cfg.Args)
	files, keep, err := taskFiles(cfg.Task, log)
	if err != nil {
		return 0, -1, err
	}
	defer func() {
		for _, f := range files {
			_ = f.Close()
		}
	}()
	pidfd = -1
	attr := &syscall.ProcAttr{
		Dir: cfg.Dir, Env: cfg.Env, Files: []uintptr{files[0].Fd(), files[1].Fd(), files[2].Fd()},
		Sys: &syscall.SysProcAttr{Setsid: true, PidFD: &pidfd, Setctty: cfg.Task.TTY},
	}
	if !cfg.PIDNS {
		attr.Sys.Pdeathsig = unix.SIGKILL
	}
	pid, err = syscall.ForkExec(path, args, attr)
	if err != nil {
		return 0, -1, execError(cfg.Args[0], err)
	}
	log.keep(keep)
	return pid, pidfd, nil
}

// checkDir tells a working folder that is not there from a missing program.
func checkDir(dir string) error {
	st, err := os.Stat(dir)
	if err == nil && !st.IsDir() {
		err = &fs.PathError{Op: "chdir", Path: dir, Err: unix.ENOTDIR}
	}
	if err != nil {
		return &exitError{ExitNotExecutable, fmt.Errorf("--workdir must name a folder that the sandbox has: %w", err)}
	}
	return nil
}

// taskPath is the file to execute.
func (c *initConfig) taskPath() (string, error) {
	if c.Task.Path != "" {
		return c.Task.Path, nil
	}
	path, err := lookPath(c.Args[0], c.Env, c.Dir)
	if err == nil && !strings.HasPrefix(path, "/") {
		path = inDir(c.Dir, path)
	}
	return path, err
}
