package kube

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/moby/spdystream/spdy"
)

// node is the other end of a pipe, which a test plays by frames.
type node struct {
	t testing.TB
	net.Conn
	*spdy.Framer
}

// frame is what the next frame must be.
func frame[F spdy.Frame](n *node) F {
	n.t.Helper()
	f, err := n.ReadFrame()
	if err != nil {
		n.t.Fatal(err)
	}
	got, ok := f.(F)
	if !ok {
		n.t.Fatalf("got %T %+v, want %T", f, f, got)
	}
	return got
}

func (n *node) send(frames ...spdy.Frame) {
	for _, f := range frames {
		_ = n.WriteFrame(f) // the pipe may have ended by the one before
	}
}

func (n *node) data(id spdy.StreamId, text string) {
	n.send(&spdy.DataFrame{StreamId: id, Data: []byte(text)})
}

func (n *node) fin(id spdy.StreamId) {
	n.send(&spdy.DataFrame{StreamId: id, Flags: spdy.DataFlagFin})
}

// opened makes a pipe; before is what the node sends before it has taken the streams.
func opened(t testing.TB, before func(n *node)) (*pipe, *node) {
	t.Helper()
	near, far := net.Pipe()
	framer, err := spdy.NewFramer(far, far)
	if err != nil {
		t.Fatal(err)
	}
	n := &node{t, far, framer}
	made := make(chan *pipe, 1)
	go func() {
		p, err := newPipe(context.Background(), &bare{Conn: near}, testPort, func(context.Context, string) bool { return false })
		if err != nil {
			t.Error(err)
		}
		made <- p
	}()
	for _, want := range []struct {
		id   spdy.StreamId
		kind string
	}{{faultStream, "error"}, {dataStream, "data"}} {
		s := frame[*spdy.SynStreamFrame](n)
		if h := s.Headers; s.StreamId != want.id || h.Get("streamtype") != want.kind || h.Get("port") != "4711" || h.Get("requestid") != "0" {
			t.Errorf("stream %d opened with %v, want %d of type %s", s.StreamId, h, want.id, want.kind)
		}
		if want.id == faultStream {
			if d := frame[*spdy.DataFrame](n); d.StreamId != faultStream || d.Flags != spdy.DataFlagFin || len(d.Data) != 0 {
				t.Errorf("got %+v, want the end of the fault stream", d)
			}
		}
	}
	if before != nil {
		before(n)
	}
	n.send(&spdy.SynReplyFrame{StreamId: faultStream, Headers: http.Header{}}, &spdy.SynReplyFrame{StreamId: dataStream, Headers: http.Header{}})
	p := <-made
	if p == nil {
		t.FailNow()
	}
	t.Cleanup(func() {
		go io.Copy(io.Discard, far) // its last words
		p.Close()
		far.Close()
	})
	return p, n
}

// TestPipeReads: whatever else a node sends, the data is what is read, until the
// end that the frames say.
func TestPipeReads(t *testing.T) {
	long := strings.Repeat("0123456789", 7000) // more than any buffer
	for _, c := range []struct {
		name string
		node func(n *node)
		want string
		err  string
	}{
		{"in pieces, with others between", func(n *node) {
			n.data(dataStream, "a")
			n.data(5, "of no stream")
			n.data(dataStream, "")
			n.send(&spdy.SettingsFrame{FlagIdValues: []spdy.SettingsFlagIdValue{{Id: 4, Value: 100}}}, &spdy.PingFrame{Id: 7})
			n.data(dataStream, long)
			n.fin(faultStream)
			n.send(&spdy.DataFrame{StreamId: dataStream, Flags: spdy.DataFlagFin, Data: []byte("z")})
		}, "a" + long + "z", "EOF"},
		{"it says why when the data has ended", func(n *node) {
			n.data(dataStream, "a")
			n.fin(dataStream)
			n.data(faultStream, "the port ")
			n.send(&spdy.DataFrame{StreamId: faultStream, Flags: spdy.DataFlagFin, Data: []byte("refuses")})
		}, "a", "port-forward: the port refuses"},
		{"it says why before the data has ended", func(n *node) {
			n.data(faultStream, "the port refuses")
			n.fin(faultStream)
		}, "", "port-forward: the port refuses"},
		{"it says too much", func(n *node) {
			n.data(faultStream, long)
			n.fin(faultStream)
		}, "", "port-forward: " + long[:maxFault]},
		{"cut while it says why", func(n *node) {
			n.data(faultStream, "the port refuses")
			n.Close()
		}, "", "port-forward: the port refuses"},
		{"both streams are reset", func(n *node) {
			n.data(dataStream, "a")
			n.send(&spdy.RstStreamFrame{StreamId: dataStream, Status: spdy.Cancel}, &spdy.RstStreamFrame{StreamId: faultStream, Status: spdy.Cancel})
		}, "a", "EOF"},
		{"cut", func(n *node) { n.data(dataStream, "a"); n.Close() }, "a", "EOF"},
		{"cut in the middle of data", func(n *node) {
			b := binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(nil, dataStream), 10)
			n.Write(append(b, "abc"...))
			n.Close()
		}, "abc", "EOF"},
		{"no SPDY", func(n *node) { n.Write([]byte("\x80HTTP/1.1 400 Bad Request")); n.Close() }, "", "EOF"},
		{"a large frame that is not data", func(n *node) {
			n.Write([]byte("\x80\x03\x00\x04\x00\xff\xff\xff"))
			n.Write(make([]byte, 1<<24-1))
		}, "", "EOF"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, n := opened(t, nil)
			played := make(chan struct{})
			go func() { defer close(played); c.node(n) }()
			var got []byte
			var err error
			for b := make([]byte, 4<<10); err == nil; {
				var k int
				k, err = p.Read(b)
				got = append(got, b[:k]...)
			}
			if string(got) != c.want || err.Error() != c.err {
				t.Errorf("read %d bytes, want %d; %v, want %s", len(got), len(c.want), err, c.err)
			}
			if _, again := p.Read(make([]byte, 1)); again != err {
				t.Errorf("another Read: %v, want the same", again)
			}
			if strings.HasPrefix(c.err, "port-forward") {
				if _, werr := p.Write([]byte("x")); werr != err {
					t.Errorf("Write: %v, want %v", werr, err)
				}
			}
			p.cut()
			<-played
		})
	}
}

// TestPipeOpens where the node says more before it takes the streams.
func TestPipeOpens(t *testing.T) {
	p, n := opened(t, func(n *node) { n.send(&spdy.PingFrame{Id: 9}); n.data(5, "of no stream") })
	go n.data(dataStream, "a")
	b := make([]byte, 10)
	if k, err := p.Read(b); string(b[:k]) != "a" || err != nil {
		t.Errorf("read %q, %v", b[:k], err)
	}
}

func TestPipeWrites(t *testing.T) {
	p, n := opened(t, nil)
	sent := bytes.Repeat([]byte("0123456789abcdef"), 5000)
	wrote := make(chan error, 1)
	go func() { _, err := p.Write(sent); wrote <- err }()
	var got []byte
	for len(got) < len(sent) {
		f := frame[*spdy.DataFrame](n)
		if f.StreamId != dataStream || f.Flags != 0 || len(f.Data) == 0 || len(f.Data) > maxFrame {
			t.Fatalf("frame of stream %d, flags %d, %d bytes", f.StreamId, f.Flags, len(f.Data))
		}
		got = append(got, f.Data...)
	}
	if !bytes.Equal(got, sent) {
		t.Error("other bytes arrive")
	}
	if err := <-wrote; err != nil {
		t.Error(err)
	}
	go p.Close()
	if f := frame[*spdy.DataFrame](n); f.StreamId != dataStream || f.Flags != spdy.DataFlagFin {
		t.Errorf("got %+v, want the end of the data", f)
	}
	frame[*spdy.GoAwayFrame](n)
}

// TestPipeAnswersPings, also while somebody writes, who does it then.
func TestPipeAnswersPings(t *testing.T) {
	p, n := opened(t, nil)
	read := make(chan error, 1)
	go func() { _, err := io.ReadFull(p, make([]byte, 2)); read <- err }()
	n.send(&spdy.PingFrame{Id: 2})
	if f := frame[*spdy.PingFrame](n); f.Id != 2 {
		t.Errorf("answer to %d, want 2", f.Id)
	}
	wrote := make(chan error, 1)
	go func() { _, err := p.Write([]byte("x")); wrote <- err }()
	var first [1]byte
	n.Read(first[:]) // it is writing
	n.send(&spdy.PingFrame{Id: 4})
	n.data(dataStream, "ab") // the ping has been read before it
	if err := <-read; err != nil {
		t.Error(err)
	}
	rest := make([]byte, frameHeader)
	if _, err := io.ReadFull(n, rest); err != nil || rest[frameHeader-1] != 'x' {
		t.Fatalf("data %q, %v", rest, err)
	}
	if f := frame[*spdy.PingFrame](n); f.Id != 4 {
		t.Errorf("answer to %d, want 4", f.Id)
	}
	if err := <-wrote; err != nil {
		t.Error(err)
	}
}

// TestPipeAllocates nothing for what it carries.
func TestPipeAllocates(t *testing.T) {
	p, n := opened(t, nil)
	go io.Copy(n.Conn, n.Conn) // what it sends comes back as it is
	b := make([]byte, 20<<10)
	done := make(chan error)
	if got := testing.AllocsPerRun(100, func() {
		go func() { _, err := p.Write(b); done <- err }()
		if _, err := io.ReadFull(p, b); err != nil {
			t.Fatal(err)
		}
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}); got > 4 { // of the goroutine
		t.Errorf("%v allocations for %d bytes there and back", got, len(b))
	}
}

func TestPipeIsNotOpened(t *testing.T) {
	t.Run("cut", func(t *testing.T) {
		near, far := net.Pipe()
		go func() { far.Read(make([]byte, 1)); far.Close() }()
		p, err := newPipe(t.Context(), &bare{Conn: near}, testPort, nil)
		if p != nil || err == nil {
			t.Errorf("newPipe = %v, %v", p, err)
		}
	})
	t.Run("given up", func(t *testing.T) {
		near, far := net.Pipe()
		ctx, cancel := context.WithCancel(t.Context())
		go func() { far.Read(make([]byte, 1)); cancel() }()
		if p, err := newPipe(ctx, &bare{Conn: near}, testPort, nil); p != nil || !errors.Is(err, context.Canceled) {
			t.Errorf("newPipe = %v, %v", p, err)
		}
		far.Close()
	})
}
