package incoming

import (
	"errors"
	"net"
	"os"
	"time"

	"github.com/mirrord-go/mirrord/internal/budget"
	"github.com/mirrord-go/mirrord/internal/http1"
)

// silence is how long a client may say nothing before it is taken for one that
// waits for the server's first word. HTTP clients speak with the end of the
// handshake; what waits this long for nothing is a person's own connection to
// a server that speaks first.
const silence = 100 * time.Millisecond

// peeked is a connection of which the beginning has been read: its bytes come
// once more.
type peeked struct {
	*conn
	request *http1.Request // nil: it has not begun with one
	in      *http1.Reader  // holds first, and is closed when that has been read
	first   []byte
	err     error // what reading ended with
}

// peek waits a moment for a request. It is for ports that are stolen whole,
// where nothing but a probe is not the session's. The caller calls release when
// nobody reads any more.
func peek(c *conn, large *budget.Share) *peeked {
	in := http1.NewReader(c, large)
	p := &peeked{conn: c, in: in}
	_ = c.SetReadDeadline(time.Now().Add(silence))
	defer c.SetReadDeadline(time.Time{})
	var err error
	for {
		if p.request, err = in.Request(); !errors.Is(err, http1.ErrIncomplete) {
			break
		}
		if p.err = in.Fill(); p.err != nil {
			break
		}
	}
	if timeout(p.err) {
		p.err = nil
	}
	p.first = in.Buffered()
	return p
}

// release gives the memory back. What a client has said may wait for local as long
// as that likes, so it is counted till then.
func (p *peeked) release() {
	p.first = nil
	p.in.Close()
}

// Read gives what was peeked at, then the rest.
func (p *peeked) Read(b []byte) (int, error) {
	switch {
	case len(p.first) > 0:
		n := copy(b, p.first)
		if p.first = p.first[n:]; len(p.first) == 0 {
			p.release()
		}
		return n, nil
	case p.err != nil:
		err := p.err
		p.err = nil
		return 0, err
	}
	return p.conn.Read(b)
}

func timeout(err error) bool {
	var ne net.Error
	return errors.Is(err, os.ErrDeadlineExceeded) || errors.As(err, &ne) && ne.Timeout()
}
