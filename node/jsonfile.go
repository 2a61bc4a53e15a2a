package node

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// saveJSON replaces the file at path, for this user alone, so that a crash of
// the node leaves the old file or the new one. It is not synced to the disk:
// what a power cut loses is told again by the swarm, the user, or nobody, since
// sandboxes do not outlive it either.
func saveJSON(path string, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	tmp := path + ".tmp"
	if err := os.WriteFile(tmp, data, 0o600); err != nil {
		return fmt.Errorf("state folder: %w: free space there", err)
	}
	return os.Rename(tmp, path)
}

// loadJSON reads what saveJSON wrote. A file that is not there leaves v alone.
func loadJSON(path string, v any) error {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return json.Unmarshal(data, v)
}
