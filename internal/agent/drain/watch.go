package drain

import (
	"maps"
	"net/netip"
	"time"

	"github.com/mirrord-go/mirrord/internal/budget"
	"github.com/mirrord-go/mirrord/internal/http1"
)

const (
	// quietTime is how long nothing must have been said behind a response: a
	// client that asks one thing after another does so at once.
	quietTime = 200 * time.Millisecond
	// answerTime is how long the server's kernel has to take an end: it is here.
	answerTime = time.Second
	// maxAsked bounds the requests that wait for their response.
	maxAsked = 16
)

// flowKey is a connection that a client has made.
type flowKey struct{ client, server netip.AddrPort }

// who says something.
const (
	client = iota
	server
)

// watch is what is known of connections, from their segments. It is to be told
// in the order of the wire, which a packet socket keeps, and must not be used
// concurrently.
type watch struct {
	heads *budget.Share
	flows map[flowKey]*flow
}

// flow is one connection.
type flow struct {
	heads *budget.Share
	known [2]bool
	next  [2]uint32   // sequence number of what is expected, where it is known
	last  [2]*segment // without its data
	said  time.Time   // when either has said something
	asks  *http1.Follower
	reply *http1.Follower // both nil: where messages begin is not known
	asked []string        // methods of requests that wait for their response
	whole bool            // a response has come to its end, since messages are known
	ends  bool            // one of the two has said that this is the last message
	tried time.Time       // the server was told the client's end; zero: it was not
}

// idle reports whether a request was seen to be answered to its end, and none
// has begun since.
func (f *flow) idle() bool {
	return f.asks != nil && f.whole && !f.ends && len(f.asked) == 0 && f.asks.Between() && f.reply.Between()
}

// lose forgets where messages begin.
func (f *flow) lose() {
	if f.asks != nil {
		f.asks.Close()
		f.reply.Close()
	}
	f.asks, f.reply, f.asked, f.whole, f.ends = nil, nil, nil, false, false
}

// add begins with connections that are there.
func (w *watch) add(keys []flowKey) {
	for _, k := range keys {
		if w.flows[k] == nil {
			w.flows[k] = &flow{heads: w.heads}
		}
	}
}

// keep forgets all that fit but those of there.
func (w *watch) keep(there []flowKey, fits func(flowKey) bool) {
	gone := maps.Clone(w.flows)
	for _, k := range there {
		delete(gone, k)
	}
	for k := range gone {
		if fits(k) {
			w.forget(k)
		}
	}
}

func (w *watch) forget(k flowKey) {
	if f := w.flows[k]; f != nil {
		f.lose()
		delete(w.flows, k)
	}
}

// segment takes note of s. A last one is what is to be said to the client of a
// connection that its server has taken for ended: that it is.
func (w *watch) segment(s segment, now time.Time) (last *segment) {
	k, from := flowKey{s.src, s.dst}, client
	f := w.flows[k]
	if f == nil {
		k, from = flowKey{s.dst, s.src}, server
		if f = w.flows[k]; f == nil {
			return nil
		}
	}
	if !f.tried.IsZero() {
		over := f.next[client]
		switch {
		case from == client && s.flags&fin != 0 && s.seq == over:
			return nil // ours
		case from == server && s.flags&(ack|rst) == ack && s.ack == over+1:
			w.forget(k)
			return f.farewell(&s)
		case from == server && s.flags&ack != 0 && after(s.ack, over+1):
			f.tried = time.Time{} // it heard the client before
		}
	}
	if s.flags&(syn|fin|rst) != 0 { // it ends by itself, or is another of the same name
		w.forget(k)
		return nil
	}
	f.hear(from, &s, now)
	return nil
}

func after(a, b uint32) bool { return int32(a-b) > 0 }

// hear takes note of what one of the two says.
func (f *flow) hear(from int, s *segment, now time.Time) {
	if other := 1 - from; s.flags&ack != 0 && (!f.known[other] || after(s.ack, f.next[other])) {
		f.lose() // something is missing, or these are the first words
		f.known[other], f.next[other] = true, s.ack
	}
	switch {
	case !f.known[from] || after(s.seq, f.next[from]):
		f.lose()
		f.known[from], f.next[from] = true, s.end()
	case s.seq != f.next[from] && len(s.data) > 0: // said again, in other pieces perhaps
		if after(s.end(), f.next[from]) {
			f.lose()
			f.next[from] = s.end()
		}
		return
	case s.seq != f.next[from]:
		return // asks whether the other is alive (RFC 9293 §3.8.4)
	default:
		f.next[from] = s.end()
	}
	data := s.data
	said := *s
	said.data = nil
	f.last[from] = &said
	if len(data) == 0 {
		return
	}
	f.said = now
	switch {
	case from == client:
		if f.asks == nil {
			f.asks, f.reply = http1.NewFollower(f.heads), http1.NewFollower(f.heads)
		}
		f.asks.Requests(data, f.request)
	case f.reply != nil:
		f.reply.Responses(data, f.method, f.response)
	}
	if f.asks != nil && (f.asks.Lost() || f.reply.Lost() || len(f.asked) > maxAsked) {
		f.lose()
	}
}

func (f *flow) request(q *http1.Request) {
	f.asked = append(f.asked, q.Method)
	f.ends = f.ends || q.Last || q.Upgrades
}

func (f *flow) method() (string, bool) {
	if len(f.asked) == 0 {
		return "", false
	}
	return f.asked[0], true
}

func (f *flow) response(r *http1.Response) {
	if !r.Interim {
		f.asked = f.asked[1:]
		f.whole, f.ends = true, f.ends || r.Last || r.Switches
	}
}

// due gives, of each connection that is idle and quiet, the client's end for the
// server. The server's kernel takes it only if the client has said nothing else
// meanwhile: its sequence number would be an old one.
func (w *watch) due(now time.Time) (all []*segment) {
	for k, f := range w.flows {
		switch {
		case !f.tried.IsZero() && now.Sub(f.tried) > answerTime:
			f.tried = time.Time{}
			f.lose() // once more behind the next response
		case !f.tried.IsZero() || !f.idle() || now.Sub(f.said) < quietTime || f.last[server] == nil:
		default:
			f.tried = now
			all = append(all, f.end(client, k.client, k.server, f.next[client], f.next[server]))
		}
	}
	return all
}

// farewell is the server's end for the client; s is how the server's kernel has
// acknowledged the client's.
func (f *flow) farewell(s *segment) *segment {
	f.last[server] = s
	return f.end(server, s.src, s.dst, s.seq, f.next[client])
}

// end is the end of what one of the two says. It has a timestamp that the other
// end will take: the newest (RFC 7323 §5.3).
func (f *flow) end(from int, src, dst netip.AddrPort, seq, acked uint32) *segment {
	mine, other := f.last[from], f.last[1-from]
	return &segment{src: src, dst: dst, seq: seq, ack: acked, flags: fin | ack, window: mine.window,
		stamps: mine.stamps && other.stamps, val: mine.val, ecr: other.val}
}
