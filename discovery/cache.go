package discovery

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
)

// The files that discovery keeps in the state folder, readable by the owner
// alone.
const (
	keysFile        = "gossip-keys.json"
	peersFile       = "gossip-peers.json"
	revocationsFile = "revocations.json" // by removed node, as package crypto encodes them
)

// maxCache bounds what is read back, in bytes: more than maxEndpoints records
// of one network need.
const maxCache = 256 << 20

// savedPeers is the content of peersFile: what was known of the other nodes.
type savedPeers struct {
	// Name is the gossip name of a run that has not said goodbye.
	Name string `json:"name,omitempty"`
	// Nodes are gossip addresses to join by when no manager answers.
	Nodes []string `json:"nodes,omitempty"`
	// Networks holds the records of remote endpoints by network and endpoint ID.
	Networks map[string]map[string]savedEndpoint `json:"networks,omitempty"`
	// Identities holds those of other nodes by encrypted network and gossip name.
	Identities map[string]map[string][]byte `json:"identities,omitempty"`
}

// A savedEndpoint is the two records of an endpoint, as they were gossiped.
type savedEndpoint struct {
	Peer     []byte `json:"peer"`
	Endpoint []byte `json:"endpoint,omitempty"`
}

// load reads a JSON file into v. A file that does not exist leaves v alone.
func load(path string, v any) error {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	if err := json.NewDecoder(io.LimitReader(f, maxCache)).Decode(v); err != nil {
		return fmt.Errorf("%s: %w: remove the file to start without it", path, err)
	}
	return nil
}

// save writes v as JSON so that after a crash of this program the file is either
// the old one or the new one, and after one of the machine too if durable, with
// mode 0600 at any time. Durability can take a busy disk half a minute. A file has
// one writer at a time.
func save(path string, v any, durable bool) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	// Of one name, so that crashes leave at most one behind.
	temp := path + ".new"
	if err := write(temp, data, durable); err != nil {
		os.Remove(temp)
		return err
	}
	return os.Rename(temp, path)
}

func write(path string, data []byte, durable bool) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	if _, err = f.Write(data); err == nil && durable {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// saved returns the records of the network that are worth remembering.
func (n *network) saved() map[string]savedEndpoint {
	m := make(map[string]savedEndpoint, len(n.remote))
	for id, r := range n.remote {
		p := n.counts(r)
		if p == nil {
			continue
		}
		s := savedEndpoint{Peer: p.raw}
		if r.naming != nil {
			s.Endpoint = r.naming.raw
		}
		m[id] = s
	}
	return m
}

// savedIdentities returns the records of the nodes that may prove to be who they
// say.
func (n *network) savedIdentities() map[string][]byte {
	m := make(map[string][]byte, len(n.chosen))
	for _, i := range n.chosen {
		m[i.Name] = i.raw
	}
	return m
}

// rememberIdentities takes in those of the last run, before the endpoints of it.
func (n *network) rememberIdentities(saved map[string][]byte) {
	for name, raw := range saved {
		if checkID(name) != nil || len(n.identities) >= maxNodes {
			continue
		}
		if i, err := parseIdentity(n.cfg.ID, name, raw); err == nil {
			i.cached = true
			n.addIdentity(i)
		}
	}
}
