//go:build race

package quiet

import "syscall"

// The race detector takes what one goroutine writes and another reads for an order
// between the two, but only of these.

func read(fd uintptr, p []byte) (int, error)  { return syscall.Read(int(fd), p) }
func write(fd uintptr, p []byte) (int, error) { return syscall.Write(int(fd), p) }
