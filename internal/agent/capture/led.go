package capture

import (
	"github.com/mirrord-go/mirrord/internal/agent/conntrack"
)

// led tells which connections lead elsewhere than to the port that the client has
// called, behind a sidecar. A packet socket sees packets before any rule does:
// without this, a request that a mesh's rules lead to its sidecar, and that the
// sidecar sends on to the port, would be copied twice, once of them encrypted.
// Whatever cannot be told is copied.
type led struct {
	table     *conntrack.Table // nil: the kernel cannot be asked
	tracks    bool             // connection tracking can be
	diagnoses bool             // sockets can be
	own       Marks            // of connections that are led to an agent: the client's are the only ones there are
	sidecar   bool             // somebody takes what comes in, and calls the port himself
	passes    chan uint16      // has room for one: the port of what went to the sidecar
}

func newLed(do func(func() error) error, own Marks) *led {
	l := &led{own: own, passes: make(chan uint16, 1)}
	if t, err := conntrack.Open(do); err == nil {
		l.table, l.tracks, l.diagnoses = t, t.Tracks(), t.Diagnoses()
	}
	return l
}

// elsewhere is asked when the server has accepted. loops: the packets come by the
// loopback interface, from within the pod, where rules come before copies.
func (l *led) elsewhere(k flowKey, loops bool) (yes bool) {
	if l.table == nil || !l.sidecar || loops {
		return false
	}
	switch {
	case l.tracks:
		// Another address alone is another's translation, of a service's say.
		e, ok := l.table.Find(k.client, k.server)
		yes = ok && e.Server.Port() != k.server.Port() && !l.own.has(e.Mark)
	case l.diagnoses:
		// The sidecar's socket has another port. What has ended since has no socket
		// either.
		yes = !l.table.Connected(k.client, k.server)
	}
	if yes {
		select {
		case l.passes <- k.server.Port():
		default:
		}
	}
	return yes
}

func (l *led) close() {
	if l.table != nil {
		_ = l.table.Close()
	}
}

// has reports whether a mark is one of them.
func (m Marks) has(mark uint32) bool { return m.Mask != 0 && mark&m.Mask == m.Value }
