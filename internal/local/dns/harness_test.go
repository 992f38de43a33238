package dns

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/mirrord-go/mirrord/internal/event"
	"github.com/mirrord-go/mirrord/internal/leak"
	"github.com/mirrord-go/mirrord/internal/rules"
)

func TestMain(m *testing.M) { os.Exit(leak.Main(m)) }

var clusterConf = Conf{
	Servers: []netip.Addr{netip.MustParseAddr("10.96.0.10"), netip.MustParseAddr("fd00::10")},
	Search:  []string{"shop.svc.cluster.local", "svc.cluster.local", "cluster.local"},
}

func cluster() Conf { return clusterConf }

// bench is the flow of a session, with a resolver of this machine that knows
// what the test tells it.
type bench struct {
	*Names
	hosts map[string][]netip.Addr // nil: its lookup times out

	mu     sync.Mutex
	asked  []string // names looked up here
	events []event.Event
}

func newBench(t *testing.T, o rules.DNSOptions) *bench {
	t.Helper()
	leak.Check(t)
	r, err := rules.NewDNS(o, clusterConf.Search)
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{hosts: map[string][]netip.Addr{
		"db":      {netip.MustParseAddr("192.168.1.5"), netip.MustParseAddr("2001:db8::5")},
		"v4.corp": {netip.MustParseAddr("192.168.1.6")},
		"broken":  nil,
		"other":   {netip.MustParseAddr("::ffff:192.168.1.7")},
	}}
	for i := range 60 {
		b.hosts["many"] = append(b.hosts["many"], netip.AddrFrom4([4]byte{192, 168, 2, byte(i)}))
	}
	b.Names = New(Options{Rules: r, Conf: cluster, Emit: func(e event.Event) {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.events = append(b.events, e)
	}, Here: Here{
		Lookup: func(_ context.Context, name string) ([]netip.Addr, error) {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.asked = append(b.asked, name)
			addrs, ok := b.hosts[name]
			switch {
			case !ok:
				return nil, &net.DNSError{Err: "no such host", Name: name, IsNotFound: true}
			case addrs == nil:
				return nil, &net.DNSError{Err: "i/o timeout", Name: name, IsTimeout: true}
			}
			return addrs, nil
		},
		Exchange: func(_ context.Context, network string, query []byte) ([]byte, error) {
			q, _ := parseQuery(query)
			if q.name == "broken" {
				return nil, errors.New("no name server answers")
			}
			return reply(q, dnsmessage.Resource{Header: dnsmessage.ResourceHeader{Name: q.question.Name, Class: dnsmessage.ClassINET},
				Body: &dnsmessage.TXTResource{TXT: []string{"here by " + network}}}), nil
		},
	}})
	return b
}

// question is a query as resolvers make it.
func question(id uint16, name string, kind dnsmessage.Type) []byte {
	m := dnsmessage.Message{Header: dnsmessage.Header{ID: id, RecursionDesired: true},
		Questions: []dnsmessage.Question{{Name: dnsmessage.MustNewName(name), Type: kind, Class: dnsmessage.ClassINET}}}
	b, err := m.Pack()
	if err != nil {
		panic(err)
	}
	return b
}

// reply is an answer to q.
func reply(q query, records ...dnsmessage.Resource) []byte {
	m := dnsmessage.Message{Header: dnsmessage.Header{ID: q.header.ID, Response: true}, Questions: []dnsmessage.Question{q.question}, Answers: records}
	b, err := m.Pack()
	if err != nil {
		panic(err)
	}
	return b
}

// a4 and cname are records.
func a4(owner, addr string) dnsmessage.Resource {
	return dnsmessage.Resource{Header: dnsmessage.ResourceHeader{Name: dnsmessage.MustNewName(owner), Class: dnsmessage.ClassINET},
		Body: &dnsmessage.AResource{A: netip.MustParseAddr(addr).As4()}}
}

func cname(owner, to string) dnsmessage.Resource {
	return dnsmessage.Resource{Header: dnsmessage.ResourceHeader{Name: dnsmessage.MustNewName(owner), Class: dnsmessage.ClassINET},
		Body: &dnsmessage.CNAMEResource{CNAME: dnsmessage.MustNewName(to)}}
}

// read is what a client makes of a reply.
type read struct {
	id        uint16
	code      dnsmessage.RCode
	truncated bool
	question  string
	answers   []string
}

func parse(t testing.TB, b []byte) (r read) {
	t.Helper()
	var m dnsmessage.Message
	if err := m.Unpack(b); err != nil {
		t.Fatalf("a reply does not parse: %v", err)
	}
	if !m.Response || len(m.Questions) != 1 {
		t.Fatalf("no reply: %v", m.GoString())
	}
	r = read{m.ID, m.RCode, m.Truncated, m.Questions[0].Name.String(), nil}
	for _, a := range m.Answers {
		switch body := a.Body.(type) {
		case *dnsmessage.AResource:
			r.answers = append(r.answers, netip.AddrFrom4(body.A).String())
		case *dnsmessage.AAAAResource:
			r.answers = append(r.answers, netip.AddrFrom16(body.AAAA).String())
		case *dnsmessage.TXTResource:
			r.answers = append(r.answers, body.TXT...)
		}
	}
	return r
}

// socket is the UDP flow of a program's socket.
type socket struct {
	sent chan []byte // by the program
	got  chan []byte

	once   sync.Once
	closed chan struct{}
}

func newSocket() *socket {
	return &socket{sent: make(chan []byte, 8), got: make(chan []byte, 8), closed: make(chan struct{})}
}

func (f *socket) Src() netip.AddrPort { return netip.MustParseAddrPort("10.1.2.3:40000") }
func (f *socket) Dst() netip.AddrPort { return netip.MustParseAddrPort("10.96.0.10:53") }
func (f *socket) Read(p []byte) (int, error) {
	select {
	case d := <-f.sent:
		return copy(p, d), nil
	case <-f.closed:
		return 0, net.ErrClosed
	}
}
func (f *socket) Write(p []byte) (int, error) {
	select {
	case <-f.closed:
		return 0, net.ErrClosed
	case f.got <- slices.Clone(p):
		return len(p), nil
	}
}
func (f *socket) Unreachable(syscall.Errno) {}
func (f *socket) Close() error              { f.once.Do(func() { close(f.closed) }); return nil }

// within gives what comes from ch, soon.
func within[T any](t testing.TB, what string, ch <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-ch:
	case <-time.After(3 * time.Second):
		t.Fatalf("waited in vain for %s", what)
	}
	return v
}
