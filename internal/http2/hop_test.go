package http2

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	xhttp2 "golang.org/x/net/http2"
)

// asks is how a server hears of end.ask.
func asks(id uint32, path, more string) string {
	return fmt.Sprintf("HEADERS %d :method=GET :scheme=http :authority=a :path=%s%s", id, path, more)
}

func asksAll(id uint32, path, more string) string {
	return strings.Replace(asks(id, path, more), " :", " END :", 1)
}

// Streams of one connection go where each belongs, with their fields as they were,
// and both sides' numbers are their own.
func TestStreamsAreDivided(t *testing.T) {
	st := begun(t)
	defer st.end()
	st.client.ask(1, "/a", true, "x-a", "1", "secret-b", "2", "x-a", "3")
	st.client.ask(3, "/local/b", false, "te", "trailers")
	st.client.ask(5, "/c", true)
	st.orig().tells("the original", asksAll(1, "/a", " x-a=1 secret-b=2! x-a=3")+"\n"+asksAll(3, "/c", ""))
	local := st.server("local")
	local.tells("local, before its first word,", "SETTINGS [ENABLE_PUSH = 0] [MAX_HEADER_LIST_SIZE = 262144]")
	local.say(func(f *xhttp2.Framer) { _ = f.WriteSettings() })
	local.tells("local", "SETTINGS ACK\n"+asks(1, "/local/b", " te=trailers"))
	st.client.data(3, "hello", false)
	local.tells("local", "DATA 1 hello")
	st.client.head(3, true, "x-trailer", "t")
	local.tells("local", "HEADERS 1 END x-trailer=t")
	// Replies, interim ones and trailers.
	local.head(1, false, ":status", "103", "link", "l")
	local.head(1, false, ":status", "200", "secret-c", "c")
	local.data(1, "world", false)
	local.head(1, true, "grpc-status", "0")
	st.client.tells("the client", "HEADERS 3 :status=103 link=l\nHEADERS 3 :status=200 secret-c=c!\nDATA 3 world\nHEADERS 3 END grpc-status=0")
	st.orig().head(3, true, ":status", "204")
	st.orig().head(1, false, ":status", "200")
	st.orig().data(1, "", true)
	st.client.tells("the client", "HEADERS 5 END :status=204\nHEADERS 1 :status=200\nDATA 1 END ")
	if n := len(st.hop.client.streams); n != 0 {
		t.Errorf("%d streams are open, want none", n)
	}
}

// What the client is told before anybody has shown to speak HTTP/2: nothing. Then
// it is told what the original allows.
func TestFirstWords(t *testing.T) {
	hello := func(st *stage) {
		st.client.raw(Preface)
		st.client.say(func(f *xhttp2.Framer) { _ = f.WriteSettings(); _ = f.WritePing(false, [8]byte{'1'}) })
	}
	t.Run("the original's", func(t *testing.T) {
		st := newStage(t)
		defer st.end()
		hello(st)
		st.client.tells("the client", "")
		st.orig().tells("the original", "SETTINGS [ENABLE_PUSH = 0] [MAX_HEADER_LIST_SIZE = 262144]")
		st.orig().greet(xhttp2.Setting{ID: xhttp2.SettingMaxConcurrentStreams, Val: 7}, xhttp2.Setting{ID: xhttp2.SettingMaxHeaderListSize, Val: 1000}, xhttp2.Setting{ID: xhttp2.SettingEnableConnectProtocol, Val: 1})
		st.client.tells("the client", "SETTINGS [MAX_CONCURRENT_STREAMS = 7] [MAX_HEADER_LIST_SIZE = 1000] [ENABLE_CONNECT_PROTOCOL = 1]\nSETTINGS ACK\nPING ACK 1\x00\x00\x00\x00\x00\x00\x00")
	})
	t.Run("a local's", func(t *testing.T) {
		st := newStage(t)
		defer st.end()
		hello(st)
		st.client.ask(1, "/local", true)
		st.client.tells("the client", "")
		st.server("local").greet()
		st.client.tells("the client", "SETTINGS [MAX_CONCURRENT_STREAMS = 1024] [MAX_HEADER_LIST_SIZE = 262144]\nSETTINGS ACK\nPING ACK 1\x00\x00\x00\x00\x00\x00\x00")
		// The original speaks later.
		st.orig().greet(xhttp2.Setting{ID: xhttp2.SettingMaxConcurrentStreams, Val: 7}, xhttp2.Setting{ID: xhttp2.SettingEnableConnectProtocol, Val: 1})
		st.client.tells("the client", "SETTINGS [MAX_CONCURRENT_STREAMS = 7] [ENABLE_CONNECT_PROTOCOL = 1]")
		st.orig().greet(xhttp2.Setting{ID: xhttp2.SettingMaxConcurrentStreams, Val: 8})
		st.client.tells("the client", "SETTINGS [MAX_CONCURRENT_STREAMS = 8]")
		st.orig().greet(xhttp2.Setting{ID: xhttp2.SettingInitialWindowSize, Val: 8})
		st.client.tells("the client", "")
	})
	for name, said := range map[string]string{"HTTP/1": "HTTP/1.1 400 Bad Request\r\n\r\n", "a frame that is not SETTINGS": "\x00\x00\x00\x06\x00\x00\x00\x00\x00", "nothing": ""} {
		t.Run(name, func(t *testing.T) {
			st := newStage(t)
			defer st.end()
			hello(st)
			st.client.ask(1, "/a", true)
			if said != "" {
				if err := st.orig().raw(said); !errors.Is(err, ErrNotHTTP2) {
					t.Errorf("its first word is %v", err)
				}
			}
			st.orig().p.Ended(End{})
			<-st.hop.Settled()
			if !st.hop.Passes() {
				t.Error("the connection is not the original's")
			}
			st.client.tells("the client", "")
		})
	}
	for name, speaks := range map[string]bool{"the session leaves before": true, "the session leaves, and HTTP/1": false} {
		t.Run(name, func(t *testing.T) {
			st := newStage(t)
			defer st.end()
			hello(st)
			st.hop.Leave(func(d Destination) bool { return d != nil }, "mirrord: why\n")
			st.client.tells("the client", "")
			if !speaks {
				_ = st.orig().raw("HTTP/1.1 400 Bad Request\r\n\r\n")
				st.orig().p.Ended(End{})
				st.client.tells("the client", "")
				return
			}
			st.orig().greet()
			if got := st.client.told(); !strings.HasPrefix(got, "SETTINGS [") || !strings.Contains(got, "\nGOAWAY 2147483647 NO_ERROR\nPING \"mirrord") {
				t.Errorf("the client is told %q", got)
			}
		})
	}
	t.Run("the original is not there", func(t *testing.T) {
		st := newStage(t)
		defer st.end()
		hello(st)
		st.hop.Commit()
		st.orig().p.Ended(End{})
		st.client.told()
		st.client.ask(1, "/local", true)
		st.server("local").greet()
		st.client.ask(3, "/a", true)
		st.orig().p.Ended(End{})
		st.client.tells("the client", "RST 3 REFUSED_STREAM")
		st.server("local").head(1, true, ":status", "200")
		st.client.tells("the client", "HEADERS 1 END :status=200")
	})
}

// The rules of RFC 9113 for what a client says: each breach ends what the RFC says,
// with its code, and nothing more.
func TestRules(t *testing.T) {
	raw := func(s string) func(*stage) { return func(st *stage) { _ = st.client.raw(s) } }
	write := func(f func(*xhttp2.Framer)) func(*stage) {
		return func(st *stage) { _ = st.client.say(f) }
	}
	open := func(f func(*stage)) func(*stage) {
		return func(st *stage) {
			st.client.ask(1, "/a", false)
			st.orig().told()
			f(st)
		}
	}
	closed := func(f func(*stage)) func(*stage) {
		return func(st *stage) {
			st.client.ask(1, "/a", true)
			st.orig().told()
			st.orig().head(1, true, ":status", "200")
			st.client.told()
			f(st)
		}
	}
	for _, c := range []struct {
		name     string
		says     func(*stage)
		client   string
		original string
	}{
		{"DATA of stream 0", raw("\x00\x00\x01\x00\x00\x00\x00\x00\x00a"), "GOAWAY 0 PROTOCOL_ERROR", ""},
		{"DATA of an idle stream", raw("\x00\x00\x01\x00\x00\x00\x00\x00\x01a"), "GOAWAY 0 PROTOCOL_ERROR", ""},
		{"DATA of a closed stream", closed(func(st *stage) { st.client.data(1, "a", false) }), "RST 1 STREAM_CLOSED", ""},
		{"DATA behind the end", func(st *stage) { st.client.ask(1, "/a", true); st.orig().told(); st.client.data(1, "a", false) }, "RST 1 STREAM_CLOSED", "RST 1 STREAM_CLOSED"},
		{"DATA with too much padding", open(raw("\x00\x00\x02\x00\x08\x00\x00\x00\x01\x05a")), "GOAWAY 1 PROTOCOL_ERROR", "RST 1 CANCEL"},
		{"padding is not passed on", open(raw("\x00\x00\x04\x00\x08\x00\x00\x00\x01\x02a\x00\x00")), "", "DATA 1 a"},
		{"HEADERS of stream 0", func(st *stage) { st.client.ask(0, "/a", true) }, "GOAWAY 0 PROTOCOL_ERROR", ""},
		{"HEADERS of an even stream", func(st *stage) { st.client.ask(2, "/a", true) }, "GOAWAY 0 PROTOCOL_ERROR", ""},
		{"HEADERS of a closed stream", closed(func(st *stage) { st.client.ask(1, "/a", true) }), "", ""}, // its reset may be forgotten
		{"HEADERS behind the end", func(st *stage) { st.client.ask(1, "/a", true); st.orig().told(); st.client.head(1, true, "a", "b") }, "RST 1 STREAM_CLOSED", "RST 1 STREAM_CLOSED"},
		{"trailers without an end", open(func(st *stage) { st.client.head(1, false, "a", "b") }), "RST 1 PROTOCOL_ERROR", "RST 1 PROTOCOL_ERROR"},
		{"an interrupted header block", raw("\x00\x00\x01\x01\x00\x00\x00\x00\x01\x82" + "\x00\x00\x08\x06\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"), "GOAWAY 0 PROTOCOL_ERROR", ""},
		{"CONTINUATION of another stream", raw("\x00\x00\x01\x01\x00\x00\x00\x00\x01\x82" + "\x00\x00\x00\x09\x04\x00\x00\x00\x03"), "GOAWAY 0 PROTOCOL_ERROR", ""},
		{"CONTINUATION of nothing", raw("\x00\x00\x00\x09\x04\x00\x00\x00\x01"), "GOAWAY 0 PROTOCOL_ERROR", ""},
		{"a header block that cannot be decoded", raw("\x00\x00\x01\x01\x05\x00\x00\x00\x01\xff"), "GOAWAY 0 COMPRESSION_ERROR", ""},
		{"a header block that names what is not there", raw("\x00\x00\x01\x01\x05\x00\x00\x00\x01\xfe"), "GOAWAY 0 COMPRESSION_ERROR", ""},
		{"a malformed request is its server's", func(st *stage) { st.client.head(1, true, ":method", "GET", ":path", "/local") }, "", "HEADERS 1 END :method=GET :path=/local"},
		{"a priority", raw("\x00\x00\x05\x02\x00\x00\x00\x00\x01\x00\x00\x00\x03\x10"), "", ""},
		{"a priority of stream 0", raw("\x00\x00\x05\x02\x00\x00\x00\x00\x00\x00\x00\x00\x03\x10"), "GOAWAY 0 PROTOCOL_ERROR", ""},
		{"a short priority", open(raw("\x00\x00\x04\x02\x00\x00\x00\x00\x01\x00\x00\x00\x03")), "RST 1 FRAME_SIZE_ERROR", "RST 1 FRAME_SIZE_ERROR"},
		{"RST_STREAM", open(write(func(f *xhttp2.Framer) { _ = f.WriteRSTStream(1, xhttp2.ErrCodeCancel) })), "", "RST 1 CANCEL"},
		{"RST_STREAM of stream 0", write(func(f *xhttp2.Framer) { _ = f.WriteRSTStream(0, xhttp2.ErrCodeCancel) }), "GOAWAY 0 PROTOCOL_ERROR", ""},
		{"RST_STREAM of an idle stream", write(func(f *xhttp2.Framer) { _ = f.WriteRSTStream(1, xhttp2.ErrCodeCancel) }), "GOAWAY 0 PROTOCOL_ERROR", ""},
		{"a short RST_STREAM", open(raw("\x00\x00\x03\x03\x00\x00\x00\x00\x01\x00\x00\x00")), "GOAWAY 1 FRAME_SIZE_ERROR", "RST 1 CANCEL"},
		{"SETTINGS of a stream", raw("\x00\x00\x00\x04\x00\x00\x00\x00\x01"), "GOAWAY 0 PROTOCOL_ERROR", ""},
		{"an acknowledgement with settings", raw("\x00\x00\x06\x04\x01\x00\x00\x00\x00\x00\x03\x00\x00\x00\x01"), "GOAWAY 0 FRAME_SIZE_ERROR", ""},
		{"SETTINGS of a wrong length", raw("\x00\x00\x05\x04\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00"), "GOAWAY 0 FRAME_SIZE_ERROR", ""},
		{"ENABLE_PUSH 2", write(func(f *xhttp2.Framer) { _ = f.WriteSettings(xhttp2.Setting{ID: xhttp2.SettingEnablePush, Val: 2}) }), "GOAWAY 0 PROTOCOL_ERROR", ""},
		{"a window too large", write(func(f *xhttp2.Framer) {
			_ = f.WriteSettings(xhttp2.Setting{ID: xhttp2.SettingInitialWindowSize, Val: 1 << 31})
		}), "GOAWAY 0 FLOW_CONTROL_ERROR", ""},
		{"frames too small", write(func(f *xhttp2.Framer) {
			_ = f.WriteSettings(xhttp2.Setting{ID: xhttp2.SettingMaxFrameSize, Val: 16383})
		}), "GOAWAY 0 PROTOCOL_ERROR", ""},
		{"an unknown setting", write(func(f *xhttp2.Framer) { _ = f.WriteSettings(xhttp2.Setting{ID: 99, Val: 1}) }), "SETTINGS ACK", ""},
		{"PUSH_PROMISE", raw("\x00\x00\x04\x05\x04\x00\x00\x00\x01\x00\x00\x00\x02"), "GOAWAY 0 PROTOCOL_ERROR", ""},
		{"PING", write(func(f *xhttp2.Framer) { _ = f.WritePing(false, [8]byte{'a', 'b', 'c', 'd', 'e', 'f', 'g', 'h'}) }), "PING ACK abcdefgh", ""},
		{"an answer to no PING", write(func(f *xhttp2.Framer) { _ = f.WritePing(true, [8]byte{'a'}) }), "", ""},
		{"PING of a stream", raw("\x00\x00\x08\x06\x00\x00\x00\x00\x0112345678"), "GOAWAY 0 PROTOCOL_ERROR", ""},
		{"a short PING", raw("\x00\x00\x07\x06\x00\x00\x00\x00\x001234567"), "GOAWAY 0 FRAME_SIZE_ERROR", ""},
		{"GOAWAY of a stream", raw("\x00\x00\x08\x07\x00\x00\x00\x00\x0112345678"), "GOAWAY 0 PROTOCOL_ERROR", ""},
		{"WINDOW_UPDATE of nothing", write(func(f *xhttp2.Framer) { _ = f.WriteWindowUpdate(0, 0) }), "GOAWAY 0 PROTOCOL_ERROR", ""},
		{"WINDOW_UPDATE of nothing for a stream", open(write(func(f *xhttp2.Framer) { _ = f.WriteWindowUpdate(1, 0) })), "RST 1 PROTOCOL_ERROR", "RST 1 PROTOCOL_ERROR"},
		{"WINDOW_UPDATE of too much", write(func(f *xhttp2.Framer) { _ = f.WriteWindowUpdate(0, 1<<31-1) }), "GOAWAY 0 FLOW_CONTROL_ERROR", ""},
		{"WINDOW_UPDATE of too much for a stream", open(write(func(f *xhttp2.Framer) { _ = f.WriteWindowUpdate(1, 1<<31-1) })), "RST 1 FLOW_CONTROL_ERROR", "RST 1 FLOW_CONTROL_ERROR"},
		{"WINDOW_UPDATE of an idle stream", write(func(f *xhttp2.Framer) { _ = f.WriteWindowUpdate(1, 1) }), "GOAWAY 0 PROTOCOL_ERROR", ""},
		{"WINDOW_UPDATE of a closed stream", closed(write(func(f *xhttp2.Framer) { _ = f.WriteWindowUpdate(1, 1) })), "", ""},
		{"a short WINDOW_UPDATE", raw("\x00\x00\x03\x08\x00\x00\x00\x00\x00\x00\x00\x01"), "GOAWAY 0 FRAME_SIZE_ERROR", ""},
		{"an unknown frame", raw("\x00\x00\x03\x99\xff\x00\x00\x00\x05abc"), "", ""},
		{"a frame too long", raw("\x00\x40\x01\x00\x00\x00\x00\x00\x01"), "GOAWAY 0 FRAME_SIZE_ERROR", ""},
		{"more DATA than a window", open(func(st *stage) {
			for range 5 {
				st.client.data(1, strings.Repeat("x", 16<<10), false)
			}
		}), "WINDOW 0 32768\nWINDOW 0 32768\nRST 1 FLOW_CONTROL_ERROR", "RST 1 FLOW_CONTROL_ERROR"},
	} {
		t.Run(c.name, func(t *testing.T) {
			st := begun(t)
			defer st.end()
			st.orig().told()
			c.says(st)
			st.client.tells("the client", c.client)
			st.orig().tells("the original", c.original)
			if failed := st.client.err != nil; failed != strings.Contains(c.client, "GOAWAY") {
				t.Errorf("the error is %v", st.client.err)
			}
		})
	}
	t.Run("no SETTINGS at first", func(t *testing.T) {
		st := newStage(t)
		defer st.end()
		st.client.raw(Preface)
		if st.client.ask(1, "/a", true) == nil || !st.hop.Pass() {
			t.Error("that is not an error, or not left to the original")
		}
	})
}

// A reader that is slow stops who sends to it, and nobody else.
func TestFlow(t *testing.T) {
	st := begun(t)
	defer st.end()
	st.client.ask(1, "/slow-reader", true)
	st.client.ask(3, "/b", true)
	st.orig().told()
	orig := st.orig()
	orig.head(1, false, ":status", "200")
	orig.head(3, false, ":status", "200")
	st.client.told()
	full := strings.Repeat("x", 16<<10-1)
	send := func(id uint32) string {
		orig.data(id, full, false)
		return orig.told()
	}
	// The client's window for the connection is larger than for a stream.
	st.client.say(func(f *xhttp2.Framer) { _ = f.WriteWindowUpdate(0, 1<<20) })
	got := ""
	for range 4 { // what the client takes, then as much as is held
		got += send(1)
	}
	st.client.tells("the client", "DATA 1 16384 bytes\nDATA 1 16384 bytes\nDATA 1 16384 bytes\nDATA 1 16380 bytes")
	got += orig.told()
	for range 2 {
		got += send(1)
	}
	if !strings.Contains(got, "WINDOW 1 32768") {
		t.Errorf("the original is told %q: its window is not opened again", got)
	}
	st.client.tells("the client", "DATA 1 xxx")
	for range 20 {
		send(3)
		if id := st.client.told(); !strings.Contains(id, "DATA 3") {
			t.Fatalf("beside a stream that is not read another stops: %q", id)
		}
		st.client.say(func(f *xhttp2.Framer) { _ = f.WriteWindowUpdate(3, uint32(len(full))) })
	}
	if orig.err != nil {
		t.Fatal(orig.err)
	}
	// Then it is read.
	st.client.say(func(f *xhttp2.Framer) { _ = f.WriteWindowUpdate(1, 100_000) })
	if got := st.client.told(); !strings.Contains(got, "DATA 1") {
		t.Errorf("the client is told %q", got)
	}
}

// Streams wait for a place at a server, and one that has ended makes one.
func TestStreamsWait(t *testing.T) {
	st := begun(t, xhttp2.Setting{ID: xhttp2.SettingMaxConcurrentStreams, Val: 2})
	defer st.end()
	for i := range uint32(4) {
		st.client.ask(1+2*i, fmt.Sprint("/", i), true)
	}
	orig := st.orig()
	orig.tells("the original", asksAll(1, "/0", "")+"\n"+asksAll(3, "/1", ""))
	orig.head(1, true, ":status", "200")
	orig.tells("the original", asksAll(5, "/2", ""))
	st.client.say(func(f *xhttp2.Framer) { _ = f.WriteRSTStream(7, xhttp2.ErrCodeCancel) }) // it has never gone anywhere
	st.client.say(func(f *xhttp2.Framer) { _ = f.WriteRSTStream(3, xhttp2.ErrCodeCancel) })
	orig.tells("the original", "RST 3 CANCEL")
	st.client.ask(9, "/4", true)
	orig.tells("the original", asksAll(7, "/4", ""))
}

// GOAWAY of the original's: its client hears it; what it has not taken is refused;
// what it has not got goes to its next connection.
func TestOriginalGoesAway(t *testing.T) {
	st := begun(t, xhttp2.Setting{ID: xhttp2.SettingMaxConcurrentStreams, Val: 2})
	defer st.end()
	old := st.orig()
	for i := range uint32(3) {
		st.client.ask(1+2*i, fmt.Sprint("/", i), true)
	}
	old.told()
	old.say(func(f *xhttp2.Framer) { _ = f.WriteGoAway(maxID, xhttp2.ErrCodeNo, nil) })
	st.client.tells("the client", "GOAWAY 2147483647 NO_ERROR")
	old.say(func(f *xhttp2.Framer) { _ = f.WriteGoAway(1, xhttp2.ErrCodeNo, nil) })
	st.client.tells("the client", "GOAWAY 5 NO_ERROR\nRST 3 REFUSED_STREAM")
	next := st.orig()
	if next == old {
		t.Fatal("the original is not connected anew")
	}
	next.greet()
	next.tells("the next connection", "")
	if got := next.told(); got != "" {
		t.Error(got)
	}
	old.head(1, true, ":status", "200")
	next.head(1, true, ":status", "201")
	st.client.tells("the client", "HEADERS 1 END :status=200\nHEADERS 5 END :status=201")
	if _, more := st.hop.client.Next(nil); more {
		t.Error("the connection does not end")
	}
	old.told()
	if _, more := old.p.Next(nil); more {
		t.Error("the original's old connection does not end")
	}
}

// A body decides whose a stream is; until then nothing of it goes anywhere.
func TestBodies(t *testing.T) {
	big := strings.Repeat("x", 16<<10)
	for _, c := range []struct {
		name  string
		says  func(c *end)
		local bool
		want  string
	}{
		{"matches", func(c *end) { c.data(1, "mi", false); c.data(1, "ne", true) }, true, "DATA 1 END mine"},
		{"matches, with trailers", func(c *end) { c.data(1, "mine", false); c.head(1, true, "t", "u") }, true, "DATA 1 mine\nHEADERS 1 END t=u"},
		{"does not match", func(c *end) { c.data(1, "yours", true) }, false, "DATA 1 END yours"},
		{"is empty", func(c *end) { c.data(1, "", true) }, false, "DATA 1 END "},
		{"is too long", func(c *end) {
			for range 7 {
				c.data(1, big, false)
			}
		}, false, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			st := begun(t)
			defer st.end()
			st.client.ask(1, "/body", false)
			st.orig().tells("the original", "")
			c.says(st.client)
			if st.client.err != nil {
				t.Fatal(st.client.err)
			}
			who := st.orig()
			if c.local {
				who = st.server("local")
				who.told()
				who.say(func(f *xhttp2.Framer) { _ = f.WriteSettings() })
			}
			got := strings.TrimPrefix(who.told(), "SETTINGS ACK\n")
			if want := strings.TrimSuffix(asks(1, "/body", "")+"\n"+c.want, "\n"); !strings.HasPrefix(got, want) {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
		})
	}
	t.Run("comes too late", func(t *testing.T) {
		st := begun(t)
		defer st.end()
		st.client.ask(1, "/slow", false)
		for begin := time.Now(); ; time.Sleep(time.Millisecond) {
			if got := st.orig().told(); got == asks(1, "/slow", "") {
				break
			} else if got != "" || time.Since(begin) > 5*time.Second {
				t.Fatalf("the original is told %q", got)
			}
		}
		st.client.data(1, "a", true)
		st.orig().tells("the original", "DATA 1 END a")
	})
	t.Run("is asked for", func(t *testing.T) {
		st := begun(t)
		defer st.end()
		st.client.ask(1, "/body", false, "expect", "100-continue")
		st.client.tells("the client", "HEADERS 1 :status=100")
		st.client.data(1, "yours", true)
		st.orig().told()
		st.orig().head(1, false, ":status", "100")
		st.orig().head(1, true, ":status", "200")
		st.client.tells("the client", "HEADERS 1 END :status=200")
	})
}

// What becomes of streams whose server is gone.
func TestServersEnd(t *testing.T) {
	const why = "mirrord: why\n"
	gone := func(p *Peer) int { return p.Ended(End{Text: why}) }
	open := func(t *testing.T, path string, more ...string) (*stage, *end) {
		st := begun(t)
		st.client.ask(1, path, false, more...)
		e := st.orig()
		if strings.HasPrefix(path, "/local") {
			e = st.server("local")
			e.greet()
		}
		e.told()
		return st, e
	}
	t.Run("local, before its reply", func(t *testing.T) {
		st, e := open(t, "/local")
		defer st.end()
		e.head(1, false, ":status", "103")
		gone(e.p)
		st.client.tells("the client", "HEADERS 1 :status=502 content-type=text/plain; charset=utf-8 content-length=13\nDATA 1 END "+why+"\nRST 1 NO_ERROR")
		st.client.data(1, "it does not know", true) // and that is no mistake
		st.client.ask(3, "/a", true)
		st.orig().tells("the original", asksAll(1, "/a", ""))
	})
	t.Run("local, in its reply", func(t *testing.T) {
		st, e := open(t, "/local")
		defer st.end()
		e.head(1, false, ":status", "200")
		e.data(1, "half", false)
		gone(e.p)
		st.client.tells("the client", "HEADERS 1 :status=200\nDATA 1 half\nRST 1 INTERNAL_ERROR")
	})
	t.Run("local, a call", func(t *testing.T) {
		st, e := open(t, "/local", "content-type", "application/grpc+proto")
		defer st.end()
		st.client.data(1, "", true)
		gone(e.p)
		st.client.tells("the client", "HEADERS 1 END :status=200 content-type=application/grpc grpc-status=14 grpc-message=mirrord: why")
	})
	t.Run("local, in a call", func(t *testing.T) {
		st, e := open(t, "/local", "content-type", "application/grpc")
		defer st.end()
		e.head(1, false, ":status", "200")
		gone(e.p)
		st.client.tells("the client", "HEADERS 1 :status=200\nHEADERS 1 END grpc-status=14 grpc-message=mirrord: why\nRST 1 NO_ERROR")
	})
	t.Run("local, behind its reply", func(t *testing.T) {
		st, e := open(t, "/local")
		defer st.end()
		e.head(1, true, ":status", "200")
		gone(e.p)
		st.client.tells("the client", "HEADERS 1 END :status=200\nRST 1 NO_ERROR")
	})
	t.Run("local refuses", func(t *testing.T) {
		st := begun(t)
		defer st.end()
		st.client.ask(1, "/local", false)
		st.client.data(1, "body", true)
		if n := st.server("local").p.Ended(End{Refused: true}); n != 1 {
			t.Errorf("%d streams are the original's, want 1", n)
		}
		st.orig().tells("the original", asks(1, "/local", "")+"\nDATA 1 END body")
	})
	t.Run("local does not speak HTTP/2", func(t *testing.T) {
		st := begun(t)
		defer st.end()
		st.client.ask(1, "/local", true)
		e := st.server("local")
		if err := e.raw("HTTP/1.1 400 Bad Request\r\n"); !errors.Is(err, ErrNotHTTP2) {
			t.Errorf("the error is %v", err)
		}
		gone(e.p)
		if got := st.client.told(); !strings.HasPrefix(got, "HEADERS 1 :status=502") {
			t.Errorf("the client is told %q", got)
		}
	})
	t.Run("local goes away", func(t *testing.T) {
		st, e := open(t, "/local/1")
		defer st.end()
		e.say(func(f *xhttp2.Framer) { _ = f.WriteGoAway(1, xhttp2.ErrCodeNo, nil) })
		st.client.ask(3, "/local/2", true)
		next := st.server("local")
		if next == e {
			t.Fatal("local is not connected anew")
		}
		e.head(1, true, ":status", "200")
		st.client.tells("the client", "HEADERS 1 END :status=200")
	})
	t.Run("the original", func(t *testing.T) {
		st, e := open(t, "/a")
		defer st.end()
		gone(e.p)
		st.client.tells("the client", "GOAWAY 1 NO_ERROR\nRST 1 INTERNAL_ERROR")
		if _, more := st.hop.client.Next(nil); more {
			t.Error("the connection does not end")
		}
	})
	t.Run("the original, a call", func(t *testing.T) {
		st, e := open(t, "/a", "content-type", "application/grpc")
		defer st.end()
		gone(e.p)
		st.client.tells("the client", "GOAWAY 1 NO_ERROR\nHEADERS 1 END :status=200 content-type=application/grpc grpc-status=14 grpc-message=mirrord: why\nRST 1 NO_ERROR")
	})
	t.Run("the original, idle", func(t *testing.T) {
		st := begun(t)
		defer st.end()
		gone(st.orig().p)
		st.client.tells("the client", "GOAWAY 0 NO_ERROR")
	})
	t.Run("the original breaks the rules", func(t *testing.T) {
		st, e := open(t, "/a")
		defer st.end()
		err := e.say(func(f *xhttp2.Framer) {
			_ = f.WritePushPromise(xhttp2.PushPromiseParam{StreamID: 1, PromiseID: 2, EndHeaders: true})
		})
		var wrong *ConnError
		if !errors.As(err, &wrong) {
			t.Fatalf("the error is %v", err)
		}
		e.tells("the original", "GOAWAY 0 PROTOCOL_ERROR")
	})
	t.Run("resets", func(t *testing.T) {
		st, e := open(t, "/a")
		defer st.end()
		e.head(1, false, ":status", "200")
		e.say(func(f *xhttp2.Framer) { _ = f.WriteRSTStream(1, xhttp2.ErrCodeEnhanceYourCalm) })
		st.client.tells("the client", "HEADERS 1 :status=200\nRST 1 ENHANCE_YOUR_CALM")
	})
	t.Run("resets behind its reply", func(t *testing.T) {
		st, e := open(t, "/a")
		defer st.end()
		e.head(1, true, ":status", "200")
		e.say(func(f *xhttp2.Framer) { _ = f.WriteRSTStream(1, xhttp2.ErrCodeNo) })
		st.client.tells("the client", "HEADERS 1 END :status=200\nRST 1 NO_ERROR")
	})
	t.Run("the session leaves", func(t *testing.T) {
		st, e := open(t, "/local/1")
		defer st.end()
		st.client.ask(3, "/a", true)
		st.orig().told()
		if n := st.hop.Leave(func(d Destination) bool { return d == "local" }, why); n != 0 {
			t.Errorf("%d streams are returned, want none", n)
		}
		if _, more := e.p.Next(nil); more {
			t.Error("local's connection goes on")
		}
		got := st.client.told()
		if !strings.HasPrefix(got, "GOAWAY 2147483647 NO_ERROR\nPING \"mirrord\\x00\"\nHEADERS 1 :status=502") {
			t.Errorf("the client is told %q", got)
		}
		st.client.ask(5, "/b", true) // it was on its way
		st.client.say(func(f *xhttp2.Framer) { _ = f.WritePing(true, [8]byte([]byte(leavingPing))) })
		st.client.tells("the client", "GOAWAY 5 NO_ERROR")
		st.client.ask(7, "/c", true) // it has been told
		st.client.data(7, "", false)
		st.orig().tells("the original", asksAll(3, "/b", ""))
		st.orig().head(1, true, ":status", "200")
		st.orig().head(3, true, ":status", "200")
		st.client.tells("the client", "HEADERS 3 END :status=200\nHEADERS 5 END :status=200")
		if _, more := st.hop.client.Next(nil); more {
			t.Error("the connection does not end")
		}
	})
}

// What RFC 9113 §10.5 warns of is bounded.
func TestFloods(t *testing.T) {
	repeat := func(st *stage, f func(*xhttp2.Framer)) (n int) {
		for n = 0; n < 200_000 && st.client.err == nil; n++ {
			st.client.say(f)
		}
		return n
	}
	for name, f := range map[string]func(*xhttp2.Framer){
		"PING":     func(f *xhttp2.Framer) { _ = f.WritePing(false, [8]byte{}) },
		"SETTINGS": func(f *xhttp2.Framer) { _ = f.WriteSettings() },
	} {
		t.Run(name, func(t *testing.T) {
			st := begun(t)
			defer st.end()
			n := repeat(st, f)
			if got := st.client.told(); !strings.HasSuffix(got, "GOAWAY 0 ENHANCE_YOUR_CALM") {
				t.Errorf("after %d the client is told …%s", n, got[max(0, len(got)-100):])
			}
		})
	}
	t.Run("settings of one frame", func(t *testing.T) {
		st := begun(t)
		defer st.end()
		st.client.ask(1, "/a", false)
		all := make([]xhttp2.Setting, maxSettings)
		for i := range all { // by turns; what counts is the last
			all[i] = xhttp2.Setting{ID: xhttp2.SettingInitialWindowSize, Val: uint32(maxID * (1 - i%2))}
		}
		st.client.say(func(f *xhttp2.Framer) { _ = f.WriteWindowUpdate(1, 1000) }) // with the largest window it were too much
		st.client.say(func(f *xhttp2.Framer) { _ = f.WriteSettings(all...) })
		if st.client.err != nil {
			t.Fatal(st.client.err)
		}
		if got := st.hop.client.streams[1].reply.credit; got != 1000 {
			t.Errorf("the stream's window is %d, want 1000", got)
		}
		st.client.told()
		st.client.say(func(f *xhttp2.Framer) { _ = f.WriteSettings(append(all, all[0])...) })
		st.client.tells("the client", "GOAWAY 1 ENHANCE_YOUR_CALM")
	})
	t.Run("CONTINUATION", func(t *testing.T) {
		st := begun(t)
		defer st.end()
		st.client.say(func(f *xhttp2.Framer) {
			_ = f.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte{0x82}})
		})
		if n := repeat(st, func(f *xhttp2.Framer) { _ = f.WriteContinuation(1, false, nil) }); n > maxPieces {
			t.Errorf("%d frames are taken", n)
		}
		st.client.tells("the client", "GOAWAY 0 ENHANCE_YOUR_CALM")
	})
	t.Run("an endless header block", func(t *testing.T) {
		st := begun(t)
		defer st.end()
		st.client.say(func(f *xhttp2.Framer) {
			_ = f.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte{0x82}})
		})
		if n := repeat(st, func(f *xhttp2.Framer) { _ = f.WriteContinuation(1, false, make([]byte, maxFrame)) }); n > maxBlock/maxFrame+1 {
			t.Errorf("%d frames are taken", n)
		}
	})
	t.Run("a header list too long", func(t *testing.T) {
		st := begun(t)
		defer st.end()
		st.client.ask(1, "/a", true, "x", strings.Repeat("y", 3000)) // it is in the table now, a byte long
		st.orig().told()
		fields := []string{":method", "GET", ":scheme", "http", ":path", "/b"}
		for range 200 {
			fields = append(fields, "x", strings.Repeat("y", 3000))
		}
		st.client.head(3, true, fields...)
		if got := st.client.told(); !strings.HasPrefix(got, "HEADERS 3 :status=431") {
			t.Errorf("the client is told %q", got)
		}
		fields[1] = "HEAD"
		st.client.head(5, true, fields...)
		st.client.tells("the client", "HEADERS 5 END :status=431 content-type=text/plain; charset=utf-8 content-length=42")
		st.client.ask(7, "/c", true) // the tables are in step
		st.orig().tells("the original", asksAll(3, "/c", ""))
	})
	t.Run("too many streams", func(t *testing.T) {
		st := begun(t)
		defer st.end()
		for i := range uint32(maxStreams + 1) {
			st.client.ask(1+2*i, "/a", true)
		}
		st.client.tells("the client", fmt.Sprintf("RST %d REFUSED_STREAM", 1+2*maxStreams))
		if st.client.err != nil {
			t.Error(st.client.err)
		}
	})
	t.Run("trailers of streams that were reset long ago", func(t *testing.T) {
		st := begun(t)
		defer st.end()
		const many = 2 * maxStreams
		for i := range uint32(many) {
			st.client.ask(1+2*i, "/a", false)
			st.orig().told()
			st.orig().say(func(f *xhttp2.Framer) { _ = f.WriteRSTStream(1+2*i, xhttp2.ErrCodeCancel) })
			st.client.told()
		}
		for i := range uint32(many) {
			st.client.head(1+2*i, true, "t", "u")
		}
		st.client.ask(1+2*many, "/b", true) // the tables are in step
		st.orig().tells("the original", asksAll(1+2*many, "/b", ""))
	})
	t.Run("rapid reset", func(t *testing.T) {
		st := begun(t)
		defer st.end()
		id := uint32(1)
		n := repeat(st, func(f *xhttp2.Framer) {
			_ = f.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: id, EndHeaders: true, EndStream: true, BlockFragment: st.client.block(":method", "GET", ":scheme", "http", ":path", "/a")})
			_ = f.WriteRSTStream(id, xhttp2.ErrCodeCancel)
			id += 2
		})
		// Of what is reset before the original has got it, the original hears nothing.
		if got := st.orig().told(); got != "" || st.client.err != nil || len(st.hop.client.streams) > 0 || st.memory.Used() > 0 {
			t.Errorf("after %d: the original is told %.100q, %d streams, %d bytes, %v", n, got, len(st.hop.client.streams), st.memory.Used(), st.client.err)
		}
	})
	t.Run("rapid reset of what is given, to a program that reads nothing", func(t *testing.T) {
		st := begun(t)
		defer st.end()
		id := uint32(1)
		local := func() *end { st.client.ask(id, "/local", true); return st.server("local") }()
		local.greet()
		cut := 0
		local.p.WhenCut(func() { cut++ })
		id += 2
		st.client.ask(id, "/a", true) // a stream of somebody else's
		kept := id
		for id += 2; id < 100_000 && cut == 0; id += 2 {
			st.client.ask(id, "/local", true)
			h := st.hop
			h.mu.Lock()
			p := local.p
			held := p.out
			p.out = nil
			p.take(nil) // what is said of streams is written, what is said besides stays
			p.out = held
			h.mu.Unlock()
			st.client.say(func(f *xhttp2.Framer) { _ = f.WriteRSTStream(id, xhttp2.ErrCodeCancel) })
		}
		if st.client.err != nil || cut != 1 || id > 20_000 {
			t.Errorf("after %d streams: %v, %d connections are cut", id/2, st.client.err, cut)
		}
		if got := st.client.told(); !strings.HasPrefix(got, "HEADERS 1 :status=502") {
			t.Errorf("the client is told %q", got)
		}
		st.orig().told()
		st.orig().head(1, true, ":status", "200")
		st.client.tells("the client", fmt.Sprintf("HEADERS %d END :status=200", kept))
		st.client.ask(id, "/local", true)
		if st.server("local") == local {
			t.Error("local is not connected anew")
		}
	})
	t.Run("interim replies", func(t *testing.T) {
		st := begun(t)
		defer st.end()
		st.client.ask(1, "/a", true)
		st.orig().told()
		for range 2 * maxInterim {
			st.orig().head(1, false, ":status", "103")
		}
		st.orig().tells("the original", "RST 1 ENHANCE_YOUR_CALM")
	})
}
