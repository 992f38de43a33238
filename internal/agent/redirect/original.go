package redirect

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mirrord-go/mirrord/internal/agent/conntrack"
	"github.com/mirrord-go/mirrord/internal/nft"
	"github.com/mirrord-go/mirrord/internal/quiet"
)

const (
	// maxOriginals bounds the connections to originals at once; those after it
	// wait. Each is two sockets and some kilobytes of ours.
	maxOriginals = 4096
	// originalTime bounds how long an original may take to answer, whatever the
	// caller allows.
	originalTime = 30 * time.Second
	// silence is how long the first attempt lasts, each further one twice as
	// long: a clash of addresses shows as silence. So does a server whose queue
	// is full, which the next attempt meets like a retransmission.
	silence = 400 * time.Millisecond
	// maxClashes bounds attempts that fail at once because their port is in use;
	// each takes some microseconds.
	maxClashes = 256
)

var (
	errSilent = errors.New("no answer")
	errClash  = errors.New("connections of the client, ended ones too, have all the ports that were tried")
)

// originals makes connections to the original servers, which see the clients'
// addresses.
//
// Such a connection starts at a loopback address and goes over lo. A rule in
// postrouting gives it the client's address; packets on lo keep their route and
// their tracking entry, so that reverse path filters and routes do not matter,
// and the server's answers are translated back. The source port is chosen
// here: by address and port the connection is exempted from stealing, and it
// says whose address to use. The client's own port is not kept, its socket or
// ours would be in the way.
type originals struct {
	ns       Namespace
	steering steering
	slots    chan struct{}
	ports    *ports

	mu     sync.Mutex
	ready  bool // the following are set
	own    ownTable
	taken  *conntrack.Table // nil: not to be had
	v4, v6 nft.Set          // port → client
	why    error            // why clients' addresses cannot be kept
	unkept error            // why one client's was not, though others' are
}

func (o *originals) init(ns Namespace, s steering) {
	o.ns, o.steering = ns, s
	o.slots = make(chan struct{}, maxOriginals)
	o.ports = newPorts(o.enter)
}

// setUp prepares the translation with the first connection: until then there
// is nothing of it in the target.
func (o *originals) setUp() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.ready {
		o.why = o.translate()
		o.ready = true
	}
	return o.why
}

func (o *originals) translate() (err error) {
	if o.own, err = o.steering.table(); err != nil {
		return err
	}
	o.v4 = nft.Set{Table: o.own.Table, Name: "clients4", Key: nft.TypePort, Value: nft.TypeIPv4}
	o.v6 = nft.Set{Table: o.own.Table, Name: "clients6", Key: nft.TypePort, Value: nft.TypeIPv6}
	post := nft.Chain{Table: o.own.Table, Name: "postrouting", Hook: nft.NATPostroutingFirst}
	ours := nft.All(nft.Oif("lo"), nft.Mark(o.own.mark), nft.L4(unix.IPPROTO_TCP))
	err = o.own.conn.Apply(o.v4.Create(), o.v6.Create(), post.Create(),
		post.Rule(ours, nft.Family(false), nft.SNATBySport(o.v4)),
		post.Rule(ours, nft.Family(true), nft.SNATBySport(o.v6)))
	if err != nil {
		return err
	}
	o.taken, _ = conntrack.Open(o.ns.Do) // a kernel may have none; then clashes show as silence
	return nil
}

// enter changes which ports are translated to whom, in one transaction.
func (o *originals) enter(out, in []lease) error {
	changes := func(list []lease, change func(nft.Set, ...nft.Element) nft.Change) (all []nft.Change) {
		var v4, v6 []nft.Element
		for _, l := range list {
			switch e := nft.PortAddr(l.port, l.client); {
			case l.client.Is4():
				v4 = append(v4, e)
			case l.client.Is6():
				v6 = append(v6, e)
			}
		}
		if len(v4) > 0 {
			all = append(all, change(o.v4, v4...))
		}
		if len(v6) > 0 {
			all = append(all, change(o.v6, v6...))
		}
		return all
	}
	all := append(changes(out, nft.Set.Delete), changes(in, nft.Set.Add)...)
	if len(all) == 0 {
		return nil
	}
	return o.own.conn.Apply(all...)
}

func (o *originals) close() error {
	if o.taken == nil {
		return nil
	}
	return o.taken.Close()
}

// route says how a connection to the original goes.
type route struct {
	from []netip.Addr // where to start, the first that the target has
	to   netip.Addr   // what from is translated to; the zero Addr: nothing
	as   netip.Addr   // what the server sees
}

// route to dst for client.
func (o *originals) route(client, dst netip.Addr) route {
	why := o.setUp() // in any case: it gives our connections their mark
	switch {
	case client.IsLoopback(): // it is in the target
		return route{from: []netip.Addr{client}, as: client}
	case why != nil:
		return unkept(dst)
	case client.IsLinkLocalUnicast():
		// The server's answers to it could not be sent on lo.
		return o.stranger(dst, fmt.Errorf("%v is a link-local address: %w", client, unix.EADDRNOTAVAIL))
	}
	from := netip.AddrFrom4([4]byte{127, 0, 0, 1})
	if dst.Is6() {
		from = netip.IPv6Loopback()
	}
	return route{from: []netip.Addr{from, dst}, to: client, as: client}
}

// unkept is a route without the client's address. It does not start at
// loopback, which servers trust more than their own address.
func unkept(dst netip.Addr) route { return route{from: []netip.Addr{dst}, as: dst} }

// stranger is unkept for one client, because of why.
func (o *originals) stranger(dst netip.Addr, why error) route {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.unkept = why
	return unkept(dst)
}

// KeepsClient reports whether original servers have seen the addresses of all
// the clients whose connections were passed on so far; if not, why: they see an
// address of the target's own.
func (r *Redirect) KeepsClient() (bool, error) {
	r.originals.mu.Lock()
	defer r.originals.mu.Unlock()
	err := r.originals.why
	if err == nil {
		err = r.originals.unkept
	}
	return err == nil, err
}

// Original connects to the server that c, which came from Accept, was meant
// for: DialOriginal with c's client and what it dialed. c stays the caller's.
func (r *Redirect) Original(ctx context.Context, c net.Conn) (net.Conn, error) {
	stolen, ok := c.(*Conn)
	if !ok {
		return nil, fmt.Errorf("original of a connection that was not stolen: %w", unix.EINVAL)
	}
	return r.DialOriginal(ctx, tcpAddr(stolen.RemoteAddr()), tcpAddr(stolen.local))
}

// DialOriginal connects from inside the target's network to dst, an address of
// the target's, past all stealing of this Redirect. The server sees the address
// of client (its port is another), unless KeepsClient says no. The connection
// has CloseWrite, ReadFrom and WriteTo of *net.TCPConn; the caller closes it.
//
// Errors wrap the errno of the target's kernel: ECONNREFUSED when nobody
// listens, ETIMEDOUT when nobody answers; or are those of ctx. After Close and
// the end of the last stolen connection: net.ErrClosed.
func (r *Redirect) DialOriginal(ctx context.Context, client, dst netip.AddrPort) (net.Conn, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, originalTime, unix.ETIMEDOUT)
	defer cancel()
	o := &r.originals
	select {
	case o.slots <- struct{}{}:
	case <-ctx.Done():
		return nil, fmt.Errorf("wait for one of %d connections to end: %w", maxOriginals, context.Cause(ctx))
	}
	if !r.hold() {
		<-o.slots
		return nil, net.ErrClosed
	}
	end := func() { <-o.slots; r.release() }
	plain := func(a netip.Addr) netip.Addr { return a.Unmap().WithZone("") }
	c, err := o.dial(ctx, plain(client.Addr()), netip.AddrPortFrom(plain(dst.Addr()), dst.Port()), end)
	if err != nil {
		end()
		return nil, fmt.Errorf("connect to the original server at %v: %w", dst, err)
	}
	return c, nil
}

func (o *originals) dial(ctx context.Context, client netip.Addr, dst netip.AddrPort, end func()) (net.Conn, error) {
	way := o.route(client, dst.Addr())
	limit := silence
	for clashes := 0; ; {
		attempt, cancel := context.WithTimeoutCause(ctx, limit, errSilent)
		c, err := o.try(attempt, way, dst, end)
		cancel()
		switch {
		case err == nil:
			return c, nil
		case errors.Is(err, errSilent):
			limit *= 2
		case clashes < maxClashes && (errors.Is(err, unix.EADDRINUSE) || errors.Is(err, unix.EADDRNOTAVAIL) || errors.Is(err, errClash)):
			clashes++
		case errors.Is(err, errClash): // it is very busy
			way = o.stranger(dst.Addr(), fmt.Errorf("%v: %w", client, err))
		default:
			return nil, err
		}
	}
}

// try connects from the next port.
func (o *originals) try(ctx context.Context, way route, dst netip.AddrPort, end func()) (net.Conn, error) {
	l, err := o.ports.take(way.to)
	if err != nil {
		return nil, err
	}
	seen := netip.AddrPortFrom(way.as, l.port)
	// Before any packet: ours would be a stray one for a connection that the
	// client has already, which our reset of the server's answer would end.
	if way.to.IsValid() && o.isTaken(seen, dst) {
		o.ports.put(l)
		return nil, errClash
	}
	done := func() { o.steering.forget(seen); o.ports.put(l) }
	if err := o.steering.exempt(seen); err != nil {
		done()
		return nil, fmt.Errorf("exempt %v from stealing: %w", seen, err)
	}
	c, err := o.ns.DialWith(ctx, "tcp", dst, func(fd int) error { return o.prepare(fd, way, l.port) })
	if err != nil {
		done()
		return nil, err
	}
	return &original{Conn: quiet.New(c.(*net.TCPConn)), done: func() { done(); end() }}, nil
}

// isTaken reports whether peer has a connection with server already. One that is
// over does not count for the server, but does for as long as it is tracked: ours
// could not be translated to the same addresses. A kernel that cannot tell says
// that there is none.
func (o *originals) isTaken(peer, server netip.AddrPort) bool {
	if o.taken == nil {
		return false
	}
	if o.taken.Connected(peer, server) {
		return true
	}
	_, tracked := o.taken.Find(peer, server)
	return tracked
}

// prepare gives a socket its mark and its source.
func (o *originals) prepare(fd int, way route, port uint16) error {
	if o.own.mark != 0 {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, int(o.own.mark)); err != nil {
			return fmt.Errorf("mark the socket: %w", err)
		}
	}
	// An earlier connection from the port, in TIME_WAIT, is in nobody's way.
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		return err
	}
	var err error
	for _, from := range way.from {
		if err = unix.Bind(fd, o.sockaddr(from, port)); !errors.Is(err, unix.EADDRNOTAVAIL) {
			break
		}
	}
	if err != nil {
		return fmt.Errorf("bind to port %d: %w", port, err)
	}
	return nil
}

func (o *originals) sockaddr(a netip.Addr, port uint16) unix.Sockaddr {
	if a.Is4() {
		return &unix.SockaddrInet4{Addr: a.As4(), Port: int(port)}
	}
	sa := &unix.SockaddrInet6{Addr: a.As16(), Port: int(port)}
	if a.IsLinkLocalUnicast() {
		sa.ZoneId = o.scope(a)
	}
	return sa
}

// scope is the index of the target's interface that has the address a; 0: none.
// What package net says of a socket's zone is not of this namespace.
func (o *originals) scope(a netip.Addr) (index uint32) {
	_ = o.ns.Do(func() error {
		list, err := net.Interfaces()
		if err != nil {
			return err
		}
		for _, i := range list {
			addrs, _ := i.Addrs()
			for _, have := range addrs {
				if n, ok := have.(*net.IPNet); ok && n.IP.Equal(a.AsSlice()) {
					index = uint32(i.Index)
				}
			}
		}
		return nil
	})
	return index
}

// original is a connection to the original server.
type original struct {
	*quiet.Conn
	once sync.Once
	done func()
}

// Close closes the connection; its port is free for the next.
func (c *original) Close() error {
	err := c.Conn.Close()
	c.once.Do(c.done)
	return err
}
