package dataplane

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// unsafeBytes returns the bytes that v points to.
func unsafeBytes(v *unix.Iovec) []byte { return unsafe.Slice(v.Base, v.Len) }
