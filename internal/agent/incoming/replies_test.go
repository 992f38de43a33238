package incoming

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"

	"github.com/mirrord-go/mirrord/internal/link"
)

// Replies come as they were sent, also those that no server of today writes.
func TestOddReplies(t *testing.T) {
	for _, text := range []string{
		"HTTP/1.1 200 OK\r\n\r\nuntil the end",
		"HTTP/1.0 200 OK\nContent-Length: 2\n\nhi, and more",
		"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
		"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink:  </a>\r\n\r\nHTTP/1.1 200 OK\r\nsEt-Cookie:a\r\nset-cookie: b\r\ncontent-length: 2\r\n\r\nhi",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nT: x\r\n\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\nhi\n0\n\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\ncut",
		"HTTP/1.1 200 OK\r\nCont",
		"hello",
		"<html>0.9</html>",
	} {
		for _, path := range []string{"/local", "/other"} {
			t.Run(path+" "+text[:5], func(t *testing.T) {
				reply := scripted("\r\n", text)
				st := setStage(t, stageOptions{local: reply, orig: reply})
				c := st.client()
				ask(t, c, "GET "+path+" HTTP/1.1\r\nHost: a\r\n\r\n")
				// A side that ends without being asked to ends nothing but itself if
				// it is local; the client says when it has enough.
				c.CloseWrite()
				if got, err := io.ReadAll(c); string(got) != text || err != nil {
					t.Errorf("got %q, %v, want %q", got, err, text)
				}
			})
		}
	}
}

// Whatever local replies, the filter keeps what is not local's from it.
func TestRepliesOpenNothing(t *testing.T) {
	const secret = "GET /other/secret HTTP/1.1\r\nHost: a\r\n\r\n"
	for name, first := range map[string]string{
		"two lengths":     "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nhi",
		"bare line ends":  "HTTP/1.0 200 OK\nContent-Length: 2\nConnection: keep-alive\n\nhi",
		"two codings":     "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
		"bare chunks":     "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\nhi\n0\n\n",
		"length, coding":  "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
		"until the end":   "HTTP/1.1 200 OK\r\n\r\nhi",
		"the last":        "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi",
		"unasked upgrade": "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
	} {
		for _, pipelined := range []bool{false, true} {
			t.Run(fmt.Sprint(name, pipelined), func(t *testing.T) {
				st := setStage(t, stageOptions{local: func(c net.Conn) {
					_, _ = http.ReadRequest(bufio.NewReaderSize(c, 16))
					_, _ = io.WriteString(c, first)
					if strings.Contains(name, "the ") {
						_ = c.(*recorded).Conn.(*link.Stream).CloseWrite() // as it has announced
					}
					_, _ = io.Copy(io.Discard, c)
				}})
				c := st.client()
				const matches = "GET /local HTTP/1.1\r\nHost: a\r\n\r\n"
				var got []byte
				if pipelined {
					ask(t, c, matches+secret)
				} else {
					ask(t, c, matches)
					got = make([]byte, len(first))
					if _, err := io.ReadFull(c, got); err != nil {
						t.Fatal(err)
					}
					_, _ = io.WriteString(c, secret) // it may be closed already
				}
				more, err := io.ReadAll(c)
				c.Close()
				if got = append(got, more...); string(got) != first || err != nil && !errors.Is(err, syscall.ECONNRESET) {
					t.Errorf("the client got %q, %v, want %q", got, err, first)
				}
				if got := st.local.said(); got != matches {
					t.Errorf("local heard %q, want %q", got, matches)
				}
			})
		}
	}
	t.Run("refused expectation", func(t *testing.T) {
		const head = "POST /local HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n"
		st := setStage(t, stageOptions{local: func(c net.Conn) {
			_, _ = http.ReadRequest(bufio.NewReader(c))
			_, _ = io.WriteString(c, "HTTP/1.1 417 No\r\nContent-Length: 0\r\n\r\n")
			_, _ = io.Copy(io.Discard, c)
		}})
		c := st.client()
		br := bufio.NewReader(c)
		ask(t, c, head)
		if got := answer(t, br, "POST"); got != "417 " {
			t.Errorf("got %q", got)
		}
		_, _ = io.WriteString(c, secret)
		b, _ := io.ReadAll(br)
		// What came before the reply had passed whole is the body still, and what
		// remains of it is no request.
		body := len(b) > 0
		if body && !strings.HasPrefix(string(b), "HTTP/1.1 400 ") {
			t.Errorf("then comes %q", b)
		}
		if got := st.local.said(); got != head && !(body && got == head+secret[:5]) {
			t.Errorf("local heard %q, want %q", got, head)
		}
	})
	t.Run("half a close", func(t *testing.T) {
		const matches = "GET /local HTTP/1.1\r\nHost: a\r\n\r\n"
		const short = "HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\ncut"
		st := setStage(t, stageOptions{local: func(c net.Conn) {
			_, _ = http.ReadRequest(bufio.NewReader(c))
			_, _ = io.WriteString(c, short)
			_ = c.(*recorded).Conn.(*link.Stream).CloseWrite()
			_, _ = io.Copy(io.Discard, c)
		}})
		c := st.client()
		ask(t, c, matches)
		if got, err := io.ReadAll(c); string(got) != short || err != nil {
			t.Errorf("got %q, %v, want %q", got, err, short)
		}
		ask(t, c, secret)
		c.CloseWrite()
		within(t, "the end of local's connection", within(t, "a connection", st.local.opened).(*recorded).done)
		if got := st.local.said(); got != matches {
			t.Errorf("local heard %q, want %q", got, matches)
		}
	})
}
