package target

import (
	"sync"

	"golang.org/x/sys/unix"
)

// stockSize is how many sockets of a kind lie ready. Making them takes a change to
// the thread that is inside the namespace and back: so do half as many at once.
const stockSize = 8

// kind is what sockets are alike in.
type kind struct{ domain, typ int }

// stock holds sockets of the target's network that nobody has used, so that a
// dial need not wait for one. Its methods may be called concurrently.
type stock struct {
	make func(k kind, n int) []int // as many of n as can be had

	mu      sync.Mutex
	ready   map[kind][]int
	filling map[kind]bool
	closed  bool
	wg      sync.WaitGroup // fills
}

func newStock(make func(kind, int) []int) *stock {
	return &stock{make: make, ready: map[kind][]int{}, filling: map[kind]bool{}}
}

// take gives a socket, which is the caller's; false: there is none. What is taken
// is replaced.
func (s *stock) take(k kind) (fd int, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return -1, false
	}
	fds := s.ready[k]
	if n := len(fds) - 1; n >= 0 {
		fd, ok, s.ready[k] = fds[n], true, fds[:n]
	}
	if len(s.ready[k]) <= stockSize/2 && !s.filling[k] {
		s.filling[k] = true
		s.wg.Go(func() { s.fill(k) })
	}
	return fd, ok
}

func (s *stock) fill(k kind) {
	s.mu.Lock()
	want := stockSize - len(s.ready[k])
	s.mu.Unlock()
	fds := s.make(k, want)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.filling[k] = false
	if s.closed {
		closeAll(fds)
		return
	}
	s.ready[k] = append(s.ready[k], fds...)
}

// close closes what nobody has taken.
func (s *stock) close() {
	s.mu.Lock()
	s.closed = true
	for _, fds := range s.ready {
		closeAll(fds)
	}
	clear(s.ready)
	s.mu.Unlock()
	s.wg.Wait()
}

func closeAll(fds []int) {
	for _, fd := range fds {
		unix.Close(fd)
	}
}
