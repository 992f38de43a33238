package resume

// ring holds the bytes of one direction from the offset base on. It grows with
// what its owner puts in; the owner keeps that within maxRing.
type ring struct {
	buf  []byte // its length is 0 or a power of two; offset o lies at o modulo length
	base uint64
	n    int
}

// smallRing is the size in bytes that a ring starts with and that an idle one
// may keep: an idle session should not hold what a bulk transfer once needed.
const smallRing = 64 << 10

// end is the offset after the last byte.
func (r *ring) end() uint64 { return r.base + uint64(r.n) }

// at gives the bytes that lie in one piece from offset o on.
func (r *ring) at(o uint64) []byte { return r.buf[o&uint64(len(r.buf)-1):] }

func (r *ring) append(p []byte) {
	if need := r.n + len(p); need > len(r.buf) {
		size := max(len(r.buf), smallRing)
		for size < need {
			size *= 2
		}
		bigger := ring{buf: make([]byte, size), base: r.base, n: r.n}
		for o := r.base; o < r.end(); {
			o += uint64(copy(bigger.at(o), r.at(o)[:min(len(r.at(o)), int(r.end()-o))]))
		}
		*r = bigger
	}
	for len(p) > 0 {
		n := copy(r.at(r.end()), p)
		p = p[n:]
		r.n += n
	}
}

// copyFrom copies the bytes from offset o on, which must not lie outside the
// ring, and returns how many it copied.
func (r *ring) copyFrom(o uint64, dst []byte) int {
	dst = dst[:min(len(dst), int(r.end()-o))]
	n := 0
	for n < len(dst) {
		n += copy(dst[n:], r.at(o+uint64(n)))
	}
	return n
}

// discard forgets the bytes below offset o.
func (r *ring) discard(o uint64) {
	r.n -= int(o - r.base)
	r.base = o
}

// shrink gives back the memory of an empty ring that grew.
func (r *ring) shrink() {
	if r.n == 0 && len(r.buf) > smallRing {
		r.buf = nil
	}
}
