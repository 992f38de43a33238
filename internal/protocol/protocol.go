// Package protocol turns the messages of a session into bytes and back. It
// opens no sockets and keeps no state.
//
// Both ends of a link use it: the supervisor on the developer's machine and
// the agent beside the target. The bytes are described for other implementers
// in docs/protocol-messages.md; the test vectors are in protocoltest.
//
// A message is: kind (uvarint), length of the body (uvarint), body. The body
// is a sequence of fields in the encoding of Protocol Buffers
// (https://protobuf.dev/programming-guides/encoding/), so that fields which a
// reader does not know are skipped, and so are kinds it does not know by
// whoever reads the length. Decoding never allocates more than the length of
// the body and fails with an error, never a panic, on any input.
package protocol

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// Version of the messages of this build, and the oldest that it still speaks.
// Both ends say theirs in Hello; the session uses the lower maximum, if it is
// not below the higher minimum.
const (
	Version    = 1
	MinVersion = 1
)

// MaxMessage bounds the body of a message in bytes. The largest that anyone
// sends is Data with MaxData bytes, or a page of Entries.
const MaxMessage = 1 << 20

// MaxData bounds the payload of a Data or Datagram message in bytes: a message
// with it stays well below MaxMessage.
const MaxData = 512 << 10

// Kind says what a message is. Kinds are only ever appended, never reused.
type Kind uint16

// Message is anything that may open a stream or be said on it. Messages are
// pointers to the structs of this package.
type Message interface {
	// Kind is the message's number on the wire.
	Kind() Kind
	// fields visits every field once, to write or to read it.
	fields(c *codec)
}

// ErrTooLong is returned for a message whose body exceeds MaxMessage.
var ErrTooLong = errors.New("message is too long")

// UnknownKindError is returned for a kind that this build does not know. The
// message has been read completely; what follows on the stream is intact.
type UnknownKindError struct{ Kind Kind }

func (e *UnknownKindError) Error() string {
	return fmt.Sprintf("message of unknown kind %d: the other end is newer", e.Kind)
}

// Append adds the bytes of m to dst and returns the extended slice.
func Append(dst []byte, m Message) []byte {
	// The body goes behind room for what comes before it: large ones are copied
	// once.
	const room = 2 * binary.MaxVarintLen64
	c := &codec{out: make([]byte, room, 64+room)}
	m.fields(c)
	var head [room]byte
	h := binary.AppendUvarint(head[:0], uint64(m.Kind()))
	h = binary.AppendUvarint(h, uint64(len(c.out)-room))
	b := c.out[room-len(h):]
	copy(b, h)
	if dst == nil {
		return b
	}
	return append(dst, b...)
}

// Read reads one message from r, which should be buffered or cheap to read
// byte by byte: no byte after the message is consumed. At the end of the
// stream it returns io.EOF if no byte of a message was read, otherwise
// io.ErrUnexpectedEOF.
func Read(r io.Reader) (Message, error) {
	return ReadWithin(r, func(int) error { return nil })
}

// ReadWithin is Read that asks reserve before it takes memory for a message's
// body of n bytes; an error of it ends the reading.
func ReadWithin(r io.Reader, reserve func(n int) error) (Message, error) {
	br, ok := r.(io.ByteReader)
	if !ok {
		br = byteReader{r}
	}
	kind, err := binary.ReadUvarint(br)
	if err != nil {
		return nil, err // io.EOF before the first byte, io.ErrUnexpectedEOF after it
	}
	n, err := binary.ReadUvarint(br)
	if err != nil {
		return nil, unexpected(err)
	}
	if n > MaxMessage {
		return nil, fmt.Errorf("kind %d, %d bytes: %w", kind, n, ErrTooLong)
	}
	if err := reserve(int(n)); err != nil {
		return nil, err
	}
	body, err := readBody(r, int(n))
	if err != nil {
		return nil, unexpected(err)
	}
	if kind > 1<<16-1 {
		return nil, &UnknownKindError{Kind: 1<<16 - 1}
	}
	return decode(Kind(kind), body)
}

// firstBody is how many bytes are made ready for a message before they have
// arrived: its length is only a claim.
const firstBody = 16 << 10

// readBody reads n bytes.
func readBody(r io.Reader, n int) ([]byte, error) {
	b := make([]byte, 0, min(n, firstBody))
	for len(b) < n {
		if len(b) == cap(b) { // its beginning has come
			b = append(make([]byte, 0, n), b...)
		}
		k, err := io.ReadFull(r, b[len(b):cap(b)])
		b = b[:len(b)+k]
		if err != nil {
			return nil, err
		}
	}
	return b, nil
}

// Parse decodes the one message that b holds. Byte fields of the result share
// b's memory.
func Parse(b []byte) (Message, error) {
	kind, n := binary.Uvarint(b)
	if n <= 0 || kind > 1<<16-1 {
		return nil, errMalformed
	}
	size, m := binary.Uvarint(b[n:])
	if m <= 0 || size > MaxMessage || uint64(len(b)-n-m) != size {
		return nil, errMalformed
	}
	return decode(Kind(kind), b[n+m:])
}

func decode(kind Kind, body []byte) (Message, error) {
	m := blank(kind)
	if m == nil {
		return nil, &UnknownKindError{Kind: kind}
	}
	if err := parseFields(body, m.fields); err != nil {
		return nil, fmt.Errorf("message of kind %d: %w", kind, err)
	}
	return m, nil
}

func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// byteReader reads single bytes where nothing better is offered.
type byteReader struct{ r io.Reader }

func (b byteReader) ReadByte() (byte, error) {
	var p [1]byte
	_, err := io.ReadFull(b.r, p[:])
	return p[0], err
}

var _ io.ByteReader = (*bufio.Reader)(nil)
