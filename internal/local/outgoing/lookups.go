package outgoing

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/mirrord-go/mirrord/internal/link"
	"github.com/mirrord-go/mirrord/internal/protocol"
	"github.com/mirrord-go/mirrord/internal/rules"
)

const (
	// maxLookups bounds the lookups of one socket that wait for their replies; one
	// more is dropped, and the program asks again. A name server of the program's own
	// may have many, which are answered soon.
	maxLookups = 256
	// maxLookup is the longest lookup, in bytes: what is longer than a few hundred is
	// said over TCP. Each socket holds so much while it waits for the next, and
	// programs leave hundreds behind in a moment.
	maxLookup = 4<<10 - 1
	// lookupTime bounds the wait for a reply: the agent's, which is shorter, and that
	// for a link which was lost after the question had gone.
	lookupTime = link.BeginTime + 5*time.Second
)

var lookupBuffers = sync.Pool{New: func() any { return new([maxLookup + 1]byte) }}

// CarryLookups does the same as UDP for the lookups of a socket; to is the name
// server that f goes to, the decision another flow's. With the agent each lookup
// is a question by itself: one frame each way, and nothing stays behind while the
// flow waits for the next.
func (r *Router) CarryLookups(ctx context.Context, f UDPFlow, to netip.AddrPort, d rules.Decision) {
	t := &route{network: "udp", asked: f.Dst(), dst: to, Decision: d, carried: true}
	if t.Where == rules.Local || !to.IsValid() || r.Lookups == nil || !r.Lookups() {
		r.carryDatagrams(ctx, f, t)
		return
	}
	defer f.Close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { f.Close() })
	defer stop()
	l := &lookups{r: r, f: f, t: t}
	defer l.wg.Wait()
	defer cancel()
	l.take(ctx)
}

// lookups are those of one socket.
type lookups struct {
	r       *Router
	f       UDPFlow
	t       *route
	wg      sync.WaitGroup
	waiting atomic.Int32
	once    sync.Once // a flow is one event
}

// take takes lookups until the end of the flow.
func (l *lookups) take(ctx context.Context) {
	buf := lookupBuffers.Get().(*[maxLookup + 1]byte)
	defer lookupBuffers.Put(buf)
	for {
		n, err := l.f.Read(buf[:])
		switch {
		case idle(err) && l.waiting.Load() > 0: // a lost link makes them wait longer than that
			continue
		case err != nil:
			return
		case n > maxLookup || l.waiting.Load() >= maxLookups:
			continue // dropped
		}
		query := slices.Clone(buf[:n])
		l.waiting.Add(1)
		l.wg.Go(func() {
			defer l.waiting.Add(-1)
			l.answer(ctx, query)
		})
	}
}

// answer gives the program what the agent gets for its lookup.
func (l *lookups) answer(ctx context.Context, query []byte) {
	bounded, cancel := context.WithTimeoutCause(ctx, lookupTime, syscall.EHOSTUNREACH)
	defer cancel()
	m, err := l.r.Link.Call(bounded, &protocol.Lookup{Addr: l.t.dst, Query: query})
	if ctx.Err() != nil {
		return // the flow ended first
	}
	if bounded.Err() != nil {
		m, err = nil, context.Cause(bounded)
	}
	d, ok := m.(*protocol.Datagram)
	if a, is := m.(*protocol.Answer); is {
		err = a.Err() // nil: the name server said nothing
	} else if err == nil && !ok {
		err = fmt.Errorf("the agent answered a lookup with message %d: %w", m.Kind(), syscall.EPROTO)
	}
	if err != nil { // said first: what the program asks then may go well
		l.once.Do(func() { l.r.report(l.t, err) })
		l.f.Unreachable(Errno(err))
		return
	}
	switch {
	case ok && d.Errno != 0:
		l.f.Unreachable(d.Errno)
	case ok:
		_, _ = l.f.Write(d.Data) // lost like any datagram
	}
	l.once.Do(func() { l.r.report(l.t, nil) })
}
