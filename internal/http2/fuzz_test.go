package http2

import (
	"slices"
	"strings"
	"testing"

	xhttp2 "golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/mirrord-go/mirrord/internal/budget"
)

// Who speaks in a script.
const (
	client = iota
	original
	local
)

// FuzzHop: whatever client, original and local say, in any order and in pieces,
// each is told only frames that another implementation understands, in header blocks
// that it decodes; memory stays within its bound, and nothing is held at the end.
//
// The input is a script: a byte says who speaks (its lowest two bits), the next one
// how many of the following bytes it says.
func FuzzHop(f *testing.F) {
	say := func(who byte, s string) string {
		script := ""
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
	head := func(id uint32, ends bool, fields ...string) string {
		return frames(func(f *xhttp2.Framer) {
			_ = f.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: id, EndStream: ends, EndHeaders: true, BlockFragment: e.block(fields...)})
		})
	}
	settings := frames(func(f *xhttp2.Framer) {
		_ = f.WriteSettings(xhttp2.Setting{ID: xhttp2.SettingInitialWindowSize, Val: 10})
	})
	get := []string{":method", "GET", ":scheme", "http", ":path", "/a"}
	post := []string{":method", "POST", ":scheme", "http", ":path", "/local", "content-type", "application/grpc"}
	hello := say(client, Preface+settings) + say(original, settings)
	f.Add([]byte(hello + say(client, head(1, true, get...)) + say(original, head(1, true, ":status", "200"))))
	f.Add([]byte(hello + say(client, head(1, false, post...)) + say(local, settings) + say(client, "\x00\x00\x05\x00\x01\x00\x00\x00\x01hello") +
		say(local, head(1, false, ":status", "200")+"\x00\x00\x14\x00\x00\x00\x00\x00\x01twenty bytes of text"+head(1, true, "grpc-status", "0"))))
	f.Add([]byte(hello + say(client, head(1, false, get...)) + say(original, frames(func(f *xhttp2.Framer) { _ = f.WriteGoAway(0, xhttp2.ErrCodeNo, nil) }))))
	f.Add([]byte(hello + say(client, head(1, false, ":method", "POST", ":scheme", "http", ":path", "/body")+"\x00\x00\x04\x00\x01\x00\x00\x00\x01mine") + "\x06\x00" + say(client, head(3, true, get...))))
	f.Add([]byte(say(client, Preface+settings) + say(original, "HTTP/1.1 400 no\r\n\r\n")))
	f.Add([]byte(hello + say(client, head(1, true, get...)+frames(func(f *xhttp2.Framer) { _ = f.WriteRSTStream(1, xhttp2.ErrCodeCancel) })) + "\x05\x00" + say(client, head(3, true, get...))))
	f.Fuzz(func(t *testing.T, script []byte) {
		const most = 1 << 20
		st := newStageWith(t, budget.New(most).Share(0, budget.All))
		defer st.end()
		st.play(script)
	})
}

// play says what a script says.
func (st *stage) play(script []byte) {
	for len(script) >= 2 {
		who, n := script[0], min(int(script[1]), len(script)-2)
		text := script[2 : 2+n]
		script = script[2+n:]
		var e *end
		switch who % 4 {
		case client:
			e = st.client
		default: // one of the servers; its end if it says nothing
			var all []*end
			for _, s := range st.made {
				if (s.p.To() == nil) == (who%4 == original) {
					all = append(all, s)
				}
			}
			if len(all) == 0 {
				continue
			}
			e = all[len(all)-1]
		}
		if len(text) > 0 && e.err == nil {
			_ = e.raw(string(text))
		}
		if len(text) == 0 || e.err != nil {
			e.told()
			if e == st.client {
				st.hop.ClientEnded(e.err)
			} else {
				e.p.Ended(End{Refused: who&4 != 0, Text: "mirrord: why\n"})
			}
		}
		st.client.passes = true
		for _, s := range st.made {
			s.passes = true
		}
		if who&8 == 0 { // else nobody reads
			st.client.told()
			for _, s := range st.made {
				s.told()
			}
		}
	}
}

// FuzzHeaders: a header block that another decoder understands reaches the original
// as the same fields in the same order; any other is an error.
func FuzzHeaders(f *testing.F) {
	e := newEnd(f, nil)
	for _, fields := range [][]string{{":method", "GET", ":scheme", "http", ":path", "/a"}, {"secret", "x", "x", "y", "x", "y"}, {"cookie", "a=b", "cookie", "c=d", "", ""}} {
		f.Add(slices.Clone(e.block(fields...)))
	}
	f.Add([]byte{0x3f, 0xe1, 0x1f, 0x82, 0x20})
	f.Fuzz(func(t *testing.T, block []byte) {
		if len(block) > maxFrame {
			return
		}
		var want []string
		size := 0
		d := hpack.NewDecoder(maxTable, func(f hpack.HeaderField) {
			want = append(want, f.Name+"="+f.Value)
			size += int(f.Size())
			if f.Sensitive {
				want[len(want)-1] += "!"
			}
		})
		_, err := d.Write(block)
		if err == nil {
			err = d.Close()
		}
		st := begun(t)
		defer st.end()
		got := st.client.say(func(f *xhttp2.Framer) {
			_ = f.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 1, EndStream: true, EndHeaders: true, BlockFragment: block})
		})
		// What stands behind a list that is too long is not read, but for the table.
		if long := size > maxList; (got == nil) != (err == nil) && !(long && got == nil) {
			t.Fatalf("the error is %v, of another decoder %v", got, err)
		}
		if err != nil || size > maxList {
			return
		}
		// The reader of the test judges what fields mean; the hop does not.
		h := st.hop
		h.mu.Lock()
		defer h.unlock()
		s := h.client.streams[1]
		if s == nil || len(s.request.parts) == 0 {
			t.Fatal("the request goes nowhere")
		}
		var fields []string
		p := s.to
		b := p.take(nil)
		again := hpack.NewDecoder(maxTable, func(f hpack.HeaderField) {
			fields = append(fields, f.Name+"="+f.Value)
			if f.Sensitive {
				fields[len(fields)-1] += "!"
			}
		})
		if p.To() != nil { // it waits for local's first word
			return
		}
		for sc := (scanner{server: true}); len(b) > 0; {
			f, rest, ok, err := sc.next(b)
			if !ok || err != nil {
				t.Fatalf("what the original is told is no frame: %v", err)
			}
			if f.kind == kindHeaders || f.kind == kindContinuation {
				if _, err := again.Write(f.payload); err != nil {
					t.Fatal(err)
				}
			}
			b = rest
		}
		if g, w := strings.Join(fields, "\n"), strings.Join(want, "\n"); g != w {
			t.Errorf("the original is told %q, want %q", g, w)
		}
	})
}
