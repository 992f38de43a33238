package http2

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	xhttp2 "golang.org/x/net/http2"

	"github.com/mirrord-go/mirrord/internal/budget"
)

// watched is a mirror without sockets: a test says what the client says and what the
// second server does, and looks what that is told. Paths below /local are wanted;
// those below /body if the body is "mine", and those below /slow must be quick.
type watched struct {
	t      testing.TB
	m      *Mirror
	client *end // of which only the writing half is used
	sinks  []*sunk
	lost   int
	unseen int
	memory *budget.Share
}

// sunk is the far end of a sink.
type sunk struct {
	*end
	k *Sink
}

func newWatched(t testing.TB, middle bool, memory *budget.Share) *watched {
	w := &watched{t: t, client: newEnd(t, nil), memory: memory}
	w.m = NewMirror(MirrorOptions{
		Middle: middle, Memory: memory,
		Route: func(q *Request) Verdict {
			switch {
			case strings.HasPrefix(q.Target, "/local"), string(q.Body) == "mine":
				return Verdict{To: true}
			case strings.HasPrefix(q.Target, "/body") && !q.Asked:
				return Verdict{Wait: true, Size: 100, Time: time.Hour}
			case strings.HasPrefix(q.Target, "/slow") && !q.Asked:
				return Verdict{Wait: true, Size: 100, Time: -1}
			}
			return Verdict{}
		},
		Connect: func(k *Sink) { w.sinks = append(w.sinks, &sunk{newEnd(t, nil), k}) },
		Lost:    func() { w.lost++ },
		Unseen:  func() { w.unseen++ },
	})
	return w
}

func ample() *budget.Share { return budget.New(64<<20).Share(0, budget.All) }

// watch is a mirror of which the client has said its first word.
func watch(t testing.TB) *watched {
	t.Helper()
	w := newWatched(t, false, ample())
	w.raw(Preface)
	w.say(func(f *xhttp2.Framer) { _ = f.WriteSettings() })
	return w
}

func (w *watched) raw(s string) error { return w.m.Receive([]byte(s)) }

func (w *watched) say(f func(*xhttp2.Framer)) error {
	w.client.said.Reset()
	f(w.client.out)
	return w.raw(w.client.said.String())
}

func (w *watched) ask(id uint32, path string, ends bool, more ...string) error {
	return w.say(func(f *xhttp2.Framer) {
		block := w.client.block(append([]string{":method", "GET", ":scheme", "http", ":path", path}, more...)...)
		_ = f.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: id, EndStream: ends, EndHeaders: true, BlockFragment: block})
	})
}

func (w *watched) data(id uint32, text string, ends bool) error {
	return w.say(func(f *xhttp2.Framer) { _ = f.WriteData(id, ends, []byte(text)) })
}

func (w *watched) reset(id uint32) error { return w.resetAs(id, xhttp2.ErrCodeCancel) }

func (w *watched) resetAs(id uint32, code xhttp2.ErrCode) error {
	return w.say(func(f *xhttp2.Framer) { _ = f.WriteRSTStream(id, code) })
}

// silent is the newest sink.
func (w *watched) silent() *sunk {
	w.t.Helper()
	if len(w.sinks) == 0 {
		w.t.Fatal("the second server is not connected")
	}
	return w.sinks[len(w.sinks)-1]
}

// sink is the newest one, and its server has said its first word.
func (w *watched) sink() *sunk {
	w.t.Helper()
	s := w.silent()
	if !s.k.begun {
		s.greet()
	}
	return s
}

// end checks that nothing is held when all is over.
func (w *watched) end() {
	w.t.Helper()
	w.m.Close()
	if n := w.memory.Used(); n != 0 {
		w.t.Errorf("%d bytes are held at the end", n)
	}
}

func (s *sunk) say(f func(*xhttp2.Framer)) error {
	s.said.Reset()
	f(s.out)
	return s.k.Receive(s.said.Bytes())
}

// greet says the server's first word.
func (s *sunk) greet(all ...xhttp2.Setting) {
	s.t.Helper()
	greeting := s.told()
	if err := s.say(func(f *xhttp2.Framer) { _ = f.WriteSettings(all...) }); err != nil {
		s.t.Fatal(err)
	}
	s.k.m.mu.Lock()
	s.heard.Write(s.k.out)
	s.k.out = nil
	s.k.m.mu.Unlock()
	if got := greeting + "\n" + s.frames(); got != "SETTINGS [ENABLE_PUSH = 0]\nSETTINGS ACK" {
		s.t.Errorf("the second server is greeted by %s", got)
	}
}

// replies ends the reply of a request.
func (s *sunk) replies(id uint32) error {
	return s.say(func(f *xhttp2.Framer) {
		_ = f.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: id, EndStream: true, EndHeaders: true, BlockFragment: s.block(":status", "204")})
	})
}

// told is all that the second server is told now, a frame a line.
func (s *sunk) told() string {
	s.t.Helper()
	for {
		s.k.m.mu.Lock()
		b := s.k.take(nil)
		s.k.m.mu.Unlock()
		if len(b) == 0 {
			return s.frames()
		}
		s.heard.Write(b)
	}
}

func (s *sunk) tells(want string) {
	s.t.Helper()
	if got := s.told(); got != want {
		s.t.Errorf("the second server is told\n%s\nwant\n%s", got, want)
	}
}

func TestMirror(t *testing.T) {
	const local1 = "HEADERS 1 END :method=GET :scheme=http :path=/local"
	for _, c := range []struct {
		name string
		says func(w *watched)
		want string
	}{
		{"what is wanted", func(w *watched) {
			w.ask(1, "/other", true)
			w.ask(3, "/local", true)
			w.ask(5, "/other", false)
			w.data(5, "no", true)
			w.ask(7, "/local/2", true, "secret", "x", "a", "b")
		}, local1 + "\nHEADERS 3 END :method=GET :scheme=http :path=/local/2 secret=x! a=b"},
		{"bodies and trailers, one among the other", func(w *watched) {
			w.ask(1, "/local", false)
			w.ask(3, "/other", false)
			w.ask(5, "/local", false)
			w.data(3, "no", false)
			w.data(1, "o", false)
			w.data(5, "five", true)
			w.data(1, "ne", false)
			w.say(func(f *xhttp2.Framer) {
				_ = f.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 3, EndStream: true, EndHeaders: true, BlockFragment: w.client.block("y", "1")})
				_ = f.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 1, EndStream: true, EndHeaders: true, BlockFragment: w.client.block("x", "2")})
			})
		}, "HEADERS 1 :method=GET :scheme=http :path=/local\nHEADERS 3 :method=GET :scheme=http :path=/local\nDATA 1 one\nDATA 3 END five\nHEADERS 1 END x=2"},
		{"padding, priority and pieces", func(w *watched) {
			w.say(func(f *xhttp2.Framer) {
				block := w.client.block(":method", "POST", ":scheme", "http", ":path", "/local", "a", strings.Repeat("b", 100))
				_ = f.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 1, PadLength: 7, Priority: xhttp2.PriorityParam{StreamDep: 9, Weight: 1}, BlockFragment: block[:10]})
				_ = f.WriteContinuation(1, false, nil)
				_ = f.WriteContinuation(1, true, block[10:])
				_ = f.WriteDataPadded(1, true, []byte("hello"), make([]byte, 9))
			})
		}, "HEADERS 1 :method=POST :scheme=http :path=/local a=" + strings.Repeat("b", 100) + "\nDATA 1 END hello"},
		{"what is the connection's", func(w *watched) {
			w.say(func(f *xhttp2.Framer) {
				_ = f.WriteSettings(xhttp2.Setting{ID: xhttp2.SettingInitialWindowSize, Val: 3}, xhttp2.Setting{ID: xhttp2.SettingHeaderTableSize, Val: 0})
				_ = f.WritePing(false, [8]byte{1})
				_ = f.WriteWindowUpdate(0, 9)
				_ = f.WritePriority(1, xhttp2.PriorityParam{StreamDep: 3})
				_ = f.WriteRawFrame(0x10, 0, 0, []byte("u=1"))
			})
			w.ask(1, "/local", true)
			w.say(func(f *xhttp2.Framer) { _ = f.WriteWindowUpdate(1, 9) })
		}, local1},
		{"resets", func(w *watched) {
			w.ask(1, "/local", false)
			w.ask(3, "/local/3", false)
			w.ask(5, "/other", false)
			w.sink().told()
			w.data(3, "x", false)
			w.reset(3)
			w.reset(5)
			w.data(3, "late", true)
			w.ask(7, "/local/7", false)
			w.reset(7) // nothing of it has gone
		}, "RST 3 CANCEL"},
		{"resets of what has been asked for wholly", func(w *watched) {
			w.ask(1, "/local", true)
			w.resetAs(1, xhttp2.ErrCodeStreamClosed) // as curl does behind its answer
			w.ask(3, "/local", false)
			w.data(3, "x", true)
			w.reset(3)
			w.reset(3)
			w.ask(5, "/local", true)
			w.resetAs(5, xhttp2.ErrCodeNo)
		}, local1 + "\nHEADERS 3 :method=GET :scheme=http :path=/local\nHEADERS 5 END :method=GET :scheme=http :path=/local\nDATA 3 END x\nRST 3 CANCEL"},
		{"resets of what has gone on wholly", func(w *watched) {
			w.ask(1, "/local", true)
			w.ask(3, "/local", true)
			w.sink().told()
			w.resetAs(1, xhttp2.ErrCodeStreamClosed)
			w.reset(3)
		}, "RST 3 CANCEL"},
		{"the body decides", func(w *watched) {
			w.ask(1, "/body", false)
			w.ask(3, "/body", false)
			w.data(1, "mi", false)
			w.data(3, "yours", true)
			w.data(1, "ne", true)
			w.ask(5, "/body", true)
			w.ask(7, "/body", false)
			w.data(7, strings.Repeat("x", 101), true)
			w.ask(9, "/slow", false)
			w.data(9, "mine", true)
		}, "HEADERS 1 :method=GET :scheme=http :path=/body\nDATA 1 END mine"},
		{"a long frame", func(w *watched) {
			w.ask(1, "/local", false)
			w.data(1, strings.Repeat("x", 40_000), true)
		}, "HEADERS 1 :method=GET :scheme=http :path=/local\nDATA 1 16384 bytes\nDATA 1 16384 bytes\nDATA 1 END 7232 bytes"},
		{"what its server does not take", func(w *watched) {
			w.ask(3, "/local", true)
			w.ask(1, "/local", true) // a number that is used
			w.data(3, "behind the end", true)
			w.ask(3, "/local", true)
			w.ask(5, "/local/5", false)
			w.ask(5, "/local/5", false)
		}, local1},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := watch(t)
			defer w.end()
			c.says(w)
			w.sink().tells(c.want)
			if w.lost+w.unseen > 0 || len(w.sinks) != 1 {
				t.Errorf("%d are lost, %d unseen; %d connections", w.lost, w.unseen, len(w.sinks))
			}
		})
	}
}

// What the second server allows is kept to, and nothing else waits for it.
func TestSinkWaits(t *testing.T) {
	const head = " :method=GET :scheme=http :path=/local"
	initial := func(n uint32) xhttp2.Setting {
		return xhttp2.Setting{ID: xhttp2.SettingInitialWindowSize, Val: n}
	}
	t.Run("its first word", func(t *testing.T) {
		w := watch(t)
		defer w.end()
		w.ask(1, "/local", true)
		s := w.silent()
		s.greet() // which looks that nothing was said before
		s.tells("HEADERS 1 END" + head)
	})
	t.Run("a stream's window", func(t *testing.T) {
		w := watch(t)
		defer w.end()
		w.ask(1, "/local", false)
		w.data(1, "0123456789", true)
		s := w.silent()
		s.greet(initial(4))
		s.tells("HEADERS 1" + head + "\nDATA 1 0123")
		s.say(func(f *xhttp2.Framer) { _ = f.WriteSettings(initial(2)) })
		s.tells("SETTINGS ACK")
		s.say(func(f *xhttp2.Framer) { _ = f.WriteWindowUpdate(1, 3) })
		s.tells("DATA 1 4")
		w.ask(3, "/local", false)
		w.data(3, "ab", true)
		s.tells("HEADERS 3" + head + "\nDATA 3 END ab")
		s.say(func(f *xhttp2.Framer) { _ = f.WriteSettings(initial(100)) })
		s.tells("SETTINGS ACK\nDATA 1 END 56789")
	})
	t.Run("the connection's window", func(t *testing.T) {
		w := watch(t)
		defer w.end()
		w.ask(1, "/local", false)
		s := w.silent()
		s.greet(initial(1 << 20))
		w.data(1, strings.Repeat("x", window+5), true)
		if got := s.told(); !strings.HasSuffix(got, "DATA 1 16383 bytes") {
			t.Errorf("told is %s", got)
		}
		w.ask(3, "/local", true)
		s.tells("HEADERS 3 END" + head)
		s.say(func(f *xhttp2.Framer) { _ = f.WriteWindowUpdate(0, 9) })
		s.tells("DATA 1 END xxxxx")
	})
	t.Run("its number of streams", func(t *testing.T) {
		w := watch(t)
		defer w.end()
		w.ask(1, "/local", true)
		w.ask(3, "/local", false)
		w.ask(5, "/local", true)
		s := w.silent()
		s.greet(xhttp2.Setting{ID: xhttp2.SettingMaxConcurrentStreams, Val: 1})
		s.tells("HEADERS 1 END" + head)
		w.reset(3)
		s.tells("")
		s.replies(1)
		s.tells("HEADERS 3 END" + head)
	})
}

// What it answers goes nowhere, its windows are opened again, and its questions
// are answered.
func TestSinkHears(t *testing.T) {
	w := watch(t)
	defer w.end()
	w.ask(1, "/local", true)
	w.ask(3, "/local", false)
	s := w.sink()
	s.told()
	s.say(func(f *xhttp2.Framer) {
		_ = f.WritePing(false, [8]byte{'p'})
		_ = f.WritePing(true, [8]byte{'q'})
		_ = f.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 1, BlockFragment: s.block(":status", "200")})
		_ = f.WriteContinuation(1, true, []byte("compression is not looked into"))
		_ = f.WriteDataPadded(1, false, make([]byte, 16_000), make([]byte, 200))
		_ = f.WriteRawFrame(0x20, 0, 1, nil)
	})
	s.tells("PING ACK p\x00\x00\x00\x00\x00\x00\x00")
	for range 2 {
		s.say(func(f *xhttp2.Framer) { _ = f.WriteData(1, false, make([]byte, 16_384)) })
	}
	s.tells("WINDOW 0 48969\nWINDOW 1 48969")
	s.replies(3) // before it has the whole request
	w.data(3, "x", true)
	s.tells("DATA 3 END x")
	s.say(func(f *xhttp2.Framer) { _ = f.WriteData(1, true, nil) })
	if n := len(w.m.streams); n != 0 {
		t.Errorf("%d requests are known when all have been answered", n)
	}
	w.reset(1) // too late
	w.ask(5, "/local", false)
	s.told()
	s.say(func(f *xhttp2.Framer) { _ = f.WriteRSTStream(5, xhttp2.ErrCodeRefusedStream) })
	w.data(5, "nobody wants it", true)
	s.tells("")
	if w.lost > 0 {
		t.Errorf("%d are lost", w.lost)
	}
}

// A server that goes away gets no more; what it has not got the next connection gets.
func TestSinkGoesAway(t *testing.T) {
	const head = " END :method=GET :scheme=http :path=/local"
	w := watch(t)
	defer w.end()
	w.ask(1, "/local", true)
	first := w.silent()
	first.greet(xhttp2.Setting{ID: xhttp2.SettingMaxConcurrentStreams, Val: 2})
	first.tells("HEADERS 1" + head)
	w.ask(3, "/local", true)
	first.tells("HEADERS 3" + head)
	w.ask(5, "/local", true)
	w.ask(7, "/local", true)
	first.say(func(f *xhttp2.Framer) { _ = f.WriteGoAway(1, xhttp2.ErrCodeNo, nil) })
	if len(w.sinks) != 2 {
		t.Fatalf("%d connections, want another", len(w.sinks))
	}
	w.sink().tells("HEADERS 1" + head + "\nHEADERS 3" + head)
	first.tells("")
	first.replies(1)
	first.tells("GOAWAY 0 NO_ERROR")
	if _, more := first.k.Next(nil); more {
		t.Error("more is said to it")
	}
	first.k.Ended()
	w.silent().k.Ended() // with what it has got
	w.ask(9, "/local", true)
	if len(w.sinks) != 3 {
		t.Fatalf("%d connections, want a third", len(w.sinks))
	}
	w.sink().tells("HEADERS 1" + head)
	t.Run("each time", func(t *testing.T) {
		w := watch(t)
		defer w.end()
		w.ask(1, "/local", true)
		for range 10 {
			w.silent().say(func(f *xhttp2.Framer) {
				_ = f.WriteSettings(xhttp2.Setting{ID: xhttp2.SettingMaxConcurrentStreams, Val: 0})
				_ = f.WriteGoAway(0, xhttp2.ErrCodeNo, nil)
			})
		}
		if len(w.sinks) != maxTries {
			t.Errorf("%d connections for one request, want %d", len(w.sinks), maxTries)
		}
	})
}

// For want of room a request is lost, which is counted, and no other one.
func TestMirrorLoses(t *testing.T) {
	t.Run("bodies", func(t *testing.T) {
		w := watch(t)
		defer w.end()
		w.ask(1, "/local", false)
		s := w.silent()
		s.greet(xhttp2.Setting{ID: xhttp2.SettingInitialWindowSize, Val: 5})
		s.told()
		w.ask(3, "/local", false)
		for range maxWaits/10_000 + 1 {
			w.data(1, strings.Repeat("x", 10_000), false)
		}
		if w.lost != 1 || w.m.waits > 0 {
			t.Errorf("%d are lost, %d bytes wait", w.lost, w.m.waits)
		}
		w.data(1, "more", true)
		w.data(3, "three", true)
		s.tells("RST 1 CANCEL\nHEADERS 3 :method=GET :scheme=http :path=/local\nDATA 3 END three")
	})
	t.Run("memory", func(t *testing.T) {
		const size = 4 * streamCost
		w := newWatched(t, false, budget.New(size).Share(0, budget.All))
		defer w.end()
		w.raw(Preface)
		w.ask(1, "/local", false)
		w.ask(3, "/body", false)
		w.data(1, strings.Repeat("x", size), false)
		w.data(3, strings.Repeat("x", 50), false)
		w.ask(5, "/local", false, "x", strings.Repeat("x", size))
		w.ask(7, "/other", true, "x", strings.Repeat("x", size))
		w.ask(9, "/local", true)
		if w.lost != 2 {
			t.Errorf("%d are lost, want 2", w.lost)
		}
		w.sink().tells("HEADERS 1 END :method=GET :scheme=http :path=/local")
		if err := w.raw("\x00\xf0\x00\x00\x00\x00\x00\x00\x01" + strings.Repeat("x", 0xefff)); err == nil {
			t.Error("a long frame is kept beyond the memory")
		}
	})
	t.Run("streams", func(t *testing.T) {
		w := watch(t)
		defer w.end()
		for i := range uint32(maxStreams + 3) {
			w.ask(2*i+1, "/local", true)
			w.ask(2*i+1, "/other", true)
		}
		if w.lost != 3 || len(w.m.streams) != maxStreams {
			t.Errorf("%d are lost, %d known", w.lost, len(w.m.streams))
		}
	})
	t.Run("fields", func(t *testing.T) {
		w := watch(t)
		defer w.end()
		w.ask(1, "/local", false)
		w.ask(3, "/local", true, "x", strings.Repeat("x", 4000))
		w.say(func(f *xhttp2.Framer) {
			again := slices.Repeat([]byte{0x80 | 62}, 100) // compression makes a long list short
			big := append(slices.Clone(w.client.block("x", strings.Repeat("x", 3000))), again...)
			_ = f.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 5, EndHeaders: true, BlockFragment: big})
			_ = f.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 1, EndStream: true, EndHeaders: true, BlockFragment: again})
		})
		if w.lost != 2 {
			t.Errorf("%d are lost, want 2", w.lost)
		}
		w.ask(7, "/local", true)
		if got := w.sink().told(); !strings.HasSuffix(got, "HEADERS 3 END :method=GET :scheme=http :path=/local") {
			t.Errorf("told is %.300s", got)
		}
	})
}

// When the client ends what it has asked for wholly goes on, and the connection is
// left behind the last reply.
func TestMirrorEnds(t *testing.T) {
	w := watch(t)
	defer w.end()
	w.ask(1, "/local", false)
	w.ask(3, "/local", false)
	w.ask(5, "/body", false)
	s := w.silent()
	s.greet(xhttp2.Setting{ID: xhttp2.SettingInitialWindowSize, Val: 1})
	s.told()
	w.data(1, "abc", true)
	w.m.Ended()
	s.tells("RST 3 CANCEL\nDATA 1 a")
	s.say(func(f *xhttp2.Framer) { _ = f.WriteWindowUpdate(1, 9) })
	s.tells("DATA 1 END bc")
	s.replies(1)
	s.tells("GOAWAY 0 NO_ERROR")
	if _, more := s.k.Next(nil); more {
		t.Error("more is said behind the last reply")
	}
	if w.lost > 0 {
		t.Errorf("%d are lost", w.lost)
	}
	t.Run("at once", func(t *testing.T) {
		w := watch(t)
		w.ask(1, "/local", false)
		cut := false
		s := w.sink()
		s.k.WhenCut(func() { cut = true })
		w.end()
		if _, more := s.k.Next(nil); more || !cut {
			t.Errorf("behind Close there is more: %v; it is cut: %v", more, cut)
		}
		w.ask(3, "/local", true)
		if w.end(); len(w.sinks) != 1 {
			t.Errorf("%d connections", len(w.sinks))
		}
	})
}

// What cannot be understood ends the copy.
func TestMirrorBreaks(t *testing.T) {
	head := func(flags byte, stream byte, block string) string {
		return "\x00\x00" + string([]byte{byte(len(block)), 1, flags, 0, 0, 0, stream}) + block
	}
	for name, said := range map[string]string{
		"an even number":         head(4, 2, "\x82"),
		"no stream":              head(4, 0, "\x82"),
		"an unknown field":       head(4, 1, "\xbe"),
		"a larger table":         head(4, 1, "\x3f\xe2\x1f\x82"),
		"half a block":           head(4, 1, "\x40"),
		"too much padding":       head(12, 1, "\x09\x82"),
		"an interrupted block":   head(0, 1, "\x82") + "\x00\x00\x00\x00\x00\x00\x00\x00\x01",
		"a block without a head": "\x00\x00\x00\x09\x04\x00\x00\x00\x01",
		"too long a frame":       "\x10\x00\x01\x00\x00\x00\x00\x00\x01",
		"data of no stream":      "\x00\x00\x00\x00\x00\x00\x00\x00\x00",
		"data with padding":      "\x00\x00\x00\x00\x08\x00\x00\x00\x01",
		"a short reset":          "\x00\x00\x01\x03\x00\x00\x00\x00\x01x",
	} {
		t.Run(name, func(t *testing.T) {
			w := watch(t)
			defer w.end()
			var ce *ConnError
			if err := w.raw(said); !errors.As(err, &ce) {
				t.Errorf("got %v, want an error", err)
			}
			if err := w.ask(1, "/local", true); err == nil || len(w.sinks) > 0 {
				t.Errorf("it goes on: %v, %d connections", err, len(w.sinks))
			}
		})
	}
	t.Run("no preface", func(t *testing.T) {
		w := newWatched(t, false, ample())
		defer w.end()
		if w.ask(1, "/local", true) == nil {
			t.Error("it is understood without")
		}
	})
}

func TestSinkBreaks(t *testing.T) {
	t.Run("it speaks something else", func(t *testing.T) {
		for _, said := range []string{"HTTP/1.1 400 Bad Request\r\n\r\n", "\x00\x00\x08\x06\x00\x00\x00\x00\x0012345678", "\x00\x00\x00\x04\x01\x00\x00\x00\x00"} {
			w := watch(t)
			w.ask(1, "/local", true)
			if err := w.silent().k.Receive([]byte(said)); !errors.Is(err, ErrNotHTTP2) {
				t.Errorf("%q: %v", said, err)
			}
			w.end()
		}
	})
	for name, c := range map[string]struct {
		says func(f *xhttp2.Framer)
		code string
	}{
		"a push":                  {func(f *xhttp2.Framer) { _ = f.WriteRawFrame(5, 4, 1, []byte("\x00\x00\x00\x02\x88")) }, "PROTOCOL_ERROR"},
		"a short ping":            {func(f *xhttp2.Framer) { _ = f.WriteRawFrame(6, 0, 0, []byte("short")) }, "FRAME_SIZE_ERROR"},
		"a short goaway":          {func(f *xhttp2.Framer) { _ = f.WriteRawFrame(7, 0, 0, []byte("short")) }, "FRAME_SIZE_ERROR"},
		"a short window":          {func(f *xhttp2.Framer) { _ = f.WriteRawFrame(8, 0, 1, []byte("x")) }, "FRAME_SIZE_ERROR"},
		"settings of no size":     {func(f *xhttp2.Framer) { _ = f.WriteRawFrame(4, 0, 0, []byte("short")) }, "FRAME_SIZE_ERROR"},
		"many settings":           {func(f *xhttp2.Framer) { _ = f.WriteRawFrame(4, 0, 0, make([]byte, 6*(maxSettings+1))) }, "ENHANCE_YOUR_CALM"},
		"a window without end":    {func(f *xhttp2.Framer) { _ = f.WriteRawFrame(8, 0, 0, []byte("\x7f\xff\xff\xff")) }, "FLOW_CONTROL_ERROR"},
		"first windows too large": {func(f *xhttp2.Framer) { _ = f.WriteRawFrame(4, 0, 0, []byte("\x00\x04\xff\xff\xff\xff")) }, "FLOW_CONTROL_ERROR"},
		"windows that add up": {func(f *xhttp2.Framer) {
			_ = f.WriteWindowUpdate(1, 9)
			_ = f.WriteRawFrame(4, 0, 0, []byte("\x00\x04\x7f\xff\xff\xff"))
		}, "FLOW_CONTROL_ERROR"},
		"questions without end": {func(f *xhttp2.Framer) {
			for range maxControl/17 + 1 {
				_ = f.WritePing(false, [8]byte{})
			}
		}, "ENHANCE_YOUR_CALM"},
	} {
		t.Run(name, func(t *testing.T) {
			w := watch(t)
			defer w.end()
			w.ask(1, "/local", false)
			s := w.sink()
			s.told()
			var ce *ConnError
			if err := s.say(c.says); !errors.As(err, &ce) {
				t.Fatalf("got %v, want an error", err)
			}
			if got := s.told(); !strings.HasSuffix(got, "GOAWAY 0 "+c.code) {
				t.Errorf("it is told\n%.300s\nwant %s", got, c.code)
			}
		})
	}
	t.Run("a stream's window without end", func(t *testing.T) {
		w := watch(t)
		defer w.end()
		w.ask(1, "/local", false)
		s := w.sink()
		s.told()
		if err := s.say(func(f *xhttp2.Framer) { _ = f.WriteRawFrame(8, 0, 1, []byte("\x7f\xff\xff\xff")) }); err != nil {
			t.Error(err)
		}
		s.tells("RST 1 FLOW_CONTROL_ERROR")
	})
	t.Run("it does not read what is cancelled", func(t *testing.T) {
		w := watch(t)
		defer w.end()
		w.ask(1, "/local", true)
		s := w.sink()
		cut := false
		s.k.WhenCut(func() { cut = true })
		for id := uint32(3); !cut && id < 100_000; id += 2 {
			w.ask(id, "/local", false)
			w.m.mu.Lock()
			b := s.k.ready
			for _, c := range b { // it goes into a writer that is stuck
				s.k.give(c)
			}
			w.m.mu.Unlock()
			w.reset(id)
		}
		if !cut {
			t.Error("resets wait without end")
		}
	})
}
