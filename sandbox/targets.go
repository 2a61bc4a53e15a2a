package sandbox

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// targets makes what the mounts and files of a task are put on, where the host
// has nothing: never on the host, but in a private copy of the nearest folder
// that is there, which has links to everything else. A user's own folders are
// no such case: what is missing there is made.
type targets struct {
	base string // in staging, for the copies
	tmp  int    // the host's /tmp, detached; -1: not wanted
	root string // of a private root folder, empty without one
	made int
	all  bool // no folder is the user's own: that of root

	sources []mountSource // of the mounts, as the host has them
}

// A mountSource is what is to be mounted, detached from where it was: staging
// may cover it, or a private copy of a folder.
type mountSource struct {
	fd     int
	folder bool
}

func openSource(path string) (s mountSource, err error) {
	st, err := os.Stat(path)
	if err != nil {
		return s, err
	}
	s.folder = st.IsDir()
	s.fd, err = unix.OpenTree(unix.AT_FDCWD, path, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE)
	if err != nil {
		return s, &fs.PathError{Op: "open_tree", Path: path, Err: err}
	}
	return s, nil
}

// newTargets must be called before staging is mounted.
func newTargets(cfg *initConfig) (*targets, error) {
	ts := &targets{base: filepath.Join(staging, "targets"), tmp: -1, all: cfg.Root}
	t := cfg.Task
	if t == nil {
		return ts, nil
	}
	for _, m := range t.Mounts {
		s, err := openSource(m.Source)
		if err != nil {
			return nil, fmt.Errorf("bind mount on %s: %w", m.Target, err)
		}
		ts.sources = append(ts.sources, s)
	}
	if !t.wantsRoot() {
		return ts, nil
	}
	tmp, err := openSource(staging)
	if err != nil {
		return nil, fmt.Errorf("keep %s for a private root folder: %w", staging, err)
	}
	ts.tmp = tmp.fd
	return ts, nil
}

// wantsRoot reports whether something is to be put directly below /.
func (t *Task) wantsRoot() bool {
	top := func(path string) bool {
		name, _, _ := strings.Cut(strings.TrimPrefix(filepath.Clean(path), "/"), "/")
		_, err := os.Stat("/" + name)
		return err != nil
	}
	for _, m := range t.Mounts {
		if top(m.Target) {
			return true
		}
	}
	for _, f := range t.Files {
		if top(f.Target) {
			return true
		}
	}
	return false
}

// make makes path, a folder or an empty file, and returns where it is until
// the private root folder, if there is one, takes the root's place.
func (ts *targets) make(path string, folder bool) (string, error) {
	path = filepath.Join("/", path)
	if _, err := os.Stat(path); err == nil {
		return ts.inRoot(path), nil
	}
	above := filepath.Dir(path)
	for {
		st, err := os.Stat(ts.inRoot(above))
		if err == nil && st.IsDir() {
			break
		}
		if err == nil || !errors.Is(err, fs.ErrNotExist) {
			return "", errors.Join(err, fmt.Errorf("%s is not a folder", above))
		}
		above = filepath.Dir(above)
	}
	if err := ts.privateCopy(above); err != nil {
		return "", fmt.Errorf("make a private %s: %w", above, err)
	}
	path = ts.inRoot(path)
	if folder {
		return path, os.MkdirAll(path, 0o755)
	}
	return path, emptyFile(path)
}

// inRoot returns where a path is at present.
func (ts *targets) inRoot(path string) string { return filepath.Join(ts.root, path) }

// privateCopy makes sure that something can be made in dir.
func (ts *targets) privateCopy(dir string) error {
	private, err := sameDevice(ts.inRoot(dir), staging)
	if err != nil || private {
		return err
	}
	if !ts.all && unix.Access(ts.inRoot(dir), unix.W_OK) == nil {
		return nil
	}
	if dir == "/" {
		return ts.privateRoot()
	}
	ts.made++
	copied := filepath.Join(ts.base, fmt.Sprint(ts.made))
	if err := os.MkdirAll(copied, 0o755); err != nil {
		return err
	}
	original := ts.inRoot(dir)
	entries, err := os.ReadDir(original)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := linkOriginal(original, copied, hidden, e); err != nil {
			return err
		}
	}
	return coverWith(original, copied)
}

func sameDevice(a, b string) (bool, error) {
	var sa, sb unix.Stat_t
	if err := errors.Join(unix.Stat(a, &sa), unix.Stat(b, &sb)); err != nil {
		return false, err
	}
	return sa.Dev == sb.Dev, nil
}

// privateRoot makes a folder in memory that has all that / has: what is mounted
// so far, too.
func (ts *targets) privateRoot() error {
	root := filepath.Join(ts.base, "root")
	if err := os.MkdirAll(root, 0o755); err != nil {
		return err
	}
	if err := mount(root, root, "", unix.MS_BIND, ""); err != nil {
		return err
	}
	entries, err := os.ReadDir("/")
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := ts.bindTop(root, e); err != nil {
			return err
		}
	}
	ts.root = root
	return nil
}

func (ts *targets) bindTop(root string, e fs.DirEntry) error {
	from, to := filepath.Join("/", e.Name()), filepath.Join(root, e.Name())
	if e.Type()&fs.ModeSymlink != 0 {
		link, err := os.Readlink(from)
		if err != nil {
			return err
		}
		return os.Symlink(link, to)
	}
	if !e.IsDir() {
		if err := emptyFile(to); err != nil {
			return err
		}
		return mount(from, to, "", unix.MS_BIND, "")
	}
	if err := os.Mkdir(to, 0o755); err != nil {
		return err
	}
	if from == staging {
		return attach(ts.tmp, to)
	}
	return mount(from, to, "", unix.MS_BIND|unix.MS_REC, "")
}

// attach mounts what openSource has detached.
func attach(fd int, target string) error {
	if err := unix.MoveMount(fd, "", unix.AT_FDCWD, target, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return &fs.PathError{Op: "move_mount", Path: target, Err: err}
	}
	return nil
}

// finish takes staging away, and makes the private root folder, if there is
// one, the root.
func (ts *targets) finish() error {
	if ts.tmp >= 0 {
		defer func() { _ = unix.Close(ts.tmp) }()
	}
	if ts.root == "" {
		if err := unix.Unmount(staging, unix.MNT_DETACH); err != nil {
			return fmt.Errorf("unmount private files: %w", err)
		}
		return nil
	}
	// The old root comes to lie upon the new one, pivot_root(2).
	if err := os.Chdir(ts.root); err != nil {
		return err
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("change to a private root folder: %w", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("unmount the host's root folder: %w", err)
	}
	return os.Chdir("/")
}
