package http1

import "github.com/mirrord-go/mirrord/internal/budget"

// maxFollowed is the longest head that a Follower understands, in bytes: what
// servers take by default (nginx 8 KiB a line, Node 16 KiB a head).
const maxFollowed = 16 << 10

// Follower finds the messages of one direction in bytes that pass by, without
// being in their way: it waits for nothing and keeps nothing but the beginning
// of a head that came in pieces. What it does not understand ends it, and the
// bytes pass unseen from then on. It must not be used concurrently.
type Follower struct {
	share *budget.Share // of head
	head  []byte        // of a message, as far as it has come
	scan  scanner
	body  body
	in    bool // a body
	lost  bool
}

// NewFollower makes one; heads that come in pieces are taken from share, whose
// want ends it.
func NewFollower(share *budget.Share) *Follower { return &Follower{share: share} }

// Lost reports whether nothing more will be understood.
func (f *Follower) Lost() bool { return f.lost }

// Between reports whether all that has begun has ended, and is understood.
func (f *Follower) Between() bool { return !f.lost && !f.in && len(f.head) == 0 }

// Requests calls each with every request whose head ends in p, what follows the
// bytes of the last call. The requests' Message means nothing.
func (f *Follower) Requests(p []byte, each func(*Request)) {
	for len(p) > 0 && !f.lost {
		var text string
		if text, p = f.next(p, request); text == "" {
			continue
		}
		q, err := readRequest(text)
		if err != nil {
			f.Close()
			return
		}
		each(q)
		f.into(q.body)
	}
}

// Responses does the same with responses. method gives that of the request which
// is answered; nil or false: nobody has asked.
func (f *Follower) Responses(p []byte, method func() (string, bool), each func(*Response)) {
	for len(p) > 0 && !f.lost {
		var text string
		if text, p = f.next(p, response); text == "" {
			continue
		}
		asked, ok := method()
		if !ok {
			f.Close()
			return
		}
		s, err := readResponse(text, asked)
		if err != nil {
			f.Close()
			return
		}
		each(s)
		if s.Unbounded {
			f.Close()
			return
		}
		f.into(s.body)
	}
}

// into enters a message's body; an empty one ends at once.
func (f *Follower) into(b body) {
	f.body = b
	f.in = b != body{}
}

// next takes what it can of p: a piece of a body, or of a head, whose whole text
// it gives when it has ended.
func (f *Follower) next(p []byte, k kind) (text string, rest []byte) {
	if f.in {
		n, done, err := f.body.scan(p)
		if err != nil {
			f.Close()
			return "", nil
		}
		f.in = !done
		return "", p[n:]
	}
	before := len(f.head)
	head := p
	if before > 0 { // most heads come in one piece
		if !f.keep(p) {
			return "", nil
		}
		head = f.head
	}
	done, err := f.scan.scan(head, k)
	switch {
	case err != nil:
		f.Close()
		return "", nil
	case !done && before == 0:
		f.keep(p)
		return "", nil
	case !done:
		return "", nil
	}
	text, rest = string(head[:f.scan.at]), p[f.scan.at-before:]
	f.forget()
	f.scan = scanner{later: true}
	return text, rest
}

// keep remembers p of a head; false: it is too long, or there is no memory.
func (f *Follower) keep(p []byte) bool {
	if len(f.head)+len(p) > maxFollowed || !f.share.Take(len(p)) {
		f.Close()
		return false
	}
	f.head = append(f.head, p...)
	return true
}

func (f *Follower) forget() {
	f.share.Give(len(f.head))
	f.head = nil
}

// Close gives the memory back. Nothing more is understood.
func (f *Follower) Close() {
	f.lost = true
	f.forget()
}
