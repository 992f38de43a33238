package incoming

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"sync"
	"syscall"
	"time"

	"github.com/mirrord-go/mirrord/internal/http1"
	"github.com/mirrord-go/mirrord/internal/relay"
)

// This file is about a link that is lost, and clients that wait for local all
// the while.

// errLost is why local does not answer.
var errLost = errors.New("the link to the developer's machine is lost")

// maxBeginning is how many bytes of what a client says are kept to tell whether
// it is a request: a method, and a target's beginning.
const maxBeginning = 64

// waiting is a connection whose client may wait for local.
type waiting interface {
	// abandon answers in place of local, or resets the connection if local has
	// begun to answer or nobody can know what is expected. It does nothing where
	// local owes nothing, and waits no longer than a moment.
	abandon()
}

// hold remembers w until the returned function is called.
func (h *Hub) hold(w waiting) (done func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.held[w] = true
	return func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		delete(h.held, w)
	}
}

// Abandon ends what waits for local while the link is lost: an HTTP/1 request
// that local has not begun to answer is answered 502, everything else is reset.
// It does nothing after the end of a Suspend.
func (h *Hub) Abandon() {
	h.mu.Lock()
	var all []waiting
	if h.suspended {
		for w := range h.held {
			all = append(all, w)
		}
	}
	h.mu.Unlock()
	var wg sync.WaitGroup
	defer wg.Wait()
	for _, w := range all {
		wg.Go(w.abandon)
	}
}

// away reports whether nobody can answer what is stolen, for the time being.
func (h *Hub) away() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.suspended
}

// abandon implements waiting.
func (s *split) abandon() {
	s.mu.Lock()
	if m := s.streams; m != nil {
		s.mu.Unlock()
		m.abandon()
		return
	}
	x := s.bound
	if x == nil {
		x = s.busy
	}
	switch {
	case s.over || x == nil || x.guest != nil || !x.local():
		s.mu.Unlock()
		return
	case s.busy != x || x.speaks:
		s.failLocked(syscall.ECONNRESET)
		s.mu.Unlock()
		return
	}
	s.over, x.ended = true, true // what local says from now on goes nowhere
	head := s.method == "HEAD"
	s.cond.Broadcast()
	s.mu.Unlock()
	_ = s.client.SetWriteDeadline(time.Now().Add(lingerTime))
	_, _ = io.WriteString(s.client, gatewayReply(head, errLost.Error()))
	_ = s.conn.CloseWrite()
	_ = s.client.SetReadDeadline(time.Now().Add(lingerTime))
	relay.Reset(x.Conn, syscall.ECONNRESET) // ends who forwards to it, and its hear
}

// delivery is the client's side of a whole connection that is at local.
type delivery struct {
	relay.Conn       // the client
	c          *conn // the same, below
	to         *offer

	mu       sync.Mutex
	said     []byte // the beginning of what the client has said since local's last word
	replying int    // calls of Write under way
	over     bool   // answered here
}

// Read takes what the client says.
func (d *delivery) Read(p []byte) (int, error) {
	n, err := d.Conn.Read(p)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.said = append(d.said, p[:min(n, maxBeginning-len(d.said))]...)
	return n, err
}

// Write gives the client what local says.
func (d *delivery) Write(p []byte) (int, error) {
	d.mu.Lock()
	if d.over {
		d.mu.Unlock()
		return len(p), nil // too late
	}
	d.said = d.said[:0]
	d.replying++
	d.mu.Unlock()
	n, err := d.Conn.Write(p)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.replying--
	return n, err
}

// Abort resets the client, for relay.Reset.
func (d *delivery) Abort() { relay.Reset(d.Conn, syscall.ECONNRESET) }

// abandon implements waiting.
func (d *delivery) abandon() {
	if !d.to.local() {
		return
	}
	d.mu.Lock()
	asks := d.replying == 0 && begins(d.said)
	head := bytes.HasPrefix(d.said, []byte("HEAD "))
	d.over = asks
	d.mu.Unlock()
	if asks {
		_ = d.c.SetWriteDeadline(time.Now().Add(lingerTime))
		_, _ = io.WriteString(d.Conn, gatewayReply(head, errLost.Error()))
		_ = d.CloseWrite()
		// What the client still says is dropped: a reset would overtake the answer.
		_ = d.c.SetReadDeadline(time.Now().Add(lingerTime))
		_, _ = io.Copy(io.Discard, readOnly{d.c})
	}
	_ = d.to.Reset(syscall.ECONNRESET) // and the relay ends
}

// readOnly keeps io.Copy from finding a WriteTo.
type readOnly struct{ io.Reader }

// begins reports whether b may be the beginning of an HTTP/1 request.
func begins(b []byte) bool {
	r := http1.NewReader(beginning{b}, nil)
	defer r.Close()
	if len(b) == 0 || r.Fill() != nil {
		return false
	}
	_, err := r.Request()
	return err == nil || errors.Is(err, http1.ErrIncomplete)
}

// beginning is a source of no more than these bytes.
type beginning struct{ b []byte }

func (s beginning) Read(p []byte) (int, error) { return copy(p, s.b), nil }

// gatewayText is what a client reads where local does not answer.
func gatewayText(why string) string {
	return fmt.Sprintf("mirrord: a developer's process takes this request, but did not answer: %s\n", why)
}

// gatewayReply is an answer in place of local; head: to a request that gets no
// body.
func gatewayReply(head bool, why string) string {
	body := gatewayText(why)
	text := fmt.Sprintf("HTTP/1.1 502 Bad Gateway\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: %d\r\nConnection: close\r\n\r\n", len(body))
	if !head {
		text += body
	}
	return text
}
