package sandbox

import (
	"errors"
	"os"
	"strings"
)

// resolvPath is the file that the C library looks names up by.
const resolvPath = "/etc/resolv.conf"

// ErrOthersNames says that the names of this process's namespaces are not only
// its own affair.
var ErrOthersNames = errors.New(resolvPath + " is no mount of its own, as containers have it: it is the machine's, and stays as it is")

// OwnNames opens a resolver's sockets in this process's own network namespace, and
// has /etc/resolv.conf name it in place of what conf, a sandbox's, names, for
// whoever shares the namespace and the file. restore puts back what was there;
// the sockets are the caller's to close. A file that is the machine's is not
// touched: the error is ErrOthersNames.
func OwnNames(conf []byte) (r *Resolver, restore func(), err error) {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, nil, err
	}
	if !mounted(string(mounts), resolvPath) {
		return nil, nil, ErrOthersNames
	}
	return ownNamesAt(conf, resolvPath)
}

func ownNamesAt(conf []byte, path string) (*Resolver, func(), error) {
	f, sockets, err := attachResolver(&Spec{ResolvConf: conf}, path)
	if err != nil {
		return nil, nil, err
	}
	if err := f.replace(); err != nil {
		closeFiles(sockets)
		return nil, nil, err
	}
	return &Resolver{UDP: sockets[0], TCP: sockets[1]}, f.restore, nil
}

// mounted reports whether mountinfo (proc_pid_mountinfo(5)) has a mount at path.
func mounted(mountinfo, path string) bool {
	for line := range strings.Lines(mountinfo) {
		const mountPoint = 4
		if fields := strings.Fields(line); len(fields) > mountPoint && fields[mountPoint] == path {
			return true
		}
	}
	return false
}

// OriginalResolv returns what a resolv.conf was before OwnNames or Attach replaced
// it, and one that they did not replace as it is.
func OriginalResolv(file []byte) []byte { return unmarkResolv(file) }
