package link

import (
	"encoding/binary"
	"errors"
)

// Types and flags of frames. See docs/protocol.md, part 3.
const (
	typeOpen   = 1
	typeData   = 2
	typeWindow = 3
	typeStop   = 4
	typeReset  = 5
	typePing   = 6
	typePong   = 7
	typeGoAway = 8

	flagFin  = 1
	flagBulk = 2
)

const (
	headerSize = 12 // type, flags, length of the payload, stream

	// maxPayload bounds a frame in bytes: interactive work never waits for
	// more than the rest of one, and it fills a TLS record.
	maxPayload = 16 << 10

	// maxReason bounds the text of a GOAWAY in bytes.
	maxReason = 1 << 10
)

// errProtocol is wrapped by the reason for which a link ends when its other
// end breaks the rules.
var errProtocol = errors.New("the other end does not keep to the protocol")

// header is the beginning of a frame.
type header struct {
	typ, flags byte
	n          int // bytes of payload
	stream     uint64
}

func parseHeader(b []byte) header {
	return header{
		typ:    b[0],
		flags:  b[1],
		n:      int(binary.BigEndian.Uint16(b[2:])),
		stream: binary.BigEndian.Uint64(b[4:]),
	}
}

func appendHeader(b []byte, h header) []byte {
	b = append(b, h.typ, h.flags, byte(h.n>>8), byte(h.n))
	return binary.BigEndian.AppendUint64(b, h.stream)
}

// appendNumber writes WINDOW and RESET.
func appendNumber(b []byte, typ byte, stream uint64, v uint32) []byte {
	b = appendHeader(b, header{typ: typ, n: 4, stream: stream})
	return binary.BigEndian.AppendUint32(b, v)
}

// appendToken writes PING and PONG.
func appendToken(b []byte, typ byte, v uint64) []byte {
	b = appendHeader(b, header{typ: typ, n: 8})
	return binary.BigEndian.AppendUint64(b, v)
}

func appendGoAway(b []byte, code uint32, reason string) []byte {
	reason = reason[:min(len(reason), maxReason)]
	b = appendHeader(b, header{typ: typeGoAway, n: 4 + len(reason)})
	b = binary.BigEndian.AppendUint32(b, code)
	return append(b, reason...)
}
