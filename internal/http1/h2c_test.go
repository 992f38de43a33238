package http1

import (
	"bytes"
	"io"
	"strings"
	"testing"
)

const offer = "GET /x HTTP/1.1\r\nHost: a\r\n"

func TestOffers(t *testing.T) {
	for _, c := range []struct {
		name, fields string
		offers       bool
		settings     string // "-": none
		adopted      string // of "\x00\x01"; "": as it was
		declined     string
		upgrades     bool // and then something may still be
	}{
		{"curl's", "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n", true, "\x00\x03\x00\x00\x00\x64",
			"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAE\r\n", "Connection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABk\r\n", false},
		{"other letters, white space, folded", "http2-SETTINGS:AAMAAABk \r\nA:  b\r\nupgrade:\r\n\tH2C\r\n", true, "\x00\x03\x00\x00\x00\x64",
			"http2-SETTINGS: AAE\r\nA:  b\r\nupgrade:\r\n\tH2C\r\n", "http2-SETTINGS:AAMAAABk \r\nA:  b\r\n", false},
		{"padding", "Upgrade: h2c\r\nHTTP2-Settings: AAM=\r\n", true, "\x00\x03", "Upgrade: h2c\r\nHTTP2-Settings: AAE\r\n", "HTTP2-Settings: AAM=\r\n", false},
		{"empty settings", "Upgrade: h2c\r\nHTTP2-Settings:\r\n", true, "", "Upgrade: h2c\r\nHTTP2-Settings: AAE\r\n", "HTTP2-Settings:\r\n", false},
		{"no settings", "Upgrade: h2c\r\n", true, "-", "", "", false},
		{"two", "Upgrade: h2c\r\nHTTP2-Settings: AAM\r\nHTTP2-Settings: AAM\r\n", true, "-", "", "HTTP2-Settings: AAM\r\nHTTP2-Settings: AAM\r\n", false},
		{"what is not base64", "Upgrade: h2c\r\nHTTP2-Settings: A M\r\n", true, "-", "", "HTTP2-Settings: A M\r\n", false},
		{"among others", "Upgrade: websocket, h2c ,irc/6.9\r\nUpgrade: h2c\r\nHTTP2-Settings: AAM\r\n", true, "\x00\x03", "Upgrade: websocket, h2c ,irc/6.9\r\nUpgrade: h2c\r\nHTTP2-Settings: AAE\r\n",
			"Upgrade: websocket, irc/6.9\r\nHTTP2-Settings: AAM\r\n", true},
		{"another", "Upgrade: websocket\r\nHTTP2-Settings: AAM\r\n", false, "-", "", "Upgrade: websocket\r\nHTTP2-Settings: AAM\r\n", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			body := "Content-Length: 3\r\n\r\nabc"
			in := offer + c.fields + body
			ask := func(change func(*Request)) string {
				r := NewReader(strings.NewReader(in+"rest"), nil)
				defer r.Close()
				q, err := requestOf(r)
				if err != nil {
					t.Fatal(err)
				}
				settings, ok := q.Settings()
				if q.Offers != c.offers || ok != (c.settings != "-") || ok && string(settings) != c.settings {
					t.Errorf("it offers %v, with %q, %v", q.Offers, settings, ok)
				}
				change(q)
				var out bytes.Buffer
				if err := r.Forward(&out, &q.Message); err != nil {
					t.Fatal(err)
				}
				if rest, _ := io.ReadAll(io.MultiReader(bytes.NewReader(r.Buffered()), r.src)); string(rest) != "rest" {
					t.Errorf("behind it is %q", rest)
				}
				return out.String()
			}
			if c.adopted != "" {
				if got, want := ask(func(q *Request) { q.Adopt([]byte{0, 1}) }), offer+c.adopted+body; got != want {
					t.Errorf("adopted it is %q, want %q", got, want)
				}
			}
			got := ask(func(q *Request) {
				q.Decline()
				if q.Upgrades != c.upgrades || q.Offers {
					t.Errorf("declined it offers %v, and upgrades %v", q.Offers, q.Upgrades)
				}
			})
			if want := offer + c.declined + body; got != want {
				t.Errorf("declined it is %q, want %q", got, want)
			}
		})
	}
}

func TestAgrees(t *testing.T) {
	for reply, want := range map[string]bool{
		"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n":       true,
		"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n": false,
		"HTTP/1.1 426 Upgrade Required\r\nUpgrade: h2c\r\nContent-Length: 0\r\n\r\n":            false,
	} {
		if r, err := readResponse(reply, "GET"); err != nil || r.Agrees != want {
			t.Errorf("%q agrees: %v, %v, want %v", reply, r.Agrees, err, want)
		}
	}
}

// FuzzOffers: however an offer is written, what is forwarded of it is understood as the
// same request, with the same fields but those of the offer: which, adopted, has the
// new settings, and, declined, is none.
func FuzzOffers(f *testing.F) {
	f.Add("Upgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n")
	f.Add("upgrade:\r\n websocket,\r\n\th2c\r\nA: b\r\n c\r\nHTTP2-Settings: AAM=\r\n")
	f.Add("Upgrade: ,h2c,\r\nTransfer-Encoding: chunked\r\n")
	f.Fuzz(func(t *testing.T, fields string) {
		in := offer + fields + "\r\n"
		read := func(in string) *Request {
			r := NewReader(strings.NewReader(in), nil)
			defer r.Close()
			q, err := requestOf(r)
			if err != nil || q.Message.head != len(in) {
				return nil
			}
			return q
		}
		rest := func(q *Request) (all []string) {
			for name, value := range q.Headers() {
				if !strings.EqualFold(name, "Upgrade") && !strings.EqualFold(name, settingsField) {
					all = append(all, name+": "+value)
				}
			}
			return all
		}
		q := read(in)
		if q == nil {
			return
		}
		want := strings.Join(rest(q), "\n")
		_, ok := q.Settings()
		for _, adopt := range []bool{true, false} {
			if adopt && !ok {
				continue
			}
			q := read(in)
			if adopt {
				q.Adopt([]byte("ours"))
			} else {
				q.Decline()
			}
			again := read(string(q.instead))
			if again == nil {
				t.Fatalf("%q became %q", in, q.instead)
			}
			settings, has := again.Settings()
			if again.Offers != adopt || has != adopt || adopt && string(settings) != "ours" || again.Upgrades != q.Upgrades {
				t.Errorf("%q became %q", in, q.instead)
			}
			if got := strings.Join(rest(again), "\n"); got != want || again.Method != q.Method || again.Target != q.Target || again.body != q.body || again.Last != q.Last {
				t.Errorf("%q became %q", in, q.instead)
			}
		}
	})
}
