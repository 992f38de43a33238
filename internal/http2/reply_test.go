package http2

import (
	"strings"
	"testing"
)

// A program's malformed reply ends its stream, and is not passed to the client: many
// end their whole connection for one.
func TestMalformedReplies(t *testing.T) {
	const failed = "HEADERS 1 :status=502 content-type=text/plain; charset=utf-8 content-length=46\nDATA 1 END mirrord: the reply breaks the rules of HTTP/2\n"
	head := func(ends bool, fields ...string) func(*end) {
		return func(e *end) { e.head(1, ends, fields...) }
	}
	then := func(all ...func(*end)) func(*end) {
		return func(e *end) {
			for _, f := range all {
				f(e)
			}
		}
	}
	data := func(text string, ends bool) func(*end) { return func(e *end) { e.data(1, text, ends) } }
	ok := head(false, ":status", "200")
	for _, c := range []struct {
		name string
		says func(*end)
		want string
	}{
		{"no status", head(true, "a", "b"), failed},
		{"two", head(true, ":status", "200", ":status", "200"), failed},
		{"behind a field", head(true, "a", "b", ":status", "200"), failed},
		{"no number", head(true, ":status", "abc"), failed},
		{"a request's", head(true, ":status", "200", ":path", "/"), failed},
		{"an interim reply that ends", head(true, ":status", "103"), failed},
		{"DATA first", data("a", false), failed},
		{"DATA behind an interim reply", then(head(false, ":status", "103"), data("a", true)), failed},
		{"upper case", head(true, ":status", "200", "X-A", "b"), failed},
		{"no name", head(true, ":status", "200", "", "b"), failed},
		{"a space in a name", head(true, ":status", "200", "a b", "b"), failed},
		{"a line's end in a value", head(true, ":status", "200", "a", "b\r\nc"), failed},
		{"NUL in a value", head(true, ":status", "200", "a", "b\x00"), failed},
		{"a field of the connection", head(true, ":status", "200", "connection", "close"), failed},
		{"a length that is none", head(false, ":status", "200", "content-length", "-1"), failed},
		{"two lengths", head(false, ":status", "200", "content-length", "1", "content-length", "2"), failed},
		{"a length and no DATA", head(true, ":status", "200", "content-length", "1"), failed},
		{"a second head", then(ok, head(false, ":status", "200")), "HEADERS 1 :status=200\nRST 1 INTERNAL_ERROR"},
		{"trailers that do not end", then(ok, head(false, "a", "b")), "HEADERS 1 :status=200\nRST 1 INTERNAL_ERROR"},
		{"trailers with a status", then(ok, head(true, ":status", "200")), "HEADERS 1 :status=200\nRST 1 INTERNAL_ERROR"},
		{"too much DATA", then(head(false, ":status", "200", "content-length", "1"), data("ab", true)), "HEADERS 1 :status=200 content-length=1\nRST 1 INTERNAL_ERROR"},
		{"too little DATA", then(head(false, ":status", "200", "content-length", "2"), data("a", true)), "HEADERS 1 :status=200 content-length=2\nRST 1 INTERNAL_ERROR"},
		{"too little DATA, then trailers", then(head(false, ":status", "200", "content-length", "2"), data("a", false), head(true, "a", "b")), "HEADERS 1 :status=200 content-length=2\nDATA 1 a\nRST 1 INTERNAL_ERROR"},
		{"DATA of a 304", then(head(false, ":status", "304"), data("a", true)), "HEADERS 1 :status=304\nRST 1 INTERNAL_ERROR"},
		// What is in order passes.
		{"a 304 with a length", head(true, ":status", "304", "content-length", "5"), "HEADERS 1 END :status=304 content-length=5"},
		{"a length", then(head(false, ":status", "200", "content-length", "2", "a", "ü\t"), data("ab", true)), "HEADERS 1 :status=200 content-length=2 a=ü\t\nDATA 1 END ab"},
		{"interim replies and trailers", then(head(false, ":status", "103"), ok, data("a", false), head(true, "a", "b")), "HEADERS 1 :status=103\nHEADERS 1 :status=200\nDATA 1 a\nHEADERS 1 END a=b"},
	} {
		t.Run(c.name, func(t *testing.T) {
			st := begun(t)
			defer st.end()
			st.client.ask(1, "/local", true)
			local := st.server("local")
			local.greet()
			c.says(local)
			st.client.tells("the client", c.want)
			if failed := strings.Contains(c.want, "502") || strings.Contains(c.want, "RST"); failed {
				local.tells("local", "RST 1 PROTOCOL_ERROR")
			}
			st.client.ask(3, "/local", true) // the connections go on
			local.told()
			local.head(3, true, ":status", "204")
			if local.err != nil {
				t.Error(local.err)
			}
		})
	}
	t.Run("of HEAD", func(t *testing.T) {
		st := begun(t)
		defer st.end()
		st.client.head(1, true, ":method", "HEAD", ":scheme", "http", ":path", "/local")
		st.server("local").greet()
		st.server("local").told()
		st.server("local").head(1, true, ":status", "200", "content-length", "5")
		st.client.tells("the client", "HEADERS 1 END :status=200 content-length=5")
	})
}
