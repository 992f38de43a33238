package redirect

import (
	"net/netip"
	"slices"
	"sync"
	"time"
)

// NewByLookup and NewByNAT choose the mechanism for tests.
func NewByLookup(ns Namespace, holder string) (*Redirect, error) {
	return newWith(ns, Options{Holder: holder}, (*Redirect).byLookup)
}

func NewByNAT(ns Namespace, holder string) (*Redirect, error) {
	return newWith(ns, Options{Holder: holder}, (*Redirect).byNAT)
}

// Addrs are the addresses that the agent listens on.
func (r *Redirect) Addrs() (list []netip.AddrPort) {
	for _, ln := range r.listeners {
		list = append(list, tcpAddr(ln.Addr()))
	}
	return list
}

// FirstPorts are the ports that connections to an original will have.
func FirstPorts(r *Redirect) []uint16 { return slices.Clone(r.originals.ports.rest) }

// MaxClashes is how many ports are tried.
const MaxClashes = maxClashes

// SetUp prepares the translation.
func SetUp(r *Redirect) { _ = r.originals.setUp() }

// Blind takes away the look at the kernel's connections.
func Blind(r *Redirect) {
	SetUp(r)
	_ = r.originals.close()
	r.originals.taken = nil
}

// NoTranslation is a kernel that cannot translate, because of err.
func NoTranslation(r *Redirect, err error) {
	r.originals.ready, r.originals.why = true, err
}

// PassTime is how long Close waits for connections that it passes on.
func PassTime(r *Redirect, d time.Duration) { r.passTime = d }

// Stop is what a signal does to an agent, as far as its beats go.
func Stop(r *Redirect) (goOn func()) {
	r.beating.Lock()
	return sync.OnceFunc(r.beating.Unlock)
}

// OwnPort is that of the socket for IPv4.
func OwnPort(d *Datagrams) uint16 { return d.own[0] }

// Unmarkable is for its table.
var Unmarkable = unmarkable
