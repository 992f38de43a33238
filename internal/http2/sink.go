package http2

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"slices"
	"sync"

	"golang.org/x/net/http2/hpack"
)

// Sink is one connection to the server that gets copied requests: a client of it,
// which does not want to know what it is answered.
type Sink struct {
	m *Mirror

	// What follows is Receive's.
	scan   scanner
	begun  bool // its first SETTINGS have come
	broken error

	// What follows is guarded by the mirror's mu.
	cond    sync.Cond
	own     map[*copied]bool
	streams map[uint32]*copied // those that have a number, by it
	last    uint32             // the highest
	waiting []*copied          // those that wait for a place
	placed  int                // those that have one

	settled bool // its SETTINGS have come
	initial int  // the first window of its streams
	limit   int  // of its streams at once
	credit  int  // the connection's window
	heard   int  // bytes of replies for which the window has not been opened again

	encode  *hpack.Encoder
	encoded bytes.Buffer
	out     []byte    // frames to be written, of no request
	ready   []*copied // that have something to be written
	stalled []*copied // and those that wait for the connection's window

	retired bool // it gets no more requests
	closing bool // nothing more is said behind what can be said now
	over    bool // it has ended
	cut     func()
}

func newSink(m *Mirror) *Sink {
	k := &Sink{m: m, scan: scanner{server: true}, own: map[*copied]bool{}, streams: map[uint32]*copied{}, initial: window, limit: math.MaxInt, credit: window}
	k.cond.L = &m.mu
	k.encode = hpack.NewEncoder(&k.encoded)
	k.encode.SetMaxDynamicTableSizeLimit(maxTable)
	k.out = appendSettings([]byte(Preface), setting{settingPush, 0})
	return k
}

// Next waits until there is something to be written, and appends it to buf; false:
// that was all.
func (k *Sink) Next(buf []byte) ([]byte, bool) {
	k.m.mu.Lock()
	defer k.m.mu.Unlock()
	for {
		if b := k.take(buf); len(b) > len(buf) {
			return b, true
		}
		if k.over || k.closing {
			return nil, false
		}
		k.cond.Wait()
	}
}

// WhenCut says what ends the connection where it has ended for us. f must not wait.
func (k *Sink) WhenCut(f func()) {
	k.m.mu.Lock()
	defer k.m.mu.Unlock()
	if k.cut = f; k.over {
		f()
	}
}

// Ended tells that nothing more is heard of the server. What it has not got it does
// not get.
func (k *Sink) Ended() {
	k.m.mu.Lock()
	defer k.m.mu.Unlock()
	k.end()
}

// Receive takes what the server has said. After an error nothing more is taken: it
// is told why by Next, and Ended is to be called.
func (k *Sink) Receive(b []byte) error {
	if k.broken == nil {
		k.broken = k.receive(b)
	}
	return k.broken
}

func (k *Sink) receive(b []byte) error {
	if !k.begun && len(k.scan.part) == 0 && len(b) > 0 && b[0] != 0 {
		return ErrNotHTTP2 // SETTINGS are shorter
	}
	for {
		f, rest, ok, err := k.scan.next(b)
		if err == nil && !ok {
			return nil
		}
		if err == nil {
			err = k.frame(f)
		}
		if err != nil {
			return err
		}
		b = rest
	}
}

// frame takes one frame.
func (k *Sink) frame(f frame) error {
	if !k.begun && (f.kind != kindSettings || f.has(flagAck)) {
		return ErrNotHTTP2
	}
	k.begun = true
	k.m.mu.Lock()
	defer k.m.mu.Unlock()
	err := k.judge(f)
	if err == nil && len(k.out) > maxControl {
		err = wrong(EnhanceYourCalm, "too much is asked, and the answers are not read")
	}
	var ce *ConnError
	if errors.As(err, &ce) {
		k.tell(appendGoAway(nil, 0, ce.Code, []byte(ce.Why)))
		k.close()
	}
	return err
}

// judge takes one frame. mu is held, as in all that follows. Of replies only their
// length counts, and their end: compression is the server's own concern.
func (k *Sink) judge(f frame) error {
	s := k.streams[f.stream]
	switch f.kind {
	case kindData:
		k.came(s, len(f.payload))
		if f.has(flagEnd) {
			k.answered(s)
		}
	case kindHeaders:
		if f.has(flagEnd) {
			k.answered(s)
		}
	case kindReset:
		if s != nil {
			k.m.forget(s)
		}
	case kindSettings:
		return k.settings(f)
	case kindPush:
		return wrong(ProtocolError, "nobody is to push")
	case kindPing:
		switch {
		case len(f.payload) != 8:
			return wrong(FrameSizeError, "PING is not 8 bytes long")
		case !f.has(flagAck):
			k.tell(appendFrame(nil, kindPing, flagAck, 0, f.payload))
		}
	case kindGoAway:
		return k.goAway(f)
	case kindWindow:
		return k.windowUpdate(f, s)
	}
	return nil
}

// came opens the windows again for n bytes of a reply.
func (k *Sink) came(s *copied, n int) {
	if k.heard += n; k.heard > window/2 {
		k.tell(appendWindow(nil, 0, k.heard))
		k.heard = 0
	}
	if s == nil {
		return
	}
	if s.heard += n; s.heard > window/2 {
		k.tell(appendWindow(nil, s.given, s.heard))
		s.heard = 0
	}
}

// answered is when the reply of s has ended.
func (k *Sink) answered(s *copied) {
	if s == nil {
		return
	}
	if s.answered = true; s.finished {
		k.m.forget(s)
	}
}

func (k *Sink) settings(f frame) error {
	switch {
	case f.has(flagAck) && len(f.payload) > 0, len(f.payload)%6 != 0:
		return wrong(FrameSizeError, "SETTINGS have a wrong length")
	case f.has(flagAck):
		return nil
	case len(f.payload) > 6*maxSettings:
		return wrong(EnhanceYourCalm, "there are too many SETTINGS")
	}
	initial := k.initial
	for b := f.payload; len(b) > 0; b = b[6:] {
		value := binary.BigEndian.Uint32(b[2:])
		switch binary.BigEndian.Uint16(b) {
		case settingTable:
			k.encode.SetMaxDynamicTableSize(min(value, maxTable))
		case settingStreams:
			k.limit = int(min(value, math.MaxInt32))
		case settingWindow:
			if value > maxID {
				return wrong(FlowControlError, "INITIAL_WINDOW_SIZE is too large")
			}
			k.initial = int(value)
		}
	}
	for _, s := range k.streams {
		if s.credit += k.initial - initial; s.credit > maxID {
			return wrong(FlowControlError, "a stream's window is too large")
		}
		k.enqueue(s)
	}
	k.tell(appendFrame(nil, kindSettings, flagAck, 0, nil))
	k.settled = true
	k.admit()
	return nil
}

func (k *Sink) windowUpdate(f frame, s *copied) error {
	if len(f.payload) != 4 {
		return wrong(FrameSizeError, "WINDOW_UPDATE is not 4 bytes long")
	}
	n := int(binary.BigEndian.Uint32(f.payload) & maxID)
	switch {
	case f.stream == 0:
		if k.credit += n; k.credit > maxID {
			return wrong(FlowControlError, "the connection's window is too large")
		}
		stalled := k.stalled
		k.stalled = nil
		for _, s := range stalled {
			s.queued = false
			k.enqueue(s)
		}
	case s == nil:
	case s.credit+n > maxID:
		k.m.cancel(s, FlowControlError)
	default:
		s.credit += n
		k.enqueue(s)
	}
	return nil
}

// goAway takes GOAWAY: further requests get another connection, and so do those
// that have not gone here.
func (k *Sink) goAway(f frame) error {
	if len(f.payload) < 8 {
		return wrong(FrameSizeError, "GOAWAY is too short")
	}
	last := binary.BigEndian.Uint32(f.payload) & maxID
	k.retire()
	var moved []*copied
	for s := range k.own {
		switch {
		case s.given > last:
			k.m.forget(s)
		case s.given == 0:
			moved = append(moved, s)
		}
	}
	slices.SortFunc(moved, func(a, b *copied) int { return int(a.id) - int(b.id) })
	for _, s := range moved {
		k.release(s)
		s.to, s.admitted = nil, false
		k.m.place(s)
	}
	k.drained()
	return nil
}

// retire has k get no more requests.
func (k *Sink) retire() {
	k.retired = true
	if k.m.sink == k {
		k.m.sink = nil
	}
}

// drained ends k when its last request has, if it gets no further ones.
func (k *Sink) drained() {
	if (k.retired || k.m.ending) && len(k.own) == 0 && !k.closing {
		k.retire()
		k.tell(appendGoAway(nil, 0, NoError, nil))
		k.close()
	}
}

// close ends k behind what can be written now.
func (k *Sink) close() {
	k.closing = true
	k.cond.Broadcast()
}

// end ends k at once.
func (k *Sink) end() {
	if k.over {
		return
	}
	k.over = true
	k.retire()
	delete(k.m.all, k)
	for s := range k.own {
		k.m.forget(s)
	}
	k.ready, k.stalled = nil, nil
	k.cond.Broadcast()
	if k.cut != nil {
		k.cut()
	}
}

// tell adds a frame to what is to be written. A server that does not even read
// which requests are cancelled is cut off.
func (k *Sink) tell(frame []byte) {
	if k.over || k.closing {
		return
	}
	if k.out = append(k.out, frame...); len(k.out) > 2*maxControl {
		k.out = nil
		k.end()
		return
	}
	k.cond.Broadcast()
}

// admit gives those that wait a place, as far as there is one.
func (k *Sink) admit() {
	for k.settled && !k.over && len(k.waiting) > 0 && k.placed < k.limit {
		s := k.waiting[0]
		k.waiting = k.waiting[1:]
		s.admitted = true
		k.placed++
		k.enqueue(s)
	}
}

// release ends what s is to k.
func (k *Sink) release(s *copied) {
	if !k.own[s] {
		return
	}
	delete(k.own, s)
	delete(k.streams, s.given)
	is := func(other *copied) bool { return other == s }
	switch {
	case s.admitted:
		k.placed--
	default:
		k.waiting = slices.DeleteFunc(k.waiting, is)
	}
	if s.queued {
		s.queued = false
		k.ready = slices.DeleteFunc(k.ready, is)
		k.stalled = slices.DeleteFunc(k.stalled, is)
	}
	k.admit()
	k.drained()
}

// enqueue sees to it that what there is of s is written.
func (k *Sink) enqueue(s *copied) {
	if s.queued || k.over || !s.admitted || !s.ready() {
		return
	}
	s.queued = true
	k.ready = append(k.ready, s)
	k.cond.Broadcast()
}

// take appends what can be written now, about a batch of it.
func (k *Sink) take(b []byte) []byte {
	b = spill(b, &k.out)
	for len(b) < batch && len(k.ready) > 0 && !k.over {
		s := pop(&k.ready)
		s.queued = false
		b = k.send(b, s)
		k.enqueue(s)
	}
	return b
}

// send writes the first part of s, or as much as is allowed.
func (k *Sink) send(b []byte, s *copied) []byte {
	if !s.ready() { // its window has become smaller
		return b
	}
	first := &s.parts[0]
	switch {
	case first.reset:
		b = appendReset(b, s.given, first.code)
		k.m.forget(s)
	case first.fields != nil:
		if s.given == 0 {
			k.give(s)
		}
		k.encoded.Reset()
		for _, f := range first.fields {
			_ = k.encode.WriteField(f) // of a bytes.Buffer
		}
		b = appendBlock(b, s.given, k.encoded.Bytes(), first.end)
		if k.encoded.Cap() > maxFrame {
			k.encoded = bytes.Buffer{}
		}
		s.pop()
	default:
		n := max(0, min(len(first.data), maxFrame, s.credit, k.credit))
		if n == 0 && len(first.data) > 0 {
			s.queued = true
			k.stalled = append(k.stalled, s)
			return b
		}
		flags := uint8(0)
		if first.end && n == len(first.data) {
			flags = flagEnd
		}
		b = appendFrame(b, kindData, flags, s.given, first.data[:n])
		first.data = first.data[n:]
		s.credit -= n
		k.credit -= n
		s.waits -= n
		k.m.waits -= n
		k.m.o.Memory.Give(n)
		if len(first.data) == 0 {
			s.pop()
		}
	}
	if s.finished && s.answered {
		k.m.forget(s)
	}
	return b
}

// give gives s its number.
func (k *Sink) give(s *copied) {
	k.last += 2
	s.given = k.last - 1
	k.streams[s.given] = s
	s.credit = k.initial
}
