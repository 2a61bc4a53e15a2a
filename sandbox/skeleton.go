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

// stateFolders are where daemons keep what they write. Packages prepare them
// for a system user, so that a daemon which is started by anyone else fails on
// the first of them. Where the user could not write to one, the sandbox has a
// private copy of its skeleton, in memory:
//   - what the user can write to (their /run/user/UID, a home in /var/lib)
//     is the host's own;
//   - folders are new and the user's, two levels deep; deeper ones, and very
//     large ones, are links to the host's;
//   - files and sockets are links to the host's, those left out that would be
//     of no use: unreadable ones, and *.pid, whose processes are elsewhere.
//
// So a daemon can make its files there, and a program that looks up the host's
// finds them. /tmp is not among these: it is writable, and the user's files in
// it are meant.
var stateFolders = []string{"/run", "/var/log", "/var/lib", "/var/cache"}

const (
	skeletonDepth = 2
	// skeletonEntries is the size up to which folders are taken apart.
	skeletonEntries = 1000
)

// stageSkeletons covers the state folders that the user cannot write to or, as
// tasks of root's need it, all of them. base is an empty folder.
func stageSkeletons(base string, all bool) error {
	for _, dir := range stateFolders {
		st, err := os.Lstat(dir)
		if err != nil || !st.IsDir() {
			continue
		}
		if !all && unix.Access(dir, unix.W_OK) == nil {
			err = stageForeign(base, dir)
		} else {
			err = stageSkeleton(base, dir, all)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// stageForeign covers the folders in dir that are, or in part, another user's:
// root without capabilities is stopped by those of system users.
func stageForeign(base, dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil // what cannot be listed is left as it is
	}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		if !e.IsDir() || !foreign(path) {
			continue
		}
		if err := stageSkeleton(base, path, false); err != nil {
			return err
		}
	}
	return nil
}

// foreign reports whether the user cannot write to a folder, or to a file or
// folder in it.
func foreign(dir string) bool {
	if unix.Access(dir, unix.R_OK|unix.X_OK) != nil || tooLarge(dir) {
		return false // no way to copy it
	}
	if unix.Access(dir, unix.W_OK) != nil {
		return true
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return false
	}
	for _, e := range entries {
		ours := e.Type()&(fs.ModeSymlink|fs.ModeSocket) != 0
		if !ours && unix.Access(filepath.Join(dir, e.Name()), unix.W_OK) != nil {
			return true
		}
	}
	return false
}

// stageSkeleton covers a folder with its private copy: see skeleton for all.
func stageSkeleton(base, dir string, all bool) error {
	private := filepath.Join(base, dir)
	if err := os.MkdirAll(private, 0o755); err != nil {
		return fmt.Errorf("make a private %s: %w", dir, err)
	}
	if err := skeleton(dir, private, hidden, skeletonDepth, all); err != nil {
		return fmt.Errorf("make a private %s: %w", dir, err)
	}
	if err := coverWith(dir, private); err != nil {
		return fmt.Errorf("make a private %s: %w", dir, err)
	}
	return nil
}

// skeleton fills the folder to with the likes of from's entries. prefix leads
// from to to the original of from, depth is the number of levels to go, all says
// that what the user can write to is no exception.
func skeleton(from, to, prefix string, depth int, all bool) error {
	entries, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Name() == hidden {
			continue
		}
		if e.IsDir() {
			err = skeletonFolder(from, to, prefix, e, depth, all)
		} else {
			err = skeletonFile(from, to, prefix, e)
		}
		// It may be gone since it was listed.
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

func skeletonFolder(from, to, prefix string, e fs.DirEntry, depth int, all bool) error {
	original, private := filepath.Join(from, e.Name()), filepath.Join(to, e.Name())
	// What is below /run/user is somebody's each.
	own := original == "/run/user" || !all && unix.Access(original, unix.W_OK|unix.X_OK) == nil
	readable := unix.Access(original, unix.R_OK|unix.X_OK) == nil
	if readable && !own && (depth == 1 || tooLarge(original)) {
		return linkOriginal(from, to, prefix, e)
	}
	if err := os.Mkdir(private, 0o755); err != nil {
		return err
	}
	switch {
	case own:
		return mount(original, private, "", unix.MS_BIND|unix.MS_REC, "")
	case readable:
		return skeleton(original, private, filepath.Join("..", prefix, e.Name()), depth-1, all)
	}
	return nil
}

func skeletonFile(from, to, prefix string, e fs.DirEntry) error {
	path := filepath.Join(from, e.Name())
	useless := unix.Access(path, unix.R_OK) != nil && unix.Access(path, unix.W_OK) != nil ||
		strings.HasSuffix(e.Name(), ".pid")
	if useless && e.Type()&fs.ModeSymlink == 0 {
		return nil
	}
	return linkOriginal(from, to, prefix, e)
}

func tooLarge(dir string) bool {
	f, err := os.Open(dir)
	if err != nil {
		return true
	}
	defer func() { _ = f.Close() }()
	names, _ := f.Readdirnames(skeletonEntries + 1)
	return len(names) > skeletonEntries
}
