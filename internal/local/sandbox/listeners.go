package sandbox

import (
	"context"
	"net/netip"
	"slices"
	"sync"
)

// Listener is a socket that waits for others: TCP that listens, or UDP that is
// bound.
type Listener struct {
	ID    uint64         // never used twice in a Box
	Proto int            // unix.IPPROTO_TCP or IPPROTO_UDP
	Addr  netip.AddrPort // as getsockname says; IPv4-mapped addresses as IPv4
	// AnyPort: the program asked for port 0, or for none, and the kernel has
	// chosen. It is not known of a TCP listener that had to be looked for, and of
	// UDP guessed then, by the number.
	AnyPort bool
	PID     int // whose call it was; 0 if that is not known
}

// registry keeps what the sandbox listens on. A port is local in the sandbox
// as long as any socket listens on it: SO_REUSEPORT, several addresses.
type registry struct {
	setLocal func(proto int, port uint16, on bool) error

	mu     sync.Mutex
	lastID uint64
	known  map[uint64]*entry // by socket cookie
	ports  map[portKey]int
}

type portKey struct {
	proto int
	port  uint16
}

// entry is one socket. Its hook runs once; whoever comes meanwhile waits.
type entry struct {
	Listener
	ready chan struct{} // closed when the hook has returned; then err is set
	over  chan struct{} // closed when its end has been told
	by    *watch        // who announced it; guarded by registry.mu
	err   error
	gone  bool // destroyed before ready; guarded by registry.mu
	set   bool // ready; guarded by registry.mu
}

func newRegistry(setLocal func(proto int, port uint16, on bool) error) *registry {
	return &registry{setLocal: setLocal, known: map[uint64]*entry{}, ports: map[portKey]int{}}
}

// add enters a socket and makes its port local. fresh is false if it was known,
// then only wait may be called on the entry.
func (r *registry) add(cookie uint64, l Listener) (e *entry, fresh bool, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if e := r.known[cookie]; e != nil {
		return e, false, nil
	}
	k := portKey{l.Proto, l.Addr.Port()}
	if r.ports[k] == 0 {
		if err := r.setLocal(k.proto, k.port, true); err != nil {
			return nil, false, err
		}
	}
	r.ports[k]++
	r.lastID++
	l.ID = r.lastID
	e = &entry{Listener: l, ready: make(chan struct{}), over: make(chan struct{})}
	r.known[cookie] = e
	return e, true, nil
}

// settle says how the hook of a fresh entry ended. With an error the socket is
// forgotten. closed: it was destroyed meanwhile, and its end is to be told.
func (r *registry) settle(cookie uint64, e *entry, err error) (closed bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	e.set, e.err = true, err
	close(e.ready)
	if err != nil && !e.gone {
		delete(r.known, cookie)
	}
	if err != nil || e.gone {
		r.release(e)
	}
	return err == nil && e.gone
}

// wait waits for the hook of an entry.
func (e *entry) wait(ctx context.Context) error {
	select {
	case <-e.ready:
		return e.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// destroyed forgets a socket. The result is what to tell about; nil if it was
// not known, or its hook still runs (settle will say).
func (r *registry) destroyed(cookie uint64) *entry {
	r.mu.Lock()
	defer r.mu.Unlock()
	e := r.known[cookie]
	if e == nil {
		return nil
	}
	delete(r.known, cookie)
	if !e.set {
		e.gone = true
		return nil
	}
	r.release(e)
	return e
}

// release gives up an entry's port. r.mu is held.
func (r *registry) release(e *entry) {
	k := portKey{e.Proto, e.Addr.Port()}
	if r.ports[k]--; r.ports[k] > 0 {
		return
	}
	delete(r.ports, k)
	// The set is the sandbox's own; it fails only when that is gone.
	_ = r.setLocal(k.proto, k.port, false)
}

// knows tells whether a socket is entered.
func (r *registry) knows(cookie uint64) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.known[cookie] != nil
}

// announced notes whose an entry is.
func (r *registry) announced(e *entry, by *watch) {
	r.mu.Lock()
	defer r.mu.Unlock()
	e.by = by
}

// of lists what a watch has announced and is still there.
func (r *registry) of(by *watch) []*entry {
	r.mu.Lock()
	defer r.mu.Unlock()
	var all []*entry
	for _, e := range r.known {
		if e.by == by {
			all = append(all, e)
		}
	}
	return all
}

// all lists what is known of a protocol.
func (r *registry) all(proto int) (all []*entry) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range r.known {
		if e.Proto == proto {
			all = append(all, e)
		}
	}
	return all
}

// cookies lists what is known of some protocols.
func (r *registry) cookies(protos ...int) []uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	var all []uint64
	for cookie, e := range r.known {
		if slices.Contains(protos, e.Proto) {
			all = append(all, cookie)
		}
	}
	return all
}

// missing lists the cookies of known that are not among those there.
func missing(known []uint64, there []socket) []uint64 {
	seen := map[uint64]bool{}
	for _, s := range there {
		seen[s.cookie] = true
	}
	return slices.DeleteFunc(known, func(cookie uint64) bool { return seen[cookie] })
}
