package protocol

import (
	"runtime"
	"syscall"
)

// numbers are those that Linux gives to errors, on the architectures that mirrord
// is built for (errno(3)). The protocol speaks of errors by them; other systems
// give these errors other numbers.
var numbers = map[syscall.Errno]uint32{
	syscall.EPERM: 1, syscall.ENOENT: 2, syscall.EINTR: 4, syscall.EIO: 5, syscall.EBADF: 9, syscall.EAGAIN: 11, syscall.ENOMEM: 12, syscall.EACCES: 13,
	syscall.EBUSY: 16, syscall.EEXIST: 17, syscall.ENOTDIR: 20, syscall.EISDIR: 21, syscall.EINVAL: 22, syscall.ENFILE: 23, syscall.EMFILE: 24,
	syscall.EFBIG: 27, syscall.ENOSPC: 28, syscall.EROFS: 30, syscall.EPIPE: 32, syscall.ERANGE: 34, syscall.ENAMETOOLONG: 36, syscall.ENOSYS: 38,
	syscall.ELOOP: 40, syscall.EPROTO: 71, syscall.EMSGSIZE: 90, syscall.EPROTOTYPE: 91, syscall.EPROTONOSUPPORT: 93, syscall.EOPNOTSUPP: 95,
	syscall.EAFNOSUPPORT: 97, syscall.EADDRINUSE: 98, syscall.EADDRNOTAVAIL: 99, syscall.ENETDOWN: 100, syscall.ENETUNREACH: 101,
	syscall.ECONNABORTED: 103, syscall.ECONNRESET: 104, syscall.ENOBUFS: 105, syscall.EISCONN: 106, syscall.ENOTCONN: 107, syscall.ETIMEDOUT: 110,
	syscall.ECONNREFUSED: 111, syscall.EHOSTDOWN: 112, syscall.EHOSTUNREACH: 113, syscall.EALREADY: 114, syscall.EINPROGRESS: 115,
	syscall.ESTALE: 116, syscall.EDQUOT: 122, syscall.ECANCELED: 125,
}

// Number is the number that Linux gives to an error.
func Number(e syscall.Errno) uint32 {
	if runtime.GOOS == "linux" {
		return uint32(e)
	}
	return numberOf(e)
}

// Errno is the error to which Linux gives a number.
func Errno(number uint32) syscall.Errno {
	if runtime.GOOS == "linux" {
		return syscall.Errno(number)
	}
	return errnoOf(number)
}

// errno reads or writes an error by its number.
func (c *codec) errno(num int, v *syscall.Errno) {
	n := Number(*v)
	if number(c, num, &n); c.reading {
		*v = Errno(n)
	}
}

// numberOf is Linux's number of an error of this system; that of EIO if it has
// none that is known.
func numberOf(e syscall.Errno) uint32 {
	n, ok := numbers[e]
	if e != 0 && !ok {
		return numbers[syscall.EIO]
	}
	return n
}

// errnoOf is this system's error with a number of Linux's; EIO if none is known.
func errnoOf(number uint32) syscall.Errno {
	if number == 0 {
		return 0
	}
	for e, n := range numbers {
		if n == number {
			return e
		}
	}
	return syscall.EIO
}
