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

// staging is where the sandbox's private files are made; what is mounted there
// is gone again before the command starts.
const staging = "/tmp"

const noExec = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC

// setupMounts makes this process's mount namespace the sandbox's.
func setupMounts(cfg *initConfig) error {
	// The user's mounts keep arriving, none of ours leaves.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		return explainNamespaces(fmt.Errorf("make mounts private: %w", err), procSys)
	}
	if err := ignoreSetuid(); err != nil {
		return err
	}
	if cfg.PIDNS {
		if err := unix.Mount("proc", "/proc", "proc", noExec, ""); err != nil {
			return fmt.Errorf("%w: %w", errNoProc, err)
		}
	}
	targets, err := newTargets(cfg)
	if err != nil {
		return err
	}
	if err := mount("tmpfs", staging, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=0755"); err != nil {
		return err
	}
	err = errors.Join(
		stageSys(filepath.Join(staging, "sys")),
		stageEtc(&cfg.Spec),
		stageSkeletons(filepath.Join(staging, "skeletons"), cfg.Task != nil && cfg.Root),
	)
	if err == nil {
		err = cfg.Task.stage(targets)
	}
	if err == nil {
		err = targets.finish()
	}
	if err != nil {
		return err // the namespace goes, and all in it
	}
	return cfg.Task.bindMounts(targets.sources) // some may be of what staging covered
}

// ignoreSetuid makes all mounts nosuid. no_new_privs alone would not do: the
// kernel refuses to execute a program whose file capabilities are beyond the
// bounding set, which Debian's ping is, unless the mount makes it ignore them
// (bprm_caps_from_vfs_caps, security/commoncap.c).
func ignoreSetuid() error {
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_NOSUID}
	err := unix.MountSetattr(unix.AT_FDCWD, "/", unix.AT_RECURSIVE, &attr)
	if errors.Is(err, unix.ENOSYS) { // before Linux 5.12
		return remountNosuid("/proc/self/mounts")
	}
	if err != nil {
		return fmt.Errorf("make mounts nosuid: %w", err)
	}
	return nil
}

// remountNosuid does it mount by mount, as far as they can be reached. table is
// in the form of fstab(5).
func remountNosuid(table string) error {
	b, err := os.ReadFile(table)
	if err != nil {
		return fmt.Errorf("list mounts: %w", err)
	}
	octal := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)
	for line := range strings.Lines(string(b)) {
		fields := strings.Fields(line)
		if len(fields) < 4 {
			continue
		}
		flags := uintptr(unix.MS_REMOUNT | unix.MS_BIND | unix.MS_NOSUID)
		for opt := range strings.SplitSeq(fields[3], ",") {
			flags |= lockedFlags[opt]
		}
		// One that is covered by another, or not ours to change, stays.
		_ = unix.Mount("", octal.Replace(fields[1]), "", flags, "")
	}
	return nil
}

// lockedFlags are those that a remount in a user namespace must not clear,
// mount_namespaces(7).
var lockedFlags = map[string]uintptr{
	"ro": unix.MS_RDONLY, "nodev": unix.MS_NODEV, "noexec": unix.MS_NOEXEC,
	"noatime": unix.MS_NOATIME, "nodiratime": unix.MS_NODIRATIME, "relatime": unix.MS_RELATIME,
}

func mount(source, target, fstype string, flags uintptr, data string) error {
	if err := unix.Mount(source, target, fstype, flags, data); err != nil {
		return fmt.Errorf("mount %s on %s: %w", source, target, err)
	}
	return nil
}

// stageSys mounts a /sys that shows the sandbox's network devices. Where the
// kernel refuses, which it does if parts of the present one are masked, the
// host's stays. dir is made for it.
func stageSys(dir string) error {
	const cgroups = "fs/cgroup"
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	// A read-only /sys, as containers have it, allows a read-only one.
	err := unix.Mount("sysfs", dir, "sysfs", noExec, "")
	if err != nil {
		err = unix.Mount("sysfs", dir, "sysfs", noExec|unix.MS_RDONLY, "")
	}
	if err != nil {
		return nil
	}
	if _, err := os.Stat(filepath.Join("/sys", cgroups)); err == nil {
		_ = unix.Mount(filepath.Join("/sys", cgroups), filepath.Join(dir, cgroups), "", unix.MS_BIND|unix.MS_REC, "")
	}
	return mount(dir, "/sys", "", unix.MS_MOVE, "")
}

// stageEtc puts the sandbox's files into /etc.
func stageEtc(s *Spec) error {
	files := map[string][]byte{"hosts": hostsFile(s)}
	if s.ResolvConf != nil {
		files["resolv.conf"] = s.ResolvConf
	}
	for name := range files {
		// Not there, or a symbolic link to nowhere: nothing to mount on.
		if _, err := os.Stat(filepath.Join("/etc", name)); errors.Is(err, fs.ErrNotExist) {
			if err := privateEtc(filepath.Join(staging, "etc"), files); err != nil {
				return fmt.Errorf("make a private /etc: %w", err)
			}
			break
		}
	}
	for name, content := range files {
		file := filepath.Join(staging, name)
		if err := os.WriteFile(file, content, 0o644); err != nil {
			return err
		}
		if err := mount(file, filepath.Join("/etc", name), "", unix.MS_BIND, ""); err != nil {
			return err
		}
	}
	return nil
}

// hidden is the folder in a private copy of a folder that holds the original.
const hidden = ".host"

// privateEtc mounts on /etc a folder with the same entries, and empty files in
// place of replaced. dir is made for it.
func privateEtc(dir string, replaced map[string][]byte) error {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	entries, err := os.ReadDir("/etc")
	if err != nil {
		return err
	}
	for _, e := range entries {
		if _, ok := replaced[e.Name()]; ok {
			continue
		}
		if err := linkOriginal("/etc", dir, hidden, e); err != nil {
			return err
		}
	}
	for name := range replaced {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o644); err != nil {
			return err
		}
	}
	return coverWith("/etc", dir)
}

// linkOriginal puts e of the folder from into the folder to, as a link to its
// original. prefix is the way from to to the original folder.
func linkOriginal(from, to, prefix string, e fs.DirEntry) error {
	target := filepath.Join(prefix, e.Name())
	if e.Type()&fs.ModeSymlink != 0 {
		// Its text means the same in either place.
		link, err := os.Readlink(filepath.Join(from, e.Name()))
		if err != nil {
			return err
		}
		target = link
	}
	return os.Symlink(target, filepath.Join(to, e.Name()))
}

// coverWith mounts dir on original, which stays reachable as original/.host.
func coverWith(original, dir string) error {
	host := filepath.Join(dir, hidden)
	if err := os.Mkdir(host, 0o755); err != nil {
		return err
	}
	if err := mount(original, host, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return err
	}
	return mount(dir, original, "", unix.MS_BIND|unix.MS_REC, "")
}

// hostsFile returns the sandbox's /etc/hosts.
func hostsFile(s *Spec) []byte {
	var b strings.Builder
	b.WriteString("127.0.0.1\tlocalhost\n" +
		"::1\tlocalhost ip6-localhost ip6-loopback\n" +
		"fe00::\tip6-localnet\n" +
		"ff00::\tip6-mcastprefix\n" +
		"ff02::1\tip6-allnodes\n" +
		"ff02::2\tip6-allrouters\n")
	names := s.hostname()
	if s.Name != "" && s.Name != names {
		names += " " + s.Name
	}
	for i := range s.Interfaces {
		for _, p := range s.Interfaces[i].Addrs {
			fmt.Fprintf(&b, "%s\t%s\n", p.Addr(), names)
		}
	}
	for _, h := range s.Hosts {
		fmt.Fprintf(&b, "%s\t%s\n", h.Addr, strings.Join(h.Names, " "))
	}
	return []byte(b.String())
}
