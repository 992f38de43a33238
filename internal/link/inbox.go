package link

import "sync"

// Chunks hold what has arrived and was not read. Streams with the smallest
// window use small ones, so that thousands of them hold little.
const (
	smallChunk = 4 << 10
	largeChunk = 16 << 10
)

var (
	smallChunks = sync.Pool{New: func() any { return &chunk{b: make([]byte, smallChunk)} }}
	largeChunks = sync.Pool{New: func() any { return &chunk{b: make([]byte, largeChunk)} }}
)

type chunk struct {
	next *chunk
	r, w int // read up to, written up to
	b    []byte
}

func newChunk(size int) *chunk {
	if size == smallChunk {
		return smallChunks.Get().(*chunk)
	}
	return largeChunks.Get().(*chunk)
}

func (c *chunk) free() {
	size := len(c.b)
	c.next, c.r, c.w = nil, 0, 0
	if size == smallChunk {
		smallChunks.Put(c)
	} else {
		largeChunks.Put(c)
	}
}

// inbox is a queue of bytes in chunks. A chunk is filled before the next
// begins, so n bytes take n plus one chunk at most, however small the frames.
type inbox struct {
	head, tail *chunk
	n          int
	filling    bool // the receiver writes into tail without the lock
	dropped    bool // while it did
}

// space gives room for at most n bytes at the end, in a chunk of the given
// size if a new one is needed. What was written there is added by commit.
func (in *inbox) space(n, size int) []byte {
	t := in.tail
	if t == nil || t.w == len(t.b) {
		c := newChunk(size)
		if t == nil {
			in.head = c
		} else {
			t.next = c
		}
		in.tail, t = c, c
	}
	return t.b[t.w:min(len(t.b), t.w+n)]
}

func (in *inbox) commit(n int) {
	in.tail.w += n
	in.n += n
}

// read moves bytes into p.
func (in *inbox) read(p []byte) (n int) {
	for n < len(p) && in.n > 0 {
		c := in.head
		k := copy(p[n:], c.b[c.r:c.w])
		c.r += k
		n += k
		in.n -= k
		if c.r < c.w {
			break
		}
		if c == in.tail {
			if in.filling {
				break
			}
			in.tail = nil
		}
		in.head = c.next
		c.free()
	}
	return n
}

// peek copies the first bytes into p.
func (in *inbox) peek(p []byte) (n int) {
	for c := in.head; c != nil && n < len(p); c = c.next {
		n += copy(p[n:], c.b[c.r:c.w])
	}
	return n
}

// drop forgets everything. While filling, the receiver frees what it writes to.
func (in *inbox) drop() {
	for c := in.head; c != nil; {
		next := c.next
		if c != in.tail || !in.filling {
			c.free()
		}
		c = next
	}
	if in.filling {
		in.dropped = true
		in.head = in.tail
	} else {
		in.head, in.tail = nil, nil
	}
	in.n = 0
}

// filled ends filling. It reports false, and frees the chunk, if everything
// was dropped meanwhile.
func (in *inbox) filled() bool {
	in.filling = false
	if !in.dropped {
		return true
	}
	in.dropped = false
	in.tail.free()
	in.head, in.tail = nil, nil
	return false
}
