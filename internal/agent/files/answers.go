package files

import (
	"context"
	"syscall"
	"time"

	"github.com/mirrord-go/mirrord/internal/budget"
	"github.com/mirrord-go/mirrord/internal/protocol"
)

const (
	// answerCost is what an answer is counted as at least, in bytes: content that
	// comes with it, or a message of a listing with what it is made of.
	answerCost = 64 << 10
	// times is how often content is held while it is written: as it was read, and
	// as it is sent.
	times = 2
	// answerTime is how long a request waits for room. All of it is taken only if
	// local asks and does not read.
	answerTime = 20 * time.Second
)

// Memory is the shares that answers take from until they are written. They are
// apart so that what is read in bulk holds up no question. nil ones have no end.
type Memory struct {
	Questions *budget.Share
	Reads     *budget.Share // each takes up to 1 MiB
}

// room waits for room for the answer to m: EAGAIN if there is none in time. The
// caller calls leave when the answer has gone.
func (s *Server) room(ctx context.Context, m protocol.Message) (leave func(), err error) {
	in, n := s.memory.Questions, uint32(0)
	switch m := m.(type) {
	case *protocol.ReadAt:
		if n = min(m.N, maxRead); n > answerCost {
			in = s.memory.Reads
		}
	case *protocol.Stat:
		n = min(m.Prefetch, maxPrefetch)
	case *protocol.Open:
		n = min(m.Prefetch, maxPrefetch)
	case *protocol.ReadDir, *protocol.Readlink, *protocol.GetXattr, *protocol.ListXattr:
	case *protocol.Make, *protocol.SetAttr: // with where a link leads
	default: // a few bytes
		return func() {}, nil
	}
	cost := times * max(answerCost, int(n))
	ctx, cancel := context.WithTimeoutCause(ctx, s.answerTime, syscall.EAGAIN)
	defer cancel()
	if err := in.Wait(ctx, cost); err != nil {
		return nil, err
	}
	return func() { in.Give(cost) }, nil
}
