package http2

import (
	"bytes"
	"encoding/binary"
)

// This file is about frames as bytes (RFC 9113 §4.1, §6).

// Preface is what a client begins with (RFC 9113 §3.4).
const Preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

type kind uint8

const (
	kindData kind = iota
	kindHeaders
	kindPriority
	kindReset
	kindSettings
	kindPush
	kindPing
	kindGoAway
	kindWindow
	kindContinuation
)

const (
	flagEnd        = 0x01 // of DATA, HEADERS
	flagAck        = 0x01 // of SETTINGS, PING
	flagEndHeaders = 0x04
	flagPadded     = 0x08
	flagPriority   = 0x20
)

// Settings (RFC 9113 §6.5.2, RFC 8441 §3).
const (
	settingTable   = 0x1
	settingPush    = 0x2
	settingStreams = 0x3
	settingWindow  = 0x4
	settingFrame   = 0x5
	settingList    = 0x6
	settingConnect = 0x8
)

const headSize = 9

// frame is one as it came. Its payload is valid until the scanner's next call.
type frame struct {
	kind    kind
	flags   uint8
	stream  uint32
	payload []byte
}

func (f frame) has(flag uint8) bool { return f.flags&flag != 0 }

// scanner cuts what a peer says into frames.
type scanner struct {
	preface int    // bytes of it that have come
	server  bool   // no preface comes
	most    int    // of a frame's payload; 0: maxFrame
	part    []byte // of a frame that has not come whole
}

// next gives the next whole frame of b and what is behind it; ok is false where
// there is none, and all of b is remembered.
func (s *scanner) next(b []byte) (f frame, rest []byte, ok bool, err error) {
	if !s.server && s.preface < len(Preface) {
		n := min(len(b), len(Preface)-s.preface)
		if !bytes.HasPrefix([]byte(Preface[s.preface:]), b[:n]) {
			return f, nil, false, wrong(ProtocolError, "there is no preface")
		}
		s.preface += n
		b = b[n:]
	}
	if len(s.part) == 0 && cap(s.part) > 2*maxFrame {
		s.part = nil
	}
	if len(s.part) == 0 && len(b) >= headSize { // most frames come whole
		n, err := s.length(b)
		if err != nil {
			return f, nil, false, err
		}
		if len(b) >= headSize+n {
			return parseFrame(b[:headSize+n]), b[headSize+n:], true, nil
		}
	}
	for want := headSize; ; {
		n := min(max(0, want-len(s.part)), len(b))
		s.part = append(s.part, b[:n]...)
		b = b[n:]
		if len(s.part) < want {
			return f, nil, false, nil
		}
		n, err := s.length(s.part)
		if err != nil {
			return f, nil, false, err
		}
		if want = headSize + n; len(s.part) == want {
			break
		}
	}
	f = parseFrame(s.part)
	s.part = s.part[:0]
	return f, b, true, nil
}

// length is that of the payload of the frame that b begins with.
func (s *scanner) length(b []byte) (int, error) {
	n := int(b[0])<<16 | int(b[1])<<8 | int(b[2])
	if n > max(maxFrame, s.most) {
		return 0, wrong(FrameSizeError, "a frame is too long")
	}
	return n, nil
}

func parseFrame(b []byte) frame {
	return frame{kind(b[3]), b[4], binary.BigEndian.Uint32(b[5:]) & maxID, b[headSize:]}
}

// unpadded is the payload of a DATA or HEADERS frame without its padding.
func (f frame) unpadded() ([]byte, error) {
	b := f.payload
	if !f.has(flagPadded) {
		return b, nil
	}
	if len(b) == 0 {
		return nil, wrong(FrameSizeError, "a padded frame is too short")
	}
	pad := int(b[0])
	if b = b[1:]; pad > len(b) {
		return nil, wrong(ProtocolError, "a frame has more padding than payload")
	}
	return b[:len(b)-pad], nil
}

func appendHead(b []byte, length int, k kind, flags uint8, stream uint32) []byte {
	b = append(b, byte(length>>16), byte(length>>8), byte(length), byte(k), flags)
	return binary.BigEndian.AppendUint32(b, stream)
}

func appendFrame(b []byte, k kind, flags uint8, stream uint32, payload []byte) []byte {
	return append(appendHead(b, len(payload), k, flags, stream), payload...)
}

func appendWord(b []byte, k kind, stream, word uint32) []byte {
	return binary.BigEndian.AppendUint32(appendHead(b, 4, k, 0, stream), word)
}

func appendReset(b []byte, stream uint32, code Code) []byte {
	return appendWord(b, kindReset, stream, uint32(code))
}

func appendWindow(b []byte, stream uint32, n int) []byte {
	return appendWord(b, kindWindow, stream, uint32(n))
}

func appendGoAway(b []byte, last uint32, code Code, debug []byte) []byte {
	debug = debug[:min(len(debug), 256)] // it is for people
	b = appendHead(b, 8+len(debug), kindGoAway, 0, 0)
	b = binary.BigEndian.AppendUint32(b, last)
	b = binary.BigEndian.AppendUint32(b, uint32(code))
	return append(b, debug...)
}

// setting is one of a SETTINGS frame.
type setting struct {
	id    uint16
	value uint32
}

func appendSettings(b []byte, all ...setting) []byte {
	b = appendHead(b, 6*len(all), kindSettings, 0, 0)
	for _, s := range all {
		b = binary.BigEndian.AppendUint16(b, s.id)
		b = binary.BigEndian.AppendUint32(b, s.value)
	}
	return b
}

// appendBlock appends a header block in as many frames as it takes.
func appendBlock(b []byte, stream uint32, block []byte, end bool) []byte {
	k, flags := kindHeaders, uint8(0)
	if end {
		flags = flagEnd
	}
	for {
		n := min(len(block), maxFrame)
		if n == len(block) {
			flags |= flagEndHeaders
		}
		b = appendFrame(b, k, flags, stream, block[:n])
		if block = block[n:]; len(block) == 0 {
			return b
		}
		k, flags = kindContinuation, 0
	}
}
