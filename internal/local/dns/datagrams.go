package dns

import (
	"context"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/mirrord-go/mirrord/internal/datagram"
	"github.com/mirrord-go/mirrord/internal/rules"
)

// UDPFlow is the datagrams between one socket of the program and one name
// server. Its methods may be called concurrently.
type UDPFlow interface {
	Src() netip.AddrPort
	Dst() netip.AddrPort
	Read(p []byte) (int, error)
	Write(p []byte) (int, error)
	Unreachable(errno syscall.Errno)
	Close() error
}

// UDP answers those lookups of f that are this machine's, and lets carry carry
// the others where the decision says; it is called when the first of them
// comes, and must not touch its flow when it has returned. UDP closes f.
func (n *Names) UDP(ctx context.Context, f UDPFlow, carry func(context.Context, UDPFlow, rules.Decision)) {
	defer f.Close()
	d := n.decision()
	if !n.o.Rules.Filtered() {
		carry(ctx, &watchedDatagrams{UDPFlow: f, n: n, remote: d.Where == rules.Remote}, d)
		return
	}
	s := &splitDatagrams{watchedDatagrams: watchedDatagrams{UDPFlow: f, n: n, remote: true}}
	defer s.wg.Wait()
	var cancel context.CancelFunc
	s.ctx, cancel = context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { f.Close() })
	defer stop()
	buf := datagram.Take()
	k, err := s.read(buf[:])
	s.first = slices.Clone(buf[:k])
	datagram.Give(buf)
	if err == nil {
		carry(ctx, s, d)
	}
}

// maxUnanswered bounds the lookups of one socket that are remembered until they
// are answered: getaddrinfo(3) has two under way.
const maxUnanswered = 8

// watchedDatagrams learns from the answers, and answers for a name server that
// cannot be reached.
type watchedDatagrams struct {
	UDPFlow
	n      *Names
	remote bool

	mu     sync.Mutex
	asked  []unanswered // without an answer, oldest first
	failed bool         // what was asked last has a server failure for its answer
}

// unanswered is a lookup, and when it came.
type unanswered struct {
	text []byte
	at   time.Time
}

// Read takes a lookup.
func (w *watchedDatagrams) Read(p []byte) (int, error) {
	k, err := w.UDPFlow.Read(p)
	if err == nil {
		w.ask(p[:k])
	}
	return k, err
}

// ask remembers a lookup.
func (w *watchedDatagrams) ask(p []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.failed = false
	if w.asked = append(w.asked, unanswered{slices.Clone(p), time.Now()}); len(w.asked) > maxUnanswered {
		w.asked = slices.Delete(w.asked, 0, 1)
	}
}

// Write gives the program an answer.
func (w *watchedDatagrams) Write(p []byte) (int, error) {
	var began time.Time
	w.mu.Lock()
	w.asked = slices.DeleteFunc(w.asked, func(q unanswered) bool { // by the id, RFC 1035 §4.1.1
		is := len(q.text) >= 2 && len(p) >= 2 && q.text[0] == p[0] && q.text[1] == p[1]
		if is {
			began = q.at
		}
		return is
	})
	w.mu.Unlock()
	w.n.learn(p, w.remote)
	w.n.tell(p, side(w.remote), began)
	return w.UDPFlow.Write(p)
}

// Unreachable tells the program that its lookups reach nobody. Where there is
// no way to the name server, the link being lost for instance, lookups are
// answered "server failure": that is a temporary failure to every resolver, and
// arrives on any socket, which an ICMP error does not.
func (w *watchedDatagrams) Unreachable(errno syscall.Errno) {
	var told bool
	if errno == syscall.EHOSTUNREACH {
		w.mu.Lock()
		asked := w.asked
		w.asked, told = nil, w.failed // by the lookup that failed with this one
		w.mu.Unlock()
		for _, b := range asked {
			if q, ok := parseQuery(b.text); ok {
				answer := q.answer(dnsmessage.RCodeServerFailure, nil, true)
				_, _ = w.UDPFlow.Write(answer) // lost like any datagram
				w.n.tell(answer, side(w.remote), b.at)
				told = true
			}
		}
		w.mu.Lock()
		w.failed = told && len(w.asked) == 0
		w.mu.Unlock()
	}
	if !told {
		w.UDPFlow.Unreachable(errno)
	}
}

// side is whose name server has answered.
func side(remote bool) rules.Where {
	if remote {
		return rules.Remote
	}
	return rules.Local
}

// splitDatagrams keeps the lookups that are this machine's for itself.
type splitDatagrams struct {
	watchedDatagrams
	ctx   context.Context // of the answers
	wg    sync.WaitGroup  // those being made
	first []byte          // read, not given on; nil: gone
}

// Read waits for a datagram that is not this machine's to answer.
func (s *splitDatagrams) Read(p []byte) (int, error) {
	k, err := s.read(p)
	if err == nil {
		s.ask(p[:k])
	}
	return k, err
}

func (s *splitDatagrams) read(p []byte) (int, error) {
	if s.first != nil {
		n := copy(p, s.first)
		s.first = nil
		return n, nil
	}
	for {
		k, err := s.UDPFlow.Read(p)
		if err != nil {
			return k, err
		}
		l, ok := s.n.mine(p[:k], true)
		if !ok {
			return k, nil
		}
		select {
		case s.n.slots <- struct{}{}:
			s.wg.Go(func() {
				defer func() { <-s.n.slots }()
				if reply := s.n.answer(s.ctx, l); reply != nil {
					_, _ = s.UDPFlow.Write(reply) // lost like any datagram
				}
			})
		default: // dropped
		}
	}
}
