package e2e

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"

	"golang.org/x/net/dns/dnsmessage"
)

// zone is the name server of a handmade pod's world.
type zone struct {
	records map[string][]dnsmessage.ResourceBody
	mu      sync.Mutex
	asked   map[string]int // queries, by network and name
}

func newZone() *zone {
	name := func(s string) dnsmessage.Name { return dnsmessage.MustNewName(s) }
	a := func(s string) dnsmessage.ResourceBody {
		if ip := netip.MustParseAddr(s); ip.Is4() {
			return &dnsmessage.AResource{A: ip.As4()}
		}
		return &dnsmessage.AAAAResource{AAAA: netip.MustParseAddr(s).As16()}
	}
	z := &zone{asked: map[string]int{}, records: map[string][]dnsmessage.ResourceBody{
		"api.shop.svc.cluster.local.":  {a(handWorld), a(handWorld6)},
		"four.example.":                {a(handWorld)},
		"six.example.":                 {a(handWorld6)},
		"both.example.":                {a(handWorld), a(handWorld6), a(handOther)},
		"alias.example.":               {&dnsmessage.CNAMEResource{CNAME: name("both.example.")}},
		"db.example.":                  {&dnsmessage.SRVResource{Priority: 1, Weight: 5, Port: 5432, Target: name("four.example.")}, &dnsmessage.SRVResource{Priority: 2, Port: 5433, Target: name("six.example.")}},
		"text.example.":                {&dnsmessage.TXTResource{TXT: []string{"one", "two"}}},
		"1.0.77.10.in-addr.arpa.":      {&dnsmessage.PTRResource{PTR: name("four.example.")}},
		"printer.local.":               {a(handOther)},
		"web.corp.example.":            {a(handOther)},
		"desk.shop.svc.cluster.local.": {a(handOther)},
	}}
	for i := range 90 {
		z.records["many.example."] = append(z.records["many.example."], a(fmt.Sprintf("10.88.0.%d", i+1)))
	}
	for range 40 {
		z.records["long.example."] = append(z.records["long.example."], &dnsmessage.TXTResource{TXT: []string{strings.Repeat("x", 200)}})
	}
	return z
}

// serve answers at the name server's address.
func (z *zone) serve(p *handmade) { z.serveAt(p, handNames) }

// serveAt answers at another one.
func (z *zone) serveAt(p *handmade, addr string) {
	if !p.has(addr) {
		return
	}
	p.udp(p.world, addr, 53, func(q []byte, _ netip.AddrPort) []byte { return z.answer(q, true) })
	p.tcp(p.world, addr, 53, func(c *net.TCPConn) {
		for {
			var size [2]byte
			if _, err := io.ReadFull(c, size[:]); err != nil {
				return
			}
			q := make([]byte, binary.BigEndian.Uint16(size[:]))
			if _, err := io.ReadFull(c, q); err != nil {
				return
			}
			if b := z.answer(q, false); b != nil {
				_, _ = c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(b))), b...))
			}
		}
	})
}

// answer makes a reply as a name server does; nil: silence.
func (z *zone) answer(raw []byte, udp bool) []byte {
	var q dnsmessage.Message
	if q.Unpack(raw) != nil || len(q.Questions) != 1 {
		return nil
	}
	question := q.Questions[0]
	name := strings.ToLower(question.Name.String())
	network := "tcp "
	if udp {
		network = "udp "
	}
	z.mu.Lock()
	z.asked[network+name]++
	z.mu.Unlock()
	r := dnsmessage.Message{Header: dnsmessage.Header{ID: q.ID, Response: true, RecursionDesired: q.RecursionDesired, RecursionAvailable: true, Authoritative: true}, Questions: q.Questions}
	switch name {
	case "silent.example.":
		return nil
	case "broken.example.":
		r.RCode = dnsmessage.RCodeServerFailure
	case "denied.example.":
		r.RCode = dnsmessage.RCodeRefused
	}
	limit := 512
	for _, a := range q.Additionals {
		if a.Header.Type == dnsmessage.TypeOPT {
			limit = max(limit, int(a.Header.Class))
			opt := dnsmessage.Resource{Body: &dnsmessage.OPTResource{}}
			_ = opt.Header.SetEDNS0(4096, dnsmessage.RCodeSuccess, false)
			r.Additionals = append(r.Additionals, opt)
		}
	}
	if r.RCode == dnsmessage.RCodeSuccess {
		z.fill(&r, name, question.Type)
	}
	b, err := r.Pack()
	if err == nil && udp && len(b) > limit {
		r.Truncated, r.Answers = true, nil
		b, err = r.Pack()
	}
	if err != nil {
		return nil
	}
	return b
}

// fill adds the records, along the aliases, or who says that there are none.
func (z *zone) fill(r *dnsmessage.Message, name string, typ dnsmessage.Type) {
	records, ok := z.records[name]
	if !ok {
		r.RCode = dnsmessage.RCodeNameError
	}
	for _, body := range records {
		t, alias := typeOf(body)
		if t != typ && alias == "" {
			continue
		}
		r.Answers = append(r.Answers, dnsmessage.Resource{Body: body,
			Header: dnsmessage.ResourceHeader{Name: dnsmessage.MustNewName(name), Type: t, Class: dnsmessage.ClassINET, TTL: 30}})
		if alias != "" && typ != dnsmessage.TypeCNAME {
			z.fill(r, alias, typ)
			return
		}
	}
	if len(r.Answers) == 0 {
		r.Authorities = []dnsmessage.Resource{{Header: dnsmessage.ResourceHeader{Name: dnsmessage.MustNewName("example."), Type: dnsmessage.TypeSOA, Class: dnsmessage.ClassINET, TTL: 30},
			Body: &dnsmessage.SOAResource{NS: dnsmessage.MustNewName("ns.example."), MBox: dnsmessage.MustNewName("root.example."), Serial: 1, Refresh: 60, Retry: 60, Expire: 60, MinTTL: 30}}}
	}
}

func typeOf(body dnsmessage.ResourceBody) (t dnsmessage.Type, alias string) {
	switch b := body.(type) {
	case *dnsmessage.AResource:
		return dnsmessage.TypeA, ""
	case *dnsmessage.AAAAResource:
		return dnsmessage.TypeAAAA, ""
	case *dnsmessage.SRVResource:
		return dnsmessage.TypeSRV, ""
	case *dnsmessage.TXTResource:
		return dnsmessage.TypeTXT, ""
	case *dnsmessage.PTRResource:
		return dnsmessage.TypePTR, ""
	case *dnsmessage.CNAMEResource:
		return dnsmessage.TypeCNAME, b.CNAME.String()
	}
	return 0, ""
}

// count is how often a name was asked for over "udp" or "tcp".
func (z *zone) count(network, name string) int {
	z.mu.Lock()
	defer z.mu.Unlock()
	return z.asked[network+" "+name]
}
