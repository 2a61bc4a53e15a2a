package node

import (
	"errors"
	"os"
	"path/filepath"
)

// An identity is what services' constraints know a node by. A restart keeps it
// unless it is told otherwise.
type identity struct {
	Hostname string
	Labels   map[string]string
}

// settleIdentity takes what the node was not told from its last run.
func (n *Node) settleIdentity() error {
	file := filepath.Join(n.stateDir, "identity.json")
	var last identity
	if err := loadJSON(file, &last); err != nil {
		n.log.Warn("host name and labels of the last run are lost", "error", err)
	}
	if n.cfg.Hostname == "" {
		n.cfg.Hostname = last.Hostname
	}
	if n.cfg.Hostname == "" {
		var err error
		if n.cfg.Hostname, err = os.Hostname(); err != nil {
			return errors.New("this machine has no host name: give one with --hostname")
		}
	}
	if n.cfg.Labels == nil {
		n.cfg.Labels = last.Labels
	}
	if err := os.MkdirAll(n.stateDir, 0o700); err != nil { // an ephemeral node's is new
		return err
	}
	return saveJSON(file, identity{n.cfg.Hostname, n.cfg.Labels})
}
