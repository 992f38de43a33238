package files

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mirrord-go/mirrord/internal/link"
	"github.com/mirrord-go/mirrord/internal/protocol"
)

// remoteFile is an open file of the target. Small ones came whole with their
// attributes; what is larger, or has changed since, is read by a handle; what
// is written has one from the beginning.
type remoteFile struct {
	r    *remote
	path string // as the target calls it
	side side
	id   uint64  // its key
	box  *outbox // nil: open for reading only

	mu     sync.Mutex
	attr   protocol.Attr // as told at at
	at     time.Time
	handle uint64 // 0: none yet
	gone   bool   // another file is at the path now; what we have is all there will be
	head   []byte // the file's first bytes
	headAt time.Time
	whole  bool   // head is all of it
	gen    uint64 // of the inode, when the rest was asked for

	ahead ahead // of the program; guarded by mu as well

	ctx    context.Context // of reading ahead; ends with Close
	cancel context.CancelFunc
	wg     sync.WaitGroup // reading ahead
}

// open opens p for reading; the file with key want, if that is not 0. s says
// where the file is shown.
func (r *remote) open(ctx context.Context, s side, p string, want uint64) (*remoteFile, error) {
	if want != 0 {
		if err := r.settle(ctx, want); err != nil {
			return nil, err
		}
	}
	gen := r.generation(want)
	found := func() (*remoteFile, bool) {
		o, ok := r.opened(p)
		if !ok {
			return nil, false
		}
		f := r.file(s, p, o.attr, gen)
		f.at, f.head, f.headAt, f.whole = o.at, o.data.data, o.at, true
		r.mu.Lock()
		r.light[f] = true
		r.mu.Unlock()
		return f, true
	}
	ask := func(ctx context.Context) (*remoteFile, error) {
		asked := time.Now()
		f, err := r.openHeld(ctx, s, p, 0, &protocol.Open{Path: p, Prefetch: prefetch})
		if err == nil && f.id == want {
			a := f.attr
			if a.HasData = f.whole && uint64(len(f.head)) == a.Size; a.HasData {
				a.Data = f.head
			}
			r.learn(p, &a, asked)
		}
		return f, err
	}
	alone := func() {
		if _, ok := r.remembered(p); !ok {
			r.foresee(p)
		}
	}
	f, err := soon(ctx, r, expected[*remoteFile]{may: func() bool { return r.brings(p) }, found: found, alone: alone, ask: ask, drop: func(f *remoteFile) { f.Close() }})
	if err != nil {
		return nil, err
	}
	r.follow(p)
	if f.gen = gen; want == 0 {
		f.gen = r.generation(f.id)
	}
	return f.checked(want)
}

// openHeld opens a file with a handle.
func (r *remote) openHeld(ctx context.Context, s side, p string, want uint64, m *protocol.Open) (*remoteFile, error) {
	gen := r.generation(want)
	writes := m.Flags&unix.O_ACCMODE != unix.O_RDONLY
	calling, done := r.bound(ctx)
	var o *protocol.Opened
	var stream *link.Stream
	var err error
	if writes {
		o, stream, err = r.openStream(calling, m)
	} else {
		o, err = r.openHandle(calling, m)
	}
	done()
	if err != nil {
		return nil, err
	}
	f := r.file(s, p, &o.Attr, gen)
	f.adopt(o)
	if writes {
		f.box = newOutbox(r, f.id, stream)
	}
	if want == 0 { // made just now, or nobody cares
		f.gen = r.generation(f.id)
	}
	return f.checked(want)
}

// file is an open file with these attributes. It must be closed.
func (r *remote) file(s side, p string, a *protocol.Attr, gen uint64) *remoteFile {
	f := &remoteFile{r: r, path: p, side: s, id: attrKey(s, p, a), attr: *a, gen: gen, ahead: newAhead()}
	f.ctx, f.cancel = context.WithCancel(r.ctx)
	r.hold(f.id)
	return f
}

// checked gives f if it is the file with key want, or that is 0.
func (f *remoteFile) checked(want uint64) (*remoteFile, error) {
	if want != 0 && f.id != want {
		f.Close()
		f.r.forget(f.path) // or the next lookup would find the same again
		return nil, syscall.ESTALE
	}
	return f, nil
}

func (f *remoteFile) key(a *protocol.Attr) uint64 { return attrKey(f.side, f.path, a) }

// openHandle opens a file for reading.
func (r *remote) openHandle(calling context.Context, m *protocol.Open) (*protocol.Opened, error) {
	o, err := ask[*protocol.Opened](calling, r, m)
	if err != nil {
		return nil, err
	}
	return r.checkOpened(m, o)
}

// openStream opens a file and gives the stream on which its changes may follow,
// whose window comes with the answer; nil: there is none.
func (r *remote) openStream(calling context.Context, m *protocol.Open) (*protocol.Opened, *link.Stream, error) {
	s, err := r.peer.Open(calling, link.Bulk, m)
	if err != nil {
		return nil, nil, explain(calling, err)
	}
	stop := context.AfterFunc(calling, func() { _ = s.Reset(syscall.ECANCELED) })
	reply, err := s.Receive()
	alive := stop()
	var o *protocol.Opened
	if err == nil {
		if o, err = as[*protocol.Opened](reply); err == nil {
			o, err = r.checkOpened(m, o)
		}
	} else {
		err = explain(calling, err)
	}
	if err != nil || !alive {
		s.Close()
		return o, nil, err
	}
	return o, s, nil
}

func (r *remote) checkOpened(m *protocol.Open, o *protocol.Opened) (*protocol.Opened, error) {
	if uint64(len(o.Data)) > uint64(m.Prefetch) {
		r.closeHandle(o.Handle)
		return nil, fmt.Errorf("the agent sent %d bytes for %d: %w", len(o.Data), m.Prefetch, syscall.EIO)
	}
	return o, nil
}

// adopt takes o as the file. For the only user, or holders of the lock.
func (f *remoteFile) adopt(o *protocol.Opened) {
	now := time.Now()
	f.handle, f.attr, f.at = o.Handle, o.Attr, now
	f.head, f.headAt, f.whole = o.Data, now, o.EOF
}

// Sizeless implements fusefs.Sizeless: there is content behind the end.
func (f *remoteFile) Sizeless() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.attr.Size == 0 && len(f.head) > 0
}

// ReadAt implements fusefs.File.
func (f *remoteFile) ReadAt(ctx context.Context, p []byte, off int64) (n int, err error) {
	defer func() { f.r.carried(n, 0) }()
	if err := f.r.settle(ctx, f.id); err != nil {
		return 0, err
	}
	f.notice()
	if err := f.refresh(ctx); err != nil {
		return 0, err
	}
	if n, ok := f.fromHead(p, off); ok {
		return n, nil
	}
	for n < len(p) {
		at := off + int64(n)
		whole := min(len(p)-n, int(chunk-at%chunk)) // less than this is the end of the file
		got, err := f.readSome(ctx, p[n:], at)
		n += got
		if err != nil || got < whole {
			return n, err
		}
	}
	return n, nil
}

// notice drops what was read before the file changed. Whenever the kernel is
// told another time or size it reads its pages anew, and keeps them until the
// next change: it must not get old ones then. And a change of the session's is
// noticed at once.
func (f *remoteFile) notice() {
	e, ok := f.r.newest(f.path)
	ok = ok && !e.at.IsZero() && !f.r.unsettled(attrKey(sideRemote, f.path, e.attr), e.asked)
	gen := f.r.generation(f.id)
	f.mu.Lock()
	defer f.mu.Unlock()
	if gen != f.gen && !f.gone {
		f.gen, f.at = gen, time.Time{}
		f.head, f.headAt, f.whole = nil, time.Time{}, false
		f.forgetAll()
	}
	if !ok || !e.at.After(f.at) || f.gone || f.key(e.attr) != f.key(&f.attr) || same(e.attr, &f.attr) {
		return
	}
	f.learn(e.attr, e.at)
}

// learn notes what the file is now; what was read before it changed is dropped.
// mu is held.
func (f *remoteFile) learn(a *protocol.Attr, at time.Time) {
	if !same(a, &f.attr) {
		f.head, f.headAt, f.whole = nil, time.Time{}, false
		f.forgetAll()
	}
	f.attr, f.at = *a, at
	f.attr.Data = nil
}

// same reports whether a file is unchanged.
func same(a, b *protocol.Attr) bool {
	return a.Size == b.Size && a.Mtime == b.Mtime && a.Ctime == b.Ctime
}

// refresh makes sure that what came with the lookup is fresh, or that there is
// a handle to ask.
func (f *remoteFile) refresh(ctx context.Context) error {
	f.mu.Lock()
	enough := f.gone || f.handle != 0 || f.r.fresh(f.headAt)
	f.mu.Unlock()
	if enough {
		return nil
	}
	return f.grip(ctx)
}

// grip makes sure that there is a handle to ask, or that the file is gone.
func (f *remoteFile) grip(ctx context.Context) error {
	calling, done := f.r.bound(ctx)
	o, err := f.r.openHandle(link.Lasting(calling), &protocol.Open{Path: f.path, Prefetch: prefetch})
	done()
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case removed(err): // the program keeps what it opened
		f.gone = true
	case err != nil:
		return err
	case f.gone || f.handle != 0 || f.ctx.Err() != nil: // another reader was faster, or it was closed
		f.r.closeHandle(o.Handle)
	case f.key(&o.Attr) != f.key(&f.attr): // replaced
		f.r.closeHandle(o.Handle)
		f.gone = true
	default:
		f.adopt(o)
	}
	return nil
}

// removed reports whether err says that a path does not lead to its file any
// more.
func removed(err error) bool {
	return errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.ENOTDIR) || errors.Is(err, syscall.EACCES)
}

// fromHead serves what came with the open while it is fresh, or for good when
// the file is gone.
func (f *remoteFile) fromHead(p []byte, off int64) (n int, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.gone && !f.r.fresh(f.headAt) {
		f.head, f.whole = nil, false
	}
	size := int64(len(f.head))
	switch {
	case f.whole && off >= size:
		return 0, true
	case f.whole, off+int64(len(p)) <= size:
		return copy(p, f.head[off:]), true
	}
	return 0, false
}

// WriteAt implements fusefs.File. It returns when the data is on its way; what
// becomes of it the next call tells, Flush at the latest.
func (f *remoteFile) WriteAt(ctx context.Context, p []byte, off int64, inPlace bool) (n int, err error) {
	if f.box == nil {
		return 0, syscall.EBADF
	}
	defer func() { f.r.carried(0, n) }()
	if err := f.r.settleBut(ctx, f.id, f.box); err != nil {
		return 0, err
	}
	calling, done := f.r.bound(ctx)
	defer done()
	for n < len(p) {
		part := p[n:min(len(p), n+protocol.MaxData)]
		if err := f.box.send(calling, &protocol.WriteAt{Handle: f.handle, Off: off + int64(n), Data: part, InPlace: inPlace}, len(part)); err != nil {
			return 0, err // what was sent before it is in doubt
		}
		n += len(part)
	}
	return n, nil
}

// Truncate implements fusefs.File.
func (f *remoteFile) Truncate(ctx context.Context, size int64) error {
	if f.box == nil {
		return syscall.EINVAL
	}
	return f.through(ctx, &protocol.Resize{Handle: f.handle, Size: uint64(size)})
}

// Sync implements fusefs.File.
func (f *remoteFile) Sync(ctx context.Context) error {
	if f.box == nil {
		return nil
	}
	return f.through(ctx, &protocol.SyncHandle{Handle: f.handle})
}

// through sends m behind what is on its way and waits until all of it is done.
func (f *remoteFile) through(ctx context.Context, m protocol.Message) error {
	if err := f.r.settleBut(ctx, f.id, f.box); err != nil {
		return err
	}
	calling, done := f.r.bound(ctx)
	defer done()
	if err := f.box.send(calling, m, 0); err != nil {
		return err
	}
	return f.box.flush(ctx)
}

// Flush implements fusefs.File.
func (f *remoteFile) Flush(ctx context.Context) error {
	if f.box == nil {
		return nil
	}
	return f.box.flush(ctx)
}

// Stat implements fusefs.File.
func (f *remoteFile) Stat(ctx context.Context) (protocol.Attr, time.Duration, error) {
	if err := f.r.settle(ctx, f.id); err != nil {
		return protocol.Attr{}, 0, err
	}
	f.notice()
	f.mu.Lock()
	attr, at, old, handle := f.attr, f.at, !f.gone && !f.r.fresh(f.at), f.handle
	if f.gone {
		at = time.Now()
	}
	f.mu.Unlock()
	if !old {
		return attr, f.r.left(at), nil
	}
	at = time.Now()
	var now *protocol.Attr
	var err error
	if e, ok := f.r.remembered(f.path); ok && f.key(e.attr) == f.id {
		now, at = e.attr, e.at
	} else if handle != 0 { // also when it has no name any more
		now, err = call[*protocol.Attr](ctx, f.r, &protocol.Stat{Handle: handle})
	} else {
		var keep time.Duration
		now, keep, err = f.r.lookup(ctx, f.path)
		at = at.Add(keep - f.r.life)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if err == nil && f.key(now) == f.key(&f.attr) {
		f.learn(now, at)
	}
	// Otherwise it has no name any more, and is what it was.
	return f.attr, f.r.left(at), nil
}

// Close implements fusefs.File.
func (f *remoteFile) Close() error {
	f.cancel()
	f.wg.Wait()
	f.r.mu.Lock()
	delete(f.r.light, f)
	f.r.mu.Unlock()
	f.mu.Lock()
	f.forgetAll()
	f.mu.Unlock()
	if f.box != nil {
		f.box.close()
	}
	if f.handle != 0 {
		f.r.closeHandle(f.handle)
	}
	f.r.letGo(f.id)
	return nil
}
