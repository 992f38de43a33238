//go:build unix

package relay

import "syscall"

// rawReads: a socket can be read without waiting for it.
const rawReads = true

// readSocket is read(2).
func readSocket(fd uintptr, p []byte) (int, error) { return syscall.Read(int(fd), p) }
