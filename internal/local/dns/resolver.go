package dns

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/mirrord-go/mirrord/internal/link"
	"github.com/mirrord-go/mirrord/internal/protocol"
)

const (
	// maxNamesFile is how much of a resolv.conf or hosts file is read, in bytes;
	// what comes with its attributes at most (protocol.Stat).
	maxNamesFile = 64 << 10
	// askTime bounds one question: the agent's own limit, and that for a link which
	// was lost after it had gone.
	askTime = link.BeginTime + 5*time.Second
)

// Caller asks the agent one question.
type Caller interface {
	Call(ctx context.Context, m protocol.Message) (protocol.Message, error)
}

// TargetFile gives the beginning of a file of the target's that says how names
// resolve; ok is false if it cannot be read.
func TargetFile(ctx context.Context, agent Caller, path string) (text string, ok bool) {
	m, err := agent.Call(ctx, &protocol.Stat{Path: path, Follow: true, Prefetch: maxNamesFile})
	if a, is := m.(*protocol.Attr); err == nil && is && a.HasData {
		return string(a.Data), true
	}
	return "", false
}

// Resolver looks names up as a program in the target does: by its hosts file, its
// search list and its name servers. It is not changed after it was made; its
// methods may be called concurrently.
type Resolver struct {
	agent Caller
	conf  *Conf // nil: not known
	hosts map[netip.Addr][]string
}

// ReadResolver makes one of the target's files as they are now.
func ReadResolver(ctx context.Context, agent Caller) *Resolver {
	r := &Resolver{agent: agent}
	var wg sync.WaitGroup
	wg.Go(func() {
		if text, ok := TargetFile(ctx, agent, "/etc/resolv.conf"); ok {
			c := ParseConf(text)
			r.conf = &c
		}
	})
	wg.Go(func() {
		text, _ := TargetFile(ctx, agent, "/etc/hosts")
		r.hosts = ParseHosts(text)
	})
	wg.Wait()
	return r
}

// Known reports whether the target's resolv.conf could be read.
func (r *Resolver) Known() bool { return r.conf != nil }

// NoNameError says that a name has no address in the target.
type NoNameError struct {
	Name  string
	Tried []string // what was asked for, in its order
}

func (e *NoNameError) Error() string {
	if len(e.Tried) == 1 && e.Tried[0] == e.Name {
		return "no such name in the target"
	}
	return "no such name in the target; asked for " + strings.Join(e.Tried, ", ")
}

// Unwrap is what connect(2) says of it.
func (e *NoNameError) Unwrap() error { return syscall.EHOSTUNREACH }

// Lookup gives the addresses of name, at least one.
func (r *Resolver) Lookup(ctx context.Context, name string) ([]netip.Addr, error) {
	plain := strings.ToLower(strings.TrimSuffix(name, "."))
	if found := r.inHosts(plain); len(found) > 0 {
		return found, nil
	}
	if plain == "localhost" { // RFC 6761 §6.3
		return []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()}, nil
	}
	if r.conf == nil {
		return nil, errors.New("names cannot be looked up: /etc/resolv.conf of the target cannot be read")
	}
	tried := candidates(strings.ToLower(name), *r.conf)
	for _, full := range tried {
		found, err := r.ask(ctx, full)
		if err != nil || len(found) > 0 {
			return found, err
		}
	}
	return nil, &NoNameError{plain, tried}
}

func (r *Resolver) inHosts(name string) (found []netip.Addr) {
	for a, names := range r.hosts {
		if slices.Contains(names, name) {
			found = append(found, a)
		}
	}
	slices.SortFunc(found, netip.Addr.Compare)
	return found
}

// candidates are the names that are asked for, in their order (resolv.conf(5)):
// one with as many dots as options ndots says is tried as it is first.
func candidates(name string, c Conf) (all []string) {
	plain, whole := strings.CutSuffix(name, ".")
	if whole {
		return []string{plain}
	}
	for _, domain := range c.Search {
		if domain = strings.Trim(domain, "."); domain != "" {
			all = append(all, plain+"."+domain)
		}
	}
	if strings.Count(plain, ".") >= c.Dots {
		return append([]string{plain}, all...)
	}
	return append(all, plain)
}

// ask gives the addresses of a full name, of both families; none: it has none.
func (r *Resolver) ask(ctx context.Context, name string) (found []netip.Addr, err error) {
	var got [2][]netip.Addr
	var errs [2]error
	var wg sync.WaitGroup
	for i, kind := range []dnsmessage.Type{dnsmessage.TypeA, dnsmessage.TypeAAAA} {
		wg.Go(func() { got[i], errs[i] = r.askServers(ctx, name, kind) })
	}
	wg.Wait()
	if found = slices.Concat(got[0], got[1]); len(found) > 0 {
		return found, nil
	}
	return nil, errors.Join(errs[:]...)
}

// askServers asks one name server after the other until one answers.
func (r *Resolver) askServers(ctx context.Context, name string, kind dnsmessage.Type) (found []netip.Addr, err error) {
	query, err := queryFor(name, kind)
	if err != nil {
		return nil, err
	}
	for _, server := range r.conf.Servers {
		var answer []byte
		if answer, err = r.exchange(ctx, netip.AddrPortFrom(server, port), query); err == nil {
			if found, err = addresses(answer); err == nil {
				return found, nil
			}
		}
		err = fmt.Errorf("look up %s: name server %v: %w", name, server, err)
		if ctx.Err() != nil {
			break
		}
	}
	return nil, err
}

// exchange has the agent ask server.
func (r *Resolver) exchange(ctx context.Context, server netip.AddrPort, query []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, askTime, syscall.ETIMEDOUT)
	defer cancel()
	m, err := r.agent.Call(ctx, &protocol.Lookup{Addr: server, Query: query})
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if err != nil {
		return nil, err
	}
	switch m := m.(type) {
	case *protocol.Datagram:
		if m.Errno != 0 {
			return nil, m.Errno
		}
		return m.Data, nil
	case *protocol.Answer:
		if m.Err() != nil {
			return nil, m.Err()
		}
		return nil, fmt.Errorf("it says nothing: %w", syscall.ETIMEDOUT)
	}
	return nil, fmt.Errorf("the agent answered a lookup with message %d: %w", m.Kind(), syscall.EPROTO)
}

// queryFor is a query for one name, without a final dot.
func queryFor(name string, kind dnsmessage.Type) ([]byte, error) {
	full, err := dnsmessage.NewName(name + ".")
	if err != nil {
		return nil, fmt.Errorf("%q is no name: %w", name, err)
	}
	m := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: uint16(rand.Uint32()), RecursionDesired: true},
		Questions: []dnsmessage.Question{{Name: full, Type: kind, Class: dnsmessage.ClassINET}},
	}
	var opt dnsmessage.ResourceHeader
	_ = opt.SetEDNS0(udpMost, dnsmessage.RCodeSuccess, false) // fails for names other than the root's
	m.Additionals = []dnsmessage.Resource{{Header: opt, Body: &dnsmessage.OPTResource{}}}
	b, err := m.Pack()
	if err != nil {
		return nil, fmt.Errorf("%q is no name: %w", name, err)
	}
	return b, nil
}

// addresses reads an answer. Of one that was cut, since a name has very many, some
// will do. None, without an error: the name has none of the kind
// that was asked for, or there is no such name.
func addresses(answer []byte) (all []netip.Addr, err error) {
	var p dnsmessage.Parser
	h, err := p.Start(answer)
	switch {
	case err != nil || !h.Response:
		return nil, errors.New("no answer that can be read")
	case h.RCode == dnsmessage.RCodeNameError:
		return nil, nil
	case h.RCode != dnsmessage.RCodeSuccess:
		return nil, fmt.Errorf("it says %q", codeText(h.RCode))
	}
	for _, f := range parseAnswer(answer) {
		all = append(all, f.addr)
	}
	if len(all) == 0 && h.Truncated {
		return nil, errors.New("its answer is longer than a datagram may be")
	}
	return all, nil
}
