package incoming

import (
	"bytes"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/mirrord-go/mirrord/internal/budget"
)

// asking is a client of HTTP/2 that says its requests itself.
type asking struct {
	*http2.Framer
	to *hpack.Encoder
	b  bytes.Buffer
}

func asks2(t *testing.T, c *net.TCPConn) *asking {
	t.Helper()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	ask(t, c, http2.ClientPreface)
	a := &asking{Framer: http2.NewFramer(c, c)}
	a.to = hpack.NewEncoder(&a.b)
	_ = a.WriteSettings()
	return a
}

func (a *asking) post(id uint32, path string) {
	a.b.Reset()
	for _, f := range [][2]string{{":method", "POST"}, {":scheme", "http"}, {":authority", "a"}, {":path", path}} {
		_ = a.to.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]})
	}
	_ = a.WriteHeaders(http2.HeadersFrameParam{StreamID: id, EndHeaders: true, BlockFragment: a.b.Bytes()})
}

// A window that was closed for want of memory opens when there is some, though nobody
// says anything.
func TestWindowOpensWhenMemoryComes(t *testing.T) {
	st := modern(t, stageOptions{orig: func(c net.Conn) { // it takes no bodies
		f := http2.NewFramer(c, c)
		_ = f.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
		_, _ = io.Copy(io.Discard, c)
	}})
	room := budget.New(4<<20).Share(0, budget.All)
	st.hub.o.Memory.Parsed = room
	f := asks2(t, st.client())
	for id := uint32(1); id < 9; id += 2 {
		f.post(id, "/other")
	}
	comes(t, "the requests", func() bool { return room.Used() >= 4*4<<10 })
	held := room.Free()
	room.Take(held)
	for id := uint32(1); id < 9; id += 2 {
		_ = f.WriteData(id, false, make([]byte, 16<<10-1))
	}
	_ = f.WritePing(false, [8]byte{})
	opens := func() (before []http2.FrameType) { // what comes until the window opens, or PING is answered
		for {
			got, err := f.ReadFrame()
			if err != nil {
				t.Fatalf("after %v: %v", before, err)
			}
			before = append(before, got.Header().Type)
			switch got := got.(type) {
			case *http2.WindowUpdateFrame:
				return before
			case *http2.PingFrame:
				if got.IsAck() {
					return before
				}
			}
		}
	}
	if got := opens(); got[len(got)-1] != http2.FramePing {
		t.Fatalf("without memory the window opens: %v", got)
	}
	room.Give(held)
	if got := opens(); len(got) != 1 || got[0] != http2.FrameWindowUpdate {
		t.Errorf("with memory comes %v", got)
	}
}

// deaf is a connection whose other end stops reading at some point.
type deaf struct {
	*net.TCPConn
	full    chan struct{} // closed by a test: nothing more is taken
	blocked chan struct{} // closed when something is in vain
	late    chan struct{} // closed with a deadline
	block   sync.Once
	once    sync.Once
}

func (s *deaf) Write(b []byte) (int, error) {
	select {
	case <-s.full:
		s.block.Do(func() { close(s.blocked) })
		<-s.late
		return 0, os.ErrDeadlineExceeded
	default:
		return s.TCPConn.Write(b)
	}
}

func (s *deaf) SetWriteDeadline(at time.Time) error {
	s.once.Do(func() { time.AfterFunc(time.Until(at), func() { close(s.late) }) })
	return s.TCPConn.SetWriteDeadline(at)
}

// The connection of a server that does not read which streams are cancelled is really
// closed.
func TestServerThatDoesNotReadIsCut(t *testing.T) {
	conn := &deaf{full: make(chan struct{}), blocked: make(chan struct{}), late: make(chan struct{})}
	asked, flooded, ended := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	st := modern(t, stageOptions{
		dialed: func(c *net.TCPConn) net.Conn {
			conn.TCPConn = c
			return conn
		},
		orig: func(c net.Conn) {
			_, _ = io.ReadFull(c, make([]byte, len(http2.ClientPreface)))
			f := http2.NewFramer(c, c)
			_ = f.WriteSettings()
			for {
				got, err := f.ReadFrame()
				if err != nil {
					ended <- err
					return
				}
				if got.Header().Type == http2.FrameHeaders {
					break
				}
			}
			close(asked)
			<-conn.full
			_ = f.WritePing(false, [8]byte{}) // the answer is in vain
			<-conn.blocked
			for range (64 << 10) / 17 { // as many answers wait as may
				_ = f.WritePing(false, [8]byte{})
			}
			_, _ = io.WriteString(c, "\x00\x00\x05\x01\x04\x00\x00\x00\x01\x48\x03103") // an interim reply behind them
			close(flooded)
			_, err := io.Copy(io.Discard, c)
			ended <- err
		},
	})
	c := st.client()
	f := asks2(t, c)
	f.post(1, "/local") // it keeps the client's connection
	f.post(3, "/other")
	within(t, "a request", asked)
	close(conn.full)
	within(t, "the pings", flooded)
	for {
		got, err := f.ReadFrame()
		if err != nil {
			t.Fatal(err)
		}
		if got.Header().Type == http2.FrameHeaders {
			break
		}
	}
	select {
	case err := <-ended:
		t.Fatalf("it ends before a stream is cancelled: %v", err)
	default:
	}
	_ = f.WriteRSTStream(3, http2.ErrCodeCancel)
	within(t, "the end of its connection", ended)
	c.Close()
	if got := st.orig.said(); strings.Count(got, http2.ClientPreface) != 1 {
		t.Errorf("it has been connected more than once")
	}
}
