package sandbox

import "sync"

// maxAnyPorts bounds how many sockets are remembered between bind(2) and
// listen(2). Clients that bind never listen; they are forgotten when they end,
// except for those of MPTCP, whose end nobody reports.
const maxAnyPorts = 4096

// anyPorts are the sockets, by cookie, that were bound to port 0 and do not
// listen yet.
type anyPorts struct {
	mu sync.Mutex
	of map[uint64]bool
}

// put remembers a socket, at the cost of another one when there are too many:
// that one's port will count as asked for.
func (a *anyPorts) put(cookie uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.of == nil {
		a.of = map[uint64]bool{}
	}
	for other := range a.of {
		if len(a.of) < maxAnyPorts {
			break
		}
		delete(a.of, other)
	}
	a.of[cookie] = true
}

// take forgets a socket and tells whether it was remembered.
func (a *anyPorts) take(cookie uint64) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	was := a.of[cookie]
	delete(a.of, cookie)
	return was
}
