package http2

import (
	"strings"

	"golang.org/x/net/http2/hpack"
)

// This file is about connections that are met in their middle: where a frame
// begins is not written anywhere.

// maxBefore is how many frames may stand in front of a request in one segment:
// clients open windows and answer pings with what they ask.
const maxBefore = 16

// Begins reports whether b, a segment from the middle of what a client says, begins
// with a frame, and has a request in it behind no more than what concerns windows,
// settings, pings and ends of other requests. The request must be whole, in one
// frame, and be decoded, with fields that nobody here knows; what stands behind it
// must look like frames. Of most of what is none it looks at no more than nine bytes.
func Begins(b []byte) bool {
	for range maxBefore {
		f, rest, ok := cut(b)
		switch {
		case !ok:
			return false
		case f.kind == kindHeaders:
			return f.asks() && follows(rest)
		case !f.aside():
			return false
		}
		b = rest
	}
	return false
}

// cut gives the frame that b begins with, if it is whole and has a usual length.
func cut(b []byte) (f frame, rest []byte, ok bool) {
	var s scanner
	if len(b) < headSize || b[5]&0x80 != 0 {
		return f, nil, false
	}
	n, err := s.length(b)
	if err != nil || len(b) < headSize+n {
		return f, nil, false
	}
	return parseFrame(b[:headSize+n]), b[headSize+n:], true
}

// aside reports whether f is one of those that may stand in front of a request.
func (f frame) aside() bool {
	n, ofStream := len(f.payload), f.stream%2 == 1
	switch f.kind {
	case kindWindow:
		return n == 4 && f.flags == 0 && (ofStream || f.stream == 0)
	case kindReset:
		return n == 4 && f.flags == 0 && ofStream
	case kindPriority:
		return n == 5 && f.flags == 0 && ofStream
	case kindPing:
		return n == 8 && f.flags&^flagAck == 0 && f.stream == 0
	case kindSettings:
		return n%6 == 0 && f.flags&^flagAck == 0 && f.stream == 0
	}
	return false
}

// asks reports whether f, HEADERS, is a whole request.
func (f frame) asks() bool {
	const known = flagEnd | flagEndHeaders | flagPadded | flagPriority
	if f.stream%2 == 0 || f.flags&^known != 0 || !f.has(flagEndHeaders) {
		return false
	}
	var p blocks
	p.decode = hpack.NewDecoder(maxTable, p.field)
	unknown(p.decode)
	l, whole, err := p.fragment(f)
	if err != nil || !whole || l.long {
		return false
	}
	scheme := false // which everybody names by a number that never changes (RFC 7541, Appendix A)
	for _, field := range l.fields {
		switch {
		case field.Name == ":scheme":
			scheme = field.Value == "http" || field.Value == "https"
		case field.Name != "" && !token(strings.TrimPrefix(field.Name, ":")):
			return false
		}
	}
	return scheme
}

// follows reports whether b looks like frames, of which the last may come in part.
func follows(b []byte) bool {
	s := scanner{most: maxSeen}
	for len(b) >= headSize {
		n, err := s.length(b)
		if err != nil || b[5]&0x80 != 0 {
			return false
		}
		b = b[min(headSize+n, len(b)):]
	}
	return true
}
