package doctor

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// cmsghdr is the head of the control message at the beginning of b, which has
// room for it.
func cmsghdr(b []byte) *unix.Cmsghdr { return (*unix.Cmsghdr)(unsafe.Pointer(&b[0])) }
