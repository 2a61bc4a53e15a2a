// Package sandbox runs commands in namespaces of their own, whose only network
// is TUN devices that the node forwards. No root, no setuid helper and no
// subordinate ids are needed: the user keeps their own uid and gid inside.
//
//	user's shell
//	└─ ovnd run ─────────── Run: terminal, signals, exit status
//	   │  control socket        ▲ stopped, exited
//	   └─ init ──────────── MaybeInit: pid 1 of the sandbox
//	      │  node socket    ──► Server, in the node: TUN descriptors (SCM_RIGHTS)
//	      └─ command        no capabilities, own process group
//
// The init is this program executed again, twice. The first stage holds the
// capabilities of the new user namespace: it mounts, makes the devices, their
// addresses and routes, then drops every capability, the bounding set included,
// and executes the second stage. That one stays for the sandbox's life without
// any privilege. It keeps the descriptors of the devices, so that they, the
// command and its connections outlive the node, and hands them over again to
// the next one.
//
// A sandbox lives as long as any process in it, but no longer than its
// `ovnd run`: the control socket's end means that the caller is gone, which
// holds for SIGKILL too and, unlike PR_SET_PDEATHSIG, neither depends on a
// thread of the caller nor denies the command a SIGTERM first.
//
// # Tasks
//
// Start makes a sandbox for a task of a service. Its init is in a session of its
// own and outlives the node, kill -9 included: it looks for the next one, and
// hands it the devices, the resolver's sockets and the state of the command. It
// writes the command's output to a log (tasklog.go), keeps the exit status until
// a node has it, and kills everything if no node answers for Task.Orphan.
//
// A task ends with its command, if that fails: what is left is killed. If it
// ends well and left a daemon, as nginx does, the daemon takes its place.
//
// The node speaks to inits of both kinds by a Session: message.go has the
// protocol, node and init each send what the other has to know, with
// descriptors. What Exec starts is the init's child.
//
// # What a command sees
//
// Files are the user's own, /tmp and home included, with these exceptions, all
// of them private to the sandbox:
//   - /proc and /sys show the sandbox's processes and network devices;
//   - /etc/hosts has the sandbox's addresses, /etc/resolv.conf is replaced if
//     Spec.ResolvConf says so;
//   - /run, /var/log, /var/lib and /var/cache, where the user could not write
//     to them: see skeleton.go.
//
// System V and POSIX IPC stay the host's, as X11's shared memory needs.
// Started by root, the command has uid 0 but, like every command in a sandbox,
// no capability: what root may do to other users' files ends at the sandbox.
// A task of root's has another uid instead, under which it still is the owner of
// root's files: daemons that find themselves root want to become somebody else.
package sandbox
