package http1

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/mirrord-go/mirrord/internal/budget"
)

// lookAhead reads the next request and its body, and forwards both.
func lookAhead(r *Reader, most int) (content string, forwarded []byte, err error) {
	q, err := requestOf(r)
	if err != nil {
		return "", nil, err
	}
	a := r.Ahead(&q.Message, most)
	for {
		var whole bool
		if whole, err = a.Whole(); whole || err != nil {
			break
		}
		if err = a.Fill(); err != nil {
			break
		}
	}
	if err == nil {
		content = string(a.Content())
	}
	var out bytes.Buffer
	ferr := r.Forward(&out, &q.Message)
	if err == nil {
		err = ferr
	}
	return content, out.Bytes(), err
}

func TestAhead(t *testing.T) {
	const head, next = "POST /x HTTP/1.1\r\nHost: a\r\n", "GET /next HTTP/1.1\r\n\r\n"
	chunked := func(data string, size int) string {
		var b strings.Builder
		for len(data) > 0 {
			n := min(size, len(data))
			fmt.Fprintf(&b, "%x;ext\r\n%s\r\n", n, data[:n])
			data = data[n:]
		}
		return "Transfer-Encoding: chunked\r\n\r\n" + b.String() + "0\r\nT: 1\r\n\r\n"
	}
	long := strings.Repeat("0123456789abcdef", 5000) // 80,000
	for _, c := range []struct {
		name, in string
		most     int
		content  string
		err      error
	}{
		{"none", "\r\n", 10, "", nil},
		{"sized", "Content-Length: 5\r\n\r\nhello", 5, "hello", nil},
		{"one too many", "Content-Length: 6\r\n\r\nhello!", 5, "", ErrTooLarge},
		{"chunked", chunked("hello, world", 5), 100, "hello, world", nil},
		{"chunks by byte", chunked("hello", 1), 100, "hello", nil},
		{"framing counts", chunked("hello", 1), 40, "", ErrTooLarge},
		{"larger than a head", "Content-Length: 80000\r\n\r\n" + long, 80000, long, nil},
		{"larger and chunked", chunked(long, 999), 90000, long, nil},
		{"too large and chunked", chunked(long, 999), 70000, "", ErrTooLarge},
		{"in two ways", "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\n0\r\n\r\n", 100, "", ErrAmbiguous},
		{"cut", "Content-Length: 5\r\n\r\nhell", 100, "", io.ErrUnexpectedEOF},
	} {
		for how, wrap := range map[string]func(io.Reader) io.Reader{"at once": func(r io.Reader) io.Reader { return r }, "in bytes": iotest.OneByteReader, "in halves": iotest.HalfReader} {
			t.Run(c.name+" "+how, func(t *testing.T) {
				share := budget.New(1<<20).Share(0, 1<<20)
				in := head + c.in
				if c.err == nil || c.err == ErrTooLarge {
					in += next
				}
				r := NewReader(wrap(strings.NewReader(in)), share)
				content, forwarded, err := lookAhead(r, c.most)
				if content != c.content || !errors.Is(err, c.err) {
					t.Errorf("got %.40q… of %d bytes, %v, want %d bytes, %v", content, len(content), err, len(c.content), c.err)
				}
				if c.err == nil || c.err == ErrTooLarge {
					if string(forwarded) != head+c.in {
						t.Errorf("%d bytes are forwarded, want %d", len(forwarded), len(head+c.in))
					}
					if used := share.Used(); used > MaxHead {
						t.Errorf("%d bytes are still held", used)
					}
					if q, err := requestOf(r); err != nil || q.Target != "/next" {
						t.Errorf("then comes %+v, %v", q, err)
					}
				}
				r.Close()
				if used := share.Used(); used != 0 {
					t.Errorf("%d bytes are not given back", used)
				}
			})
		}
	}
	t.Run("no memory", func(t *testing.T) {
		for _, room := range []int{0, MaxHead, MaxHead + 3*smallBuffer} {
			share := budget.New(1<<20).Share(0, room)
			r := NewReader(strings.NewReader(head+"Content-Length: 80000\r\n\r\n"+long+next), share)
			_, forwarded, err := lookAhead(r, 1<<20)
			if !errors.Is(err, ErrTooLarge) || !strings.HasSuffix(string(forwarded), long) {
				t.Errorf("with %d bytes: %v, %d are forwarded", room, err, len(forwarded))
			}
			r.Close()
			if used := share.Used(); used != 0 {
				t.Errorf("%d bytes are not given back", used)
			}
		}
	})
}

func TestContinues(t *testing.T) {
	for in, want := range map[string]bool{
		"POST / HTTP/1.1\r\nExpect: 100-Continue\r\nContent-Length: 1\r\n\r\n": true,
		"POST / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n": false,
		"POST / HTTP/1.1\r\nExpect: magic\r\nContent-Length: 1\r\n\r\n":        false,
		"POST / HTTP/1.1\r\nContent-Length: 1\r\n\r\n":                         false,
	} {
		q, err := requestOf(NewReader(strings.NewReader(in), nil))
		if err != nil || q.Continues != want {
			t.Errorf("%q: %v, %v", in, q, err)
		}
	}
}

// sameBody compares content with the body that net/http reads of raw, if it does.
func sameBody(t *testing.T, raw []byte, content string) {
	t.Helper()
	q, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(bytes.TrimPrefix(raw, []byte("\r\n")))))
	if err != nil {
		return
	}
	if want, err := io.ReadAll(q.Body); err == nil && string(want) != content {
		t.Errorf("%q: the body is %q, net/http reads %q", raw, content, want)
	}
}

// FuzzAhead: looking at a body changes nothing of what is forwarded, and gives
// what net/http reads.
func FuzzAhead(f *testing.F) {
	for _, c := range bodies {
		if len(c.in) < 1000 {
			f.Add([]byte("POST /x HTTP/1.1\r\nHost: a\r\n"+c.in+"GET / HTTP/1.1\r\nHost: b\r\n\r\n"), 100, 3)
		}
	}
	f.Fuzz(func(t *testing.T, in []byte, most, piece int) {
		most = min(max(most, 0), 1<<20)
		share := budget.New(1<<22).Share(0, 1<<22)
		src := io.Reader(bytes.NewReader(in))
		if piece > 0 {
			src = iotest.OneByteReader(src)
		}
		plain, all := NewReader(bytes.NewReader(in), nil), NewReader(src, share)
		for {
			q, err := requestOf(plain)
			if err != nil {
				break
			}
			var out bytes.Buffer
			ferr := plain.Forward(&out, &q.Message)
			content, forwarded, err := lookAhead(all, most)
			if !bytes.Equal(forwarded, out.Bytes()) {
				t.Fatalf("forwarded %q, want %q", forwarded, out.Bytes())
			}
			if ferr != nil {
				break
			}
			if err == nil {
				sameBody(t, out.Bytes(), content)
			}
		}
		plain.Close()
		all.Close()
		if used := share.Used(); used != 0 {
			t.Errorf("%d bytes are not given back", used)
		}
	})
}
