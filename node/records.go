package node

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
)

// recordFiles keeps one file for each sandbox in a folder, with mode 0600: the
// token in it lets its holder take the sandbox's place.
type recordFiles struct{ dir string }

const recordSuffix = ".json"

func (f recordFiles) path(id string) string { return filepath.Join(f.dir, id+recordSuffix) }

// save writes a record.
func (f recordFiles) save(rec record) error {
	if err := os.MkdirAll(f.dir, 0o700); err != nil {
		return fmt.Errorf("state folder: %w", err)
	}
	return saveJSON(f.path(rec.Spec.ID), rec)
}

func (f recordFiles) remove(id string) error {
	err := os.Remove(f.path(id))
	if errors.Is(err, fs.ErrNotExist) {
		return nil // never saved
	}
	return err
}

// load reads all records. One that cannot be read is logged and removed: the
// swarm's own record of the address still lets it be given back.
func (f recordFiles) load(log *slog.Logger) []record {
	entries, err := os.ReadDir(f.dir)
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			log.Warn("records of sandboxes not read", "error", err)
		}
		return nil
	}
	var list []record
	for _, e := range entries {
		if e.IsDir() {
			continue // the logs
		}
		path := filepath.Join(f.dir, e.Name())
		rec, err := readRecord(path)
		if err != nil {
			log.Warn("record of a sandbox is of no use", "file", path, "error", err)
			_ = os.Remove(path) // read again at the next start otherwise
			continue
		}
		list = append(list, rec)
	}
	return list
}

func readRecord(path string) (record, error) {
	var rec record
	if err := loadJSON(path, &rec); err != nil {
		return rec, err
	}
	if rec.Spec.ID+recordSuffix != filepath.Base(path) || strings.ContainsRune(rec.Spec.ID, filepath.Separator) {
		return rec, errors.New("it does not belong to its name")
	}
	interfaces := len(rec.Attachments)
	if rec.Bridge.IsValid() {
		interfaces++
	}
	if interfaces != len(rec.Spec.Interfaces) {
		return rec, errors.New("attachments and interfaces differ")
	}
	return rec, nil
}
