package files

import (
	"context"
	"sync"
	"syscall"
	"time"

	"github.com/mirrord-go/mirrord/internal/protocol"
)

const (
	// chunk is the unit of reading ahead, in bytes.
	chunk = 256 << 10
	// maxWindow is how many chunks one file reads ahead: 4 MiB cover 300 Mbit/s
	// at a round trip of 100 ms.
	maxWindow = 16
	// maxAhead bounds the chunks that all files are reading ahead.
	maxAhead = 64
	// slack is how far from the end of the last read a read may begin and still
	// be its continuation, in bytes: the kernel sends several at once.
	slack = 1 << 20
)

// remoteFile is an open file of the target. Small ones came whole with their
// attributes; what is larger, or has changed since, is read by a handle.
type remoteFile struct {
	r    *remote
	path string
	key  func(*protocol.Attr) uint64

	mu     sync.Mutex
	attr   protocol.Attr // as told at at
	at     time.Time
	handle uint64 // 0: none yet
	gone   bool   // another file is at the path now; what we have is all there will be
	head   []byte // the file's first bytes
	headAt time.Time
	whole  bool // head is all of it

	chunks map[int64]*piece // read ahead, by number
	next   int64            // end of the last read
	window int64            // chunks to read ahead
	ctx    context.Context  // of reading ahead; ends with Close
	cancel context.CancelFunc
	wg     sync.WaitGroup // reading ahead
}

// piece is a chunk that comes.
type piece struct {
	ready chan struct{} // closed when data and err are set
	at    time.Time
	data  []byte
	err   error
}

// open opens p for reading.
func (r *remote) open(ctx context.Context, p string, key func(*protocol.Attr) uint64, want uint64) (*remoteFile, error) {
	f := &remoteFile{r: r, path: p, key: key, chunks: map[int64]*piece{}, window: 1}
	if a := r.remembered(p); a != nil && a.HasData {
		f.attr, f.at, f.head, f.headAt, f.whole = *a, time.Now(), a.Data, time.Now(), true
	} else if err := f.openHandle(ctx); err != nil {
		return nil, err
	}
	if want != 0 && key(&f.attr) != want {
		f.Close()
		return nil, syscall.ESTALE // replaced since the lookup
	}
	f.ctx, f.cancel = context.WithCancel(r.ctx)
	return f, nil
}

// openHandle is for the only user, or holders of the lock.
func (f *remoteFile) openHandle(ctx context.Context) error {
	o, err := call[*protocol.Opened](ctx, f.r, &protocol.Open{Path: f.path, Prefetch: prefetch})
	if err != nil {
		return err
	}
	f.handle, f.attr, f.at = o.Handle, o.Attr, time.Now()
	f.head, f.headAt, f.whole = o.Data, f.at, o.EOF
	return nil
}

// ReadAt implements fusefs.File.
func (f *remoteFile) ReadAt(ctx context.Context, p []byte, off int64) (n int, err error) {
	if n, ok, err := f.fromHead(ctx, p, off); ok || err != nil {
		return n, err
	}
	for n < len(p) {
		got, err := f.readSome(ctx, p[n:], off+int64(n))
		if err != nil || got == 0 {
			return n, err
		}
		n += got
	}
	return n, nil
}

// fromHead serves what came with the open while it is fresh, and makes sure
// that there is a handle otherwise.
func (f *remoteFile) fromHead(ctx context.Context, p []byte, off int64) (n int, ok bool, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !fresh(f.headAt) && f.handle == 0 && !f.gone {
		before, kept := f.key(&f.attr), *f.clone()
		switch err := f.openHandle(ctx); {
		case err != nil && ctx.Err() != nil:
			return 0, false, err
		case err != nil: // removed: the program keeps what it opened
			f.gone = true
		case f.key(&f.attr) != before: // replaced
			f.r.closeHandle(f.handle)
			f.attr, f.at, f.head, f.whole, f.handle, f.gone = kept.attr, kept.at, kept.head, true, 0, true
		}
	}
	if !f.gone && !fresh(f.headAt) {
		f.head, f.whole = nil, false
	}
	end := off + int64(len(p))
	switch {
	case f.whole && off >= int64(len(f.head)):
		return 0, true, nil
	case f.whole, end <= int64(len(f.head)):
		return copy(p, f.head[off:]), true, nil
	}
	return 0, false, nil
}

// snapshot is what is kept of a file that was replaced.
type snapshot struct {
	attr protocol.Attr
	at   time.Time
	head []byte
}

func (f *remoteFile) clone() *snapshot { return &snapshot{f.attr, f.at, f.head} }

// readSome reads a part of p: from a chunk when the file is read in order,
// otherwise what is asked for and no more.
func (f *remoteFile) readSome(ctx context.Context, p []byte, off int64) (int, error) {
	f.mu.Lock()
	sequential := off >= f.next-slack && off <= f.next+slack && f.next > 0 || off == 0
	f.next = max(f.next, off+int64(len(p)))
	if !sequential {
		f.next, f.window = off+int64(len(p)), 1
		handle := f.handle
		f.mu.Unlock()
		data, err := f.r.read(ctx, handle, off, min(len(p), chunk))
		return copy(p, data), err
	}
	i := off / chunk
	c := f.want(i)
	for j := i + 1; j <= i+f.window && j*chunk < int64(f.attr.Size); j++ {
		if f.want(j) == nil {
			break
		}
	}
	f.window = min(2*f.window, maxWindow)
	for j := range f.chunks {
		if j < i-slack/chunk {
			delete(f.chunks, j)
		}
	}
	handle := f.handle
	f.mu.Unlock()
	if c == nil { // no place: without reading ahead
		data, err := f.r.read(ctx, handle, off, min(len(p), chunk))
		return copy(p, data), err
	}
	select {
	case <-c.ready:
	case <-ctx.Done():
		select { // as patient as a call
		case <-c.ready:
		case <-time.After(patience):
			return 0, syscall.EINTR
		}
	}
	if c.err != nil || len(c.data) < chunk {
		f.mu.Lock()
		if f.chunks[i] == c { // the end of a file may grow: ask again next time
			delete(f.chunks, i)
		}
		f.mu.Unlock()
	}
	if c.err != nil {
		return 0, c.err
	}
	at := off - i*chunk
	if at >= int64(len(c.data)) {
		return 0, nil
	}
	return copy(p, c.data[at:]), nil
}

// want gives chunk i, coming or here; nil if there is no place for another.
// For holders of the lock.
func (f *remoteFile) want(i int64) *piece {
	if c := f.chunks[i]; c != nil && fresh(c.at) {
		return c
	}
	select {
	case f.r.ahead <- struct{}{}:
	default:
		return nil
	}
	c := &piece{ready: make(chan struct{}), at: time.Now()}
	f.chunks[i] = c
	handle := f.handle
	f.wg.Go(func() {
		defer func() { <-f.r.ahead }()
		defer close(c.ready)
		c.data, c.err = f.r.read(f.ctx, handle, i*chunk, chunk)
	})
	return c
}

// WriteAt implements fusefs.File.
func (f *remoteFile) WriteAt(context.Context, []byte, int64) (int, error) { return 0, syscall.EBADF }

// Truncate implements fusefs.File.
func (f *remoteFile) Truncate(context.Context, int64) error { return syscall.EINVAL }

// Sync implements fusefs.File.
func (f *remoteFile) Sync(context.Context) error { return nil }

// Stat implements fusefs.File.
func (f *remoteFile) Stat(ctx context.Context) (protocol.Attr, time.Duration, error) {
	f.mu.Lock()
	attr, old := f.attr, !f.gone && !fresh(f.at)
	f.mu.Unlock()
	if !old {
		return attr, life, nil
	}
	now, err := f.r.stat(ctx, f.path)
	f.mu.Lock()
	defer f.mu.Unlock()
	if err == nil && f.key(now) == f.key(&f.attr) {
		f.attr, f.at = *now, time.Now()
		f.attr.Data = nil
	}
	// Otherwise it has no name any more, and is what it was.
	return f.attr, life, nil
}

// Close implements fusefs.File.
func (f *remoteFile) Close() error {
	if f.cancel != nil {
		f.cancel()
	}
	f.wg.Wait()
	if f.handle != 0 {
		f.r.closeHandle(f.handle)
	}
	return nil
}
