package outgoing

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mirrord-go/mirrord/internal/budget"
	"github.com/mirrord-go/mirrord/internal/leak"
	"github.com/mirrord-go/mirrord/internal/link"
	"github.com/mirrord-go/mirrord/internal/protocol"
)

// looksUp gives local's end of a link whose agent answers lookups by o until ctx
// ends. end must be called.
func looksUp(ctx context.Context, o *Server) (near *link.Conn, end func()) {
	a, z := net.Pipe()
	near, far := link.New(a, link.Local, link.Options{}), link.New(z, link.Agent, link.Options{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			s, m, err := far.Accept(context.Background())
			if err != nil {
				return
			}
			o.Lookup(ctx, s, m.(*protocol.Lookup)) // one after the other
		}
	}()
	return near, func() {
		near.Close("")
		far.Close("")
		<-done
	}
}

// nameServer answers each lookup with some datagrams.
func nameServer(t *testing.T, replies ...string) netip.AddrPort {
	t.Helper()
	_, at := serveUDP(t, "127.0.0.1:0", func([]byte) (all [][]byte) {
		for _, r := range replies {
			all = append(all, []byte(r))
		}
		return all
	})
	return at
}

func TestLookup(t *testing.T) {
	leak.Check(t)
	long := "id" + string(make([]byte, 20<<10))
	for name, c := range map[string]struct {
		replies []string
		query   string
		want    string
	}{
		"a reply":                {[]string{"id reply"}, "id query", "id reply"},
		"a long reply":           {[]string{long}, "id query", long},
		"another id is nobody's": {[]string{"no reply", "i", "id reply"}, "id query", "id reply"},
		"no message of DNS":      {[]string{"reply"}, "?", "reply"},
	} {
		t.Run(name, func(t *testing.T) {
			near, end := looksUp(t.Context(), &Server{Dial: direct})
			defer end()
			m, err := near.Call(t.Context(), &protocol.Lookup{Addr: nameServer(t, c.replies...), Query: []byte(c.query)})
			if d, ok := m.(*protocol.Datagram); err != nil || !ok || string(d.Data) != c.want || d.Errno != 0 {
				t.Errorf("got %T %.40v, %v, want %.40q", m, m, err, c.want)
			}
		})
	}
}

// What the target's kernel says is told, and what is missing.
func TestLookupFails(t *testing.T) {
	leak.Check(t)
	gone, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort("127.0.0.1:0")))
	if err != nil {
		t.Fatal(err)
	}
	gone.Close()
	nobody := netip.MustParseAddrPort(gone.LocalAddr().String())
	for name, c := range map[string]struct {
		o      *Server
		to     netip.AddrPort
		errno  syscall.Errno // in a Datagram
		answer syscall.Errno
	}{
		"nobody listens": {o: &Server{Dial: direct}, to: nobody, errno: syscall.ECONNREFUSED},
		"no socket": {o: &Server{Dial: func(context.Context, string, netip.AddrPort) (net.Conn, error) {
			return nil, &net.OpError{Op: "dial", Err: syscall.EADDRNOTAVAIL}
		}}, to: nobody, answer: syscall.EADDRNOTAVAIL},
		"no memory":  {o: &Server{Dial: direct, Connections: budget.New(ConnCost-1).Share(0, budget.All)}, to: nobody, answer: syscall.EAGAIN},
		"no address": {o: &Server{Dial: direct}, answer: syscall.EPROTONOSUPPORT},
	} {
		t.Run(name, func(t *testing.T) {
			near, end := looksUp(t.Context(), c.o)
			defer end()
			m, err := near.Call(t.Context(), &protocol.Lookup{Addr: c.to, Query: []byte("id")})
			switch m := m.(type) {
			case *protocol.Datagram:
				if m.Errno != c.errno || m.Errno == 0 {
					t.Errorf("the socket said %v, want %v", m.Errno, c.errno)
				}
			case *protocol.Answer:
				if m.Errno != c.answer || m.Errno == 0 {
					t.Errorf("answered %v, want %v", m.Errno, c.answer)
				}
			default:
				t.Errorf("got %T, %v", m, err)
			}
		})
	}
}

// silent is a socket that nobody answers.
type silent struct {
	net.Conn
	ended chan struct{}
	late  chan time.Duration
}

func (c *silent) Write(p []byte) (int, error) { return len(p), nil }
func (c *silent) SetReadDeadline(at time.Time) error {
	c.late <- time.Until(at)
	return nil
}
func (c *silent) Read([]byte) (int, error) {
	select {
	case <-c.ended:
		return 0, net.ErrClosed
	case <-time.After(<-c.late):
		return 0, errors.New("too late")
	}
}
func (c *silent) Close() error {
	select {
	case <-c.ended:
	default:
		close(c.ended)
	}
	return nil
}

// A lookup that is not answered ends, at the latest with the session.
func TestLookupEnds(t *testing.T) {
	for name, after := range map[string]time.Duration{"when it is late": lookupTime, "with the session": time.Second} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				near, end := looksUp(ctx, &Server{Dial: func(context.Context, string, netip.AddrPort) (net.Conn, error) {
					return &silent{ended: make(chan struct{}), late: make(chan time.Duration, 1)}, nil
				}})
				defer end()
				if after < lookupTime {
					time.AfterFunc(after, cancel)
				}
				began := time.Now()
				m, err := near.Call(t.Context(), &protocol.Lookup{Addr: netip.MustParseAddrPort("203.0.113.9:53"), Query: []byte("id")})
				if a, ok := m.(*protocol.Answer); err != nil || !ok || a.Err() != nil {
					t.Errorf("got %v, %v, want that nothing came", m, err)
				}
				if took := time.Since(began); took != after {
					t.Errorf("it took %v, want %v", took, after)
				}
			})
		})
	}
}
