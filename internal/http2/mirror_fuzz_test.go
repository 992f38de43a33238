package http2

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"testing"

	xhttp2 "golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/mirrord-go/mirrord/internal/budget"
)

// FuzzMirror: whatever a client and the second server say, in any order and in
// pieces, that is told only frames that another implementation understands; memory
// stays within its bound, and nothing is held at the end.
//
// The input is a script: of a first byte the lowest bit says whether the connection is
// met in its middle; then a byte says who speaks (its lowest bit), and whether the
// server reads (the next), and another one how many of the following bytes are said.
func FuzzMirror(f *testing.F) {
	const client, server = 0, 1
	say := func(who byte, s string) (script string) {
		for len(s) > 0 {
			n := min(len(s), 255)
			script += string([]byte{who, byte(n)}) + s[:n]
			s = s[n:]
		}
		return script
	}
	e := newEnd(f, nil)
	frames := func(write func(*xhttp2.Framer)) string {
		e.said.Reset()
		write(e.out)
		return e.said.String()
	}
	head := func(id uint32, ends bool, path string) string {
		return frames(func(f *xhttp2.Framer) {
			_ = f.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: id, EndStream: ends, EndHeaders: true, BlockFragment: e.block(":method", "GET", ":scheme", "http", ":path", path)})
		})
	}
	data := func(id uint32, ends bool, text string) string {
		return frames(func(f *xhttp2.Framer) { _ = f.WriteData(id, ends, []byte(text)) })
	}
	settings := frames(func(f *xhttp2.Framer) {
		_ = f.WriteSettings(xhttp2.Setting{ID: xhttp2.SettingInitialWindowSize, Val: 10}, xhttp2.Setting{ID: xhttp2.SettingMaxConcurrentStreams, Val: 1})
	})
	opened := frames(func(f *xhttp2.Framer) { _ = f.WriteWindowUpdate(1, 100) })
	away := frames(func(f *xhttp2.Framer) { _ = f.WriteGoAway(0, xhttp2.ErrCodeNo, nil) })
	one := head(1, false, "/local") + data(1, false, strings.Repeat("x", 30)) + head(3, true, "/local")
	f.Add([]byte("\x00" + say(client, Preface+one) + say(server, settings) + say(server, opened) + say(client, data(1, true, "y"))))
	f.Add([]byte("\x00" + say(client, Preface+one) + say(server|2, settings) + say(server, away) + say(server, settings) + say(client, "\x00\x00\x04\x03\x00\x00\x00\x00\x01\x00\x00\x00\x08")))
	f.Add([]byte("\x01" + say(client, head(1, false, "/body")+data(1, true, "mine")+head(3, true, "/other")) + say(server, settings+data(1, true, "no"))))
	f.Add([]byte("\x00" + say(client, Preface+head(1, true, "/local")) + say(server, "HTTP/1.1 400 no\r\n\r\n") + "\x01\x00" + say(client, head(3, true, "/local")) + "\x00\x00"))
	f.Fuzz(func(t *testing.T, script []byte) {
		if len(script) == 0 {
			return
		}
		w := newWatched(t, script[0]&1 != 0, budget.New(256<<10).Share(0, budget.All))
		defer w.end()
		over := false
		for script = script[1:]; len(script) >= 2; {
			who, n := script[0], min(int(script[1]), len(script)-2)
			text := script[2 : 2+n]
			script = script[2+n:]
			switch {
			case who&1 == client && len(text) == 0, who&1 == client && w.m.Receive(text) != nil:
				w.m.Ended()
				over = true
			case who&1 == client:
			case len(w.sinks) == 0:
			case len(text) == 0 || w.silent().k.Receive(text) != nil:
				w.silent().told()
				w.silent().k.Ended()
			}
			if over {
				break
			}
			for _, s := range w.sinks {
				if s.passes = true; who&2 == 0 {
					s.told()
				}
			}
		}
	})
}

// FuzzCopied: of what a client says, in frames that another implementation takes, the
// second server is told the same requests in the same order: their fields, bodies,
// trailers and resets.
func FuzzCopied(f *testing.F) {
	e := newEnd(f, nil)
	say := func(write func(*xhttp2.Framer)) {
		e.said.Reset()
		write(e.out)
		f.Add(bytes.Clone(e.said.Bytes()))
	}
	request := func(fields ...string) []byte {
		return e.block(append([]string{":method", "POST", ":scheme", "http", ":path", "/local"}, fields...)...)
	}
	say(func(f *xhttp2.Framer) {
		_ = f.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 1, EndHeaders: true, BlockFragment: request("a", "b", "secret", "c")})
		_ = f.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 3, EndHeaders: true, PadLength: 3, BlockFragment: request("a", "b")})
		_ = f.WriteDataPadded(1, false, []byte("one"), []byte{0, 0})
		_ = f.WriteData(3, false, []byte("three"))
		_ = f.WriteData(1, false, []byte("more"))
		_ = f.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 1, EndStream: true, EndHeaders: true, BlockFragment: e.block("sum", "1")})
		_ = f.WriteRSTStream(3, xhttp2.ErrCodeCancel)
		_ = f.WritePing(false, [8]byte{})
	})
	e = newEnd(f, nil)
	say(func(f *xhttp2.Framer) {
		b := request("cookie", "a=b", "cookie", "c=d")
		_ = f.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 5, EndStream: true, BlockFragment: b[:3]})
		_ = f.WriteContinuation(5, true, b[3:])
		_ = f.WriteSettings(xhttp2.Setting{ID: 4, Val: 1})
		_ = f.WriteData(7, true, nil)
		_ = f.WriteRSTStream(5, xhttp2.ErrCodeStreamClosed)
		_ = f.WriteRSTStream(5, xhttp2.ErrCodeCancel)
	})
	f.Fuzz(func(t *testing.T, said []byte) {
		want, said, ok := requests(said)
		if !ok {
			return
		}
		w := newWatched(t, false, ample())
		defer w.end()
		w.m.o.Route = func(q *Request) Verdict {
			if q.Understood {
				return Verdict{To: true}
			}
			return Verdict{}
		}
		var ce *ConnError
		if err := w.raw(Preface + string(said)); errors.As(err, &ce) && ce.Code == EnhanceYourCalm {
			return // of pieces there is a bound
		} else if err != nil {
			t.Fatal(err)
		}
		var got []string
		if len(w.sinks) > 0 {
			got = w.sink().requests()
		}
		if !slices.Equal(got, want) {
			t.Errorf("the second server is told %q, want %q", got, want)
		}
	})
}

// requests gives what a client asks for, as its server hears it, up to where that hears
// something wrong; ok is false for what is left to other tests.
func requests(said []byte) (all []string, heard []byte, ok bool) {
	r := bytes.NewReader(said)
	in := xhttp2.NewFramer(io.Discard, r)
	in.ReadMetaHeaders = hpack.NewDecoder(maxTable, nil)
	in.MaxHeaderListSize = maxList
	in.SetMaxReadFrameSize(maxSeen)
	text, ended, last := map[uint32]string{}, map[uint32]bool{}, uint32(0)
	for {
		f, err := in.ReadFrame()
		if err != nil {
			break
		}
		heard = said[:len(said)-r.Len()]
		id := f.Header().StreamID
		s, known := text[id]
		open := known && !ended[id]
		switch f := f.(type) {
		case *xhttp2.PushPromiseFrame:
			return nil, nil, false
		case *xhttp2.MetaHeadersFrame:
			switch {
			case f.Truncated, id%2 == 0:
				return nil, nil, false
			case open && f.StreamEnded():
				text[id], ended[id] = s+fields(f), true
			case open: // it is malformed
				delete(text, id)
			case id > last:
				if last = id; newRequest(f.Fields).Understood {
					text[id], ended[id] = fields(f), f.StreamEnded()
				}
			}
		case *xhttp2.DataFrame:
			if open {
				text[id], ended[id] = s+content(f), f.StreamEnded()
			}
		case *xhttp2.RSTStreamFrame:
			switch {
			case open:
				delete(text, id)
			case known && !strings.HasSuffix(s, "reset"):
				text[id] = s + resets(f)
			}
		}
	}
	for _, id := range slices.Sorted(maps.Keys(text)) {
		all = append(all, text[id])
	}
	return all, heard, true
}

// requests gives what the second server is asked for.
func (s *sunk) requests() (all []string) {
	s.t.Helper()
	_ = s.say(func(f *xhttp2.Framer) {
		_ = f.WriteSettings(xhttp2.Setting{ID: xhttp2.SettingInitialWindowSize, Val: maxID})
		_ = f.WriteWindowUpdate(0, maxID-window)
	})
	s.k.m.mu.Lock()
	s.heard.Write(s.k.take(nil))
	for len(s.k.ready) > 0 {
		s.heard.Write(s.k.take(nil))
	}
	s.k.m.mu.Unlock()
	text := map[uint32]string{}
	for {
		f, err := s.in.ReadFrame()
		if err != nil {
			break
		}
		switch f := f.(type) {
		case *xhttp2.MetaHeadersFrame:
			text[f.StreamID] += fields(f)
		case *xhttp2.DataFrame:
			text[f.StreamID] += content(f)
		case *xhttp2.RSTStreamFrame:
			text[f.StreamID] += resets(f)
		}
	}
	for _, id := range slices.Sorted(maps.Keys(text)) {
		all = append(all, text[id])
	}
	return all
}

func fields(f *xhttp2.MetaHeadersFrame) string {
	_, rest, _ := strings.Cut(show(f), fmt.Sprint(f.StreamID))
	return "[" + rest + "]"
}

// resets is what a reset behind a whole request comes to.
func resets(f *xhttp2.RSTStreamFrame) string {
	if f.ErrCode == xhttp2.ErrCodeNo || f.ErrCode == xhttp2.ErrCodeStreamClosed {
		return ""
	}
	return f.ErrCode.String() + " reset"
}

func content(f *xhttp2.DataFrame) string {
	if f.StreamEnded() {
		return string(f.Data()) + "."
	}
	return string(f.Data())
}
