package resume

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"
)

// Types of frames. See docs/protocol.md, part 2.
const (
	typeHello   = 1
	typeWelcome = 2
	typeRefused = 3
	typeData    = 4
	typeAck     = 5
	typePing    = 6
	typePong    = 7
	typeBye     = 8
)

const (
	magic   = "mrdr"
	version = 1

	headerSize = 4        // type, length
	maxData    = 64 << 10 // bytes of a DATA frame without its offset: a few TLS records
	maxText    = 1 << 10  // bytes of a reason
	maxSmall   = 4 << 10  // bytes of any other known frame

	readBuffer = 64 << 10 // bytes taken from a short pipe at once
)

// errProtocol is wrapped by every violation of the frames' rules.
var errProtocol = errors.New("the other end does not keep to the protocol")

// hello is the client's first frame.
type hello struct {
	fresh    bool // the session is new
	session  ID
	epoch    uint64
	received uint64
}

// welcome is the server's answer.
type welcome struct {
	epoch    uint64
	received uint64
}

// appendHeader begins a frame whose payload of n bytes follows.
func appendHeader(b []byte, typ byte, n int) []byte {
	return append(b, typ, byte(n>>16), byte(n>>8), byte(n))
}

func appendHello(b []byte, h hello) []byte {
	b = appendHeader(b, typeHello, len(magic)+2+len(h.session)+16)
	b = append(b, magic...)
	flags := byte(0)
	if h.fresh {
		flags = 1
	}
	b = append(b, version, flags)
	b = append(b, h.session[:]...)
	b = binary.BigEndian.AppendUint64(b, h.epoch)
	return binary.BigEndian.AppendUint64(b, h.received)
}

func parseHello(b []byte) (h hello, err error) {
	if len(b) < len(magic)+2 || string(b[:len(magic)]) != magic {
		return h, fmt.Errorf("%w: no hello", errProtocol)
	}
	if b[4] != version {
		return h, &RefusedError{Code: RefusedVersion, Text: fmt.Sprintf("resuming has version %d here, %d there", version, b[4])}
	}
	if len(b) < len(magic)+2+len(h.session)+16 {
		return h, fmt.Errorf("%w: short hello", errProtocol)
	}
	h.fresh = b[5]&1 != 0
	b = b[6:]
	b = b[copy(h.session[:], b):]
	h.epoch, h.received = binary.BigEndian.Uint64(b), binary.BigEndian.Uint64(b[8:])
	if h.epoch == 0 {
		return h, fmt.Errorf("%w: epoch 0", errProtocol)
	}
	return h, nil
}

func appendWelcome(b []byte, w welcome) []byte {
	b = appendHeader(b, typeWelcome, 17)
	b = append(b, version)
	b = binary.BigEndian.AppendUint64(b, w.epoch)
	return binary.BigEndian.AppendUint64(b, w.received)
}

// parseAnswer reads the payload of a WELCOME or REFUSED frame. A refusal is
// returned as the error.
func parseAnswer(typ byte, b []byte) (w welcome, err error) {
	switch {
	case typ == typeRefused && len(b) >= 1:
		return w, &RefusedError{Code: b[0], Text: string(b[1:min(len(b), 1+maxText)])}
	case typ == typeWelcome && len(b) >= 1 && b[0] != version:
		return w, &RefusedError{Code: RefusedVersion, Text: fmt.Sprintf("resuming has version %d here, %d there", version, b[0])}
	case typ == typeWelcome && len(b) >= 17:
		return welcome{epoch: binary.BigEndian.Uint64(b[1:]), received: binary.BigEndian.Uint64(b[9:])}, nil
	}
	return w, fmt.Errorf("%w: frame of type %d, %d bytes, instead of a welcome", errProtocol, typ, len(b))
}

func appendRefused(b []byte, e *RefusedError) []byte {
	text := e.Text[:min(len(e.Text), maxText)]
	b = appendHeader(b, typeRefused, 1+len(text))
	return append(append(b, e.Code), text...)
}

// appendNumber writes ACK, PING and PONG.
func appendNumber(b []byte, typ byte, v uint64) []byte {
	return binary.BigEndian.AppendUint64(appendHeader(b, typ, 8), v)
}

func appendBye(b []byte, sent uint64, text string) []byte {
	text = text[:min(len(text), maxText)]
	b = appendHeader(b, typeBye, 8+len(text))
	b = binary.BigEndian.AppendUint64(b, sent)
	return append(b, text...)
}

// events is told what a short pipe carries. An error of any method ends the
// pipe.
type events interface {
	// data gives the bytes that have the offset o, in pieces; p is valid
	// during the call.
	data(o uint64, p []byte) error
	ack(o uint64) error
	ping(v uint64) error
	pong(v uint64) error
	bye(sent uint64, text string) error
}

// reader reads a short pipe and remembers when it last heard from it, also in
// the middle of a frame.
type reader struct {
	*bufio.Reader
	rw    io.Reader
	start time.Time
	at    atomic.Int64 // ns since start
}

func newReader(rw io.Reader) *reader {
	r := &reader{rw: rw, start: time.Now()}
	r.Reader = bufio.NewReaderSize(noting{r}, readBuffer)
	return r
}

// heard is when the last byte came.
func (r *reader) heard() time.Time { return r.start.Add(time.Duration(r.at.Load())) }

// noting is what a reader's buffer reads from.
type noting struct{ r *reader }

func (n noting) Read(b []byte) (int, error) {
	k, err := n.r.rw.Read(b)
	if k > 0 {
		n.r.at.Store(int64(time.Since(n.r.start)))
	}
	return k, err
}

// readHeader reads the beginning of a frame.
func readHeader(r *bufio.Reader) (typ byte, n int, err error) {
	b, err := r.Peek(headerSize)
	if err != nil {
		if len(b) > 0 && errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return 0, 0, err
	}
	typ, n = b[0], int(b[1])<<16|int(b[2])<<8|int(b[3])
	_, _ = r.Discard(headerSize)
	return typ, n, nil
}

// readSmall reads the payload of a known frame that is not DATA.
func readSmall(r *bufio.Reader, n int) ([]byte, error) {
	if n > maxSmall {
		return nil, fmt.Errorf("%w: small frame of %d bytes", errProtocol, n)
	}
	b, err := r.Peek(n)
	if err != nil {
		return nil, unexpected(err)
	}
	_, _ = r.Discard(n)
	return b, nil // valid until the next read
}

// readFrames gives what r carries to e until one of them fails. r's buffer
// must hold maxSmall bytes. It allocates nothing.
func readFrames(r *bufio.Reader, e events) error {
	for {
		typ, n, err := readHeader(r)
		if err != nil {
			return err
		}
		switch typ {
		case typeData:
			err = readData(r, n, e)
		case typeAck, typePing, typePong:
			var b []byte
			if b, err = readSmall(r, n); err == nil && n < 8 {
				err = fmt.Errorf("%w: frame of type %d with %d bytes", errProtocol, typ, n)
			}
			if err != nil {
				break
			}
			v := binary.BigEndian.Uint64(b)
			switch typ {
			case typeAck:
				err = e.ack(v)
			case typePing:
				err = e.ping(v)
			default:
				err = e.pong(v)
			}
		case typeBye:
			var b []byte
			if b, err = readSmall(r, n); err == nil && n < 8 {
				err = fmt.Errorf("%w: bye with %d bytes", errProtocol, n)
			}
			if err == nil {
				err = e.bye(binary.BigEndian.Uint64(b), string(b[8:min(n, 8+maxText)]))
			}
		case typeHello, typeWelcome, typeRefused:
			err = fmt.Errorf("%w: frame of type %d after the beginning", errProtocol, typ)
		default: // of a newer release
			_, err = r.Discard(n)
			err = unexpected(err)
		}
		if err != nil {
			return err
		}
	}
}

func readData(r *bufio.Reader, n int, e events) error {
	if n <= 8 || n > 8+maxData {
		return fmt.Errorf("%w: data frame of %d bytes", errProtocol, n)
	}
	b, err := r.Peek(8)
	if err != nil {
		return unexpected(err)
	}
	o := binary.BigEndian.Uint64(b)
	_, _ = r.Discard(8)
	for n -= 8; n > 0; {
		if _, err := r.Peek(1); err != nil { // waits for some bytes
			return unexpected(err)
		}
		b, _ := r.Peek(min(n, r.Buffered()))
		if err := e.data(o, b); err != nil {
			return err
		}
		_, _ = r.Discard(len(b))
		o += uint64(len(b))
		n -= len(b)
	}
	return nil
}

func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
