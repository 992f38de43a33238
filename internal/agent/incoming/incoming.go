// Package incoming is the agent's half of the incoming flow: it hands the
// connections that reach the target's ports to the session that subscribed to
// them, whole or, under a filter, request by request.
//
// It knows no kernel: a Source brings connections, stolen or copied, and the
// link carries them. A subscription lives as long as its stream: when that
// ends, by whatever, the port goes back to the target, and what was taken
// before goes on. A port that is asked for twice goes back after the last.
//
// What a filter does not match goes to the original, the target's own server,
// byte for byte as it came (split.go): HTTP/1 is cut between messages and
// never written anew, and whatever is not clearly HTTP/1 is not cut at all. What is
// said of going on in HTTP/2 is the exception (h2c.go).
package incoming

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/mirrord-go/mirrord/internal/agent/tlsport"
	"github.com/mirrord-go/mirrord/internal/budget"
	"github.com/mirrord-go/mirrord/internal/link"
	"github.com/mirrord-go/mirrord/internal/protocol"
	"github.com/mirrord-go/mirrord/internal/relay"
	"github.com/mirrord-go/mirrord/internal/rules/sharing"
	"github.com/mirrord-go/mirrord/internal/udpflow"
)

// What a connection is counted as, in bytes, besides its stream: two stacks of
// 4 KiB, the buffers of relay or http1, and what is known of it; under a filter
// a third stack, and the buffers of both who answer.
const (
	ConnCost  = 12 << 10
	splitCost = 12 << 10
)

// reliefConns is how many connections there must be room for, or a quarter of
// those that there are, before a crowd is over: its ports come and go.
const reliefConns = 64

// Memory is the shares that a Hub takes from. nil ones have no end.
type Memory struct {
	// Connections are by mode, as the sources are. Without room further copies
	// wait to be accepted; the target serves further connections itself, until
	// there is room for some.
	Connections map[uint8]*budget.Share
	// Relayed is for the large buffers of connections that are carried whole.
	Relayed *budget.Share
	// Parsed is for those of connections under a filter, which slow clients hold
	// as long as they like. Without, bodies pass in smaller pieces, and heads of
	// more than 4 KiB go to the original.
	Parsed *budget.Share
	// Kept is for what clients say while local may still refuse them. Without,
	// they cannot be handed back.
	Kept *budget.Share
	// Wishes is for what is subscribed to: filters, of ours and of other agents'.
	Wishes *budget.Share
	// Sharing is for links with other agents, Link what those take from. Without,
	// a port is not shared.
	Sharing *budget.Share
	Link    link.Memory
}

// originalTime bounds connecting to the original, which is near: only a full
// queue of its listener takes time.
const originalTime = 10 * time.Second

// Source brings connections that reach ports of the target. The LocalAddr of
// each is what the client dialed, the RemoteAddr is the client. Those of UDP are
// *udpflow.Flow.
type Source interface {
	// Add begins with port; from its return on, new connections come here.
	Add(port uint16) error
	// Remove gives the port back to the target.
	Remove(port uint16) error
	// Accept waits for the next connection. It fails with net.ErrClosed, or
	// the error of ctx, when there will be no more.
	Accept(ctx context.Context) (net.Conn, error)
}

// Opener starts a stream towards local.
type Opener interface {
	Open(ctx context.Context, lane link.Lane, m protocol.Message) (*link.Stream, error)
	// Err is why the link has ended; nil: it lives.
	Err() error
}

// Existing ends connections that clients made before a port was stolen, so that
// they come anew.
type Existing interface {
	// Before is called before the port is stolen, and begin when it is. cut: all
	// are reset at once; else each is ended between two requests.
	Before(port uint16, cut bool) (begin func())
	// Forget leaves those that are still there alone.
	Forget(port uint16)
	// Ended is how many have been ended.
	Ended() uint64
}

// Options of New. The functions may be called concurrently.
type Options struct {
	Link    Opener
	Sources map[uint8]Source // by mode (protocol.ModeSteal, …); absent: this agent cannot
	Missing map[uint8]string // by mode: why it is absent, for a person
	// Original connects to the target's own server at dst as if client did. The
	// connection has a CloseWrite. nil: stolen ports cannot be filtered.
	Original func(ctx context.Context, client, dst netip.AddrPort) (net.Conn, error)
	// Existing ends connections that are there when a port is stolen. nil: they stay.
	Existing Existing
	// ReadFile reads a file of the target's, for ports whose TLS is taken off. nil: none
	// is.
	ReadFile tlsport.ReadFile
	// Copy makes the copy of a connection that is passed on to the original. nil:
	// there are none.
	Copy func(client, dialed netip.AddrPort) Copy
	// Notice tells the developer something. nil: nobody listens.
	Notice func(code, text string)
	// Session is whose it is, and since when. Its filter does not count.
	Session func() sharing.Session
	// Join connects to the agent that holds a port which a source refuses with
	// EADDRINUSE; that one's Host gets the other end. nil: ports are not shared.
	Join   func(port uint16) (net.Conn, error)
	Memory Memory
}

// Hub shares out the connections of one target to one session.
type Hub struct {
	o Options

	headTime, closedTime, beat time.Duration // the constants, but in tests

	// body is held by whoever looks at one: what it becomes when it is understood
	// is many times as large, and its sender has chosen it.
	body sync.Mutex

	life, carried   context.Context // of the session; and until its last connection has ended
	ended, finished context.CancelFunc
	sharing         sync.WaitGroup // of links with other agents

	// change is held by whoever changes which ports there are, which may take a
	// moment; mu is not held over any wait.
	change sync.Mutex

	passed, returned, refused, missed atomic.Uint64 // Counts

	mu        sync.Mutex
	ports     map[key][]subscription // the newest is last, and counts
	owned     map[key]bool           // those that the sources have
	joined    map[key]*joined        // those that another agent has, which shares them
	guests    map[uint16][]*guest    // with whom we share, by stolen port
	hosted    int                    // agents that are connected, or about to be
	over      bool                   // the session has ended
	suspended bool                   // nobody can answer what is stolen
	crowded   bool                   // no more that is stolen can be carried
	stolen    int                    // connections that are carried, or have their place
	noticed   map[string]bool        // by code and port: said already
	held      map[waiting]bool       // connections that may wait for local
	keys      map[string]*sharedKeys // by rule.tls
}

// New makes a hub.
func New(o Options) *Hub {
	h := &Hub{
		o: o, headTime: headTime, closedTime: closedTime, beat: beatTime,
		ports: map[key][]subscription{}, owned: map[key]bool{}, joined: map[key]*joined{}, guests: map[uint16][]*guest{},
		noticed: map[string]bool{}, held: map[waiting]bool{}, keys: map[string]*sharedKeys{},
	}
	h.life, h.ended = context.WithCancel(context.Background())
	h.carried, h.finished = context.WithCancel(context.Background())
	return h
}

// Run carries connections until ctx ends and every one of them is done. What
// the original is answering then may be finished, for a moment.
func (h *Hub) Run(ctx context.Context) {
	var wg sync.WaitGroup
	defer h.sharing.Wait()
	defer h.finished()
	defer wg.Wait()
	wg.Go(func() {
		<-ctx.Done()
		h.ended()
		h.GiveBack()
	})
	for mode, src := range h.o.Sources {
		wg.Go(func() {
			for h.enter(ctx, mode) {
				c, err := src.Accept(ctx)
				if err != nil {
					h.leave(mode)
					return
				}
				wg.Go(func() {
					h.carry(ctx, mode, c)
					h.leave(mode)
				})
			}
		})
	}
}

// enter waits for room for one more connection; false: ctx has ended.
func (h *Hub) enter(ctx context.Context, mode uint8) bool {
	room := h.o.Memory.Connections[mode]
	switch {
	case room.Take(ConnCost):
	case mode != protocol.ModeSteal:
		if room.Wait(ctx, ConnCost) != nil {
			return false
		}
	default:
		some := min(max(1, h.crowd()/4), reliefConns)
		if room.Wait(ctx, some*ConnCost) != nil {
			return false
		}
		room.Give((some - 1) * ConnCost)
		if ctx.Err() == nil {
			h.relieve()
		}
	}
	h.count(mode, 1)
	return true
}

// leave ends enter.
func (h *Hub) leave(mode uint8) {
	h.o.Memory.Connections[mode].Give(ConnCost)
	h.count(mode, -1)
}

func (h *Hub) count(mode uint8, n int) {
	if mode == protocol.ModeSteal {
		h.mu.Lock()
		h.stolen += n
		h.mu.Unlock()
	}
}

// Counts are what has become of connections until now, and of requests under a
// filter; without those that were lost before they came here.
func (h *Hub) Counts() protocol.Counts {
	c := protocol.Counts{Passed: h.passed.Load(), Returned: h.returned.Load(), Refused: h.refused.Load(), Copies: h.missed.Load()}
	if h.o.Existing != nil {
		c.Ended = h.o.Existing.Ended()
	}
	return c
}

// notice tells the developer something about a port, once.
func (h *Hub) notice(port uint16, code, text string) {
	h.mu.Lock()
	id := noticeID(code, port)
	said := h.noticed[id]
	h.noticed[id] = true
	h.mu.Unlock()
	if !said && h.o.Notice != nil {
		h.o.Notice(code, text)
	}
}

func noticeID(code string, port uint16) string { return fmt.Sprintf("%s %d", code, port) }

// conn is a connection that reached a port of the target, and what it is.
type conn struct {
	net.Conn
	key         key
	peer, local netip.AddrPort // the client, and what it dialed
	teed        bool           // it is a copy, whatever the mode
	middle      bool           // a copy that does not begin where its connection did
	replies     bool           // a copy of HTTP/2: local's replies are heard

	greeted bool           // it is known how the client begins
	hello   *tlsport.Hello // which is TLS; nil: it is not
	terms   *tlsport.Terms // TLS has been taken off; nil: it has not
	files   string         // with these
}

// CloseWrite is that of the connection; a copy has nothing to half-close.
func (c *conn) CloseWrite() error {
	if w, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return w.CloseWrite()
	}
	return nil
}

// ignore tells the source of a copy that its connection is not understood, so
// that nothing of it is taken for a beginning.
func (c *conn) ignore() {
	if i, ok := c.Conn.(interface{ Ignore() }); ok {
		i.Ignore()
	}
}

// SetLinger is that of the connection, for relay.Reset.
func (c *conn) SetLinger(seconds int) error {
	if l, ok := c.Conn.(interface{ SetLinger(int) error }); ok {
		return l.SetLinger(seconds)
	}
	return nil
}

// carry owns nc.
func (h *Hub) carry(ctx context.Context, mode uint8, nc net.Conn) {
	c := &conn{Conn: nc, peer: addrPort(nc.RemoteAddr()), local: addrPort(nc.LocalAddr())}
	c.key = key{mode, c.local.Port()}
	if m, ok := nc.(interface{ Middle() bool }); ok {
		c.middle = m.Middle()
	}
	defer c.Close()
	if f, ok := nc.(*udpflow.Flow); ok {
		h.datagrams(ctx, c, f)
		return
	}
	r := h.rule(c.key)
	switch {
	case mode == protocol.ModeMirror:
		h.copy(ctx, c, r)
	case r != nil && r.tee:
		h.tee(ctx, c)
	case r == nil && h.o.Original != nil: // its handshake was under way when the port went back
		h.pass(ctx, c, c)
	case r == nil:
		h.deliver(ctx, c, c, nil)
	default:
		h.share(ctx, c)
	}
}

// share gives c to whom the filters, or none, mean: as a whole, if the connection
// decides, else by its requests.
func (h *Hub) share(ctx context.Context, c *conn) {
	room := h.o.Memory.Connections[c.key.mode]
	if h.greets(c.key) {
		h.greet(c, silence)
	}
	to, decided := h.whose(ctx, c)
	if r := h.opener(c, to, decided); r != nil {
		if !room.Take(tlsport.Cost) {
			h.pass(ctx, c, c)
			return
		}
		defer room.Give(tlsport.Cost)
		if !h.decrypt(ctx, c, r) {
			return
		}
		to, decided = h.whose(ctx, c) // who there is now
	}
	switch {
	case decided && to != nil:
		h.whole(ctx, c, *to)
	case h.o.Original == nil: // there are no filters, and the port has just gone back
		h.deliver(ctx, c, c, nil)
	case decided || !room.Take(splitCost): // or no room to look for requests
		h.pass(ctx, c, c)
	default:
		defer room.Give(splitCost)
		s := newSplit(h, c)
		defer h.hold(s)()
		s.run(ctx)
	}
}

// whose is the first who wants all of c, nil if nobody does. decided false: that takes
// a look at its requests.
func (h *Hub) whose(ctx context.Context, c *conn) (to *recipient, decided bool) {
	for _, to := range h.among(c) {
		meant, decided := to.rule.whole(c)
		if !decided {
			return nil, false
		}
		if meant && to.there(ctx) {
			return &to, true
		}
	}
	return nil, true
}

// whole gives c to whoever wants all of it, but for the target's own probes.
func (h *Hub) whole(ctx context.Context, c *conn, to recipient) {
	if len(to.rule.probes) == 0 {
		h.deliver(ctx, c, c, to.guest)
		return
	}
	p := peek(c, h.o.Memory.Parsed)
	defer p.release()
	if p.request != nil && to.rule.probes.Ask(p.request.Target, p.request.Headers()) {
		h.pass(ctx, c, p)
		return
	}
	h.deliver(ctx, c, p, to.guest)
}

// copy gives local c, a copy, of which r says what is meant.
func (h *Hub) copy(ctx context.Context, c *conn, r *rule) {
	if r != nil {
		if r.asksServerName() && !c.middle {
			stop := context.AfterFunc(ctx, func() { c.Close() })
			h.greet(c, h.headTime)
			stop()
		}
		switch meant, decided := r.whole(c); {
		case !decided:
			h.copyRequests(ctx, c)
			return
		case !meant:
			c.ignore()
			return
		}
	}
	if c.middle {
		first := make([]byte, 1)
		n, err := c.Read(first)
		if n > 0 && beginsHTTP2(first[0]) { // local could not understand it
			h.copyStreams(ctx, c, first)
			return
		}
		c.Conn = &again{c.Conn, first[:n], err}
	}
	if s, err := h.open(ctx, c, nil); err == nil {
		_, _ = relay.Drain(ctx, h.o.Memory.Relayed, unwanted{s, c}, c)
	}
}

// again is a connection of which the first bytes come once more.
type again struct {
	net.Conn
	first []byte
	err   error // behind them
}

// CloseWrite is that of the connection, as for conn.
func (a *again) CloseWrite() error { return (&conn{Conn: a.Conn}).CloseWrite() }

// SetLinger is that of the connection, as for conn.
func (a *again) SetLinger(seconds int) error { return (&conn{Conn: a.Conn}).SetLinger(seconds) }

// Ignore is that of a copy, as for conn.
func (a *again) Ignore() { (&conn{Conn: a.Conn}).ignore() }

func (a *again) Read(p []byte) (int, error) {
	if len(a.first) == 0 && a.err == nil {
		return a.Conn.Read(p)
	}
	n := copy(p, a.first)
	if a.first = a.first[n:]; len(a.first) > 0 {
		return n, nil
	}
	a.first = nil
	return n, a.err
}

// open starts a stream to local for c, or to a guest.
func (h *Hub) open(ctx context.Context, c *conn, to *guest) (*link.Stream, error) {
	opener := h.o.Link
	if to != nil {
		opener = to.link
	}
	mode := c.key.mode
	if c.teed {
		mode = protocol.ModeMirror
	}
	m := &protocol.Incoming{Port: c.key.port, Mode: mode, Peer: c.peer, Local: c.local, Replies: c.replies}
	if c.terms != nil {
		m.TLS, m.ServerName, m.Protocol = true, c.terms.ServerName, c.terms.Protocol
	}
	return opener.Open(ctx, link.Bulk, m)
}

// deliver gives the whole of c to local, or to a guest; from is where its bytes are read. If
// the link has ended or has no stream left, the original has lost nothing yet,
// nor has it if local refuses.
func (h *Hub) deliver(ctx context.Context, c *conn, from relay.Conn, to *guest) {
	o, err := h.offer(ctx, c, to)
	if err != nil && h.o.Original != nil {
		h.pass(ctx, c, from)
		return
	}
	if err != nil {
		relay.Reset(from, err)
		return
	}
	d := &delivery{Conn: from, c: c, to: o}
	defer h.hold(d)()
	ctx, cancel := outlast(ctx, o.leave)
	defer cancel()
	_, _ = relay.Join(ctx, h.o.Memory.Relayed, o, d)
}

// pass gives the whole of c to the original.
func (h *Hub) pass(ctx context.Context, c *conn, from relay.Conn) {
	ctx, cancel := outlast(ctx, always)
	defer cancel()
	to, err := h.original(ctx, c)
	if err != nil {
		relay.Reset(from, err)
		return
	}
	h.passed.Add(1)
	_, _ = relay.Join(ctx, h.o.Memory.Relayed, to, from)
}

// outlast gives a context that lasts graceTime longer than ctx, for what is no
// business of the session. Whether it is not is asked when ctx ends.
func outlast(ctx context.Context, spare func() bool) (context.Context, context.CancelFunc) {
	longer, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() {
		if spare() {
			time.AfterFunc(graceTime, cancel)
		} else {
			cancel()
		}
	})
	return longer, func() {
		stop()
		cancel()
	}
}

func always() bool { return true }

// original connects to the target's own server in the name of c's client, under TLS if
// that has been taken off.
func (h *Hub) original(ctx context.Context, c *conn) (relay.Conn, error) {
	ctx, done := outlast(ctx, always)
	defer done()
	ctx, cancel := context.WithTimeout(ctx, originalTime)
	defer cancel()
	nc, err := h.o.Original(ctx, c.peer, c.local)
	if err == nil && c.terms != nil {
		nc, err = c.terms.Dial(ctx, nc)
	}
	if err != nil {
		return nil, err
	}
	to, ok := nc.(relay.Conn)
	if !ok {
		nc.Close()
		return nil, fmt.Errorf("a connection of type %T cannot be half-closed: %w", nc, syscall.EPROTO)
	}
	return to, nil
}

// unwanted is local's side of a copy. When local resets it the copy ends at
// once, not with the client's next word.
type unwanted struct {
	*link.Stream
	copied io.Closer
}

func (u unwanted) Read(p []byte) (int, error) {
	n, err := u.Stream.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		u.copied.Close()
	}
	return n, err
}

func addrPort(a net.Addr) netip.AddrPort {
	p, err := netip.ParseAddrPort(a.String())
	if err != nil {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(p.Addr().Unmap(), p.Port())
}
