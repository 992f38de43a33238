// Package redirect brings new connections to a target's ports to the agent.
//
// By BPF where the kernel lets us (lookup.go): a program of type sk_lookup on
// the target's network namespace gives chosen ports to the agent's listener.
// No packet is changed, nothing is tracked, connections made before stay with
// the target. Otherwise by nftables (nat.go): a redirect in a table that its
// owner's socket keeps alive. Either way all state is held by descriptors, so
// that the kernel gives everything back when the agent dies, however it dies.
//
// Needed: CAP_SYS_ADMIN to enter the namespace; for BPF CAP_BPF and
// CAP_NET_ADMIN in the first user namespace and Linux 5.9; for nftables
// CAP_NET_ADMIN in the namespace's user namespace and Linux 5.12.
//
// Hazards. MPTCP must be off on the listeners: an MPTCP socket goes into no
// socket map and has no original destination. After a port was taken out, a
// connection whose handshake was under way still arrives here: the listeners
// go on accepting until Close.
package redirect

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/mirrord-go/mirrord/internal/agent/claims"
)

// backlog bounds connections that were accepted and not yet taken by Accept.
const backlog = 128

// lingerTime is how long the listeners stay open after the ports went back,
// for connections whose handshake was under way.
const lingerTime = 300 * time.Millisecond

// acceptPause is how long an agent without free descriptors waits for one.
const acceptPause = 100 * time.Millisecond

// Namespace is the target's network namespace.
type Namespace interface {
	// Do runs f on a thread inside it.
	Do(f func() error) error
	// Handle calls f with a descriptor of the namespace.
	Handle(f func(fd int) error) error
}

// steering is one way to bring connections here.
type steering interface {
	add(port uint16) error
	remove(port uint16) error
	// original gives what the client of c dialed; false for a connection that
	// nobody steered here.
	original(c *net.TCPConn) (netip.AddrPort, bool)
	close() error
}

// Redirect steals ports of one target. Its methods may be called concurrently.
type Redirect struct {
	ns        Namespace
	holder    string
	steering  steering
	listeners []*net.TCPListener
	conns     chan *Conn
	quit      chan struct{} // closed by Close
	wg        sync.WaitGroup

	mu     sync.Mutex
	claims map[uint16]*claims.Claim // by stolen port
	closed bool
}

// Conn is a stolen connection: its LocalAddr is what the client dialed.
type Conn struct {
	*net.TCPConn
	local net.Addr
}

// LocalAddr is what the client dialed.
func (c *Conn) LocalAddr() net.Addr { return c.local }

// New prepares stealing in ns, for a session that others are told of as
// holder. It changes nothing for the target yet.
func New(ns Namespace, holder string) (*Redirect, error) {
	r, err := newWith(ns, holder, (*Redirect).byLookup)
	if err == nil {
		return r, nil
	}
	r, nerr := newWith(ns, holder, (*Redirect).byNAT)
	if nerr != nil {
		return nil, fmt.Errorf("neither BPF (%w) nor nftables (%w) can be used", err, nerr)
	}
	return r, nil
}

func newWith(ns Namespace, holder string, steer func(*Redirect) (steering, error)) (_ *Redirect, err error) {
	r := &Redirect{ns: ns, holder: holder, conns: make(chan *Conn, backlog), quit: make(chan struct{}), claims: map[uint16]*claims.Claim{}}
	if r.steering, err = steer(r); err != nil {
		return nil, err
	}
	for _, ln := range r.listeners {
		r.wg.Go(func() { r.accept(ln) })
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

func (r *Redirect) accept(ln *net.TCPListener) {
	for {
		c, err := ln.AcceptTCP()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // out of descriptors, for the moment
			select {
			case <-time.After(acceptPause):
				continue
			case <-r.quit:
				return
			}
		}
		local, ok := r.steering.original(c)
		if !ok {
			_ = c.SetLinger(0) // somebody dialed our own port
			c.Close()
			continue
		}
		select {
		case r.conns <- &Conn{c, net.TCPAddrFromAddrPort(local)}:
		case <-r.quit:
			_ = c.SetLinger(0)
			c.Close()
		}
	}
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
	claim, err := claims.Take(r.ns.Do, port, r.holder)
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

// Remove gives port back: when it returns, new connections go to the target.
// Those that were stolen go on.
func (r *Redirect) Remove(port uint16) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.remove(port)
}

func (r *Redirect) remove(port uint16) error {
	claim := r.claims[port]
	if claim == nil {
		return nil
	}
	delete(r.claims, port)
	err := r.steering.remove(port)
	claim.Release()
	return err
}

// Accept waits for the next stolen connection, a *Conn. After Close it fails
// with net.ErrClosed.
func (r *Redirect) Accept(ctx context.Context) (net.Conn, error) {
	select {
	case c := <-r.conns:
		return c, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-r.quit:
		return nil, net.ErrClosed
	}
}

// Close gives all ports back. Connections that were stolen and accepted go on.
func (r *Redirect) Close() error {
	r.mu.Lock()
	if r.closed {
		r.mu.Unlock()
		return nil
	}
	r.closed = true
	any := len(r.claims) > 0
	var errs []error
	for port := range r.claims {
		errs = append(errs, r.remove(port))
	}
	r.mu.Unlock()
	if any {
		// No event tells the end of a handshake that found our listener a moment
		// ago; closing the listener would reset it.
		time.Sleep(lingerTime)
	}
	close(r.quit)
	for _, ln := range r.listeners {
		ln.Close()
	}
	r.wg.Wait()
	for {
		select {
		case c := <-r.conns:
			_ = c.SetLinger(0)
			c.Close()
			continue
		default:
		}
		break
	}
	return errors.Join(append(errs, r.steering.close())...)
}

// tcpAddr is the address of a connection's own end.
func tcpAddr(a net.Addr) netip.AddrPort {
	p := a.(*net.TCPAddr).AddrPort()
	return netip.AddrPortFrom(p.Addr().Unmap(), p.Port())
}
