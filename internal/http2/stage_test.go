package http2

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	xhttp2 "golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/mirrord-go/mirrord/internal/budget"
	"github.com/mirrord-go/mirrord/internal/leak"
)

func TestMain(m *testing.M) { os.Exit(leak.Main(m)) }

// stage is a hop without sockets: a test says what each peer says, and looks what it
// is told. Paths below /local are a local's, those below /body wait for their body,
// and are local's if that is "mine".
type stage struct {
	t      testing.TB
	hop    *Hop
	client *end
	made   []*end // servers, in the order in which they are connected
	memory *budget.Share

	starved atomic.Int32 // how often memory was asked for
}

// end is the far end of a peer.
type end struct {
	t     testing.TB
	p     *Peer
	heard bytes.Buffer
	in    *xhttp2.Framer // reads heard
	said  bytes.Buffer
	out   *xhttp2.Framer // writes said
	enc   *hpack.Encoder
	list  bytes.Buffer
	err   error // of the last Receive

	passes bool // it may be told what is malformed, since others said it
}

func newEnd(t testing.TB, p *Peer) *end {
	e := &end{t: t, p: p}
	e.in = xhttp2.NewFramer(nil, &e.heard)
	e.in.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	e.out = xhttp2.NewFramer(&e.said, nil)
	e.out.AllowIllegalWrites = true
	e.enc = hpack.NewEncoder(&e.list)
	return e
}

func newStage(t testing.TB) *stage {
	return newStageWith(t, budget.New(64<<20).Share(0, budget.All))
}

func newStageWith(t testing.TB, memory *budget.Share) *stage {
	st := emptyStage(t, memory)
	st.hop.Original()
	return st
}

// emptyStage is one whose original has not been asked for.
func emptyStage(t testing.TB, memory *budget.Share) *stage {
	st := &stage{t: t, memory: memory}
	st.hop = New(Options{
		Memory: memory,
		Route: func(q *Request) Verdict {
			switch {
			case !q.Understood:
				return Verdict{}
			case strings.HasPrefix(q.Target, "/local"):
				return Verdict{To: "local"}
			case strings.HasPrefix(q.Target, "/guest"):
				return Verdict{To: "guest"}
			case strings.HasPrefix(q.Target, "/body") && !q.Asked:
				return Verdict{Wait: true, Size: 100_000, Time: time.Hour}
			case strings.HasPrefix(q.Target, "/slow") && !q.Asked:
				return Verdict{Wait: true, Size: 100, Time: time.Millisecond}
			case string(q.Body) == "mine":
				return Verdict{To: "local"}
			}
			return Verdict{}
		},
		Connect: func(p *Peer) { st.made = append(st.made, newEnd(t, p)) },
		Starved: func() { st.starved.Add(1) },
	})
	st.client = newEnd(t, st.hop.Client())
	return st
}

// begun is a stage whose client and original have exchanged their first words.
func begun(t testing.TB, original ...xhttp2.Setting) *stage {
	t.Helper()
	st := newStage(t)
	st.client.raw(Preface)
	st.client.say(func(f *xhttp2.Framer) { _ = f.WriteSettings() })
	st.orig().greet(original...)
	st.client.told()
	return st
}

// end checks that nothing is held when all is over.
func (st *stage) end() {
	st.t.Helper()
	st.hop.Close()
	st.hop.Wait()
	if n := st.memory.Used(); n != 0 {
		st.t.Errorf("%d bytes are held at the end", n)
	}
}

func (st *stage) orig() *end { return st.server(nil) }

// server is the newest connection to d.
func (st *stage) server(d Destination) *end {
	st.t.Helper()
	for _, e := range slices.Backward(st.made) {
		if e.p.To() == d {
			return e
		}
	}
	st.t.Fatalf("%v is not connected", d)
	return nil
}

// greet says a server's first word, and forgets what it was told.
func (e *end) greet(all ...xhttp2.Setting) {
	e.say(func(f *xhttp2.Framer) { _ = f.WriteSettings(all...) })
	e.told()
}

// raw says some bytes.
func (e *end) raw(s string) error {
	e.err = e.p.Receive([]byte(s))
	return e.err
}

// say says what f writes.
func (e *end) say(f func(*xhttp2.Framer)) error {
	e.said.Reset()
	f(e.out)
	return e.raw(e.said.String())
}

// head says a header block: fields are names and values by turns.
func (e *end) head(id uint32, ends bool, fields ...string) error {
	return e.say(func(f *xhttp2.Framer) {
		_ = f.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: id, EndStream: ends, EndHeaders: true, BlockFragment: e.block(fields...)})
	})
}

func (e *end) block(fields ...string) []byte {
	e.list.Reset()
	for i := 0; i < len(fields); i += 2 {
		_ = e.enc.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1], Sensitive: strings.HasPrefix(fields[i], "secret")})
	}
	return e.list.Bytes()
}

// ask opens a stream.
func (e *end) ask(id uint32, path string, ends bool, more ...string) error {
	return e.head(id, ends, append([]string{":method", "GET", ":scheme", "http", ":authority", "a", ":path", path}, more...)...)
}

func (e *end) data(id uint32, text string, ends bool) error {
	return e.say(func(f *xhttp2.Framer) { _ = f.WriteData(id, ends, []byte(text)) })
}

// told is all that the peer is told now, a frame a line.
func (e *end) told() string {
	e.t.Helper()
	h := e.p.hop
	for {
		h.mu.Lock()
		b := e.p.take(nil)
		h.unlock()
		if len(b) == 0 {
			break
		}
		e.heard.Write(b)
	}
	return e.frames()
}

// frames is what has been heard, a frame a line.
func (e *end) frames() string {
	e.t.Helper()
	if bytes.HasPrefix(e.heard.Bytes(), []byte(Preface)) {
		e.heard.Next(len(Preface))
	}
	var all []string
	for {
		f, err := e.in.ReadFrame()
		if errors.Is(err, io.EOF) {
			return strings.Join(all, "\n")
		}
		var malformed xhttp2.StreamError
		if e.passes && errors.As(err, &malformed) {
			continue
		}
		if err != nil {
			e.t.Fatalf("what is told is wrong: %v (%v), behind\n%s", err, e.in.ErrorDetail(), strings.Join(all, "\n"))
		}
		all = append(all, show(f))
	}
}

func show(f xhttp2.Frame) string {
	end := func(yes bool) string {
		if yes {
			return " END"
		}
		return ""
	}
	h := f.Header()
	switch f := f.(type) {
	case *xhttp2.MetaHeadersFrame:
		s := fmt.Sprintf("HEADERS %d%s", h.StreamID, end(f.StreamEnded()))
		for _, field := range f.Fields {
			s += " " + field.Name + "=" + field.Value
			if field.Sensitive {
				s += "!"
			}
		}
		return s
	case *xhttp2.DataFrame:
		s := string(f.Data())
		if len(s) > 100 {
			s = fmt.Sprint(len(s), " bytes")
		}
		return fmt.Sprintf("DATA %d%s %s", h.StreamID, end(f.StreamEnded()), s)
	case *xhttp2.RSTStreamFrame:
		return fmt.Sprintf("RST %d %v", h.StreamID, f.ErrCode)
	case *xhttp2.GoAwayFrame:
		return fmt.Sprintf("GOAWAY %d %v", f.LastStreamID, f.ErrCode)
	case *xhttp2.WindowUpdateFrame:
		return fmt.Sprintf("WINDOW %d %d", h.StreamID, f.Increment)
	case *xhttp2.SettingsFrame:
		if f.IsAck() {
			return "SETTINGS ACK"
		}
		s := "SETTINGS"
		_ = f.ForeachSetting(func(x xhttp2.Setting) error { s += fmt.Sprintf(" %v", x); return nil })
		return s
	case *xhttp2.PingFrame:
		if f.IsAck() {
			return fmt.Sprintf("PING ACK %s", f.Data)
		}
		return fmt.Sprintf("PING %q", f.Data)
	}
	return fmt.Sprint(f)
}

// tells checks what a peer is told.
func (e *end) tells(name, want string) {
	e.t.Helper()
	if got := e.told(); got != want {
		e.t.Errorf("%s is told\n%s\nwant\n%s", name, got, want)
	}
}
