package demo

import (
	"encoding/binary"
	"io"
	"net"
	"strings"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

const (
	zone = "demo.svc.cluster.local"
	// ttl of all records, in seconds: what Kubernetes' own name server gives.
	ttl = 30
	// udpPlain is the longest answer to a client that says nothing (RFC 1035
	// §4.2.1), udpMost to any: it fits every path unfragmented (DNS flag day).
	udpPlain, udpMost = 512, 1232
	// dnsIdle ends TCP connections that say nothing.
	dnsIdle = 10 * time.Second
)

// records are all that the name server knows, by lower-case name with its
// final dot. A name without records exists because of those below it.
type records map[string][]dnsmessage.ResourceBody

// newRecords is the demo's cluster: services, and what shows special cases:
// an alias, a name without IPv6, and an answer that is too long for UDP.
func newRecords() records {
	r := records{}
	for name, h := range map[string]host{
		"db": dbHost, "catalog": catalogHost, "echo": echoHost, "shop": podHost, Hostname + ".shop": podHost,
	} {
		r.add(name+"."+zone, &dnsmessage.AResource{A: h.v4().As4()}, &dnsmessage.AAAAResource{AAAA: h.v6().As16()})
	}
	r.add("v4only."+zone, &dnsmessage.AResource{A: dbHost.v4().As4()})
	r.add("database."+zone, &dnsmessage.CNAMEResource{CNAME: dnsmessage.MustNewName("db." + zone + ".")})
	r.add("db."+zone, &dnsmessage.TXTResource{TXT: []string{"team=orders", "engine=demo"}})
	r.add("_postgres._tcp.db."+zone, &dnsmessage.SRVResource{Weight: 100, Port: dbPort, Target: dnsmessage.MustNewName("db." + zone + ".")})
	r.add("_http._tcp.shop."+zone, &dnsmessage.SRVResource{Weight: 100, Port: httpPort,
		Target: dnsmessage.MustNewName(Hostname + ".shop." + zone + ".")})
	for i := range 20 {
		r.add("big."+zone, &dnsmessage.TXTResource{TXT: []string{strings.Repeat(string(rune('a'+i)), 200)}})
	}
	return r
}

func (r records) add(name string, bodies ...dnsmessage.ResourceBody) {
	name += "."
	r[name] = append(r[name], bodies...)
	for { // the names above exist too (empty non-terminals, RFC 8020)
		_, above, ok := strings.Cut(name, ".")
		if !ok || above == "" {
			return
		}
		name = above
		r[name] = append(r[name], nil...)
	}
}

// typeOf is the record type of a body that newRecords uses.
func typeOf(b dnsmessage.ResourceBody) dnsmessage.Type {
	switch b.(type) {
	case *dnsmessage.AResource:
		return dnsmessage.TypeA
	case *dnsmessage.AAAAResource:
		return dnsmessage.TypeAAAA
	case *dnsmessage.CNAMEResource:
		return dnsmessage.TypeCNAME
	case *dnsmessage.TXTResource:
		return dnsmessage.TypeTXT
	default:
		return dnsmessage.TypeSRV
	}
}

// answer makes the reply to a query, nil if it deserves none. Over UDP it is
// cut to what the client takes.
func (r records) answer(query []byte, udp bool) []byte {
	var p dnsmessage.Parser
	h, err := p.Start(query)
	if err != nil || h.Response {
		return nil
	}
	m := dnsmessage.Message{Header: dnsmessage.Header{
		ID: h.ID, OpCode: h.OpCode, Response: true, Authoritative: true,
		RecursionDesired: h.RecursionDesired, RecursionAvailable: true,
	}}
	limit := udpPlain
	questions, err := p.AllQuestions()
	switch {
	case err != nil || len(questions) != 1:
		m.RCode = dnsmessage.RCodeFormatError
	case h.OpCode != 0:
		m.RCode = dnsmessage.RCodeNotImplemented
	default:
		m.Questions = questions
		size, ok, err := edns(&p)
		if err != nil {
			m.RCode = dnsmessage.RCodeFormatError
			break
		}
		if ok {
			limit = min(max(int(size), udpPlain), udpMost)
			var opt dnsmessage.ResourceHeader
			_ = opt.SetEDNS0(udpMost, dnsmessage.RCodeSuccess, false) // fails for names other than the root's
			m.Additionals = []dnsmessage.Resource{{Header: opt, Body: &dnsmessage.OPTResource{}}}
		}
		r.resolve(&m, questions[0])
	}
	b, err := m.Pack()
	if err == nil && udp && len(b) > limit {
		m.Truncated, m.Answers, m.Authorities = true, nil, nil
		b, err = m.Pack()
	}
	if err != nil {
		return nil
	}
	return b
}

// edns looks for the client's OPT record (RFC 6891): the size that it takes.
func edns(p *dnsmessage.Parser) (size uint16, ok bool, err error) {
	if err := p.SkipAllAnswers(); err != nil {
		return 0, false, err
	}
	if err := p.SkipAllAuthorities(); err != nil {
		return 0, false, err
	}
	for {
		h, err := p.AdditionalHeader()
		if err == dnsmessage.ErrSectionDone {
			return size, ok, nil
		}
		if err != nil {
			return 0, false, err
		}
		if h.Type == dnsmessage.TypeOPT {
			size, ok = uint16(h.Class), true
		}
		if err := p.SkipAdditional(); err != nil {
			return 0, false, err
		}
	}
}

// resolve fills in the answer: records; none, if the name exists without any
// of the type (NODATA); or that it does not exist (RFC 2308).
func (r records) resolve(m *dnsmessage.Message, q dnsmessage.Question) {
	const maxAliases = 8
	switch {
	case q.Class != dnsmessage.ClassINET:
		m.RCode = dnsmessage.RCodeRefused
		return
	case q.Type == dnsmessage.TypeALL, q.Type == 251, q.Type == dnsmessage.TypeAXFR: // 251: IXFR
		m.RCode = dnsmessage.RCodeNotImplemented
		return
	}
	name := q.Name
	for range maxAliases {
		bodies, exists := r[strings.ToLower(name.String())]
		if !exists {
			m.RCode = dnsmessage.RCodeNameError
		}
		found := false
		var alias *dnsmessage.CNAMEResource
		for _, b := range bodies {
			t := typeOf(b)
			c, isAlias := b.(*dnsmessage.CNAMEResource)
			if t != q.Type && !isAlias {
				continue
			}
			m.Answers = append(m.Answers, dnsmessage.Resource{
				Header: dnsmessage.ResourceHeader{Name: name, Type: t, Class: dnsmessage.ClassINET, TTL: ttl}, Body: b,
			})
			if found = found || t == q.Type; t != q.Type {
				alias = c
			}
		}
		if alias == nil || found {
			if !found {
				m.Authorities = append(m.Authorities, authority())
			}
			return
		}
		name = alias.CNAME
	}
}

// authority is the SOA that goes with a negative answer: how long it holds.
func authority() dnsmessage.Resource {
	return dnsmessage.Resource{
		Header: dnsmessage.ResourceHeader{Name: dnsmessage.MustNewName("cluster.local."), Type: dnsmessage.TypeSOA,
			Class: dnsmessage.ClassINET, TTL: ttl},
		Body: &dnsmessage.SOAResource{
			NS: dnsmessage.MustNewName("ns.dns.cluster.local."), MBox: dnsmessage.MustNewName("hostmaster.cluster.local."),
			Serial: 1, Refresh: 7200, Retry: 1800, Expire: 86400, MinTTL: ttl,
		},
	}
}

// serveTCP answers queries with their length in front (RFC 7766).
func (r records) serveTCP(c net.Conn) {
	for {
		if err := c.SetDeadline(time.Now().Add(dnsIdle)); err != nil {
			return
		}
		var length [2]byte
		if _, err := io.ReadFull(c, length[:]); err != nil {
			return
		}
		query := make([]byte, binary.BigEndian.Uint16(length[:]))
		if _, err := io.ReadFull(c, query); err != nil {
			return
		}
		b := r.answer(query, false)
		if b == nil {
			return
		}
		if _, err := c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(b))), b...)); err != nil {
			return
		}
	}
}
