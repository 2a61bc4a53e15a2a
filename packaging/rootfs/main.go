// Command rootfs writes the files of ovnd's container image as a tar archive:
// for the Dockerfile beside it, or for `docker import` where no registry can be
// reached. The same binary makes the same archive, byte for byte.
//
//	go run ./packaging/rootfs -o rootfs-amd64.tar bin/ovnd-linux-amd64
package main

import (
	"archive/tar"
	"debug/elf"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
)

// nonroot is the user and group that a node in a container has, as distroless
// images number it.
const nonroot = 65532

func main() {
	out := flag.String("o", "rootfs.tar", "the archive to write")
	flag.Parse()
	if flag.NArg() != 1 {
		fmt.Fprintln(os.Stderr, "usage: rootfs [-o ARCHIVE] BINARY")
		os.Exit(2)
	}
	if err := run(*out, flag.Arg(0)); err != nil {
		fmt.Fprintln(os.Stderr, "rootfs:", err)
		os.Exit(1)
	}
}

func run(out, binary string) error {
	if err := checkStatic(binary); err != nil {
		return err
	}
	f, err := os.Create(out)
	if err != nil {
		return err
	}
	err = write(f, binary)
	return errors.Join(err, f.Close())
}

// checkStatic refuses what would not start in an image that holds nothing else.
func checkStatic(binary string) error {
	f, err := elf.Open(binary)
	if err != nil {
		return fmt.Errorf("%s: %w", binary, err)
	}
	defer f.Close() //nolint:errcheck // only read
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			return fmt.Errorf("%s is dynamically linked: build it with CGO_ENABLED=0", binary)
		}
	}
	return nil
}

// An entry is a file of the image. The zero owner is root.
type entry struct {
	name  string // a folder's ends in "/"
	mode  int64
	owner int
	text  string
	link  string // a symbolic link's target
}

func entries() []entry {
	return []entry{
		{name: "dev/", mode: 0o755},
		{name: "etc/", mode: 0o755},
		{name: "etc/group", mode: 0o644, text: "root:x:0:\nnonroot:x:65532:\n"},
		{name: "etc/nsswitch.conf", mode: 0o644, text: "hosts: files dns\n"},
		{name: "etc/passwd", mode: 0o644, text: "root:x:0:0:root:/root:/sbin/nologin\nnonroot:x:65532:65532:nonroot:/home/nonroot:/sbin/nologin\n"},
		{name: "home/", mode: 0o755},
		{name: "home/nonroot/", mode: 0o700, owner: nonroot},
		{name: "proc/", mode: 0o555},
		{name: "root/", mode: 0o700},
		{name: "run/", mode: 0o755},
		{name: "sys/", mode: 0o555},
		{name: "tmp/", mode: 0o1777},
		{name: "usr/", mode: 0o755},
		{name: "usr/bin/", mode: 0o755},
		// A sample application, which the binary is under this name.
		{name: "usr/bin/ovnd-whoami", mode: 0o777, link: "ovnd"},
		{name: "var/", mode: 0o755},
		{name: "var/lib/", mode: 0o755},
		// A named volume that is mounted here takes owner and mode from it.
		{name: "var/lib/ovnd/", mode: 0o700, owner: nonroot},
	}
}

func write(w io.Writer, binary string) error {
	t := tar.NewWriter(w)
	for _, e := range entries() {
		if err := t.WriteHeader(e.header()); err != nil {
			return fmt.Errorf("%s: %w", e.name, err)
		}
		if _, err := io.WriteString(t, e.text); err != nil {
			return fmt.Errorf("%s: %w", e.name, err)
		}
	}
	if err := addBinary(t, binary); err != nil {
		return fmt.Errorf("%s: %w", binary, err)
	}
	return t.Close()
}

func (e entry) header() *tar.Header {
	h := &tar.Header{
		Name: e.name, Mode: e.mode, Uid: e.owner, Gid: e.owner,
		Size: int64(len(e.text)), ModTime: time.Unix(0, 0), Format: tar.FormatUSTAR, Typeflag: tar.TypeReg,
	}
	switch {
	case strings.HasSuffix(e.name, "/"):
		h.Typeflag = tar.TypeDir
	case e.link != "":
		h.Typeflag, h.Linkname = tar.TypeSymlink, e.link
	}
	return h
}

func addBinary(t *tar.Writer, binary string) error {
	f, err := os.Open(binary)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	h := entry{name: "usr/bin/ovnd", mode: 0o755}.header()
	h.Size = st.Size()
	if err := t.WriteHeader(h); err != nil {
		return err
	}
	_, err = io.Copy(t, f)
	return err
}
