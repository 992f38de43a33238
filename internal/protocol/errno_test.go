package protocol

import (
	"syscall"
	"testing"
)

// TestErrnoNumbers: the table that other systems translate by has the numbers of
// Linux, each once.
func TestErrnoNumbers(t *testing.T) {
	for e, n := range numbers {
		if uint32(e) != n {
			t.Errorf("%v is %d, in the table %d", e, uint32(e), n)
		}
		if got := errnoOf(numberOf(e)); got != e {
			t.Errorf("%v comes back as %v", e, got)
		}
	}
	for _, c := range []struct {
		errno, back syscall.Errno
		number      uint32
	}{{0, 0, 0}, {syscall.EUCLEAN, syscall.EIO, 5}} {
		if n := numberOf(c.errno); n != c.number || errnoOf(n) != c.back || errnoOf(uint32(c.errno)) != c.back {
			t.Errorf("%d: number %d, back %v", c.errno, n, errnoOf(n))
		}
	}
}
