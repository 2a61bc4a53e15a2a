package doctor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

const tunPath = "/dev/net/tun"

// sandboxes is what tasks and `ovnd run` live in: a TUN device, namespaces, and
// what can be done inside them.
func (h *host) sandboxes(ctx context.Context) []Finding {
	if h.cfg.Mode == Never {
		return []Finding{ok("sandboxes", "not looked at, as asked: endpoints live in the node's own network stack")}
	}
	findings := []Finding{h.tunDevice(), h.ids()}
	inside, possible := h.namespaces(ctx)
	findings = append(findings, inside...)
	if h.container != "" && h.capable(unix.CAP_NET_ADMIN) {
		findings = append(findings, h.ownNamespace())
	}
	switch {
	case possible && findings[0].Level == OK:
		findings = append(findings, ok("sandboxes", "can be made: tasks and \"ovnd run\" have interfaces of their own"))
	default:
		findings = append(findings, h.lack("sandboxes", "see above, or go without them: ovnd up --tun never",
			"cannot be made: endpoints have to live in the node's own network stack"))
	}
	return findings
}

// lack is a finding about something that sandboxes need.
func (h *host) lack(check, remedy, format string, args ...any) Finding {
	if h.cfg.Mode == Require {
		return fail(check, remedy, format, args...)
	}
	return warn(check, remedy, format, args...)
}

func (h *host) tunDevice() Finding {
	path := filepath.Join(h.root, tunPath)
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err == nil {
		_ = unix.Close(fd) // nothing was written
		return ok("tun", "%s opens (mode %s)", tunPath, mode(path))
	}
	switch {
	case errors.Is(err, unix.ENOENT) && h.container != "", errors.Is(err, unix.EPERM):
		return h.lack("tun", h.passDevice(), "%s is not in this container: %v", tunPath, err)
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENXIO):
		return h.lack("tun", h.onHost("sudo modprobe tun"), "%s: the kernel has not loaded its driver: %v", tunPath, err)
	case errors.Is(err, unix.EACCES):
		return h.lack("tun", h.onHost("sudo chmod 0666 %s", tunPath), "%s is not this user's to open (mode %s)", tunPath, mode(path))
	}
	return h.lack("tun", "", "%s does not open: %v", tunPath, err)
}

// passDevice says how a container gets the device.
func (h *host) passDevice() string {
	if h.container == "Kubernetes" {
		return "mount the host's /dev/net/tun (hostPath, type CharDevice) into a privileged container, or use a device plugin"
	}
	return "start the container with --device " + tunPath
}

func mode(path string) string {
	st, err := os.Stat(path)
	if err != nil {
		return "unknown"
	}
	return fmt.Sprintf("%04o", st.Mode().Perm())
}

// ids says which user and group a sandbox has: its own alone, for which nobody
// has to set up subordinate ids.
func (h *host) ids() Finding {
	uid, gid := os.Geteuid(), os.Getegid()
	if s := h.read("proc/self/uid_map"); s != "" && strings.Join(strings.Fields(s), " ") != "0 0 4294967295" {
		return ok("ids", "user %d, group %d, in a user namespace that maps %q: a sandbox maps these two again", uid, gid, strings.Join(strings.Fields(s), " "))
	}
	return ok("ids", "user %d, group %d: a sandbox maps these two, without subordinate ids", uid, gid)
}

// namespaces makes the namespaces of a sandbox in earnest.
func (h *host) namespaces(ctx context.Context) (findings []Finding, possible bool) {
	t, err := try(ctx, allNamespaces)
	pid := true
	if refused(err) {
		if less, again := try(ctx, lessNamespaces); again == nil {
			t, err, pid = less, nil, false
		}
	}
	if err != nil {
		found, remedy := h.whyNoNamespaces(err)
		return []Finding{h.lack("namespaces", remedy, "%s", found)}, false
	}
	if t.Mount != 0 {
		// AppArmor lets them be made, and everything in them be denied.
		found, remedy := h.whyNoNamespaces(t.Mount)
		return []Finding{h.lack("namespaces", remedy, "%s", found)}, false
	}
	if pid {
		findings = append(findings, ok("namespaces", "user, network, mount, PID and UTS namespaces can be made"))
	} else {
		findings = append(findings, warn("namespaces", "", "user, network, mount and UTS namespaces can be made, no PID namespace: commands see the host's processes"))
	}
	return append(findings, h.inside(t, pid)...), t.TUN.Create == 0 && t.TUN.Open == 0
}

// refused says whether the kernel would not make namespaces.
func refused(err error) bool {
	_, ok := errors.AsType[unix.Errno](err)
	return ok
}

// inside says what can be done in a sandbox's namespaces.
func (h *host) inside(t trial, pid bool) []Finding {
	var findings []Finding
	switch {
	case t.Proc == 0 && pid:
		findings = append(findings, ok("proc", "/proc can be mounted inside"))
	case pid:
		findings = append(findings, warn("proc", h.unmask(), "/proc cannot be mounted inside (%v): commands share the host's process ids", t.Proc))
	}
	if t.Sys != 0 {
		findings = append(findings, warn("low ports inside", h.unmask(), "/proc/sys/net cannot be written to (%v): commands inside cannot listen below 1024, nor ping", t.Sys))
	}
	return append(findings, h.offloads("tun inside", t.TUN))
}

// unmask says how a container gets a /proc that is its own.
func (h *host) unmask() string {
	if h.container == "Kubernetes" {
		return "securityContext: {procMount: Unmasked} with hostUsers: false"
	}
	return "start the container with --security-opt systempaths=unconfined"
}

// offloads judges a device that was tried.
func (h *host) offloads(check string, t tunTrial) Finding {
	switch {
	case t.Open != 0:
		return h.lack(check, "", "no device: %s does not open (%v)", tunPath, t.Open)
	case t.Create != 0:
		return h.lack(check, "", "no device can be made: %v", t.Create)
	case !t.VnetHeader:
		return h.lack(check, "install a kernel from 5.12 on", "a device has no virtio_net_hdr")
	case !t.TSO:
		return warn(check, "", "a device has neither TCP nor UDP segmentation offload: throughput is a fraction")
	case !t.USO:
		return warn(check, "install a kernel from 6.2 on", "a device has TCP segmentation offload (TSO), none for UDP (USO)")
	}
	return ok(check, "a device has super-packets of TCP (TSO) and of UDP (USO)")
}

// ownNamespace tries a device where this process is: what a sidecar needs that
// shares its namespace with an application.
func (h *host) ownNamespace() Finding {
	t := tryTUN("ovnd-doctor0")
	if t.Open == 0 && t.Create == 0 {
		return ok("tun here", "this container's own namespace can have a device: a sidecar is transparent to its application")
	}
	return warn("tun here", "start the container with --cap-add NET_ADMIN --device "+tunPath,
		"this container's own namespace cannot have a device (%v)", max(t.Open, t.Create))
}

// whyNoNamespaces finds out who forbids them, and what helps.
func (h *host) whyNoNamespaces(err error) (found, remedy string) {
	e, isErrno := errors.AsType[unix.Errno](err)
	denied := e == unix.EPERM || e == unix.EACCES
	switch {
	case !isErrno:
		return fmt.Sprintf("not found out: %v", err), ""
	case h.read("proc/sys/user/max_user_namespaces") == "0":
		return "user namespaces are switched off: user.max_user_namespaces is 0", h.sysctl("user.max_user_namespaces", "15000")
	case e == unix.ENOSPC || e == unix.EUSERS:
		return fmt.Sprintf("there are too many namespaces (%v)", e), h.sysctl("user.max_user_namespaces", "15000")
	case denied && h.read("proc/sys/kernel/unprivileged_userns_clone") == "0":
		return "user namespaces are kept from ordinary users: kernel.unprivileged_userns_clone is 0", h.sysctl("kernel.unprivileged_userns_clone", "1")
	case denied && h.read("proc/sys/kernel/apparmor_restrict_unprivileged_userns") == "1" && h.container == "":
		return "AppArmor restricts user namespaces: kernel.apparmor_restrict_unprivileged_userns is 1", h.sysctl("kernel.apparmor_restrict_unprivileged_userns", "0")
	case denied && h.container == "Kubernetes":
		return fmt.Sprintf("the container may not make user namespaces (%v)", e), "securityContext: {seccompProfile: {type: Unconfined}, appArmorProfile: {type: Unconfined}}"
	case denied && h.container != "", denied && h.field("proc/self/status", "Seccomp") == "2":
		return fmt.Sprintf("the container's seccomp or AppArmor profile forbids user namespaces (%v)", e),
			"start the container with --security-opt seccomp=unconfined --security-opt apparmor=unconfined"
	case e == unix.EINVAL || e == unix.ENOSYS:
		return "the kernel was built without user, network, mount or UTS namespaces", ""
	}
	return fmt.Sprintf("user namespaces cannot be made: %v", e), ""
}
