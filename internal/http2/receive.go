package http2

import (
	"encoding/binary"
	"errors"
	"math"

	"golang.org/x/net/http2/hpack"
)

// This file is about what a peer says.

// Receive takes what p has said. After an error nothing more is taken: p is told why
// by Next, and for a server Ended is to be called.
func (p *Peer) Receive(b []byte) error {
	if p.broken == nil {
		p.broken = p.receive(b)
	}
	return p.broken
}

func (p *Peer) receive(b []byte) error {
	if p.scan.server && !p.begun && len(p.scan.part) == 0 && len(b) > 0 && b[0] != 0 {
		return ErrNotHTTP2 // SETTINGS are shorter
	}
	for {
		f, rest, ok, err := p.scan.next(b)
		if err == nil && !ok {
			return nil
		}
		if err == nil {
			err = p.frame(f)
		}
		if err != nil {
			return p.failed(err)
		}
		b = rest
	}
}

// failed tells p what it has done.
func (p *Peer) failed(err error) error {
	h := p.hop
	h.mu.Lock()
	defer h.unlock()
	var ce *ConnError
	if errors.As(err, &ce) {
		last := uint32(0) // a server opens none
		switch {
		case p == h.client && h.shutting:
			last = h.told
		case p == h.client:
			last = p.last
		}
		p.tell(appendGoAway(nil, last, ce.Code, []byte(ce.Why)))
	}
	p.close()
	if p == h.client {
		h.abandonAll()
	}
	return err
}

// frame takes one frame.
func (p *Peer) frame(f frame) error {
	err := p.interrupted(f)
	switch {
	case err != nil:
		return err
	case !p.begun && (f.kind != kindSettings || f.has(flagAck)):
		if p.scan.server {
			return ErrNotHTTP2
		}
		return wrong(ProtocolError, "the first frame is not SETTINGS")
	}
	p.begun = true
	h := p.hop
	if f.kind == kindHeaders || f.kind == kindContinuation {
		l, whole, err := p.fragment(f)
		switch {
		case err != nil || !whole:
			return err
		case p == h.client:
			return h.asked(p.at, p.ends, l)
		}
		return p.answered(p.at, p.ends, l)
	}
	h.mu.Lock()
	err = p.other(f)
	if err == nil && len(p.out) > maxControl {
		err = wrong(EnhanceYourCalm, "too much is asked, and the answers are not read")
	}
	var se streamError
	if errors.As(err, &se) {
		err = p.streamFailed(f.stream, se.code)
	}
	var again *stream
	if s := p.streams[f.stream]; err == nil && p == h.client && s != nil && s.look() {
		again = s
	}
	h.unlock()
	if again != nil {
		h.decide(again)
	}
	return err
}

// other takes a frame that is not of a header block. mu is held.
func (p *Peer) other(f frame) error {
	switch f.kind {
	case kindData:
		return p.data(f)
	case kindPriority:
		switch {
		case f.stream == 0:
			return wrong(ProtocolError, "PRIORITY of no stream")
		case len(f.payload) != 5:
			return streamError{FrameSizeError}
		}
	case kindReset:
		return p.resets(f)
	case kindSettings:
		return p.settings(f)
	case kindPush:
		return wrong(ProtocolError, "nobody is to push")
	case kindPing:
		return p.ping(f)
	case kindGoAway:
		return p.goAway(f)
	case kindWindow:
		return p.windowUpdate(f)
	}
	return nil // what is not known is dropped (RFC 9113 §5.5)
}

// answered takes a header block of a server's.
func (p *Peer) answered(id uint32, ends bool, l list) error {
	h := p.hop
	h.mu.Lock()
	defer h.unlock()
	s := p.streams[id]
	if s == nil {
		return p.stray(id)
	}
	q := &s.reply
	code := status(l.fields)
	switch {
	case q.ended:
		return p.streamFailed(id, StreamClosed)
	case p.to != nil && !l.long && s.breaks(l, code, ends):
		return p.streamFailed(id, ProtocolError)
	case l.long, q.blocks == maxInterim:
		return p.streamFailed(id, EnhanceYourCalm)
	case code == 100 && s.invited && !ends: // the client has been told
		s.invited = false
		return nil
	}
	block, ok := q.block(l, ends)
	if !ok {
		return p.streamFailed(id, EnhanceYourCalm)
	}
	s.begun = s.begun || code >= 200
	q.ended = ends
	q.put(block)
	if ends {
		h.settle(s)
	}
	return nil
}

// nonNil tells an empty header block from none.
func nonNil(fields []hpack.HeaderField) []hpack.HeaderField {
	if fields == nil {
		return []hpack.HeaderField{}
	}
	return fields
}

// data takes DATA. mu is held.
func (p *Peer) data(f frame) error {
	b, err := f.unpadded()
	n, ends := len(f.payload), f.has(flagEnd)
	switch {
	case f.stream == 0:
		return wrong(ProtocolError, "DATA of no stream")
	case err != nil:
		return err
	case !p.came(n):
		return wrong(FlowControlError, "more DATA than the connection's window")
	}
	s := p.streams[f.stream]
	if s == nil {
		p.consumed(n)
		return p.stray(f.stream)
	}
	q := &s.request
	if p != p.hop.client {
		q = &s.reply
	}
	switch {
	case q.ended:
		p.consumed(n)
		return streamError{StreamClosed}
	case n > q.window:
		p.consumed(n)
		return streamError{FlowControlError}
	case p.to != nil && s.exceeds(len(b), ends):
		p.consumed(n)
		return streamError{ProtocolError}
	}
	q.window -= n
	if padding := n - len(b); padding > 0 {
		p.consumed(padding)
		q.open(padding)
	}
	q.ended = ends
	if len(b) > 0 || ends {
		q.put(part{data: b, end: ends})
	}
	if s.held != nil && q == &s.request && q.waits <= s.held.Size { // the rest may come as well
		q.ahead += len(b)
		q.open(len(b))
	}
	if ends {
		p.hop.settle(s)
	}
	return nil
}

// stray is about a frame of a stream that is not open.
func (p *Peer) stray(id uint32) error {
	switch {
	case id%2 == 0 || id > p.last:
		return wrong(ProtocolError, "a frame of a stream that has not begun")
	case p == p.hop.client && !p.remembers(id):
		return streamError{StreamClosed}
	}
	return nil
}

func (p *Peer) remembers(id uint32) bool {
	for _, other := range p.reset {
		if other == id {
			return true
		}
	}
	return false
}

// streamFailed resets a stream for what p has done on it. mu is held.
func (p *Peer) streamFailed(id uint32, code Code) error {
	h := p.hop
	s := p.streams[id]
	switch {
	case s == nil && (id%2 == 0 || id > p.last): // RFC 9113 §5.1: idle
		return wrong(ProtocolError, "a frame of a stream that has not begun")
	case s == nil:
		p.tell(appendReset(nil, id, code))
		if p == h.client {
			p.remember(id)
		}
	case p == h.client:
		p.tell(appendReset(nil, id, code))
		p.remember(id)
		h.cancel(s, code)
	default:
		p.tell(appendReset(nil, id, code))
		text := "mirrord: the reply breaks the rules of HTTP/2\n"
		if code == EnhanceYourCalm {
			text = "mirrord: the reply's header is too long, or there is no memory for it\n"
		}
		h.lost(s, text)
	}
	return nil
}

// resets takes RST_STREAM. mu is held.
func (p *Peer) resets(f frame) error {
	switch {
	case f.stream == 0:
		return wrong(ProtocolError, "RST_STREAM of no stream")
	case len(f.payload) != 4:
		return wrong(FrameSizeError, "RST_STREAM is not 4 bytes long")
	}
	code := Code(binary.BigEndian.Uint32(f.payload))
	s := p.streams[f.stream]
	switch {
	case s == nil && (f.stream%2 == 0 || f.stream > p.last):
		return wrong(ProtocolError, "RST_STREAM of a stream that has not begun")
	case s == nil:
	case p == p.hop.client:
		p.hop.cancel(s, code)
	default:
		p.hop.resetBy(s, code)
	}
	return nil
}

func (p *Peer) ping(f frame) error {
	switch {
	case f.stream != 0:
		return wrong(ProtocolError, "PING of a stream")
	case len(f.payload) != 8:
		return wrong(FrameSizeError, "PING is not 8 bytes long")
	case !f.has(flagAck):
		p.tell(appendFrame(nil, kindPing, flagAck, 0, f.payload))
	case p == p.hop.client && p.hop.leaving && string(f.payload) == leavingPing:
		p.hop.shut(NoError, nil)
	}
	return nil
}

// settings takes SETTINGS. mu is held.
func (p *Peer) settings(f frame) error {
	switch {
	case f.stream != 0:
		return wrong(ProtocolError, "SETTINGS of a stream")
	case f.has(flagAck) && len(f.payload) > 0:
		return wrong(FrameSizeError, "SETTINGS have a wrong length")
	case f.has(flagAck):
		return nil
	}
	if err := p.apply(f.payload); err != nil {
		return err
	}
	p.tell(appendFrame(nil, kindSettings, flagAck, 0, nil))
	h := p.hop
	if p.settled = true; p != h.client {
		if h.commit(); p == h.servers[nil] && h.committed {
			h.allowsNow()
		}
	}
	p.admit()
	return nil
}

// apply takes the payload of SETTINGS.
func (p *Peer) apply(b []byte) error {
	switch {
	case len(b)%6 != 0:
		return wrong(FrameSizeError, "SETTINGS have a wrong length")
	case len(b) > 6*maxSettings:
		return wrong(EnhanceYourCalm, "there are too many SETTINGS")
	}
	// Each is judged, and the last value of each counts: a window concerns every
	// stream, which is to be done once a frame.
	last := map[uint16]uint32{}
	for ; len(b) > 0; b = b[6:] {
		s := setting{binary.BigEndian.Uint16(b), binary.BigEndian.Uint32(b[2:])}
		if err := p.judge(s); err != nil {
			return err
		}
		if last[s.id] = s.value; s.id == settingTable { // its least value counts as well (RFC 7541 §4.2)
			_ = p.set(s)
		}
	}
	for id, value := range last {
		if err := p.set(setting{id, value}); err != nil {
			return err
		}
	}
	return nil
}

// judge reports what is wrong with a setting.
func (p *Peer) judge(s setting) error {
	switch {
	case s.id == settingPush && (s.value > 1 || s.value == 1 && p != p.hop.client):
		return wrong(ProtocolError, "ENABLE_PUSH has a wrong value")
	case s.id == settingWindow && s.value > maxID:
		return wrong(FlowControlError, "INITIAL_WINDOW_SIZE is too large")
	case s.id == settingFrame && (s.value < maxFrame || s.value >= 1<<24):
		return wrong(ProtocolError, "MAX_FRAME_SIZE has a wrong value")
	}
	return nil
}

func (p *Peer) set(s setting) error {
	switch s.id {
	case settingTable:
		p.encode.SetMaxDynamicTableSize(min(s.value, maxTable))
	case settingStreams:
		p.limit = int(min(s.value, math.MaxInt32))
	case settingWindow:
		more := int(s.value) - p.initial
		p.initial = int(s.value)
		for _, s := range p.streams {
			q := &s.reply
			if p != p.hop.client {
				q = &s.request
			}
			if q.credit += more; q.credit > maxID {
				return wrong(FlowControlError, "a stream's window is too large")
			}
			p.enqueue(q)
		}
	case settingList:
		p.lists = int(min(s.value, maxList))
	case settingConnect:
		p.connect = s.value == 1
	}
	return nil
}

// windowUpdate takes WINDOW_UPDATE. mu is held.
func (p *Peer) windowUpdate(f frame) error {
	if len(f.payload) != 4 {
		return wrong(FrameSizeError, "WINDOW_UPDATE is not 4 bytes long")
	}
	n := int(binary.BigEndian.Uint32(f.payload) & maxID)
	if f.stream == 0 {
		switch p.credit += n; {
		case n == 0:
			return wrong(ProtocolError, "WINDOW_UPDATE of nothing")
		case p.credit > maxID:
			return wrong(FlowControlError, "the connection's window is too large")
		}
		stalled := p.stalled
		p.stalled = nil
		for _, q := range stalled {
			q.queued = false
			p.enqueue(q)
		}
		return nil
	}
	s := p.streams[f.stream]
	if s == nil {
		if f.stream%2 == 0 || f.stream > p.last {
			return wrong(ProtocolError, "WINDOW_UPDATE of a stream that has not begun")
		}
		return nil // it may have been on its way (RFC 9113 §5.1)
	}
	q := &s.reply
	if p != p.hop.client {
		q = &s.request
	}
	switch {
	case n == 0:
		return streamError{ProtocolError}
	case q.credit+n > maxID:
		return streamError{FlowControlError}
	}
	q.credit += n
	p.enqueue(q)
	return nil
}

// goAway takes GOAWAY. mu is held.
func (p *Peer) goAway(f frame) error {
	switch {
	case f.stream != 0:
		return wrong(ProtocolError, "GOAWAY of a stream")
	case len(f.payload) < 8:
		return wrong(FrameSizeError, "GOAWAY is too short")
	}
	last := binary.BigEndian.Uint32(f.payload) & maxID
	code := Code(binary.BigEndian.Uint32(f.payload[4:]))
	if p == p.hop.client {
		p.hop.shut(NoError, nil) // it opens no more
		return nil
	}
	p.hop.goesAway(p, last, code, f.payload[8:])
	return nil
}
