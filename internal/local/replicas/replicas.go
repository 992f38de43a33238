// Package replicas keeps an agent beside every pod of the target's workload but
// the target, so that what a service spreads over its pods comes here whole.
//
// It decides which pods get one (wanted), and owns what serves each of them until
// the pod or the session ends. How an agent is held and what comes from it is for
// its maker.
package replicas

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/mirrord-go/mirrord/internal/event"
	"github.com/mirrord-go/mirrord/internal/failure"
	"github.com/mirrord-go/mirrord/internal/local/attach"
)

const (
	// Most is how many pods take part at once, beside the target: every one has an
	// agent in the cluster and a link.
	Most = 49
	// restTime is how long a pod is left alone after its agent could not be started,
	// or has ended.
	restTime = 30 * time.Second
)

// Options of New.
type Options struct {
	// Target gives the id of the container that the session itself is beside.
	Target func() string
	// Serve holds an agent beside a pod until that ends, or ctx, and leaves nothing
	// behind. nil: ctx has ended, or the pod, or the turn and what began in it.
	Serve func(ctx context.Context, r attach.Replica, turn Turn) error
	Emit  event.Sink
}

// Turn is a pod's time to take part.
type Turn struct {
	Taking context.Context // ends when nothing new is to come
	Ready  func()          // is called when the pod's traffic comes here
	Left   func()          // is called when nothing new comes any more
}

// Fleet is what serves the pods. Its methods may be called concurrently.
type Fleet struct {
	o      Options
	ctx    context.Context // alive until Close
	cancel context.CancelFunc
	wg     sync.WaitGroup // of members

	mu     sync.Mutex
	closed bool
	pods   map[string]*member   // by container
	rests  map[string]time.Time // until when nothing is tried
	many   bool                 // it was said that there are too many
	told   map[string]bool      // whose failure was said
}

// member is one pod that takes part.
type member struct {
	yield context.CancelFunc // ends its turn
	left  chan struct{}      // closed when nothing new comes from it
}

// New makes a fleet of nobody.
func New(o Options) *Fleet {
	f := &Fleet{o: o, pods: map[string]*member{}, rests: map[string]time.Time{}, told: map[string]bool{}}
	f.ctx, f.cancel = context.WithCancel(context.Background())
	return f
}

// Look lets those of the ready pods take part that do not yet.
func (f *Fleet) Look(ready []attach.Replica) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return
	}
	now := time.Now()
	maps.DeleteFunc(f.rests, func(_ string, until time.Time) bool { return !now.Before(until) })
	busy := func(id string) bool {
		_, there := f.pods[id]
		_, rests := f.rests[id]
		return there || rests
	}
	begin, left := wanted(ready, f.o.Target(), busy, Most-len(f.pods))
	for _, r := range begin {
		f.begin(r)
	}
	if left > 0 && !f.many {
		f.many = true
		f.o.Emit(event.Event{Level: event.Warning, Code: "replicas-many", Flow: "incoming",
			Text: fmt.Sprintf("the workload has more pods than take part: %d keep their traffic, beyond %d and the target", left, Most)})
	}
}

// wanted are those of the ready pods that are to take part now, room at most;
// left is how many there are more.
func wanted(ready []attach.Replica, target string, busy func(id string) bool, room int) (begin []attach.Replica, left int) {
	for _, r := range ready {
		switch {
		case r.ID == target || busy(r.ID):
		case len(begin) < room:
			begin = append(begin, r)
		default:
			left++
		}
	}
	return begin, left
}

// begin lets r take part. mu is held.
func (f *Fleet) begin(r attach.Replica) {
	taking, yield := context.WithCancel(f.ctx)
	left := make(chan struct{})
	f.pods[r.ID] = &member{yield, left}
	turn := Turn{Taking: taking, Left: sync.OnceFunc(func() { close(left) }), Ready: func() {
		f.o.Emit(event.Event{Level: event.Info, Code: "replica", Flow: "incoming",
			Text: fmt.Sprintf("the traffic of pod %s comes here, too", r.Pod), Facts: map[string]string{"pod": r.Pod}})
	}}
	f.wg.Go(func() {
		defer yield()
		defer turn.Left()
		f.end(r, f.o.Serve(f.ctx, r, turn))
	})
}

// end forgets r, which has ended by err.
func (f *Fleet) end(r attach.Replica, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.pods, r.ID)
	if err == nil || f.closed {
		return
	}
	f.rests[r.ID] = time.Now().Add(restTime)
	if f.told[r.ID] {
		return
	}
	f.told[r.ID] = true
	text := fmt.Sprintf("the traffic of pod %s does not come here: ", r.Pod)
	if why, ok := errors.AsType[*failure.Error](err); ok {
		text += why.What + ": " + why.Why
	} else {
		text += err.Error()
	}
	f.o.Emit(event.Event{Level: event.Warning, Code: "replica-failed", Flow: "incoming", Text: text, Facts: map[string]string{"pod": r.Pod}})
}

// Yield ends the turn of a container, which has become the target, and waits until
// nothing new comes from there. What has come before goes on.
func (f *Fleet) Yield(id string) {
	f.mu.Lock()
	m := f.pods[id]
	f.mu.Unlock()
	if m != nil {
		m.yield()
		<-m.left
	}
}

// Pods is how many take part, beside the target.
func (f *Fleet) Pods() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.pods)
}

// Close ends all of them, and waits for that.
func (f *Fleet) Close() {
	f.mu.Lock()
	f.closed = true
	f.mu.Unlock()
	f.cancel()
	f.wg.Wait()
}
