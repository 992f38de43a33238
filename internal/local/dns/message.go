package dns

import (
	"fmt"
	"net/netip"
	"strings"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/mirrord-go/mirrord/internal/local/activity"
)

const (
	// ttl of this machine's answers, in seconds: its resolver tells none, and a
	// name whose side is the developer's choice is best asked for again soon.
	ttl = 5
	// udpPlain is the longest answer over UDP to a client that says nothing, in
	// bytes (RFC 1035 §4.2.1); udpMost to any: it is never fragmented (DNS flag
	// day 2020).
	udpPlain, udpMost = 512, 1232
	// maxAliases bounds the names that lead to one address: what resolvers
	// follow.
	maxAliases = 16
)

// query is a question of the program's.
type query struct {
	header   dnsmessage.Header
	question dnsmessage.Question
	name     string // without the final dot, as it was written
	limit    int    // bytes that the answer may have over UDP
	edns     bool   // the client speaks EDNS (RFC 6891)
}

// address reports whether the question is for addresses.
func (q *query) address() bool {
	return q.question.Class == dnsmessage.ClassINET && (q.question.Type == dnsmessage.TypeA || q.question.Type == dnsmessage.TypeAAAA)
}

// parseQuery reads an ordinary query of one question. What is not one is for
// the name server to judge.
func parseQuery(b []byte) (q query, ok bool) {
	var p dnsmessage.Parser
	var err error
	if q.header, err = p.Start(b); err != nil || q.header.Response || q.header.OpCode != 0 {
		return q, false
	}
	questions, err := p.AllQuestions()
	if err != nil || len(questions) != 1 {
		return q, false
	}
	q.question, q.limit = questions[0], udpPlain
	q.name = strings.TrimSuffix(q.question.Name.String(), ".")
	if p.SkipAllAnswers() != nil || p.SkipAllAuthorities() != nil {
		return q, false
	}
	for {
		h, err := p.AdditionalHeader()
		if err == dnsmessage.ErrSectionDone {
			return q, true
		}
		if err != nil || p.SkipAdditional() != nil {
			return q, false
		}
		if h.Type == dnsmessage.TypeOPT {
			q.edns, q.limit = true, min(max(int(h.Class), udpPlain), udpMost)
		}
	}
}

// answer makes the reply: of the addresses those of the family that was asked
// for. No address of it is an answer as well: the name exists (RFC 2308 §2.2).
// Over UDP it is cut to what the client takes.
func (q *query) answer(code dnsmessage.RCode, addrs []netip.Addr, udp bool) []byte {
	m := dnsmessage.Message{
		Header: dnsmessage.Header{ID: q.header.ID, Response: true, RecursionDesired: q.header.RecursionDesired,
			RecursionAvailable: true, RCode: code},
		Questions: []dnsmessage.Question{q.question},
	}
	for _, a := range addrs {
		var body dnsmessage.ResourceBody
		switch a = a.Unmap(); {
		case a.Is4() && q.question.Type == dnsmessage.TypeA:
			body = &dnsmessage.AResource{A: a.As4()}
		case a.Is6() && q.question.Type == dnsmessage.TypeAAAA:
			body = &dnsmessage.AAAAResource{AAAA: a.As16()}
		default:
			continue
		}
		m.Answers = append(m.Answers, dnsmessage.Resource{Body: body,
			Header: dnsmessage.ResourceHeader{Name: q.question.Name, Type: q.question.Type, Class: dnsmessage.ClassINET, TTL: ttl}})
	}
	if q.edns {
		var opt dnsmessage.ResourceHeader
		_ = opt.SetEDNS0(udpMost, dnsmessage.RCodeSuccess, false) // fails for names other than the root's
		m.Additionals = []dnsmessage.Resource{{Header: opt, Body: &dnsmessage.OPTResource{}}}
	}
	b, err := m.Pack()
	if err == nil && udp && len(b) > q.limit {
		m.Truncated, m.Answers = true, nil
		b, err = m.Pack()
	}
	if err != nil {
		return nil // the name came out of a message and goes into one
	}
	return b
}

// found is an address in an answer.
type found struct {
	addr  netip.Addr
	names []string // that lead to it; the one that was asked for comes first
}

// parseAnswer reads the addresses of an answer that belong to its question.
// It trusts nothing: a message that is malformed anywhere tells nothing.
func parseAnswer(b []byte) []found {
	var p dnsmessage.Parser
	h, err := p.Start(b)
	if err != nil || !h.Response || h.RCode != dnsmessage.RCodeSuccess {
		return nil
	}
	questions, err := p.AllQuestions()
	if err != nil || len(questions) != 1 {
		return nil
	}
	type record struct {
		owner string
		addr  netip.Addr
	}
	var records []record
	alias := map[string]string{}
	for {
		h, err := p.AnswerHeader()
		if err == dnsmessage.ErrSectionDone {
			break
		}
		if err != nil {
			return nil
		}
		owner := written(h.Name)
		switch h.Type {
		case dnsmessage.TypeA:
			r, err := p.AResource()
			if err != nil {
				return nil
			}
			records = append(records, record{owner, netip.AddrFrom4(r.A)})
		case dnsmessage.TypeAAAA:
			r, err := p.AAAAResource()
			if err != nil {
				return nil
			}
			records = append(records, record{owner, netip.AddrFrom16(r.AAAA).Unmap()})
		case dnsmessage.TypeCNAME:
			r, err := p.CNAMEResource()
			if err != nil {
				return nil
			}
			alias[owner] = written(r.CNAME)
		default:
			if p.SkipAnswer() != nil {
				return nil
			}
		}
	}
	// From the question along the aliases; what is beside that way was not asked
	// for.
	chain := []string{written(questions[0].Name)}
	var all []found
	for {
		last := chain[len(chain)-1]
		for _, r := range records {
			if r.owner == last {
				all = append(all, found{r.addr, chain})
			}
		}
		next, ok := alias[last]
		if !ok || len(chain) >= maxAliases {
			return all
		}
		delete(alias, last) // aliases in a circle end
		chain = append(chain, next)
	}
}

// rcodes are what answers without one say, as people know it.
var rcodes = map[dnsmessage.RCode]string{
	dnsmessage.RCodeFormatError: "format error", dnsmessage.RCodeServerFailure: "server failure", dnsmessage.RCodeNameError: "no such name",
	dnsmessage.RCodeNotImplemented: "kind of question not supported", dnsmessage.RCodeRefused: "refused",
}

func codeText(code dnsmessage.RCode) string {
	if text := rcodes[code]; text != "" {
		return text
	}
	return fmt.Sprintf("code %d", code)
}

// summary is what is told of an answer.
func summary(answer []byte) (e activity.Event) {
	var p dnsmessage.Parser
	h, err := p.Start(answer)
	if err != nil || !h.Response {
		e.Error = "no answer that can be read"
		return e
	}
	if q, err := p.Question(); err == nil {
		e.Name, e.Type = strings.TrimSuffix(q.Name.String(), "."), kind(q.Type)
	}
	if h.RCode != dnsmessage.RCodeSuccess {
		e.Error = codeText(h.RCode)
	}
	for _, f := range parseAnswer(answer) {
		e.Answers = append(e.Answers, f.addr.String())
	}
	return e
}

// written is a name of a message as names are compared.
func written(n dnsmessage.Name) string {
	return strings.ToLower(strings.TrimSuffix(n.String(), "."))
}
