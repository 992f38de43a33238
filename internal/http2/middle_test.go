package http2

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	xhttp2 "golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// A client that has spoken before: what it names by numbers that were given then is
// unknown, everything else is known.
func TestMirrorInTheMiddle(t *testing.T) {
	before := []string{":authority", "a", "x-user", "ana", "x-old", "1"}
	for _, c := range []struct {
		name   string
		asks   [][]string // besides method, scheme and path; each a request
		want   string
		unseen int
	}{
		{"nothing from before", [][]string{{"x-new", "1"}, {"x-new", "1"}},
			"HEADERS 1 END :method=GET :scheme=http :path=/local x-new=1\nHEADERS 3 END :method=GET :scheme=http :path=/local x-new=1", 0},
		{"a field from before", [][]string{{"x-user", "ana"}, {"x-new", "1"}, {"x-old", "1"}},
			"HEADERS 1 END :method=GET :scheme=http :path=/local x-new=1", 2},
		{"a name from before", [][]string{{"x-user", "bob"}, {"x-user", "bob"}}, "", 2},
		{"a name that never changes", [][]string{{":authority", "b"}, {":authority", "b"}},
			"HEADERS 1 END :method=GET :scheme=http :path=/local :authority=b\nHEADERS 3 END :method=GET :scheme=http :path=/local :authority=b", 0},
		{"said again", [][]string{{"x-big", strings.Repeat("x", 4016)}, {"x-user", "ana"}, {"x-user", "ana"}},
			"HEADERS 1 END :method=GET :scheme=http :path=/local x-big=" + strings.Repeat("x", 4016) + "\n" +
				"HEADERS 3 END :method=GET :scheme=http :path=/local x-user=ana\nHEADERS 5 END :method=GET :scheme=http :path=/local x-user=ana", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWatched(t, true, ample())
			defer w.end()
			w.client.block(before...)
			for i, more := range c.asks {
				if err := w.ask(uint32(101+2*i), "/local", true, more...); err != nil {
					t.Fatal(err)
				}
			}
			if w.unseen != c.unseen || w.lost > 0 {
				t.Errorf("%d are unseen, want %d; %d are lost", w.unseen, c.unseen, w.lost)
			}
			if c.want == "" {
				if len(w.sinks) > 0 {
					t.Errorf("told is %s", w.sink().told())
				}
				return
			}
			w.sink().tells(c.want)
		})
	}
	t.Run("a request that began before", func(t *testing.T) {
		w := newWatched(t, true, ample())
		defer w.end()
		w.ask(11, "/local", false)
		w.data(9, "of another", true)
		w.reset(7)
		w.ask(5, "/local", true) // trailers
		w.sink().tells("HEADERS 1 :method=GET :scheme=http :path=/local")
	})
	t.Run("trailers", func(t *testing.T) {
		w := newWatched(t, true, ample())
		defer w.end()
		w.client.block(before...)
		w.ask(11, "/local", false)
		w.sink().told()
		w.say(func(f *xhttp2.Framer) {
			_ = f.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 11, EndStream: true, EndHeaders: true, BlockFragment: w.client.block("x-user", "ana")})
		})
		w.sink().tells("RST 1 CANCEL")
		if w.unseen != 1 {
			t.Errorf("%d are unseen, want 1", w.unseen)
		}
	})
}

func TestBegins(t *testing.T) {
	frames := func(write func(f *xhttp2.Framer, e *end)) string {
		e := newEnd(t, nil)
		e.block(":authority", "a", "x-user", "ana")
		write(e.out, e)
		return e.said.String()
	}
	get := []string{":authority", "a", ":method", "GET", ":path", "/a", ":scheme", "http", "x-user", "ana"}
	head := func(p xhttp2.HeadersFrameParam, fields ...string) string {
		return frames(func(f *xhttp2.Framer, e *end) {
			p.BlockFragment = e.block(fields...)
			_ = f.WriteHeaders(p)
		})
	}
	whole := xhttp2.HeadersFrameParam{StreamID: 7, EndHeaders: true, EndStream: true}
	request := head(whole, get...)
	aside := frames(func(f *xhttp2.Framer, _ *end) {
		_ = f.WriteSettingsAck()
		_ = f.WriteSettings(xhttp2.Setting{ID: 3, Val: 3})
		_ = f.WritePing(true, [8]byte{})
		_ = f.WriteWindowUpdate(0, 1)
		_ = f.WriteWindowUpdate(5, 1)
		_ = f.WriteRSTStream(5, 8)
		_ = f.WritePriority(9, xhttp2.PriorityParam{})
	})
	for name, c := range map[string]struct {
		said string
		want bool
	}{
		"a request":             {request, true},
		"padded, with priority": {head(xhttp2.HeadersFrameParam{StreamID: 7, EndHeaders: true, PadLength: 3, Priority: xhttp2.PriorityParam{Weight: 1}}, get...), true},
		"behind others":         {aside + request, true},
		"before others":         {request + aside + request, true},
		"before half a frame":   {request + "\x00\x40\x00\x00\x00\x00\x00\x00\x07body", true},
		"before half a head":    {request + "\x00\x40\x00", true},
		"nothing":               {"", false},
		"the preface":           {Preface, false},
		"HTTP/1":                {"GET / HTTP/1.1\r\nHost: a\r\n\r\n", false},
		"TLS":                   {"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", false},
		"zeros":                 {strings.Repeat("\x00", 100), false},
		"others alone":          {aside, false},
		"many others":           {strings.Repeat(aside, 4) + request, false},
		"behind data":           {"\x00\x00\x01\x00\x00\x00\x00\x00\x05x" + request, false},
		"half a request":        {request[:len(request)-1], false},
		"not at its beginning":  {request[1:], false},
		"in pieces":             {head(xhttp2.HeadersFrameParam{StreamID: 7}, get...), false},
		"an even number":        {head(xhttp2.HeadersFrameParam{StreamID: 8, EndHeaders: true}, get...), false},
		"no number":             {head(xhttp2.HeadersFrameParam{StreamID: 0, EndHeaders: true}, get...), false},
		"a reply":               {head(whole, ":status", "200"), false},
		"trailers":              {head(whole, "grpc-status", "0"), false},
		"another scheme":        {head(whole, ":method", "GET", ":scheme", "gopher", ":path", "/"), false},
		"a strange name":        {head(whole, append(get, "X y", "1")...), false},
		"a reserved bit":        {request[:5] + "\x80" + request[6:], false},
		"a strange flag":        {request[:4] + "\x45" + request[5:], false},
		"before no frame":       {request + "this is something else", false},
		"a number beyond":       {"\x00\x00\x03\x01\x05\x00\x00\x00\x07\x86\xff\x7f", false},
	} {
		if got := Begins([]byte(c.said)); got != c.want {
			t.Errorf("%s: got %v, want %v", name, got, c.want)
		}
	}
}

// FuzzUnseen: who decodes from some block on gets the same fields as who has heard
// all of them, or unknown ones, and fails only where the other does.
//
// The input is header blocks, each behind its length; the first of them says how many
// of the others are not heard.
func FuzzUnseen(f *testing.F) {
	script := func(unheard byte, blocks ...[]byte) []byte {
		out := []byte{unheard}
		for _, b := range blocks {
			out = append(append(out, byte(len(b))), b...)
		}
		return out
	}
	e := newEnd(f, nil)
	block := func(fields ...string) []byte { return bytes.Clone(e.block(fields...)) }
	f.Add(script(1, block(":authority", "a", "x", "1"), block(":authority", "a", "y", "2"), block("x", "3", "y", "2"), block("x", "3", "x", "1")))
	f.Add(script(1, block("x", "1"), []byte{0x20, 0x3f, 0xe1, 0x1f, 0x82}, block("x", "2"), []byte{0xbe, 0xbf}))
	e = newEnd(f, nil)
	f.Add(script(2, block("x", strings.Repeat("~", 200)), block("y", strings.Repeat("~", 200)), block("z", "1"), []byte{0xbe, 0xbf, 0xc0, 0x7e, 1, 'a'}, []byte{0xbe, 0xc1}))
	f.Fuzz(func(t *testing.T, script []byte) {
		if len(script) == 0 {
			return
		}
		unheard := int(script[0])
		script = script[1:]
		decode := func(d *hpack.Decoder, b []byte) error {
			_, err := d.Write(b)
			if err == nil {
				err = d.Close()
			}
			return err
		}
		var all, ours []hpack.HeaderField
		whole := hpack.NewDecoder(maxTable, func(f hpack.HeaderField) { all = append(all, f) })
		part := hpack.NewDecoder(maxTable, func(f hpack.HeaderField) { ours = append(ours, f) })
		unknown(part)
		for i := 0; len(script) > 0; i++ {
			n := min(int(script[0]), len(script)-1)
			b := script[1 : 1+n]
			script = script[1+n:]
			all, ours = nil, nil
			Begins(b)
			if err := decode(whole, b); err != nil {
				return
			}
			if i < unheard {
				continue
			}
			if err := decode(part, b); err != nil {
				if strings.Contains(err.Error(), "table size update") { // the decoder allows more of them while its table is empty
					return
				}
				t.Fatalf("block %d: %v", i, err)
			}
			if len(all) != len(ours) {
				t.Fatalf("block %d: %d fields, want %d", i, len(ours), len(all))
			}
			for j, f := range ours {
				if f.Name != "" && fmt.Sprint(f) != fmt.Sprint(all[j]) {
					t.Errorf("block %d: field %d is %v, want %v", i, j, f, all[j])
				}
			}
		}
	})
}
