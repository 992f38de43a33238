// Package redirect brings new connections to a target's ports to the agent,
// and passes those on to the target that the agent does not want.
//
// By BPF where the kernel lets us (lookup.go): a program of type sk_lookup on
// the target's network namespace gives chosen ports to the agent's listener.
// No packet is changed, nothing is tracked, connections made before stay with
// the target. Otherwise by nftables (nat.go): a redirect in a table that its
// owner's socket keeps alive. Towards the original server (original.go) a
// translation on lo gives our connection the client's address. All state is
// held by descriptors, so that the kernel gives everything back when the agent
// dies, however it dies.
//
// Needed: CAP_SYS_ADMIN to enter the namespace; for BPF CAP_BPF and
// CAP_NET_ADMIN in the first user namespace and Linux 5.9; for nftables, and
// for the client's address at the original, CAP_NET_ADMIN in the namespace's
// user namespace and Linux 5.12.
//
// Hazards. MPTCP must be off on the listeners: an MPTCP socket goes into no
// socket map and has no original destination. After a port was taken out, a
// connection whose handshake was under way still arrives here: the listeners
// go on accepting until Close, and such connections go to the original. The
// translation switches connection tracking on in the target's network
// namespace.
package redirect

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/mirrord-go/mirrord/internal/agent/claims"
)

// backlog bounds connections that were accepted and not yet taken by Accept;
// more wait in the kernel.
const backlog = 128

// lingerTime is how long the listeners stay open after the ports went back,
// for connections whose handshake was under way.
const lingerTime = 300 * time.Millisecond

// passTime is how long Close waits for the end of connections that nobody took
// and the original serves: requests are done by then, and what lasts longer
// must not keep the agent.
const passTime = 5 * time.Second

// acceptPause is how long an agent without free descriptors waits for one.
const acceptPause = 100 * time.Millisecond

// Namespace is the target's network namespace.
type Namespace interface {
	// Do runs f on a thread inside it, and Holds tells who of those in it are of
	// the target's container.
	claims.Target
	// Handle calls f with a descriptor of the namespace.
	Handle(f func(fd int) error) error
	// DialWith connects from inside it; prepare is called on the socket before.
	DialWith(ctx context.Context, network string, a netip.AddrPort, prepare func(fd int) error) (net.Conn, error)
}

// steering is one way to bring connections here.
type steering interface {
	add(port uint16) error
	remove(port uint16) error
	// dialed gives what the client of c dialed; false for a connection that
	// nobody steered here.
	dialed(c *net.TCPConn) (netip.AddrPort, bool)
	// exempt lets a connection of ours to the original through that has the
	// source src there, until forget.
	exempt(src netip.AddrPort) error
	forget(src netip.AddrPort)
	// table is where the translation for originals goes; it is called once.
	table() (ownTable, error)
	// detach ends the steering; connections that it brought go on until close.
	detach() error
	close() error
}

// Redirect steals ports of one target. Its methods may be called concurrently.
type Redirect struct {
	ns        Namespace
	o         Options
	steering  steering
	listeners []*net.TCPListener
	originals originals
	quit      chan struct{} // closed by Close
	accepting sync.WaitGroup

	beating  sync.Mutex     // held by who shows that the agent runs
	passing  sync.WaitGroup // connections that pass hands to the original
	passTime time.Duration
	ctx      context.Context // theirs; alive until Close
	cancel   context.CancelFunc

	mu     sync.Mutex
	cond   *sync.Cond               // of mu: queue, claims or closed have changed
	claims map[uint16]*claims.Claim // by stolen port
	queue  []*Conn                  // accepted, oldest first
	gave   time.Time                // when a port went back last
	closed bool

	life  sync.Mutex
	users int // what needs the kernel's state: the Redirect until Close, and connections
}

// Options of New.
type Options struct {
	Holder string // whose session it is: others are told
	// Joined is given the connection of each agent that wants to share a stolen
	// port, which it owns; it must not wait. nil: none can.
	Joined func(port uint16, c net.Conn)
	// NAT says why nftables cannot steal here; nil, or gives nil: it can, as far as
	// the kernel lets it. It is asked where BPF cannot.
	NAT func() error
}

// New prepares stealing in ns. It changes nothing for the target yet.
func New(ns Namespace, o Options) (*Redirect, error) {
	r, err := newWith(ns, o, (*Redirect).byLookup)
	if err == nil {
		return r, nil
	}
	if o.NAT != nil {
		if why := o.NAT(); why != nil {
			return nil, fmt.Errorf("neither BPF (%w) nor nftables can be used: %w", err, why)
		}
	}
	r, nerr := newWith(ns, o, (*Redirect).byNAT)
	if nerr != nil {
		return nil, fmt.Errorf("neither BPF (%w) nor nftables (%w) can be used", err, nerr)
	}
	return r, nil
}

func newWith(ns Namespace, o Options, steer func(*Redirect) (steering, error)) (_ *Redirect, err error) {
	r := &Redirect{ns: ns, o: o, quit: make(chan struct{}), passTime: passTime, claims: map[uint16]*claims.Claim{}, users: 1}
	r.cond = sync.NewCond(&r.mu)
	if r.steering, err = steer(r); err != nil {
		return nil, err
	}
	r.originals.init(ns, r.steering)
	r.ctx, r.cancel = context.WithCancel(context.Background())
	for _, ln := range r.listeners {
		r.accepting.Go(func() { r.accept(ln) })
	}
	if s, ok := r.steering.(interface{ beat() error }); ok {
		r.accepting.Go(func() { r.beats(s.beat) })
	}
	return r, nil
}

// listen opens the listeners inside the namespace on the given hosts, without
// MPTCP. A host of a family that the target has not is left out, but not all.
func (r *Redirect) listen(hosts ...string) error {
	lc := net.ListenConfig{}
	lc.SetMultipathTCP(false)
	var errs []error
	for _, host := range hosts {
		network := "tcp4" // "tcp" and 0.0.0.0 would be a socket of both families
		if netip.MustParseAddr(host).Is6() {
			network = "tcp6"
		}
		err := r.ns.Do(func() error {
			ln, err := lc.Listen(context.Background(), network, net.JoinHostPort(host, "0"))
			if err == nil {
				r.listeners = append(r.listeners, ln.(*net.TCPListener))
			}
			return err
		})
		errs = append(errs, err)
	}
	if len(r.listeners) == 0 {
		return fmt.Errorf("listen in the target's network: %w", errors.Join(errs...))
	}
	return nil
}

func (r *Redirect) closeListeners() {
	for _, ln := range r.listeners {
		ln.Close()
	}
	r.listeners = nil
}

// Add steals port: when it returns, new connections come here. A port that
// another session holds is a *claims.HeldError.
func (r *Redirect) Add(port uint16) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return net.ErrClosed
	}
	if r.claims[port] != nil {
		return nil
	}
	var joined func(net.Conn)
	if r.o.Joined != nil {
		joined = func(c net.Conn) { r.o.Joined(port, c) }
	}
	claim, err := claims.Take(r.ns, claims.TCP, port, r.o.Holder, joined)
	if err != nil {
		return err
	}
	if err := r.steering.add(port); err != nil {
		claim.Release()
		return fmt.Errorf("steal port %d: %w", port, err)
	}
	r.claims[port] = claim
	return nil
}

// Remove gives port back: when it returns, new connections go to the target,
// and those that nobody has accepted yet. Those that Accept gave out go on.
func (r *Redirect) Remove(port uint16) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.remove(port)
}

// remove gives port back. mu is held.
func (r *Redirect) remove(port uint16) error {
	claim := r.claims[port]
	if claim == nil {
		return nil
	}
	delete(r.claims, port)
	r.gave = time.Now()
	err := r.steering.remove(port)
	claim.Release()
	r.queue = slices.DeleteFunc(r.queue, func(c *Conn) bool {
		gone := tcpAddr(c.local).Port() == port
		if gone {
			r.pass(c)
		}
		return gone
	})
	r.cond.Broadcast()
	return err
}

// Close gives all ports back. Connections that Accept gave out go on, as do
// those that Original and DialOriginal made; those that nobody took are served
// by the original, for which Close waits up to passTime.
func (r *Redirect) Close() error {
	r.mu.Lock()
	if r.closed {
		r.mu.Unlock()
		return nil
	}
	r.closed = true
	var errs []error
	for port := range r.claims {
		errs = append(errs, r.remove(port))
	}
	r.cond.Broadcast()
	rest := lingerTime - time.Since(r.gave)
	r.mu.Unlock()
	// No event tells the end of a handshake that found our listener a moment
	// ago; closing the listener would reset it.
	time.Sleep(rest)
	close(r.quit)
	for _, ln := range r.listeners {
		ln.Close()
	}
	r.accepting.Wait()
	errs = append(errs, r.steering.detach())
	overdue := time.AfterFunc(r.passTime, r.cancel)
	r.passing.Wait()
	overdue.Stop()
	r.cancel()
	r.release()
	return errors.Join(errs...)
}

// hold keeps the kernel's state until release; false: it is gone.
func (r *Redirect) hold() bool {
	r.life.Lock()
	defer r.life.Unlock()
	if r.users == 0 {
		return false
	}
	r.users++
	return true
}

// release lets go of the kernel's state with its last user: stolen connections
// may be translated, those to the original are.
func (r *Redirect) release() {
	r.life.Lock()
	defer r.life.Unlock()
	if r.users--; r.users == 0 {
		_ = r.originals.close()
		_ = r.steering.close()
	}
}
