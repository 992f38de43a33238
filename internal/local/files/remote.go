package files

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/mirrord-go/mirrord/internal/budget"
	"github.com/mirrord-go/mirrord/internal/link"
	"github.com/mirrord-go/mirrord/internal/protocol"
)

const (
	// prefetch is how much of a small file's content comes with its attributes,
	// in bytes: what a program looks up it mostly reads.
	prefetch = 64 << 10
	// maxLost is how many names are remembered that a lost link has kept out of
	// reach: there are few, as what is below such a name is not asked for.
	maxLost = 1 << 12
)

// errLost is the end of a question that waited for a lost link in vain.
var errLost = fmt.Errorf("%v: %w", link.ErrLost, syscall.EIO)

// remote asks the agent.
type remote struct {
	peer Peer
	uid  uint32 // of the target's process, as gid
	gid  uint32
	// ownUID and ownGID are those of the program's that stand for them; -1: none.
	ownUID, ownGID int

	names int           // maxNames
	life  time.Duration // of what the target told
	// linkLost is when the link was lost; zero: it is not.
	linkLost func() time.Time
	limit    time.Duration   // of a call
	ctx      context.Context // ends with close
	cancel   context.CancelFunc
	wg       sync.WaitGroup // what run has started
	ahead    chan struct{}  // a place for each chunk being read ahead
	memory   *budget.Share  // of these, until they are dropped
	carried  func(read, written int)

	mu sync.Mutex // guards what follows
	known
	thrift  thrift
	surveys []*asking       // under way
	lost    map[string]bool // paths for which a question ended in errLost, in the loss that began at lostAt
	lostAt  time.Time
	arrived chan struct{} // closed and made anew when something came unasked
	trip    time.Duration // what a small question takes; 0: not known
	old     bool          // the agent knows no surveys
	inodes  map[uint64]*inode
	light   map[*remoteFile]bool // open files that began without a handle
}

func newRemote(p Peer, window, life time.Duration, memory *budget.Share) *remote {
	r := &remote{ownUID: os.Getuid(), ownGID: os.Getgid(), peer: p, life: life, memory: memory, carried: func(int, int) {}, names: maxNames, limit: callTime,
		known: newKnown(), arrived: make(chan struct{}), inodes: map[uint64]*inode{}, lost: map[string]bool{}, light: map[*remoteFile]bool{}, ahead: make(chan struct{}, maxAhead)}
	r.linkLost = func() time.Time { return time.Time{} }
	if window > 0 {
		r.limit = window + afterLoss
	}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	return r
}

func (r *remote) close() error {
	r.mu.Lock()
	r.cancel() // nothing is started any more
	r.mu.Unlock()
	r.wg.Wait()
	return nil
}

// run runs f, which must end with r.ctx, until close; not after it.
func (r *remote) run(f func()) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ctx.Err() != nil {
		return false
	}
	r.wg.Go(f)
	return true
}

// stat gives a path's attributes.
func (r *remote) stat(ctx context.Context, p string) (*protocol.Attr, error) {
	a, _, err := r.lookup(ctx, p)
	return a, err
}

// lookup gives a path's attributes, and how long the kernel may take the answer
// for granted, also that there is nothing.
func (r *remote) lookup(ctx context.Context, p string) (a *protocol.Attr, keep time.Duration, err error) {
	// What was changed meanwhile is asked for again, but not for ever.
	const tries = 3
	dir, _ := split(p)
	for i := 1; ; i++ {
		if f, ok := r.newest(p); ok {
			if err := r.settle(ctx, attrKey(sideRemote, p, f.attr)); err != nil {
				return nil, 0, err
			}
		}
		asked := time.Now()
		f, err := soon(ctx, r, expected[fact]{
			may:   func() bool { return r.tells(dir) },
			found: func() (fact, bool) { return r.answer(p) },
			alone: func() { r.foresee(p) },
			ask: func(ctx context.Context) (f fact, err error) {
				f.attr, err = r.ask(ctx, p)
				return f, err
			},
		})
		if err != nil {
			return nil, r.life, err
		}
		if !f.at.IsZero() {
			return f.result(r)
		}
		if i == tries || !r.unsettled(attrKey(sideRemote, p, f.attr), asked) {
			return f.attr, r.life, nil
		}
	}
}

// result is what a lookup gives that need not ask.
func (f fact) result(r *remote) (*protocol.Attr, time.Duration, error) {
	if f.attr == nil {
		return nil, r.left(f.at), syscall.ENOENT
	}
	return f.attr, r.left(f.at), nil
}

// left is how long what is as old as that may still be used.
func (r *remote) left(at time.Time) time.Duration { return max(0, r.life-time.Since(at)) }

// ask asks for a path's attributes and, as what a program looks up it mostly
// reads, for the content of a small file.
func (r *remote) ask(ctx context.Context, p string) (*protocol.Attr, error) {
	asked := time.Now()
	if r.outOfReach(p, false) {
		return nil, errLost
	}
	a, err := call[*protocol.Attr](ctx, r, &protocol.Stat{Path: p, Prefetch: prefetch})
	if err == errLost {
		r.outOfReach(p, true)
	}
	r.answered(p, a, err, asked)
	if err != nil {
		return nil, err
	}
	if a.HasData && (len(a.Data) > prefetch || uint64(len(a.Data)) != a.Size) {
		return nil, fmt.Errorf("the agent sent %d bytes of a file with %d: %w", len(a.Data), a.Size, syscall.EIO)
	}
	r.learn(p, a, asked)
	return a, nil
}

// outOfReach reports whether a question for p has waited for the link in vain
// since that was lost, or notes that it has. Nobody waits after that: the kernel
// asks for a name once at a time (d_alloc_parallel, fs/dcache.c), and after a
// revalidation that failed again (fuse_dentry_revalidate), so that those who
// wait there for their turn would wait one after another.
func (r *remote) outOfReach(p string, now bool) bool {
	lostAt := r.linkLost()
	if lostAt.IsZero() {
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if !lostAt.Equal(r.lostAt) {
		clear(r.lost)
		r.lostAt = lostAt
	}
	if now && len(r.lost) < maxLost {
		r.lost[p] = true
	}
	return r.lost[p]
}

// answered notes the answer to a question for p that was asked then.
func (r *remote) answered(p string, a *protocol.Attr, err error, asked time.Time) {
	none := errors.Is(err, syscall.ENOENT)
	if err != nil && !none {
		return
	}
	r.timed(time.Since(asked))
	r.mu.Lock()
	defer r.mu.Unlock()
	dir, _ := split(p)
	if d := r.dirs[dir]; d != nil {
		d.habit.files = none || a.Mode&syscall.S_IFMT != syscall.S_IFDIR
	}
	if e := r.entry(p); none && e != nil && !e.asked.After(asked) {
		r.drop(e)
	}
}

func (r *remote) statfs(ctx context.Context, p string) (protocol.Fsinfo, error) {
	i, err := call[*protocol.Fsinfo](ctx, r, &protocol.Statfs{Path: p})
	if err != nil {
		return protocol.Fsinfo{}, err
	}
	return *i, nil
}
