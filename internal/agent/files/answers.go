package files

import (
	"context"
	"syscall"
	"time"

	"github.com/mirrord-go/mirrord/internal/protocol"
)

const (
	// answerUnit is what the memory of answers is counted in, bytes: content that
	// comes with an answer, or a message of a listing with what it is made of.
	answerUnit = 64 << 10
	// smallAnswers and largeAnswers bound, in units, the answers that nobody has
	// taken yet: 16 MiB each, of the 128 MiB that the agent may use, and each is
	// held two or three times while it is written. They are apart so that what is
	// read in bulk holds up no question.
	smallAnswers = 256
	largeAnswers = 256
	// answerTime is how long a request waits for room. All of it is taken only if
	// local asks and does not read.
	answerTime = 20 * time.Second
)

// rooms bound the memory of answers.
type rooms struct {
	small, large *room
	time         time.Duration // answerTime, but in tests
}

func newRooms() rooms { return rooms{newRoom(smallAnswers), newRoom(largeAnswers), answerTime} }

// take waits for room for the answer to m: EAGAIN if there is none in time. The
// caller calls leave when the answer has gone.
func (r rooms) take(ctx context.Context, m protocol.Message) (leave func(), err error) {
	in, units := r.small, 1
	switch m := m.(type) {
	case *protocol.ReadAt:
		if units = unitsOf(min(m.N, maxRead)); units > 1 {
			in = r.large
		}
	case *protocol.Stat:
		units = unitsOf(min(m.Prefetch, maxPrefetch))
	case *protocol.Open:
		units = unitsOf(min(m.Prefetch, maxPrefetch))
	case *protocol.ReadDir:
	default: // a few bytes
		return func() {}, nil
	}
	ctx, cancel := context.WithTimeoutCause(ctx, r.time, syscall.EAGAIN)
	defer cancel()
	return in.take(ctx, units)
}

func unitsOf(n uint32) int { return max(1, int(n+answerUnit-1)/answerUnit) }

// room is a number of units.
type room struct {
	turn  chan struct{} // held by whoever takes: two who hold a part each would wait for ever
	units chan struct{}
}

func newRoom(units int) *room {
	return &room{turn: make(chan struct{}, 1), units: make(chan struct{}, units)}
}

func (r *room) take(ctx context.Context, n int) (leave func(), err error) {
	select {
	case r.turn <- struct{}{}:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	defer func() { <-r.turn }()
	give := func(n int) {
		for range n {
			<-r.units
		}
	}
	for got := range n {
		select {
		case r.units <- struct{}{}:
		case <-ctx.Done():
			give(got)
			return nil, context.Cause(ctx)
		}
	}
	return func() { give(n) }, nil
}
