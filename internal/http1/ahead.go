package http1

import (
	"errors"
	"io"
)

// ErrTooLarge: a body is longer than it may be to be looked at, with the framing
// of its chunks, or there is no memory for it.
var ErrTooLarge = errors.New("the body is too large")

// Ahead looks at the body of a request before it is forwarded. Nothing is
// consumed: Forward forwards all of it as it came.
type Ahead struct {
	r    *Reader
	m    Message // as it was
	body body    // as far as it has been found
	at   int     // bytes of the message that has been found
	most int     // of the body
}

// Ahead begins to look at the body of m, the last message that Request gave, if
// it has no more than most bytes.
func (r *Reader) Ahead(m *Message, most int) *Ahead {
	return &Ahead{r: r, m: *m, body: m.body, at: m.head, most: most}
}

// Whole reports whether all of the body has arrived; Fill gets more. ErrTooLarge
// and ErrAmbiguous mean that it is not looked at.
func (a *Ahead) Whole() (bool, error) {
	if a.m.body.state == sized && a.m.body.left > uint64(a.most) {
		return false, ErrTooLarge
	}
	n, done, err := a.body.scan(a.r.Buffered()[a.at:])
	a.at += n
	switch {
	case err != nil:
		return false, err
	case a.at-a.m.head > a.most:
		return false, ErrTooLarge
	}
	return done, nil
}

// Begun reports whether something of the body has arrived.
func (a *Ahead) Begun() bool { return len(a.r.Buffered()) > a.m.head }

// Fill waits until more of the body has arrived. Its error is ErrTooLarge for
// want of memory, or that of the reader.
func (a *Ahead) Fill() error {
	r := a.r
	switch {
	case r.room():
	case len(r.buf) < MaxHead: // there is no memory for a large one
		return ErrTooLarge
	case len(r.buf) < a.m.head+a.most && r.resize(min(2*len(r.buf), roundUp(a.m.head+a.most))):
	default:
		return ErrTooLarge
	}
	err := r.read()
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return err
}

// roundUp is the next number of whole small buffers, behind which a byte may stand
// that shows the body to be too large.
func roundUp(n int) int { return (n/smallBuffer + 1) * smallBuffer }

// Content is the whole body without the framing of its chunks. It is valid until
// the next call of the reader's methods.
func (a *Ahead) Content() []byte {
	raw := a.r.Buffered()[a.m.head:a.at]
	b := a.m.body
	if b.state == sized {
		return raw
	}
	content := make([]byte, 0, len(raw))
	for len(raw) > 0 {
		n := 1
		if b.state == chunkData {
			n = int(min(b.left, uint64(len(raw))))
			content = append(content, raw[:n]...)
		}
		if _, _, err := b.scan(raw[:n]); err != nil { // Whole has seen it
			return nil
		}
		raw = raw[n:]
	}
	return content
}
