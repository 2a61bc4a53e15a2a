package sandbox

import (
	"os"
	"path/filepath"
	"testing"
)

// A container's resolv.conf is a mount of its own; a machine's is not.
func TestMounted(t *testing.T) {
	const info = `22 1 0:19 / / rw,relatime - overlay overlay rw
31 22 8:1 /var/lib/docker/containers/x/resolv.conf /etc/resolv.conf rw,relatime - ext4 /dev/sda1 rw
32 22 8:1 /var/lib/docker/containers/x/hosts /etc/hosts rw,relatime - ext4 /dev/sda1 rw
`
	for path, want := range map[string]bool{"/etc/resolv.conf": true, "/etc/hosts": true, "/etc": false, "/etc/resolv": false, "8:1": false} {
		if mounted(info, path) != want {
			t.Errorf("%s: %t", path, !want)
		}
	}
}

// The file names the resolver while it is there, and what it was can be told from
// it, also after a kill.
func TestOwnNames(t *testing.T) {
	path := filepath.Join(t.TempDir(), "resolv.conf")
	const was = "nameserver 127.0.0.11\noptions ndots:0\n"
	if err := os.WriteFile(path, []byte(was), 0o600); err != nil {
		t.Fatal(err)
	}
	read := func() string {
		t.Helper()
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	r, restore, err := ownNamesAt([]byte("nameserver 127.0.0.11\n"), path)
	if err != nil {
		t.Skipf("no socket at port 53 here: %v", err)
	}
	if err := r.check(); err != nil {
		t.Error(err)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	replaced := read()
	if f := (&resolvFile{was: []byte(replaced)}); f.serves(ResolverAddr.Addr()) || replaced == was {
		t.Errorf("the file is:\n%s", replaced)
	}
	if got := string(OriginalResolv([]byte(replaced))); got != was {
		t.Errorf("it was:\n%s", got)
	}
	restore()
	if got := read(); got != was {
		t.Errorf("restored:\n%s", got)
	}
}
