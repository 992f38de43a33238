package files

import (
	"context"
	"syscall"
	"time"
)

// Reading ahead in one file. A program that reads in order finds the next
// chunks here, or on their way.

const (
	// chunk is the unit of reading ahead, in bytes.
	chunk = 256 << 10
	// maxWindow is how many chunks one file reads ahead: 4 MiB cover 300 Mbit/s
	// at a round trip of 100 ms.
	maxWindow = 16
	// maxAhead bounds the chunks that all files are reading ahead.
	maxAhead = 64
	// waits is how long a chunk that was read ahead waits to be read. It may be
	// longer than attributes are remembered: see notice.
	waits = 10 * time.Second
	// slack is how far from the end of the last read a read may begin and still
	// be its continuation, in bytes: the kernel sends several at once.
	slack = 1 << 20
)

// ahead is what is read ahead of a program. The file's mu guards it.
type ahead struct {
	chunks map[int64]*piece // coming, or here, by number
	next   int64            // end of the last read
	window int64            // chunks to read ahead
	inbox  *inbox           // by which they come; nil: none is open
}

func newAhead() ahead { return ahead{chunks: map[int64]*piece{}, window: 1} }

// piece is a chunk that comes. What is not constant is guarded by the file's mu.
type piece struct {
	number int64
	ready  chan struct{} // closed when it has come
	at     time.Time     // when that was
	data   []byte
	err    error       // errOver: who waits for it asks alone
	timer  *time.Timer // drops it

	used, come, gone bool // it has been read, it has come, it was dropped
}

// usable reports whether c is on its way or has come a moment ago. Time on the
// way does not count: on a slow link what is asked for last comes late.
func (c *piece) usable() bool {
	select {
	case <-c.ready:
		return time.Since(c.at) < waits
	default:
		return true
	}
}

// readSome reads a part of p: from a chunk when the file is read in order,
// otherwise what is asked for and no more.
func (f *remoteFile) readSome(ctx context.Context, p []byte, off int64) (int, error) {
	i := off / chunk
	c, ahead := f.chunkFor(i, off, len(p))
	if c == nil { // out of order, or no place
		return f.readAlone(ctx, p, off)
	}
	select {
	case <-c.ready:
	default:
		if ahead { // and yet too late: the program is faster than the link
			f.widen()
		}
	}
	select {
	case <-c.ready:
	case <-ctx.Done():
		select { // as patient as a call
		case <-c.ready:
		case <-time.After(patience):
			f.giveUp(c)
			return 0, syscall.EINTR
		}
	}
	data, err := f.taken(c)
	switch at := off - i*chunk; {
	case err == errOver:
		return f.readAlone(ctx, p, off)
	case err != nil:
		return 0, err
	case at >= int64(len(data)):
		return 0, nil
	default:
		return copy(p, data[at:]), nil
	}
}

// taken gives what has come.
func (f *remoteFile) taken(c *piece) ([]byte, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	data, err := c.data, c.err
	if f.ahead.chunks[c.number] == c && (err != nil || len(data) < chunk) {
		f.forget(c.number) // the end of a file may grow: ask again next time
	}
	return data, err
}

// readAlone reads a part of p without reading ahead.
func (f *remoteFile) readAlone(ctx context.Context, p []byte, off int64) (int, error) {
	f.mu.Lock()
	handle := f.handle
	f.mu.Unlock()
	data, err := f.r.read(ctx, handle, off, min(len(p), chunk))
	return copy(p, data), err
}

// chunkFor notes that n bytes are read at off, which is in chunk i. It gives that
// chunk, and whether it was asked for before, if the file is read in order, and
// sees to it that the next ones come.
func (f *remoteFile) chunkFor(i, off int64, n int) (c *piece, before bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	a := &f.ahead
	inOrder := off == 0 || a.next > 0 && off >= a.next-slack && off <= a.next+slack
	if !inOrder {
		a.next, a.window = off+int64(n), 1
		f.leave(a.inbox, errOver) // what comes is in the way of what is wanted now
		return nil, false
	}
	a.next = max(a.next, off+int64(n))
	known := a.chunks[i]
	c = f.want(i)
	if c != nil {
		c.used = true
	}
	for j := i + 1; j <= i+a.window && j*chunk < int64(f.attr.Size); j++ {
		if f.want(j) == nil {
			break
		}
	}
	for j := range a.chunks {
		if j < i-slack/chunk {
			f.forget(j)
		}
	}
	return c, c != nil && c == known
}

// widen makes the window larger, which is done as long as the program has to
// wait.
func (f *remoteFile) widen() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ahead.window = min(2*f.ahead.window, maxWindow)
}

// want gives chunk i, coming or here; nil if there is no place for another. mu
// is held.
func (f *remoteFile) want(i int64) *piece {
	if c := f.ahead.chunks[i]; c != nil && c.usable() {
		return c
	}
	f.forget(i)
	if !f.r.memory.Take(chunk) {
		return nil
	}
	select {
	case f.r.ahead <- struct{}{}:
	default:
		f.r.memory.Give(chunk)
		return nil
	}
	c := &piece{number: i, ready: make(chan struct{})}
	if !f.order(c) {
		<-f.r.ahead
		f.r.memory.Give(chunk)
		return nil
	}
	f.ahead.chunks[i] = c
	return c
}

// giveUp sees to it that nobody waits behind c, which is late.
func (f *remoteFile) giveUp(c *piece) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !c.come {
		f.leave(f.ahead.inbox, errOver)
	}
}

// arrived notes what became of c. mu is held.
func (f *remoteFile) arrived(c *piece, data []byte, err error) {
	c.data, c.err, c.at, c.come = data, err, time.Now(), true
	close(c.ready)
	<-f.r.ahead
	if c.gone {
		f.release(c)
		return
	}
	c.timer = time.AfterFunc(waits, func() { f.expire(c) })
}

// forget drops chunk i, if there is one. mu is held.
func (f *remoteFile) forget(i int64) {
	c := f.ahead.chunks[i]
	if c == nil {
		return
	}
	delete(f.ahead.chunks, i)
	if c.gone = true; c.come { // else its memory is still needed
		c.timer.Stop()
		f.release(c)
	}
}

// release gives c's memory back, which is nobody's then: a stopped timer knows c
// for a while. mu is held.
func (f *remoteFile) release(c *piece) {
	c.data, c.err = nil, errOver
	f.r.memory.Give(chunk)
}

// forgetAll drops all chunks, also those on their way. mu is held.
func (f *remoteFile) forgetAll() {
	f.leave(f.ahead.inbox, errOver)
	for i := range f.ahead.chunks {
		f.forget(i)
	}
}

// expire drops c when it is too old to be used: a file that is open and not
// read keeps nothing. What nobody has read by then was asked for too early.
func (f *remoteFile) expire(c *piece) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.ahead.chunks[c.number] == c {
		f.forget(c.number)
	}
	if !c.used {
		f.ahead.window = 1
	}
}
