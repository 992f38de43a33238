package incoming

import (
	"bytes"
	"context"
	"errors"
	"io"
	"sync"
	"sync/atomic"

	"github.com/mirrord-go/mirrord/internal/http1"
	"github.com/mirrord-go/mirrord/internal/http2"
	"github.com/mirrord-go/mirrord/internal/link"
	"github.com/mirrord-go/mirrord/internal/relay"
)

// copyRequests gives local those requests of c, a copy, that the port's filter
// matches: one after another on one stream, which ends when the client's
// connection does, as it would for a server. If local ends it before, the next
// request that matches gets another. HTTP/2 is in mirrored.go; anything else is
// not copied.
func (h *Hub) copyRequests(ctx context.Context, c *conn) {
	m := &copying{hub: h, c: c, in: http1.NewReader(c, h.o.Memory.Parsed)}
	defer m.in.Close()
	stop := context.AfterFunc(ctx, func() {
		c.Close()
		m.end(context.Cause(ctx))
	})
	defer stop()
	err := m.requests(ctx)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	c.Close() // what else it brings is nobody's
	m.end(err)
	m.wg.Wait()
}

// copying is the copying of one connection's requests.
type copying struct {
	hub *Hub
	c   *conn
	in  *http1.Reader
	wg  sync.WaitGroup // of those who listen to local

	mu   sync.Mutex
	to   *listened // nil: no request has matched, or local has ended it
	over bool      // no further one is opened
}

// listened is a stream to local whose replies are dropped. Writing to it never
// fails: what is lost is lost when local has ended it.
type listened struct {
	*link.Stream
	ended atomic.Bool
}

func (l *listened) Write(p []byte) (int, error) {
	if !l.ended.Load() {
		if _, err := l.Stream.Write(p); err != nil {
			l.ended.Store(true)
		}
	}
	return len(p), nil
}

// end ends the stream: in order if err is nil, otherwise as incomplete.
func (m *copying) end(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.over = true
	switch {
	case m.to == nil:
	case err != nil:
		_ = m.to.Reset(relay.Errno(err))
	default:
		_ = m.to.CloseWrite()
	}
}

// stream gives the one to local, a new one if there is none any more.
func (m *copying) stream(ctx context.Context) (*listened, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.to != nil && !m.to.ended.Load() {
		return m.to, nil
	}
	if m.over {
		return nil, context.Canceled
	}
	s, err := m.hub.open(ctx, m.c, nil)
	if err != nil {
		return nil, err
	}
	l := &listened{Stream: s}
	m.to = l
	m.wg.Go(func() {
		_, _ = io.Copy(io.Discard, l.Stream)
		l.ended.Store(true)
		l.Close()
	})
	return l, nil
}

// modern reports whether the copy begins with HTTP/2.
func (m *copying) modern() (bool, error) {
	if m.c.middle {
		for len(m.in.Buffered()) == 0 {
			if err := m.in.Fill(); err != nil {
				return false, err
			}
		}
		if beginsHTTP2(m.in.Buffered()[0]) {
			return true, nil
		}
	}
	return m.preface()
}

// preface reports whether HTTP/2 begins here. Its preface is waited for.
func (m *copying) preface() (bool, error) {
	for {
		b := m.in.Buffered()
		n := min(len(b), len(http2.Preface))
		switch {
		case n == 0:
		case string(b[:n]) != http2.Preface[:n]:
			return false, nil
		case n == len(http2.Preface):
			return true, nil
		}
		if err := m.in.Fill(); err != nil {
			return false, err
		}
	}
}

// streams goes on in HTTP/2.
func (m *copying) streams(ctx context.Context) {
	said := bytes.Clone(m.in.Buffered())
	m.in.Close()
	m.hub.copyStreams(ctx, m.c, said)
}

// requests reads all of c. Its error is nil where nothing more can be copied.
func (m *copying) requests(ctx context.Context) error {
	switch modern, err := m.modern(); {
	case err != nil:
		return err
	case modern:
		m.streams(ctx)
		return nil
	}
	switches := false // the last request may have ended HTTP
	var last io.Writer = io.Discard
	for {
		if len(m.in.Buffered()) == 0 {
			if err := m.in.Fill(); err != nil {
				return err
			}
		}
		q, err := m.in.Request()
		if errors.Is(err, http1.ErrIncomplete) {
			if err := m.in.Fill(); err != nil {
				return err
			}
			continue
		}
		if err != nil {
			if modern, _ := m.preface(); modern { // behind an offer, the target may have chosen among several
				m.streams(ctx)
				return nil
			}
			if switches && errors.Is(err, http1.ErrNotHTTP) {
				return m.in.ForwardRest(last) // a WebSocket's frames
			}
			m.hub.passes(m.c.key, m.in.Buffered())
			m.c.ignore()
			return nil
		}
		r := m.hub.rule(m.c.key)
		if r == nil {
			return nil
		}
		last = io.Discard
		if r.filter == nil || m.hub.wants(m.c.key.port, recipient{rule: r}, m.c.asked(q), func() (content, error) { return m.arrive(q, r) }) {
			if last, err = m.stream(ctx); err != nil {
				return err
			}
		}
		if q.Offers { // a program that took it would get what it understands no more, or all streams
			q.Decline()
		}
		switches = q.Upgrades
		if err := m.in.Forward(last, &q.Message); err != nil {
			if errors.Is(err, http1.ErrAmbiguous) {
				m.c.ignore()
			}
			return err
		}
	}
}
