package files

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
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
	// patience is how long a process that got a signal still waits for the
	// answer that is on its way. Ordinary signals (a child's end, a timer) then
	// go unnoticed, as on a local disk; whoever wants to end the process waits
	// no longer than this.
	patience = time.Second
	// callTime bounds a call, or afterLoss beyond what a lost link may take to
	// come back: only an agent that is stuck meets them.
	callTime  = 90 * time.Second
	afterLoss = 30 * time.Second
	// maxLost is how many names are remembered that a lost link has kept out of
	// reach: there are few, as what is below such a name is not asked for.
	maxLost = 1 << 12
	// maxNames bounds a directory's listing, at about 1 KiB each while it is made:
	// a directory without end must not take the supervisor's memory.
	maxNames = 1 << 18
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

// patient gives a context that outlives ctx by the patience, and ends with r.
// It has the values of ctx. The caller calls done.
func (r *remote) patient(ctx context.Context) (_ context.Context, done func()) {
	lasting, cancel := context.WithCancelCause(valued{r.ctx, ctx})
	var mu sync.Mutex
	var timer *time.Timer
	ended := false
	stop := context.AfterFunc(ctx, func() {
		mu.Lock()
		defer mu.Unlock()
		if !ended {
			timer = time.AfterFunc(patience, func() { cancel(syscall.EINTR) })
		}
	})
	return lasting, func() {
		stop()
		mu.Lock()
		defer mu.Unlock()
		ended = true
		if timer != nil {
			timer.Stop()
		}
		cancel(nil)
	}
}

// valued is a context with the values of another as well. Its own come first:
// package context finds by one of them whose end it has.
type valued struct {
	context.Context
	values context.Context
}

func (v valued) Value(key any) any {
	if found := v.Context.Value(key); found != nil {
		return found
	}
	return v.values.Value(key)
}

// bound gives the context of a call. The caller calls done.
func (r *remote) bound(ctx context.Context) (_ context.Context, done func()) {
	lasting, end := r.patient(ctx)
	calling, cancel := context.WithTimeoutCause(lasting, r.limit, syscall.ETIMEDOUT)
	return calling, func() { cancel(); end() }
}

// call asks one question and gives the reply if it is a T. The end of ctx is a
// signal.
func call[T protocol.Message](ctx context.Context, r *remote, m protocol.Message) (T, error) {
	calling, done := r.bound(ctx)
	defer done()
	return ask[T](calling, r, m)
}

// ask is call that ends at once with calling.
func ask[T protocol.Message](calling context.Context, r *remote, m protocol.Message) (T, error) {
	got, err := r.peer.Call(calling, m)
	if err != nil {
		var none T
		return none, explain(calling, err)
	}
	return as[T](got)
}

// as tells the expected reply from a refusal.
func as[T protocol.Message](m protocol.Message) (T, error) {
	switch m := m.(type) {
	case T:
		return m, nil
	case *protocol.Answer:
		var none T
		if err := m.Err(); errors.Is(err, syscall.EBADF) {
			return none, fmt.Errorf("opened before the target was replaced: %w", syscall.ESTALE)
		} else if err != nil {
			return none, err
		}
	}
	var none T
	return none, fmt.Errorf("the agent answered with %T instead of %T: %w", m, none, syscall.EIO)
}

// explain gives the error of a call the errno that a program expects of a
// disk: a lost link is EIO, not a reset connection.
func explain(calling context.Context, err error) error {
	var errno syscall.Errno
	var closed *link.ClosedError
	switch {
	case calling.Err() != nil && errors.As(context.Cause(calling), &errno):
		return fmt.Errorf("ask the agent: %w", errno)
	case calling.Err() != nil:
		return fmt.Errorf("the session has ended: %w", syscall.EIO)
	case errors.Is(err, link.ErrLost):
		return errLost
	case errors.As(err, &closed):
		return fmt.Errorf("%v: %w", err, syscall.EIO)
	}
	return err
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

// named is a name in a directory.
type named struct {
	name string
	attr *protocol.Attr // without a type: the kernel is to ask
	keep time.Duration
}

// list gives the names in a directory.
func (r *remote) list(ctx context.Context, p string) ([]named, error) {
	return soon(ctx, r, expected[[]named]{
		may:   func() bool { return r.tells(p) },
		found: func() ([]named, bool) { return r.listed(p) },
		alone: func() { r.foreseeList(p) },
		ask:   func(ctx context.Context) ([]named, error) { return r.askList(ctx, p) },
	})
}

// listed gives the names in p if all are known.
func (r *remote) listed(p string) (all []named, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	d, own := r.dirs[p], r.entry(p)
	if d == nil || !d.whole || !r.fresh(d.at) {
		return nil, false
	}
	// The kernel keeps names until it is told that the directory has changed: it
	// must not get those from before a change that it was told of.
	if own == nil || own.at.IsZero() || !sameFile(own.attr, d.own) || !same(own.attr, d.own) {
		return nil, false
	}
	r.order.MoveToBack(d.place)
	for _, name := range d.sort() {
		e := d.names[name]
		n := named{name: name, attr: e.attr, keep: r.left(e.at)}
		if _, ok := r.rememberedOf(path.Join(p, name), e); !ok {
			n.attr, n.keep = unsure(e.attr), 0
		}
		all = append(all, n)
	}
	if d.by != nil {
		r.saved(d.by)
		r.thrift.give(len(all) * entryCost / 2)
		d.by = nil
	}
	return all, true
}

// unsure is what a listing says of a name that the kernel is to ask for: the
// type of a directory, on which its place in the view may depend.
func unsure(a *protocol.Attr) *protocol.Attr {
	if a.Mode&syscall.S_IFMT == syscall.S_IFDIR {
		return a
	}
	return &protocol.Attr{}
}

// askList asks for the names in a directory.
func (r *remote) askList(ctx context.Context, p string) ([]named, error) {
	calling, done := r.bound(ctx)
	defer done()
	asked := time.Now()
	s, err := r.peer.Open(calling, link.Interactive, &protocol.ReadDir{Path: p})
	if err != nil {
		return nil, explain(calling, err)
	}
	defer s.Close()
	stop := context.AfterFunc(calling, func() { s.Reset(syscall.ECANCELED) })
	defer stop()
	var all []named
	var last *protocol.Entries
	for {
		m, err := s.Receive()
		if errors.Is(err, io.EOF) {
			r.learnList(p, all, last, asked)
			return all, nil
		}
		if err != nil {
			return nil, explain(calling, err)
		}
		part, err := as[*protocol.Entries](m)
		if err != nil {
			return nil, err
		}
		if len(all)+len(part.List) > r.names {
			return nil, fmt.Errorf("list %q: more than %d names: %w", p, r.names, syscall.EOVERFLOW)
		}
		last = part
		for i := range part.List {
			e := &part.List[i]
			if !validName(e.Name) {
				continue
			}
			n := named{e.Name, &e.Attr, r.life}
			e.Attr.Data, e.Attr.HasData = nil, false
			if r.unsettled(attrKey(sideRemote, path.Join(p, e.Name), &e.Attr), asked) {
				n.attr, n.keep = unsure(n.attr), 0
			} else {
				r.learn(path.Join(p, e.Name), &e.Attr, asked)
			}
			all = append(all, n)
		}
	}
}

// learnList notes that these are the names in p, if the last part says that they
// are all.
func (r *remote) learnList(p string, all []named, last *protocol.Entries, asked time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	d := r.dirs[p]
	if d == nil || last == nil || last.End != protocol.EndWhole || r.stale(p, asked) {
		return
	}
	names := make(map[string]bool, len(all))
	for _, n := range all {
		names[n.name] = true
	}
	r.settleNames(d, names, &last.Attr, asked, time.Now(), nil)
	d.habit.part = time.Time{}
}

// validName refuses what the kernel would take for an attack.
func validName(name string) bool {
	const nameMax = 255 // NAME_MAX, linux/limits.h
	if name == "" || name == "." || name == ".." || len(name) > nameMax {
		return false
	}
	for i := range len(name) {
		if name[i] == '/' || name[i] == 0 {
			return false
		}
	}
	return true
}

func (r *remote) statfs(ctx context.Context, p string) (protocol.Fsinfo, error) {
	i, err := call[*protocol.Fsinfo](ctx, r, &protocol.Statfs{Path: p})
	if err != nil {
		return protocol.Fsinfo{}, err
	}
	return *i, nil
}

// read reads from a handle; fewer than n bytes are the last ones. The end of
// ctx is a signal. Large answers go with the bulk of the link, so that they hold
// up no question. The file is open: it waits for a lost link.
func (r *remote) read(ctx context.Context, handle uint64, off int64, n int) ([]byte, error) {
	calling, done := r.bound(link.Lasting(ctx))
	defer done()
	const small = 64 << 10 // bytes
	m := &protocol.ReadAt{Handle: handle, Off: off, N: uint32(n)}
	way := askBulk
	if n <= small {
		way = ask[*protocol.Data]
	}
	d, err := way(calling, r, m)
	if err != nil {
		return nil, err
	}
	return bytesOf(d, n)
}

// bytesOf is what an answer to a ReadAt of n bytes has.
func bytesOf(d *protocol.Data, n int) ([]byte, error) {
	if len(d.Bytes) > n {
		return nil, fmt.Errorf("the agent sent %d bytes for %d: %w", len(d.Bytes), n, syscall.EIO)
	}
	return d.Bytes, nil
}

// askBulk is ask for a large answer.
func askBulk(calling context.Context, r *remote, m protocol.Message) (*protocol.Data, error) {
	s, err := r.peer.Open(calling, link.Bulk, m)
	if err != nil {
		return nil, explain(calling, err)
	}
	defer s.Close()
	stop := context.AfterFunc(calling, func() { s.Reset(syscall.ECANCELED) })
	defer stop()
	reply, err := s.Receive()
	if err != nil {
		return nil, explain(calling, err)
	}
	return as[*protocol.Data](reply)
}

// closeHandle does not wait for the answer: nobody could do anything about it.
func (r *remote) closeHandle(handle uint64) {
	s, err := r.peer.Open(link.Lasting(r.ctx), link.Interactive, &protocol.CloseHandle{Handle: handle})
	if err == nil {
		s.Close()
	}
}
