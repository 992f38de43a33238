package http1

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/mirrord-go/mirrord/internal/budget"
)

// follow gives in to followers in pieces of n bytes: what a client says, and
// what it is told.
func follow(share *budget.Share, asked, answered string, n int) (heard []string) {
	q, s := NewFollower(share), NewFollower(share)
	defer q.Close()
	defer s.Close()
	var waiting []string
	for p := range slices.Chunk([]byte(asked), n) {
		q.Requests(p, func(r *Request) {
			heard = append(heard, r.Method+" "+r.Target)
			waiting = append(waiting, r.Method)
		})
	}
	method := func() (string, bool) {
		if len(waiting) == 0 {
			return "", false
		}
		return waiting[0], true
	}
	for p := range slices.Chunk([]byte(answered), n) {
		s.Responses(p, method, func(r *Response) {
			heard = append(heard, fmt.Sprint(r.Status))
			if !r.Interim {
				waiting = waiting[1:]
			}
		})
	}
	return heard
}

func TestFollower(t *testing.T) {
	long := "GET /long HTTP/1.1\r\nA: " + strings.Repeat("a", maxFollowed) + "\r\n\r\n"
	for _, c := range []struct{ name, asked, answered, want string }{
		{"one", "GET /a HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "GET /a, 200"},
		{"bodies", "POST /a HTTP/1.1\r\nContent-Length: 16\r\n\r\nGET /b HTTP/1.1\rGET /c HTTP/1.1\r\n\r\n",
			"HTTP/1.1 404 No\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nHTTP/\r\n0\r\n\r\nHTTP/1.1 500\r\nContent-Length: 0\r\n\r\n", "POST /a, GET /c, 404, 500"},
		{"interim", "PUT /a HTTP/1.1\r\nContent-Length: 1\r\n\r\n.", "HTTP/1.1 100 Go\r\n\r\nHTTP/1.1 201 Made\r\nContent-Length: 0\r\n\r\n", "PUT /a, 100, 201"},
		{"no body after HEAD", "HEAD /a HTTP/1.1\r\n\r\nGET /b HTTP/1.1\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nHTTP/1.1 204 No\r\n\r\n", "HEAD /a, GET /b, 200, 204"},
		{"another protocol", "GET /a HTTP/1.1\r\nUpgrade: x\r\n\r\n", "HTTP/1.1 101 Go\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", "GET /a, 101"},
		{"to the end", "GET /a HTTP/1.1\r\n\r\n", "HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 300\r\n\r\n", "GET /a, 200"},
		{"unasked", "", "HTTP/1.1 200 OK\r\n\r\n", ""},
		{"not HTTP", "SELECT 1", "HTTP/1.1 200 OK\r\n\r\n", ""},
		{"in two ways", "POST /a HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n..GET /b HTTP/1.1\r\n\r\n", "", ""},
	} {
		for n := range 40 {
			if got := strings.Join(follow(nil, c.asked, c.answered, n+1), ", "); got != c.want {
				t.Errorf("%s, in pieces of %d: got %q, want %q", c.name, n+1, got, c.want)
			}
		}
	}
	if got := follow(nil, long, "", 1000); len(got) > 0 {
		t.Errorf("a head that is too long: %.100q", got)
	}
}

// TestFollowerMemory: what it keeps is counted, and given back; without room it
// understands nothing more.
func TestFollowerMemory(t *testing.T) {
	share := budget.New(1000).Share(0, 1000)
	f := NewFollower(share)
	each := func(*Request) {}
	f.Requests([]byte("GET /a HTTP"), each)
	if got := share.Used(); got != 11 {
		t.Errorf("%d bytes are counted, want 11", got)
	}
	f.Requests([]byte("/1.1\r\n\r\nGET"), each)
	if got := share.Used(); got != 3 {
		t.Errorf("with the next begun %d are counted, want 3", got)
	}
	f.Requests(bytes.Repeat([]byte(" "), 1001), each)
	if got := share.Used(); got != 0 || !f.Lost() {
		t.Errorf("too much: %d are counted, lost %v", got, f.Lost())
	}
}

// FuzzFollower: it sees the requests that a Reader sees, however they arrive.
func FuzzFollower(f *testing.F) {
	f.Add([]byte("POST /x HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n\r\nGET / HTTP/1.1\r\nHost: b\r\n\r\n"), uint8(1))
	f.Add([]byte("POST /x HTTP/1.1\r\nContent-Length: 3\r\n\r\nabcGET / HTTP/1.0\r\nA: b\r\n c\r\n\r\n"), uint8(7))
	f.Fuzz(func(t *testing.T, in []byte, n uint8) {
		read, err := requests(t, bytes.NewReader(in), in)
		share := budget.New(1<<20).Share(0, 1<<20)
		w := NewFollower(share)
		var followed []string
		for p := range slices.Chunk(in, int(n)+1) {
			w.Requests(p, func(q *Request) { followed = append(followed, q.text) })
		}
		w.Close()
		if got := share.Used(); got != 0 {
			t.Errorf("%d bytes are still counted", got)
		}
		// One more where the Reader failed in its body.
		if len(in) <= maxFollowed && (len(followed) < len(read) || len(followed) > len(read)+1) {
			t.Fatalf("%d requests were followed, %d read (%v)", len(followed), len(read), err)
		}
		for i := range min(len(read), len(followed)) {
			if followed[i] != read[i].text {
				t.Errorf("request %d: followed %q, read %q", i, followed[i], read[i].text)
			}
		}
	})
}
