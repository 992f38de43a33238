package dns

import (
	"context"
	"net/netip"
	"slices"
	"sync"
	"syscall"

	"github.com/mirrord-go/mirrord/internal/rules"
)

// maxMessage is the longest message, in bytes: its length has 16 bits over TCP,
// and UDP carries no more.
const maxMessage = 1<<16 - 1

// messageBuffers are for one message each.
var messageBuffers = sync.Pool{New: func() any { return new([maxMessage]byte) }}

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
		carry(ctx, &watchedDatagrams{f, n, d.Where == rules.Remote}, d)
		return
	}
	s := &splitDatagrams{watchedDatagrams: watchedDatagrams{f, n, true}}
	defer s.wg.Wait()
	var cancel context.CancelFunc
	s.ctx, cancel = context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { f.Close() })
	defer stop()
	buf := messageBuffers.Get().(*[maxMessage]byte)
	k, err := s.Read(buf[:])
	s.first = slices.Clone(buf[:k])
	messageBuffers.Put(buf)
	if err == nil {
		carry(ctx, s, d)
	}
}

// watchedDatagrams learns from the answers.
type watchedDatagrams struct {
	UDPFlow
	n      *Names
	remote bool
}

// Write gives the program an answer.
func (w *watchedDatagrams) Write(p []byte) (int, error) {
	w.n.learn(p, w.remote)
	return w.UDPFlow.Write(p)
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
