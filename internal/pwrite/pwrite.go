// Package pwrite writes to a place of a file, also to one that was opened to
// append: pwrite(2) then ignores the place, while pages that a program has mapped
// belong where they are.
package pwrite

import (
	"errors"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// Order is that of the writes of one descriptor. The zero value is ready.
type Order struct{ mu sync.RWMutex }

// Write writes all of p: at off, or at the end if the file was opened to append
// and p does not belong in place.
func (o *Order) Write(fd int, p []byte, off int64, inPlace bool) (n int, err error) {
	if inPlace {
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
		if err != nil {
			return 0, err
		}
		if flags&unix.O_APPEND != 0 {
			return o.beside(fd, flags, p, off)
		}
	}
	o.mu.RLock()
	defer o.mu.RUnlock()
	return Full(fd, p, off)
}

// beside writes at off what is opened to append, by these flags. Nobody appends
// meanwhile: it would go to where its program thought that the end was.
func (o *Order) beside(fd, flags int, p []byte, off int64) (n int, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFL, flags&^unix.O_APPEND); err != nil {
		return 0, err
	}
	n, err = Full(fd, p, off)
	if _, back := unix.FcntlInt(uintptr(fd), unix.F_SETFL, flags); err == nil {
		err = back
	}
	return n, err
}

// Full writes all of p, as pwrite(2) does.
func Full(fd int, p []byte, off int64) (n int, err error) {
	for n < len(p) {
		got, err := unix.Pwrite(fd, p[n:], off+int64(n))
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return n, err
		case got == 0:
			return n, syscall.EIO
		}
		n += got
	}
	return n, nil
}
