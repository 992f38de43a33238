package incoming

import (
	"context"
	"fmt"
	"net"
	"syscall"
	"testing"

	"github.com/mirrord-go/mirrord/internal/link"
	"github.com/mirrord-go/mirrord/internal/protocol"
)

// withBody is a filter that looks at what comes below /b.
func withBody(text string) *protocol.Subscribe {
	return &protocol.Subscribe{Port: 80, Mode: protocol.ModeSteal,
		Filter: fmt.Sprintf(`{"all_of":[{"path":{"text":"^/b"}},{"body":{"kind":"text","matches":{"text":%q}}}]}`, text)}
}

// A request that the program of the first session does not take goes to the next one
// that wants it, and to the target only when none takes it.
func TestRefusedGoesToTheNext(t *testing.T) {
	const get, post = "GET /b/1 HTTP/1.1\r\nHost: a\r\n\r\n", "POST /b/1 HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"
	const chunked = "POST /b/1 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
	const last = "GET /b/1 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
	late := func(c net.Conn) { // it has waited to be accepted
		_, _ = c.Read(make([]byte, 4<<10))
		refusing(syscall.ECONNREFUSED)(c)
	}
	no, busy := refusing(syscall.ECONNREFUSED), refusing(syscall.EAGAIN)
	for name, c := range map[string]struct {
		refuses map[string]func(net.Conn)
		first   string // which session began first; else ana, who has the port
		eves    *protocol.Subscribe
		asks    string
		want    string
	}{
		"the next":                      {map[string]func(net.Conn){"ana": no}, "", below("/b/1"), get, "200 bob GET /b/1 0 map[]"},
		"when it was given":             {map[string]func(net.Conn){"ana": late}, "", below("/b/1"), get, "200 bob GET /b/1 0 map[]"},
		"without room":                  {map[string]func(net.Conn){"ana": busy}, "", below("/b/1"), get, "200 bob GET /b/1 0 map[]"},
		"the one behind":                {map[string]func(net.Conn){"ana": no, "bob": late}, "", below("/b/1"), get, "200 eve GET /b/1 0 map[]"},
		"none":                          {map[string]func(net.Conn){"ana": no, "bob": no, "eve": no}, "", below("/b/1"), get, "200 original GET /b/1 0 map[]"},
		"none wants it":                 {map[string]func(net.Conn){"ana": no, "bob": no}, "", below("/c"), get, "200 original GET /b/1 0 map[]"},
		"a guest is first":              {map[string]func(net.Conn){"bob": late}, "bob", below("/c"), get, "200 ana GET /b/1 0 map[]"},
		"a body":                        {map[string]func(net.Conn){"ana": late, "bob": no}, "", below("/b/1"), post, "200 eve POST /b/1 5 map[]"},
		"chunks":                        {map[string]func(net.Conn){"ana": no, "bob": no}, "", below("/b/1"), chunked, "200 eve POST /b/1 5 map[]"},
		"a filter of bodies":            {map[string]func(net.Conn){"ana": late, "bob": late}, "", withBody("^hello$"), post, "200 eve POST /b/1 5 map[]"},
		"a filter of bodies, and no":    {map[string]func(net.Conn){"ana": late, "bob": late}, "", withBody("^other$"), post, "200 original POST /b/1 5 map[]"},
		"the last request":              {map[string]func(net.Conn){"ana": late}, "", below("/b/1"), last, "200 bob GET /b/1 0 map[]"},
		"the last request, and no more": {map[string]func(net.Conn){"ana": no, "bob": late, "eve": no}, "", below("/b/1"), last, "200 original GET /b/1 0 map[]"},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t)
			minute := map[string]int{"ana": 1, "bob": 2, "eve": 3, c.first: 0}
			ana := n.session("ana", minute["ana"], c.refuses["ana"])
			bob := n.session("bob", minute["bob"], c.refuses["bob"])
			eve := n.session("eve", minute["eve"], c.refuses["eve"])
			ana.subscribed(&protocol.Subscribe{Port: 80, Mode: protocol.ModeSteal, Filter: `{"path":{"text":"^/(a|b)"}}`})
			bob.subscribed(below("/b"))
			eve.subscribed(c.eves)
			v := visit(ana)
			times := 3 // each is asked anew
			if c.asks == last {
				times = 1
			}
			for range times {
				ask(t, v.c, c.asks)
				if got := answer(t, v.r, "GET"); got != c.want {
					t.Errorf("got %q, want %q", got, c.want)
				}
			}
			if times > 1 {
				v.gets("/other", "200 original")
			} else {
				ends(t, v.r)
			}
		})
	}
}

// crowded is a link that has no stream left.
type crowded struct{}

func (crowded) Open(context.Context, link.Lane, protocol.Message) (*link.Stream, error) {
	return nil, syscall.EAGAIN
}

func (crowded) Err() error { return nil }

// A session that cannot be reached is passed over.
func TestNextWithoutAStream(t *testing.T) {
	n := newNode(t)
	ana, bob := n.session("ana", 0, nil), n.session("bob", 1, nil)
	ana.subscribed(below("/b"))
	bob.subscribed(below("/b/"))
	ana.hub.o.Link = crowded{}
	v := visit(ana)
	v.gets("/b/1", "200 bob")
	v.gets("/b", "200 original")
}
