// Package explain answers, without a session, what a session would decide: by
// the same rules, with the same reasons.
//
// The command line calls it. It is pure: what is only known beside the target
// (its volumes, what names resolve to) is either given or said to be missing.
package explain

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/mirrord-go/mirrord/internal/failure"
	"github.com/mirrord-go/mirrord/internal/protocol"
	"github.com/mirrord-go/mirrord/internal/rules"
	"github.com/mirrord-go/mirrord/internal/rules/filter"
)

// Answer is one decision.
type Answer struct {
	Question string `json:"question"` // "read /etc/hosts"
	Where    string `json:"where"`    // who it goes to, in a word or two
	Why      string `json:"why"`      // the rule, with where it is written
	Note     string `json:"note,omitempty"`
	File     *File  `json:"file,omitempty"` // of a question about a path
}

// note adds what else is worth knowing.
func (a *Answer) note(text string) {
	if a.Note != "" && text != "" {
		text = "; " + text
	}
	a.Note += text
}

// nameServer is the port whose flows the name flow takes.
const nameServer = 53

// Connect says where a connection to address goes: HOST:PORT, a path, or "unix:"
// and what Unix takes; network is "tcp" or "udp", search the search list of the target as far as it is known.
// The code of an address that is none is explain-malformed.
func Connect(o *rules.Outgoing, search []string, network, address string) (Answer, error) {
	if name, ok := strings.CutPrefix(address, "unix:"); ok || strings.HasPrefix(address, "/") {
		return Unix(o, name)
	}
	host, port, err := hostPort(address)
	if err != nil {
		return Answer{}, err
	}
	a := Answer{Question: fmt.Sprintf("connect to %s by %s", address, network)}
	ip, err := netip.ParseAddr(host)
	decide := func(names []string) rules.Decision { return o.Decide(network, netip.AddrPortFrom(ip, port), names) }
	var d rules.Decision
	switch {
	case strings.EqualFold(host, "localhost"):
		ip = netip.AddrFrom4([4]byte{127, 0, 0, 1})
		d = decide(nil)
	case err != nil:
		a.note("rules by address hold for what the name resolves to")
		d = decide(rules.Names(host, search))
		a.note(searched(host, search, d, decide(rules.Names(host, nil)), func(longer string) rules.Decision { return decide(rules.Names(longer, search)) }))
	default:
		d = decide(nil)
	}
	a.Where, a.Why = d.Where.String(), d.Why
	if port == nameServer {
		a.note("port 53: the name servers of resolv.conf follow dns, not outgoing")
	}
	if ip.IsLoopback() && d.Where == rules.Remote {
		a.note("ports that the program itself listens on are its own; a port that the target refuses and a debugger of the command serves on this machine goes there")
	}
	return a, nil
}

// Unix says where a connection to a unix socket goes: a path, or @ and an
// abstract name.
func Unix(o *rules.Outgoing, name string) (Answer, error) {
	inKernel := name
	if abstract, ok := strings.CutPrefix(name, "@"); ok {
		inKernel = "\x00" + abstract
	} else if !strings.HasPrefix(name, "/") {
		return Answer{}, failure.Usage("explain-malformed", fmt.Sprintf("%q is no unix socket", "unix:"+name), "mirrord explain connect /var/run/app.sock",
			"it is an absolute path, or @ and an abstract name; a program's relative paths begin in its working directory")
	}
	d := o.DecideUnix(inKernel)
	a := Answer{Question: "connect to unix:" + name, Where: d.Where.String(), Why: d.Why}
	if d.Where == rules.Remote {
		a.note("sockets of datagrams stay on this machine")
	}
	return a, nil
}

func hostPort(address string) (host string, port uint16, err error) {
	malformed := func(why string) error {
		return failure.Usage("explain-malformed", fmt.Sprintf("%q is no address", address), "mirrord explain connect db.shop:5432", "%s", why)
	}
	i := strings.LastIndexByte(address, ':')
	if i < 0 {
		return "", 0, malformed("the port is missing")
	}
	n, err := strconv.ParseUint(address[i+1:], 10, 16)
	if err != nil || n == 0 {
		return "", 0, malformed(fmt.Sprintf("%q is no port", address[i+1:]))
	}
	host = address[:i]
	if strings.Contains(host, ":") {
		inner, ok := strings.CutPrefix(host, "[")
		inner, end := strings.CutSuffix(inner, "]")
		if !ok || !end {
			return "", 0, malformed("an IPv6 address stands in brackets: [::1]:5432")
		}
		host = inner
	}
	if host == "" {
		return "", 0, malformed("the host is missing")
	}
	return host, uint16(n), nil
}

// DNS says who answers a lookup of name; search is the search list of the
// target as far as it is known. The error is that of rules.NewDNS.
func DNS(o rules.DNSOptions, search []string, name string) (Answer, error) {
	d, err := rules.NewDNS(o, search)
	if err != nil {
		return Answer{}, err
	}
	bare, err := rules.NewDNS(o, nil)
	if err != nil {
		return Answer{}, err
	}
	dec, meant := d.Decide(name)
	without, _ := bare.Decide(name)
	a := Answer{Question: "look up " + name, Where: dec.Where.String(), Why: dec.Why}
	if !strings.EqualFold(meant, strings.TrimSuffix(name, ".")) {
		a.note("it is looked up as " + meant)
	}
	a.note(searched(name, search, dec, without, func(longer string) rules.Decision {
		d, _ := d.Decide(longer)
		return d
	}))
	return a, nil
}

// ndots is how many dots make the resolver of a pod ask for a name as it is
// first (kubernetes, pkg/kubelet/network/dns: defaultDNSOptions).
const ndots = 5

// Search is the search list that the pods of a namespace have, unless cluster
// or pod are configured otherwise.
func Search(namespace string) []string {
	return []string{namespace + ".svc.cluster.local", "svc.cluster.local", "cluster.local"}
}

// searched says what the search list changes: that d would be another decision
// without it, and the first of the longer names that resolvers make of name
// about which decide says otherwise; empty if nothing.
func searched(name string, search []string, d, without rules.Decision, decide func(longer string) rules.Decision) string {
	var matters []string
	if strings.Count(name, ".") < ndots && !strings.HasSuffix(name, ".") {
		for _, s := range search {
			longer := name + "." + s
			if other := decide(longer); other.Where != d.Where {
				matters = append(matters, fmt.Sprintf("if it is found as %s it is %s: %s", longer, other.Where, other.Why))
				break
			}
		}
	}
	if len(matters) == 0 && d == without {
		return ""
	}
	return strings.Join(append(matters, "the target's search list is taken to be "+strings.Join(search, " ")), "; ")
}

// Env says where the value of a variable comes from, if the target has it.
func Env(e rules.Env, name string) Answer {
	d := e.Decide(name)
	a := Answer{Question: "variable " + name, Where: d.Where.String(), Why: d.Why}
	switch {
	case d.Where == rules.Remote:
		a.Note = "if the target has it; otherwise this machine's"
	case e.OnlyMissing(name):
		a.Note = "if this machine has it; otherwise the target's"
	}
	return a
}

// arrived gives a body as the agent would.
func arrived(p rules.Port, body []byte) func() ([]byte, error) {
	most := p.BodySize
	if most == 0 {
		most = rules.BodySize
	}
	return func() ([]byte, error) {
		if len(body) > most {
			return nil, fmt.Errorf("the body has more than %d bytes (agent.max_body_buffer_size)", most)
		}
		return body, nil
	}
}

// Sender is who sends a request, as far as that is known.
type Sender struct {
	Client     netip.Addr
	ServerName string // that it asks for under TLS
}

// Request says who answers a request ("GET /path") with headers ("Name: value") and a body
// that reaches port of the target from a sender while the program listens there. probes are
// the paths of the pod's HTTP probes, by port.
func Request(in *rules.Incoming, probes map[uint16][]string, port uint16, from Sender, line string, headers []string, body []byte) (Answer, error) {
	malformed := func(why, do string) (Answer, error) {
		return Answer{}, failure.Usage("explain-malformed", fmt.Sprintf("%q is no request", line), do, "%s", why)
	}
	method, target, ok := strings.Cut(line, " ")
	target, _, _ = strings.Cut(target, " ")
	if !ok || target == "" {
		return malformed("it has no method or no path", "mirrord explain request 'GET /health' -H 'x-user: ana'")
	}
	for _, h := range headers {
		if !strings.Contains(h, ":") {
			return malformed(fmt.Sprintf("the header %q has no colon", h), "mirrord explain request 'GET /health' -H 'x-user: ana'")
		}
	}
	p := in.Decide(rules.Listener{Addr: netip.AddrPortFrom(netip.IPv4Unspecified(), port)})
	a := Answer{Question: fmt.Sprintf("%s to port %d", line, p.Target), Why: p.Why}
	sent := func(yield func(string, string) bool) {
		for _, h := range headers {
			name, value, _ := strings.Cut(h, ":")
			if !yield(name, strings.TrimSpace(value)) {
				return
			}
		}
	}
	switch {
	case p.Where != rules.Remote:
		a.Where = "the target only"
		return a, nil
	case p.Mode == protocol.ModeSteal && rules.NewProbes(probes[p.Target]).Ask(target, sent):
		a.Where, a.Why = "the target only", "a probe of the pod: it answers its own"
		return a, nil
	case p.Filter != "":
		m, err := filter.Compile(*in.Filter())
		if err != nil {
			return Answer{}, err
		}
		matched, steps, err := m.Explain(filter.Request{Client: from.Client, ServerName: from.ServerName, Method: method, Target: target, Headers: sent, Body: arrived(p, body)})
		switch {
		case err != nil:
			a.Note = "the filter could not be decided, which means no: " + err.Error()
		case matched:
			a.Note = "the filter matches"
		default:
			a.Note = "the filter does not match"
		}
		if !from.Client.IsValid() && slices.Contains(in.Filter().Features(), protocol.FeatureClientFilter) {
			a.Note += ", of a client that is not said (--client 10.0.0.1)"
		}
		if from.ServerName == "" && slices.Contains(in.Filter().Features(), protocol.FeatureSNIFilter) {
			a.Note += ", without TLS or a server's name (--sni shop.example)"
		}
		for i, step := range steps {
			a.Note += []string{": ", "; "}[min(i, 1)] + step.String()
		}
		if !matched {
			a.Where = "the target only"
			return a, nil
		}
	}
	a.Where = "the target, with a copy for your program"
	if p.Mode == protocol.ModeSteal {
		a.Where = "your program"
	}
	return a, nil
}
