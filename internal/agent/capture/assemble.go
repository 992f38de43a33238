package capture

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"slices"
	"syscall"
	"time"

	"github.com/mirrord-go/mirrord/internal/agent/packet"
	"github.com/mirrord-go/mirrord/internal/budget"
)

const (
	// maxFlows bounds connections that are followed at once.
	maxFlows = 8192
	// maxPending bounds the bytes of one connection that are held back behind a
	// gap, and gapTime how long: a retransmission comes within a second or two.
	maxPending, gapTime = 4 << 20, 5 * time.Second
	// openTime is how long a connection may take from its first packet to its
	// second; older ones were never accepted.
	openTime = 10 * time.Second
	// idleTime is how long a silent connection is remembered when room is
	// needed, and sweepTime how often such are looked for.
	idleTime, sweepTime = time.Hour, time.Second
)

// assembler puts packets into order (RFC 9293, section 3.4). It is not safe for
// concurrent use and does no input or output.
type assembler struct {
	begin  func(*Conn) bool                 // offers a new copy; false: no room for it
	begins func([]byte) bool                // whether the copy of a connection may begin with these bytes of its middle
	led    func(k flowKey, loops bool) bool // whether a connection is none with the port that the client has called; nil: none is
	flows  map[flowKey]*flow
	past   past
	swept  time.Time // when idle connections were last looked for
	held   *budget.Share
	stats  Stats
}

type flowKey struct{ client, server netip.AddrPort }

// flow is one connection.
type flow struct {
	first, next uint32 // sequence numbers: before the first byte of the copy, of the next expected one
	seen        time.Time
	conn        *Conn // nil: not accepted yet, or the copy has ended
	opened      bool  // the client's acknowledgement was seen: the server has accepted
	middle      bool  // the next copy does not begin where the connection did
	ignored     bool  // its reader does not understand it, or it leads elsewhere: nothing of it begins a copy any more
	fin         bool
	finAt       uint32
	pending     []segment // behind a gap, by sequence number
	size        int       // bytes in pending, as they are counted
	gapSince    time.Time
}

type segment struct {
	seq  uint32
	data []byte
}

func newAssembler(begin func(*Conn) bool, begins func([]byte) bool, held *budget.Share) *assembler {
	return &assembler{begin: begin, begins: begins, held: held, flows: map[flowKey]*flow{}, past: past{next: map[flowKey]uint32{}}}
}

const (
	flagFIN = 1 << 0
	flagSYN = 1 << 1
	flagRST = 1 << 2
	flagACK = 1 << 4
)

// packet takes one IP packet that a client sent, seen at now; loops: on the
// loopback interface. It copies what it keeps.
func (a *assembler) packet(b []byte, loops bool, now time.Time) {
	k, tcp, ok := parse(b)
	if !ok {
		return
	}
	flags, seq := tcp[13], binary.BigEndian.Uint32(tcp[4:])
	data := tcp[min(max(int(tcp[12]>>4)*4, 20), len(tcp)):]
	a.stats.Bytes += int64(len(data))
	f := a.flows[k]
	if flags&(flagSYN|flagACK) == flagSYN {
		a.syn(k, f, seq, now)
		return
	}
	if f == nil { // older than the tap, or its copy has ended
		if f = a.pickUp(k, flags, seq, data, now); f == nil {
			return
		}
	}
	f.seen = now
	if !f.opened && !f.ignored && a.led != nil {
		f.ignored = a.led(k, loops)
	}
	if f.ignored {
		if f.next = seq + uint32(len(data)); flags&(flagFIN|flagRST) != 0 {
			a.drop(k, f)
		}
		return
	}
	if flags&flagRST != 0 {
		if seq == f.next || len(f.pending) > 0 { // else: outside of the stream, a stranger's guess
			a.end(f, syscall.ECONNRESET)
			a.drop(k, f)
		}
		return
	}
	if !f.opened && !a.open(k, f) {
		if len(data) > 0 || flags&flagFIN != 0 { // else its next packet tries again
			a.stats.Refused++
			delete(a.flows, k)
		}
		return
	}
	if flags&flagFIN != 0 {
		f.fin, f.finAt = true, seq+uint32(len(data))
	}
	if len(data) > 0 {
		a.data(f, seq, data, now)
	}
	switch {
	case f.ignored && !f.fin:
	case f.conn == nil: // ended early; what follows is of no use until it begins something
		a.drop(k, f)
	case f.fin && f.next == f.finAt:
		a.end(f, io.EOF)
		a.drop(k, f)
	}
}

// pickUp begins to follow a connection in its middle; nil: this is no place for
// it. Whatever is sent again of what a copy has had already is none.
func (a *assembler) pickUp(k flowKey, flags byte, seq uint32, data []byte, now time.Time) *flow {
	if len(data) == 0 || flags&(flagSYN|flagRST) != 0 || !a.fresh(data) || a.past.has(k, seq) {
		return nil
	}
	if !a.room(now) {
		a.stats.Refused++
		return nil
	}
	f := &flow{first: seq - 1, next: seq, seen: now, middle: true}
	a.flows[k] = f
	return f
}

// fresh reports whether a copy may begin with data.
func (a *assembler) fresh(data []byte) bool { return a.begins != nil && a.begins(data) }

// drop follows a connection no longer.
func (a *assembler) drop(k flowKey, f *flow) {
	delete(a.flows, k)
	a.past.add(k, f.next)
}

// syn begins to follow a connection.
func (a *assembler) syn(k flowKey, f *flow, seq uint32, now time.Time) {
	if f != nil {
		if f.first == seq { // sent again
			return
		}
		a.incomplete(f) // the client uses its port again and we missed the end
	}
	if f == nil && !a.room(now) {
		a.stats.Refused++
		return
	}
	a.flows[k] = &flow{first: seq, next: seq + 1, seen: now}
}

// room reports whether one more connection can be followed. Where there is none
// it forgets those that nobody needs any more.
func (a *assembler) room(now time.Time) bool {
	if len(a.flows) < maxFlows {
		return true
	}
	if now.Sub(a.swept) < sweepTime { // looking at all of them is dear
		return false
	}
	a.swept = now
	for k, f := range a.flows {
		if age := now.Sub(f.seen); !f.opened && age > openTime || age > idleTime || f.ignored {
			a.incomplete(f)
			delete(a.flows, k)
		}
	}
	return len(a.flows) < maxFlows
}

// open begins the copy: at the client's first packet after its SYN, so that
// nobody is told of connections that the server does not accept. False: there is
// no room for it.
func (a *assembler) open(k flowKey, f *flow) bool {
	c := NewConn(k.client, k.server, a.held)
	c.middle = f.middle
	if !a.begin(c) {
		return false
	}
	f.opened, f.middle, f.conn = true, true, c
	a.stats.Connections++
	return true
}

func (a *assembler) data(f *flow, seq uint32, data []byte, now time.Time) {
	if old := int32(f.next - seq); old > 0 { // seen before, at least in part
		if int(old) >= len(data) {
			return
		}
		data, seq = data[old:], f.next
	}
	data = slices.Clone(data)
	if seq != f.next {
		a.hold(f, seq, data, now)
		return
	}
	a.deliver(f, data)
	for len(f.pending) > 0 && f.conn != nil {
		s := f.pending[0]
		old := int32(f.next - s.seq)
		if old < 0 {
			f.gapSince = now
			return
		}
		f.pending, f.size = f.pending[1:], f.size-cost(s.data)
		a.held.Give(cost(s.data))
		if int(old) < len(s.data) {
			a.deliver(f, s.data[old:])
		}
	}
}

// hold keeps a segment until what comes before it has arrived.
func (a *assembler) hold(f *flow, seq uint32, data []byte, now time.Time) {
	if f.size == 0 {
		f.gapSince = now
	}
	if !a.held.Take(cost(data)) {
		a.incomplete(f)
		return
	}
	i, _ := slices.BinarySearchFunc(f.pending, seq, func(s segment, q uint32) int { return int(int32(s.seq - q)) })
	f.pending = slices.Insert(f.pending, i, segment{seq, data})
	if f.size += cost(data); f.size > maxPending || now.Sub(f.gapSince) > gapTime {
		a.incomplete(f)
	}
}

// deliver gives data, which is next, to the copy. A reader that has closed it
// between two requests gets another.
func (a *assembler) deliver(f *flow, data []byte) {
	f.next += uint32(len(data))
	err := f.conn.Push(data)
	if errors.Is(err, net.ErrClosed) && a.fresh(data) && a.open(flowKey{f.conn.client, f.conn.server}, f) {
		err = f.conn.Push(data)
	}
	switch {
	case err == nil:
		return
	case errors.Is(err, errIgnored):
		f.ignored = true
	default:
		a.stats.Slow++
	}
	a.end(f, ErrIncomplete)
}

// incomplete ends the copy of a connection of which something is missing.
func (a *assembler) incomplete(f *flow) {
	if f.conn != nil {
		a.stats.Incomplete++
		a.end(f, ErrIncomplete)
	}
}

// end ends f's copy with err.
func (a *assembler) end(f *flow, err error) {
	if f.conn != nil {
		f.conn.Finish(err)
	}
	a.held.Give(f.size)
	f.conn, f.pending, f.size = nil, nil, 0
}

// forget ends the copies of one port of the target.
func (a *assembler) forget(port uint16) {
	for k, f := range a.flows {
		if k.server.Port() == port {
			a.end(f, ErrIncomplete)
			a.drop(k, f)
		}
	}
}

func (a *assembler) forgetAll() {
	for k, f := range a.flows {
		a.end(f, ErrIncomplete)
		delete(a.flows, k)
	}
}

// maxPast bounds past: what a client sends again comes within a moment, in which
// no more connections than these end.
const maxPast = 2048

// past is up to where connections had been copied that are not followed any more,
// the last maxPast of them: a segment that is sent again must not be taken for a
// request that nobody has got.
type past struct {
	next   map[flowKey]uint32
	keys   []flowKey // of next, a ring
	oldest int       // in keys
}

func (p *past) add(k flowKey, next uint32) {
	_, known := p.next[k]
	switch {
	case known:
	case len(p.keys) < maxPast:
		p.keys = append(p.keys, k)
	default:
		delete(p.next, p.keys[p.oldest])
		p.keys[p.oldest] = k
		p.oldest = (p.oldest + 1) % maxPast
	}
	p.next[k] = next
}

// has reports whether a copy has had what stands at seq.
func (p *past) has(k flowKey, seq uint32) bool {
	next, known := p.next[k]
	return known && int32(seq-next) < 0
}

// parse checks an IP packet and cuts it to its real length.
func parse(b []byte) (k flowKey, tcp []byte, ok bool) {
	const tcpHeader = 20
	k.client, k.server, tcp, ok = packet.Cut(b, syscall.IPPROTO_TCP, tcpHeader)
	return k, tcp, ok
}
