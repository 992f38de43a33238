package http1

// body finds the end of a body in bytes as they arrive. The zero value is an
// empty one.
type body struct {
	state chunkState
	left  uint64 // bytes: of a sized body, of a chunk's data
	size  int    // hexadecimal digits of a chunk's size
}

type chunkState uint8

const (
	sized      chunkState = iota // not chunked: left bytes
	chunkStart                   // in a chunk's size
	chunkExt                     // behind it
	chunkLF                      // after the CR of that line
	chunkData
	dataCR
	dataLF
	trailer     // at the beginning of a trailer's line
	trailerLine // in one
	trailerLF
	endLF
)

// maxSizeDigits bounds a chunk's size, so that nobody's integer overflows.
const maxSizeDigits = 15

// scan gives how many bytes of p belong to the body, and whether it ends with
// them. ErrAmbiguous is about the byte behind those.
func (b *body) scan(p []byte) (n int, done bool, err error) {
	if b.state == sized {
		n = int(min(b.left, uint64(len(p))))
		b.left -= uint64(n)
		return n, b.left == 0, nil
	}
	for n < len(p) {
		if b.state == chunkData {
			k := int(min(b.left, uint64(len(p)-n)))
			b.left -= uint64(k)
			n += k
			if b.left == 0 {
				b.state = dataCR
			}
			continue
		}
		done, ok := b.step(p[n])
		if !ok {
			return n, false, ErrAmbiguous
		}
		n++
		if done {
			return n, true, nil
		}
	}
	return n, false, nil
}

// step takes one byte that is not data (RFC 9112 §7.1).
func (b *body) step(c byte) (done, ok bool) {
	switch b.state {
	case chunkStart:
		if d, ok := hex(c); ok {
			b.left, b.size = b.left<<4|uint64(d), b.size+1
			return false, b.size <= maxSizeDigits
		}
		if b.size == 0 {
			return false, false
		}
		b.state = chunkExt
		if c != ';' && c != ' ' && c != '\t' && c != '\r' {
			return false, false
		}
		return b.step(c)
	case chunkExt:
		if c == '\r' {
			b.state = chunkLF
		}
		return false, c != '\n' && c != 0
	case chunkLF:
		b.size = 0
		if b.state = chunkData; b.left == 0 {
			b.state = trailer
		}
		return false, c == '\n'
	case dataCR:
		b.state = dataLF
		return false, c == '\r'
	case dataLF:
		b.state = chunkStart
		return false, c == '\n'
	case trailer:
		if c == '\r' {
			b.state = endLF
			return false, true
		}
		b.state = trailerLine
		return b.step(c)
	case trailerLine:
		if c == '\r' {
			b.state = trailerLF
		}
		return false, c != '\n' && c != 0
	case trailerLF:
		b.state = trailer
		return false, c == '\n'
	case endLF:
		return true, c == '\n'
	}
	return false, false
}

func hex(c byte) (byte, bool) {
	switch {
	case digit(c):
		return c - '0', true
	case c|0x20 >= 'a' && c|0x20 <= 'f':
		return c | 0x20 - 'a' + 10, true
	}
	return 0, false
}
