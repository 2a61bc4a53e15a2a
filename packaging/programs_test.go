package packaging

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// ci is set where nothing may be skipped.
var ci = os.Getenv("OVND_CI") != ""

// lacking skips a test for what this machine has not, and fails it in CI.
func lacking(t *testing.T, format string, args ...any) {
	t.Helper()
	if ci {
		t.Fatalf(format, args...)
	}
	t.Skipf(format, args...)
}

// nginxConf is of a server that says who it is and who asks.
const nginxConf = `daemon off;
error_log stderr;
pid /tmp/nginx.pid;
user root root;
worker_processes 1;
events {}
http {
	access_log off;
	server {
		listen 80;
		location / { return 200 "nginx on $hostname, asked from $remote_addr\n"; }
	}
}
`

// programs returns the name of an image with this machine's nginx, which is its
// command, and curl: no registry is at hand.
func programs(t *testing.T) string {
	t.Helper()
	needDocker(t)
	for _, name := range []string{"nginx", "curl", "ldd"} {
		if _, err := lookProgram(name); err != nil {
			lacking(t, "no %s on this machine, of which an application's image is made", name)
		}
	}
	name, err := builtPrograms()
	if err != nil {
		t.Fatal(err)
	}
	return name
}

// lookProgram also looks where an ordinary user's PATH does not.
func lookProgram(name string) (string, error) {
	if path, err := exec.LookPath(name); err == nil {
		return path, nil
	}
	return exec.LookPath("/usr/sbin/" + name)
}

var builtPrograms = sync.OnceValues(func() (string, error) {
	var archive bytes.Buffer
	if err := writePrograms(&archive, "nginx", "curl"); err != nil {
		return "", err
	}
	name := fmt.Sprintf("ovnd-test-programs:%d", os.Getpid())
	cmd := exec.Command("docker", "import", "--change", `CMD ["/usr/bin/nginx", "-c", "/etc/nginx.conf"]`, "--change", "ENV PATH=/usr/bin", "-", name)
	cmd.Stdin = &archive
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("docker import: %w: %s", err, out)
	}
	return name, nil
})

// writePrograms writes a root file system that programs of this machine run in.
func writePrograms(w io.Writer, names ...string) error {
	t := tar.NewWriter(w)
	for _, dir := range []string{"dev/", "etc/", "proc/", "sys/", "tmp/", "usr/", "usr/bin/", "var/", "var/lib/", "var/lib/nginx/", "var/log/", "var/log/nginx/"} {
		if err := t.WriteHeader(&tar.Header{Name: dir, Typeflag: tar.TypeDir, Mode: 0o777}); err != nil {
			return err
		}
	}
	for name, text := range map[string]string{
		"etc/nginx.conf": nginxConf, "etc/nsswitch.conf": "hosts: files dns\n", "etc/group": "root:x:0:\n",
		"etc/passwd": "root:x:0:0:root:/tmp:/sbin/nologin\n",
	} {
		if err := writeTar(t, name, []byte(text), 0o644); err != nil {
			return err
		}
	}
	written := make(map[string]bool)
	for _, name := range names {
		if err := writeProgram(t, name, written); err != nil {
			return err
		}
	}
	return t.Close()
}

// writeProgram writes a program and the libraries that it is linked with.
func writeProgram(t *tar.Writer, name string, written map[string]bool) error {
	path, err := lookProgram(name)
	if err != nil {
		return err
	}
	out, err := exec.Command("ldd", path).CombinedOutput()
	if err != nil {
		return fmt.Errorf("ldd %s: %w: %s", path, err, out)
	}
	files := map[string]string{"/usr/bin/" + name: path}
	for field := range strings.FieldsSeq(string(out)) {
		if filepath.IsAbs(field) {
			files[field] = field
		}
	}
	for to, from := range files {
		if written[to] {
			continue
		}
		written[to] = true
		b, err := os.ReadFile(from)
		if err != nil {
			return err
		}
		if err := writeTar(t, strings.TrimPrefix(to, "/"), b, 0o755); err != nil {
			return err
		}
	}
	return nil
}

func writeTar(t *tar.Writer, name string, content []byte, mode int64) error {
	if err := t.WriteHeader(&tar.Header{Name: name, Mode: mode, Size: int64(len(content)), ModTime: time.Unix(0, 0)}); err != nil {
		return err
	}
	_, err := t.Write(content)
	return err
}
