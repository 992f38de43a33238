package incoming

import (
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/mirrord-go/mirrord/internal/http1"
)

// A filter that looks at bodies waits for those that decide. Nothing of such a
// request goes anywhere before; then all of it goes as it came.

// tooLarge and tooSlow say why a body was not looked at.
func (r *rule) tooLarge() error {
	return fmt.Errorf("the body has more than %d bytes (agent.max_body_buffer_size), or there is no memory for it", r.bodySize)
}

func (r *rule) tooSlow() error {
	return fmt.Errorf("the body takes longer than %v (agent.max_body_buffer_timeout)", r.bodyTime)
}

var errCut = errors.New("the body does not come to its end")

// why is what is told of err, which looking at a body has ended with.
func (r *rule) why(err error) error {
	switch {
	case errors.Is(err, http1.ErrTooLarge):
		return r.tooLarge()
	case timeout(err):
		return r.tooSlow()
	case errors.Is(err, http1.ErrAmbiguous):
		return err
	}
	return errCut
}

// arrive waits for the body of q. It is called in read, while no request is
// under way.
func (s *split) arrive(q *http1.Request, r *rule) (*http1.Ahead, error) {
	a := s.in.Ahead(&q.Message, r.bodySize)
	late := time.Now().Add(r.bodyTime)
	waits := false
	for {
		whole, err := a.Whole()
		if err == nil && !whole {
			if !waits {
				waits = true
				_ = s.client.SetReadDeadline(late)
				defer s.relax()
				if q.Continues && !a.Begun() && !s.invite(late) {
					return nil, errCut
				}
			}
			err = a.Fill()
		}
		switch {
		case err != nil:
			return nil, r.why(err)
		case whole:
			return a, nil
		}
	}
}

// arrived gives the body of q where all of it is in the reader's source.
func arrived(in *http1.Reader, q *http1.Request, r *rule) (content, error) {
	a := in.Ahead(&q.Message, r.bodySize)
	for {
		whole, err := a.Whole()
		if err == nil && !whole {
			err = a.Fill() // io.EOF: it is still on its way
		}
		switch {
		case err != nil:
			return nil, r.why(err)
		case whole:
			return a, nil
		}
	}
}

// relax takes back the deadline of a body.
func (s *split) relax() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.over {
		_ = s.client.SetReadDeadline(time.Time{})
	}
}

// invite asks the client for the body that it has announced, in place of
// whoever will get the request: he must not be asked before it is known who that
// is. What he says to it himself the client does not hear a second time. False:
// the connection has taken another turn.
func (s *split) invite(late time.Time) bool {
	s.mu.Lock() // so that nobody else speaks between
	defer s.mu.Unlock()
	if s.over || s.bound != nil {
		return false
	}
	if s.invited { // for another session's filter
		return true
	}
	_ = s.client.SetWriteDeadline(late)
	if _, err := io.WriteString(s.client, "HTTP/1.1 100 Continue\r\n\r\n"); err != nil {
		s.failLocked(err) // it may have gone in part
		return false
	}
	_ = s.client.SetWriteDeadline(time.Time{})
	s.invited = true
	return true
}

// told reports whether the client knows already that its body may come, once.
func (s *split) told() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	told := s.invited
	s.invited = false
	return told
}

// arrive waits for the body of q in a copy, whose source knows no deadline: one
// that comes later is not looked at.
func (m *copying) arrive(q *http1.Request, r *rule) (*http1.Ahead, error) {
	a := m.in.Ahead(&q.Message, r.bodySize)
	begun := time.Now()
	for {
		whole, err := a.Whole()
		switch {
		case err != nil:
			return nil, r.why(err)
		case time.Since(begun) > r.bodyTime:
			return nil, r.tooSlow()
		case whole:
			return a, nil
		}
		if err := a.Fill(); err != nil {
			return nil, r.why(err)
		}
	}
}
