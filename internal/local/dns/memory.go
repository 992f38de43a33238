package dns

import (
	"container/list"
	"net/netip"
	"slices"
	"sync"
)

const (
	// maxAddresses bounds what is remembered of lookups; the address that was
	// the answer to none for longest is forgotten.
	maxAddresses = 1000
	// maxNames bounds the names of one address: behind one, a whole domain may
	// live. The latest are kept.
	maxNames = 16
)

// memory holds the names that addresses were the answer for.
type memory struct {
	mu     sync.Mutex
	byAddr map[netip.Addr]*list.Element
	order  list.List // of *known; the front was the answer to none for longest
}

type known struct {
	addr   netip.Addr
	names  []string // latest first
	remote bool     // the latest answer was the target's
}

// add remembers that names, the one asked for first, lead to a.
func (m *memory) add(a netip.Addr, names []string, remote bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	e := m.byAddr[a]
	if e == nil {
		if m.byAddr == nil {
			m.byAddr = map[netip.Addr]*list.Element{}
		}
		for m.order.Len() >= maxAddresses {
			delete(m.byAddr, m.order.Remove(m.order.Front()).(*known).addr)
		}
		e = m.order.PushBack(&known{addr: a})
		m.byAddr[a] = e
	}
	m.order.MoveToBack(e)
	k := e.Value.(*known)
	k.remote = remote
	all := slices.Clone(names)
	for _, n := range k.names {
		if !slices.Contains(all, n) {
			all = append(all, n)
		}
	}
	k.names = all[:min(len(all), maxNames)]
}

// of gives what is remembered of a; the list is never changed again.
func (m *memory) of(a netip.Addr) (names []string, remote bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if e := m.byAddr[a]; e != nil {
		k := e.Value.(*known)
		return k.names, k.remote
	}
	return nil, false
}
