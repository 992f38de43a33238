package netstack

import "sync"

const (
	// leastReceive and leastSend are what every connection may keep, in bytes,
	// however many there are. Less than two segments of a TUN device would make
	// the program's kernel wait for its probe timer (Linux splits a segment that
	// does not fit the window only then).
	leastReceive, leastSend = 128 << 10, 16 << 10
	// lendable is what all connections together may keep beyond that.
	lendable = 64 << 20
	// lendPart bounds what one connection gets of what is left: the next ones get
	// something too.
	lendPart = 16
)

// memory is what buffers may take beyond what each connection has for sure.
type memory struct {
	mu   sync.Mutex
	free int
}

// lend gives the size of a buffer of at least least and at most want bytes.
func (m *memory) lend(least, want int) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	size := max(least, min(want, m.free/lendPart))
	m.free -= size - least
	return size
}

// giveBack ends a loan of size bytes.
func (m *memory) giveBack(least, size int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.free += size - least
}
