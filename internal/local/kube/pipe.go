package kube

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/moby/spdystream/spdy"
	corev1 "k8s.io/api/core/v1"
)

// A port-forward is a connection of SPDY/3.1 with two streams that the client
// opens, one for the node's complaint and one for the data
// (https://www.chromium.org/spdy/spdy-protocol/spdy-protocol-draft3-1/). The data
// goes from the carrier to who reads the pipe and from who writes it to the carrier,
// without a goroutine, a queue or a buffer in between, as client-go's streams have
// them for each frame: they cost as much as the ciphers. What else there is in SPDY
// the library reads and writes.
const (
	faultStream = 1
	dataStream  = 3

	// frameHeader is the length of every frame's header: of a data frame's, the
	// stream, whose first bit is 0, the flags, and in three bytes the length of what
	// follows.
	frameHeader = 8
	// maxFrame bounds the data of a frame that is sent in bytes: as much as the
	// buffers of the WebSocket tunnel hold on the way, and with its header and the
	// message's, of as many bytes again, two full TLS records.
	maxFrame = 32<<10 - 2*frameHeader
	// frameRead is what is read ahead of frames at most, in bytes: headers, and what
	// is small. The rest of a large frame is read to where it is wanted.
	frameRead = 512
	// maxControl bounds what the library reads of one frame that is not data, in
	// bytes: those of nodes have some hundred.
	maxControl = 64 << 10
	// maxFault bounds the text of a failed forwarding in bytes.
	maxFault = 4 << 10
)

// A pipe is one forwarded connection as a byte pipe.
type pipe struct {
	carrier carrier
	low     *socket // below TLS; nil: there is none
	cut     func()  // ends carrier without a word

	ended  func(context.Context, string) bool // whether the node's words mean that the agent has ended
	life   context.Context                    // alive until cut
	once   sync.Once
	closed atomic.Bool // by Close

	fault     error         // what the node said; read it after faultsEnd
	faultsEnd chan struct{} // closed when nothing more comes on faultStream

	reading    sync.Mutex    // held by who reads the carrier; guards what follows
	in         *bufio.Reader // of carrier
	control    *spdy.Framer  // of in, and to words
	replies    int           // streams that the node has taken
	left       int           // bytes of the current frame that belong to who reads
	dataEnds   bool          // after them
	faultEnded bool          // faultsEnd is closed
	text       []byte        // of faultStream
	end        error         // why there is nothing more to read

	writing sync.Mutex        // held by who uses carrier.send; guards what follows
	head    [frameHeader]byte // of a data frame
	words   bytes.Buffer      // frames that are not data

	ping atomic.Uint32 // the node's that is to be answered; 0: none
}

// newPipe owns c.
func newPipe(ctx context.Context, c carrier, port int, ended func(context.Context, string) bool) (*pipe, error) {
	life, die := context.WithCancel(context.WithoutCancel(ctx))
	p := &pipe{carrier: c, ended: ended, life: life, faultsEnd: make(chan struct{}), in: bufio.NewReaderSize(c, frameRead)}
	if t, ok := c.(*tunnel); ok {
		p.low = t.below
	}
	p.cut = sync.OnceFunc(func() {
		die()
		c.cut()
	})
	ctx, cancel := context.WithTimeout(ctx, openTime)
	defer cancel()
	abandoned := context.AfterFunc(ctx, p.cut)
	err := p.open(port)
	if !abandoned() {
		err = context.Cause(ctx)
	}
	if err != nil {
		p.cut()
		return nil, err
	}
	return p, nil
}

// open asks for both streams at once and waits until the node has taken them. No
// pings here: the link above has its own, which reach the agent.
func (p *pipe) open(port int) (err error) {
	p.control, err = spdy.NewFramerWithOptions(&p.words, p.in, spdy.WithMaxControlFramePayloadSize(maxControl))
	if err != nil {
		return err
	}
	for _, s := range []struct {
		id   spdy.StreamId
		kind string
	}{{faultStream, corev1.StreamTypeError}, {dataStream, corev1.StreamTypeData}} {
		headers := http.Header{}
		headers.Set(corev1.PortHeader, strconv.Itoa(port))
		headers.Set(corev1.PortForwardRequestIDHeader, "0")
		headers.Set(corev1.StreamType, s.kind)
		if err := p.control.WriteFrame(&spdy.SynStreamFrame{StreamId: s.id, Headers: headers}); err != nil {
			return err
		}
		if s.id == faultStream { // we only listen there
			p.words.Write(p.header(s.id, spdy.DataFlagFin, 0))
		}
	}
	if err := p.flushWords(); err != nil {
		return err
	}
	for p.end == nil && p.replies < 2 && p.left == 0 && !p.dataEnds { // Read says what came of it
		p.end = p.next()
	}
	if p.fault == nil {
		return p.end
	}
	return nil
}

// header begins a data frame of n bytes; it is valid until the next. writing is held.
func (p *pipe) header(id spdy.StreamId, flags spdy.DataFlags, n int) []byte {
	binary.BigEndian.PutUint32(p.head[:], uint32(id))
	binary.BigEndian.PutUint32(p.head[4:], uint32(flags)<<24|uint32(n))
	return p.head[:]
}

func (p *pipe) Read(b []byte) (int, error) {
	p.reading.Lock()
	defer p.reading.Unlock()
	n, err := p.read(b)
	if err != nil && p.closed.Load() {
		err = net.ErrClosed
	}
	return n, err
}

// read is Read for who holds reading.
func (p *pipe) read(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	for p.left == 0 {
		if p.end == nil && p.dataEnds {
			p.end = p.whyEnded()
		}
		if p.end == nil {
			p.end = p.next()
		}
		if p.end != nil {
			return 0, p.end
		}
	}
	n, err := p.in.Read(b[:min(len(b), p.left)])
	p.left -= n
	if err != nil {
		p.left, p.end = 0, p.lost()
		return n, p.end
	}
	return n, nil
}

// whyEnded is why the data stream has ended: the node says so on the other one,
// at the same time.
func (p *pipe) whyEnded() error {
	timer := time.AfterFunc(faultTime, p.cut)
	defer timer.Stop()
	for !p.faultEnded {
		if p.next() != nil {
			break
		}
	}
	return p.lost()
}

// lost is the end of everything: what the node has said, or io.EOF. How the carrier
// ended says nothing that matters: the link above tells the agent's end from a loss.
func (p *pipe) lost() error {
	if err := p.faulted(); err != nil {
		return err
	}
	return io.EOF
}

// next handles the next frame; of the data stream's, its header.
func (p *pipe) next() error {
	h, err := p.in.Peek(frameHeader)
	if err != nil {
		return p.lost()
	}
	if h[0]&0x80 != 0 {
		return p.nextControl()
	}
	id, rest := binary.BigEndian.Uint32(h), binary.BigEndian.Uint32(h[4:])
	n, ends := int(rest&(1<<24-1)), rest>>24&uint32(spdy.DataFlagFin) != 0
	_, _ = p.in.Discard(frameHeader)
	switch id {
	case dataStream:
		p.left, p.dataEnds = n, ends
		return nil
	case faultStream:
		k := min(n, maxFault-len(p.text))
		at := len(p.text)
		p.text = append(p.text, make([]byte, k)...)
		if _, err := io.ReadFull(p.in, p.text[at:]); err != nil {
			return p.lost()
		}
		if _, err := p.in.Discard(n - k); err != nil {
			return p.lost()
		}
		if ends {
			return p.faulted()
		}
		return nil
	}
	if _, err := p.in.Discard(n); err != nil {
		return p.lost()
	}
	return nil
}

// nextControl handles a frame that is not data.
func (p *pipe) nextControl() error {
	f, err := p.control.ReadFrame()
	if err != nil {
		return p.lost()
	}
	switch f := f.(type) {
	case *spdy.SynReplyFrame:
		p.replies++
		if f.CFHeader.Flags&spdy.ControlFlagFin != 0 {
			return p.streamEnded(f.StreamId)
		}
	case *spdy.RstStreamFrame:
		return p.streamEnded(f.StreamId)
	case *spdy.PingFrame:
		if f.Id%2 == 0 { // not an answer
			p.ping.Store(f.Id)
			if p.writing.TryLock() { // who holds it answers
				_ = p.flushWords()
				p.writing.Unlock()
			}
		}
	}
	return nil
}

func (p *pipe) streamEnded(id spdy.StreamId) error {
	if id == faultStream {
		return p.faulted()
	}
	p.dataEnds = true
	return nil
}

// faulted is the end of the fault stream: with a text the node cannot forward ("the
// port refuses", for instance, if the agent has ended), and the pipe is of no use.
// The node's words for that are its runtime's; what they mean says ended. An end
// without a word says nothing; a cut shows at the data stream.
func (p *pipe) faulted() error {
	if p.faultEnded {
		return p.fault
	}
	p.faultEnded = true
	if len(p.text) > 0 {
		p.fault = fmt.Errorf("port-forward: %s", p.text)
		if p.ended(p.life, string(p.text)) {
			p.fault = fmt.Errorf("%w: %w", ErrGone, p.fault)
		}
	}
	close(p.faultsEnd) // before the cut, so that who sees the cut sees the reason
	if p.fault != nil {
		p.cut()
	}
	return p.fault
}

func (p *pipe) Write(b []byte) (int, error) {
	p.writing.Lock()
	defer p.writing.Unlock()
	select {
	case <-p.faultsEnd: // what the socket still takes reaches nobody
		if p.fault != nil {
			return 0, p.explained(p.fault)
		}
	default:
	}
	if p.low == nil {
		return p.write(b)
	}
	p.low.Hold()
	n, err := p.write(b)
	if ferr := p.low.Flush(); err == nil && ferr != nil {
		return 0, p.explained(ferr)
	}
	return n, err
}

// write sends b in frames. writing is held.
func (p *pipe) write(b []byte) (int, error) {
	for n := 0; n < len(b); {
		part := b[n:min(len(b), n+maxFrame)]
		if err := p.carrier.send(p.header(dataStream, 0, len(part)), part); err != nil {
			return n, p.explained(err)
		}
		n += len(part)
	}
	if err := p.flushWords(); err != nil {
		return len(b), p.explained(err)
	}
	return len(b), nil
}

// flushWords sends what is not data. writing is held.
func (p *pipe) flushWords() error {
	if id := p.ping.Swap(0); id != 0 {
		_ = p.control.WriteFrame(&spdy.PingFrame{Id: id}) // to memory
	}
	if p.words.Len() == 0 {
		return nil
	}
	defer p.words.Reset()
	return p.carrier.send(p.words.Bytes(), nil)
}

// explained puts what the node said in place of the bare end of the connection,
// which whoever reads may hear of a little later.
func (p *pipe) explained(err error) error {
	if p.closed.Load() {
		return net.ErrClosed
	}
	timer := time.NewTimer(faultTime)
	defer timer.Stop()
	select {
	case <-p.faultsEnd:
		if p.fault != nil {
			err = p.fault
		}
	case <-timer.C:
	}
	if p.closed.Load() {
		return net.ErrClosed
	}
	return err
}

func (p *pipe) Close() error {
	p.once.Do(func() {
		p.closed.Store(true)
		// Whatever below blocks on a network that takes nothing ends with this.
		timer := time.AfterFunc(closeTime, p.cut)
		defer timer.Stop()
		p.writing.Lock()
		defer p.writing.Unlock()
		p.words.Write(p.header(dataStream, spdy.DataFlagFin, 0)) // the agent sees the end after the last byte
		_ = p.control.WriteFrame(&spdy.GoAwayFrame{Status: spdy.GoAwayOK})
		_ = p.flushWords()
		_ = p.carrier.Close()
		p.cut()
		p.reading.Lock() // until nobody reads
		p.reading.Unlock()
	})
	return nil
}
