package files

import (
	"context"
	"errors"
	"fmt"
	"io"
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
	// maxRecent bounds the contents that are kept for a moment, in bytes.
	maxRecent = 16 << 20
	// Memory is what a Tree holds at most, in bytes, besides what is read ahead.
	Memory = maxRecent
	// patience is how long a process that got a signal still waits for the
	// answer that is on its way. Ordinary signals (a child's end, a timer) then
	// go unnoticed, as on a local disk; whoever wants to end the process waits
	// no longer than this.
	patience = time.Second
	// callTime bounds a call, or afterLoss beyond what a lost link may take to
	// come back: only an agent that is stuck meets them.
	callTime  = 90 * time.Second
	afterLoss = 30 * time.Second
	// maxNames bounds a directory's listing, at about 1 KiB each while it is made:
	// a directory without end must not take the supervisor's memory.
	maxNames = 1 << 18
)

// remote asks the agent.
type remote struct {
	peer   Peer
	uid    uint32 // of the target's process, as gid
	gid    uint32
	names  int             // maxNames
	life   time.Duration   // of what the target told
	limit  time.Duration   // of a call
	ctx    context.Context // ends with close
	cancel context.CancelFunc
	wg     sync.WaitGroup // what run has started
	ahead  chan struct{}  // a place for each chunk being read ahead
	memory *budget.Share  // of these, until they are dropped

	mu     sync.Mutex
	recent map[string]recent
	order  []string // paths in recent by age, some of them gone
	size   int      // bytes of content in recent
	inodes map[uint64]*inode
}

// recent is what was told about a path.
type recent struct {
	attr  *protocol.Attr
	asked time.Time
	at    time.Time
}

func newRemote(p Peer, window, life time.Duration, memory *budget.Share) *remote {
	r := &remote{peer: p, life: life, memory: memory, names: maxNames, limit: callTime, recent: map[string]recent{}, inodes: map[uint64]*inode{}, ahead: make(chan struct{}, maxAhead)}
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
	case errors.As(err, &closed), errors.Is(err, link.ErrLost):
		return fmt.Errorf("%v: %w", err, syscall.EIO)
	}
	return err
}

// stat gives a path's attributes, and the content of a small file with them.
func (r *remote) stat(ctx context.Context, p string) (*protocol.Attr, error) {
	// What was changed meanwhile is asked for again, but not for ever.
	const tries = 3
	for i := 1; ; i++ {
		if e, ok := r.newest(p); ok {
			if err := r.settle(ctx, attrKey(sideRemote, p, e.attr)); err != nil {
				return nil, err
			}
		}
		if e, ok := r.remembered(p); ok {
			return e.attr, nil
		}
		asked := time.Now()
		a, err := call[*protocol.Attr](ctx, r, &protocol.Stat{Path: p, Prefetch: prefetch})
		if err != nil {
			return nil, err
		}
		if a.HasData && (len(a.Data) > prefetch || uint64(len(a.Data)) != a.Size) {
			return nil, fmt.Errorf("the agent sent %d bytes of a file with %d: %w", len(a.Data), a.Size, syscall.EIO)
		}
		r.remember(p, a, asked)
		if i == tries || !r.unsettled(attrKey(sideRemote, p, a), asked) {
			return a, nil
		}
	}
}

// remembered is what was told a moment ago, and has not been changed by the
// session since.
func (r *remote) remembered(p string) (e recent, ok bool) {
	e, ok = r.newest(p)
	return e, ok && r.fresh(e.at) && !r.unsettled(attrKey(sideRemote, p, e.attr), e.asked)
}

// newest is what was told last, however long ago that is.
func (r *remote) newest(p string) (e recent, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	e, ok = r.recent[p]
	return e, ok
}

// remember keeps a, which was asked for then, for its life; what is old or too
// much goes, oldest first.
func (r *remote) remember(p string, a *protocol.Attr, asked time.Time) {
	const maxEntries = 4096
	r.mu.Lock()
	defer r.mu.Unlock()
	r.drop(p)
	r.recent[p] = recent{a, asked, time.Now()}
	r.order = append(r.order, p)
	r.size += len(a.Data)
	for len(r.order) > 0 {
		old, ok := r.recent[r.order[0]]
		if ok && r.fresh(old.at) && r.size <= maxRecent && len(r.order) <= maxEntries {
			break
		}
		if ok && (!r.fresh(old.at) || r.size > maxRecent || len(r.order) > maxEntries) {
			r.drop(r.order[0])
		}
		r.order = r.order[1:]
	}
}

// learn is remember for attributes without content: if they are the known
// ones, the known content stays.
func (r *remote) learn(p string, a *protocol.Attr, asked time.Time) {
	if a.Mode&syscall.S_IFMT == 0 { // the agent could not look at it
		return
	}
	if e, ok := r.remembered(p); ok && same(e.attr, a) && e.attr.Ino == a.Ino {
		return
	}
	attr := *a
	attr.Data, attr.HasData = nil, false
	r.remember(p, &attr, asked)
}

// drop is for holders of the lock.
func (r *remote) drop(p string) {
	if e, ok := r.recent[p]; ok {
		r.size -= len(e.attr.Data)
		delete(r.recent, p)
	}
}

func (r *remote) forget(p string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.drop(p)
}

// list gives a directory's entries.
func (r *remote) list(ctx context.Context, p string) ([]protocol.Entry, error) {
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
	var all []protocol.Entry
	for {
		m, err := s.Receive()
		if errors.Is(err, io.EOF) {
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
		for _, e := range part.List {
			if validName(e.Name) {
				if r.unsettled(attrKey(sideRemote, path.Join(p, e.Name), &e.Attr), asked) {
					e.Attr = protocol.Attr{} // let the kernel ask
				}
				all = append(all, e)
				r.learn(path.Join(p, e.Name), &all[len(all)-1].Attr, asked)
			}
		}
	}
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
// ctx is a signal.
func (r *remote) read(ctx context.Context, handle uint64, off int64, n int) ([]byte, error) {
	calling, done := r.bound(ctx)
	defer done()
	return r.readNow(calling, handle, off, n)
}

// readNow is read that ends at once with calling. Large answers go with the
// bulk of the link, so that they hold up no question. The file is open: it waits
// for a lost link.
func (r *remote) readNow(calling context.Context, handle uint64, off int64, n int) ([]byte, error) {
	calling = link.Lasting(calling)
	const small = 64 << 10 // bytes
	m := &protocol.ReadAt{Handle: handle, Off: off, N: uint32(n)}
	way := askBulk
	if n <= small {
		way = ask[*protocol.Data]
	}
	d, err := way(calling, r, m)
	switch {
	case err != nil:
		return nil, err
	case len(d.Bytes) > n:
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
