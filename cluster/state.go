package cluster

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"github.com/moby/moby/api/types/swarm"
	swarmapi "github.com/moby/swarmkit/v2/api"
	"go.etcd.io/etcd/server/v3/storage/wal"
	"golang.org/x/sys/unix"
)

const (
	startFile = "ovnd-node.json"
	tmpFile   = "ovnd-node.json.tmp"
	lockFile  = "lock"
	// nodeCert exists once this node is a member of a swarm.
	nodeCert = "certificates/swarm-node.crt"

	// walSegment is what etcd's write-ahead log preallocates at a time; it
	// holds two segments. etcd's own 64 MB are for databases: a swarm's state
	// is some kilobytes, and an entry may still be larger than a segment.
	walSegment = 8 << 20
	// raftSpace is what a new manager takes at once: the log, and something
	// for snapshots, certificates and the task database.
	raftSpace = 3 * walSegment
)

// stateFiles are the names in the state folder that a membership consists of.
var stateFiles = []string{"certificates", "raft", "state.json", "worker", startFile, tmpFile}

func init() { wal.SegmentSizeBytes = walSegment }

// A startConfig is how the SwarmKit node starts. The exported fields are kept
// in the state folder, so that a node restarts as it was.
type startConfig struct {
	ListenAddr    netip.AddrPort
	AdvertiseAddr netip.AddrPort
	DataPathAddr  netip.Addr
	DataPathPort  uint16
	// Joining is the manager through which a join has begun and not ended.
	Joining string `json:",omitempty"`

	joinAddr, joinToken string
	availability        swarm.NodeAvailability
	addrPool            []netip.Prefix
	subnetSize          uint32
	forceNewCluster     bool
	former              netip.AddrPort // AdvertiseAddr of the last run, if it was another
}

// A stateDir is the folder with SwarmKit's state and ours.
type stateDir struct {
	path string
	lock *os.File
}

// openState makes the folder if it is missing, locks it against a second node
// and checks that it can be written.
func openState(path string) (*stateDir, error) {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, fmt.Errorf("state folder: %w: choose another with --state-dir", err)
	}
	if err := os.Chmod(path, 0o700); err != nil { // it may have been there
		return nil, fmt.Errorf("state folder: %w: choose another with --state-dir", err)
	}
	f, err := os.OpenFile(filepath.Join(path, lockFile), os.O_RDWR|os.O_CREATE|syscall.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("state folder %s cannot be written: %w: mend it or choose another with --state-dir", path, err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("state folder %s is in use by another ovnd (%w): stop that one or choose another folder with --state-dir", path, err)
	}
	d := &stateDir{path: path, lock: f}
	// A full disk lets a file be opened, so write something.
	if _, err := f.WriteAt([]byte("ovnd\n"), 0); err != nil {
		d.close()
		return nil, fmt.Errorf("state folder %s cannot be written: %w: free space there or choose another with --state-dir", path, err)
	}
	return d, nil
}

// privateDir makes a folder that only this user can enter, or checks that an
// existing one is such.
func privateDir(path string) error {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return err
	}
	fi, err := os.Stat(path)
	if err != nil {
		return err
	}
	if mode := fi.Mode().Perm(); mode&0o077 != 0 {
		return fmt.Errorf("folder %s can be entered by other users (mode %#o), who could command the swarm: chmod 700 it or choose another", path, mode)
	}
	return nil
}

func (d *stateDir) close() { d.lock.Close() }

func (d *stateDir) file(name string) string { return filepath.Join(d.path, name) }

// member says whether the folder holds membership of a swarm.
func (d *stateDir) member() (bool, error) {
	_, err := os.Stat(d.file(nodeCert))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// HasState reports whether a state folder makes its node a member of a swarm.
func HasState(stateDir string) bool {
	_, err := os.Stat(filepath.Join(stateDir, nodeCert))
	return err == nil
}

func (d *stateDir) load() (startConfig, error) {
	var s startConfig
	data, err := os.ReadFile(d.file(startFile))
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return s, err
	}
	if err := json.Unmarshal(data, &s); err != nil {
		return s, fmt.Errorf("%s: %w: it was written by ovnd and has been damaged; remove it to start with the addresses given on the command line", d.file(startFile), err)
	}
	return s, nil
}

func (d *stateDir) save(s startConfig) error {
	data, err := json.Marshal(s)
	if err != nil {
		return err
	}
	return d.write(startFile, data)
}

// write replaces a file so that a crash leaves the old one or the new one.
func (d *stateDir) write(name string, data []byte) error {
	tmp := d.file(tmpFile)
	if err := os.WriteFile(tmp, data, 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, d.file(name))
}

// peersFile is SwarmKit's list of managers.
const peersFile = "state.json"

// peers returns the managers that the node knew when it ran last.
func (d *stateDir) peers() (peers []swarmapi.Peer, err error) {
	data, err := os.ReadFile(d.file(peersFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err == nil {
		err = json.Unmarshal(data, &peers)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", d.file(peersFile), err)
	}
	return peers, nil
}

// forgetSelf takes this node's addresses out of SwarmKit's list of managers. The
// agent of a manager that restarts would else call its own TCP port before that
// listens, and lose a second; without it, it waits for the local manager.
func (d *stateDir) forgetSelf(own ...netip.AddrPort) error {
	peers, err := d.peers()
	if err != nil {
		return err
	}
	others := slices.DeleteFunc(slices.Clone(peers), func(p swarmapi.Peer) bool {
		return slices.ContainsFunc(own, func(a netip.AddrPort) bool { return p.Addr == a.String() })
	})
	if len(others) == len(peers) {
		return nil
	}
	data, err := json.Marshal(others)
	if err != nil {
		return err
	}
	return d.write(peersFile, data)
}

// clear removes the membership, and nothing else that a user may have put
// into the folder.
func (d *stateDir) clear() error {
	errs := make([]error, 0, len(stateFiles))
	for _, name := range stateFiles {
		errs = append(errs, os.RemoveAll(d.file(name)))
	}
	return errors.Join(errs...)
}

// checkSpace refuses to start a manager's raft log on a disk that cannot hold
// it: etcd would end the process half way.
func (d *stateDir) checkSpace() error {
	if d.has("raft") {
		return nil // preallocated already
	}
	var st unix.Statfs_t
	if err := unix.Statfs(d.path, &st); err != nil {
		return fmt.Errorf("state folder %s: %w", d.path, err)
	}
	if free := st.Bavail * uint64(st.Bsize); free < raftSpace {
		return fmt.Errorf("state folder %s has %d MB free and a manager's raft log needs %d MB: free space there or choose another with --state-dir", d.path, free>>20, raftSpace>>20)
	}
	return nil
}

// has says whether the folder has a file or folder of this name.
func (d *stateDir) has(name string) bool {
	_, err := os.Stat(d.file(name))
	return err == nil
}
