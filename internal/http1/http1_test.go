package http1

import (
	"bytes"
	"errors"
	"io"
	"os"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/mirrord-go/mirrord/internal/budget"
	"github.com/mirrord-go/mirrord/internal/leak"
)

func TestMain(m *testing.M) { os.Exit(leak.Main(m)) }

// requestOf reads the next request, waiting as long as it takes.
func requestOf(r *Reader) (*Request, error) {
	for {
		q, err := r.Request()
		if !errors.Is(err, ErrIncomplete) {
			return q, err
		}
		if err := r.Fill(); err != nil {
			return nil, err
		}
	}
}

func responseOf(r *Reader, method string) (*Response, error) {
	for {
		q, err := r.Response(method)
		if !errors.Is(err, ErrIncomplete) {
			return q, err
		}
		if err := r.Fill(); err != nil {
			return nil, err
		}
	}
}

func TestRequest(t *testing.T) {
	for _, c := range []struct {
		name, in         string
		method, target   string
		headers          []string
		last, exp, upgra bool
	}{
		{"plain", "GET /a?b HTTP/1.1\r\nHost: x\r\n\r\n", "GET", "/a?b", []string{"Host=x"}, false, false, false},
		{"no header", "GET / HTTP/1.1\r\n\r\n", "GET", "/", nil, false, false, false},
		{"as sent", "get /%41 HTTP/1.1\r\nhOST:x\r\nX-a:  \t b  \r\nX-a:\r\n\r\n", "get", "/%41", []string{"hOST=x", "X-a=b", "X-a="}, false, false, false},
		{"folded", "GET / HTTP/1.1\r\nA: b\r\n \t c\r\n\td  \r\nE: f\r\n\r\n", "GET", "/", []string{"A=b c d", "E=f"}, false, false, false},
		{"folded to nothing", "GET / HTTP/1.1\r\nA:\r\n \r\n\r\n", "GET", "/", []string{"A="}, false, false, false},
		{"1.0", "GET / HTTP/1.0\r\n\r\n", "GET", "/", nil, true, false, false},
		{"1.0 that goes on", "GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", "GET", "/", []string{"Connection=Keep-Alive"}, false, false, false},
		{"close", "GET / HTTP/1.1\r\nConnection: foo , CLOSE\r\n\r\n", "GET", "/", []string{"Connection=foo , CLOSE"}, true, false, false},
		{"absolute form", "GET http://a:80/b HTTP/1.1\r\n\r\n", "GET", "http://a:80/b", nil, false, false, false},
		{"asterisk form", "OPTIONS * HTTP/1.1\r\n\r\n", "OPTIONS", "*", nil, false, false, false},
		{"connect", "CONNECT [::1]:443 HTTP/1.1\r\n\r\n", "CONNECT", "[::1]:443", nil, false, false, true},
		{"bytes beyond ASCII", "GET /\xc3\xa4 HTTP/1.1\r\nA: \xff\r\n\r\n", "GET", "/\xc3\xa4", []string{"A=\xff"}, false, false, false},
		{"upgrade", "GET / HTTP/1.1\r\nUpgrade: websocket\r\n\r\n", "GET", "/", []string{"Upgrade=websocket"}, false, false, true},
		{"expect", "PUT / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 0\r\n\r\n", "PUT", "/", []string{"Expect=100-continue", "Content-Length=0"}, false, true, false},
		{"any token", "M-SEARCH /!$ HTTP/1.1\r\n!#$%&'*+-.^_`|~9: x\r\n\r\n", "M-SEARCH", "/!$", []string{"!#$%&'*+-.^_`|~9=x"}, false, false, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := NewReader(iotest.OneByteReader(strings.NewReader(c.in)), nil)
			defer r.Close()
			q, err := requestOf(r)
			if err != nil {
				t.Fatal(err)
			}
			var headers []string
			for name, value := range q.Headers() {
				headers = append(headers, name+"="+value)
			}
			if q.Method != c.method || q.Target != c.target || !reflect.DeepEqual(headers, c.headers) {
				t.Errorf("got %q %q %q, want %q %q %q", q.Method, q.Target, headers, c.method, c.target, c.headers)
			}
			if q.Last != c.last || q.Expects != c.exp || q.Upgrades != c.upgra {
				t.Errorf("got last %v, expects %v, upgrades %v, want %v, %v, %v", q.Last, q.Expects, q.Upgrades, c.last, c.exp, c.upgra)
			}
			var out bytes.Buffer
			if err := r.Forward(&out, &q.Message); err != nil || out.String() != c.in {
				t.Errorf("forwarded %q, %v, want %q", out.String(), err, c.in)
			}
		})
	}
}

// What is no request, or could be two, is told as soon as it shows, and not a
// byte of it is consumed.
func TestRefusedRequests(t *testing.T) {
	for _, c := range []struct {
		name, in string // all but the last byte could still become a request
		want     error
	}{
		{"TLS", "\x16", ErrNotHTTP},
		{"HTTP/2", "PRI * HTTP/2", ErrNotHTTP},
		{"binary", "\x00", ErrNotHTTP},
		{"empty line first", "\r", ErrNotHTTP},
		{"space first", " ", ErrNotHTTP},
		{"one word", "PING\r", ErrNotHTTP},
		{"SMTP", "EHLO mail.x\r", ErrNotHTTP},
		{"Redis", "*1\r", ErrNotHTTP},
		{"SSH", "SSH-2.0-OpenSSH_9\r", ErrNotHTTP},
		{"NATS", "CONNECT {", ErrNotHTTP},
		{"memcached", "get key\r", ErrNotHTTP},
		{"a long word", strings.Repeat("a", maxMethod+1), ErrNotHTTP},
		{"two spaces", "GET  ", ErrNotHTTP},
		{"relative target", "GET a/", ErrNotHTTP},
		{"scheme without slashes", "GET http:/a", ErrNotHTTP},
		{"0.9", "GET /\r", ErrNotHTTP},
		{"another version", "GET / HTTP/1.2", ErrNotHTTP},
		{"lower case version", "GET / h", ErrNotHTTP},
		{"space behind the version", "GET / HTTP/1.1 ", ErrNotHTTP},
		{"fragment of a control", "GET /a\x07", ErrNotHTTP},
		{"asterisk and more", "OPTIONS *a", ErrNotHTTP},
		{"line ends without CR", "GET / HTTP/1.1\n", ErrNotHTTP},
		{"line ends without CR in the header", "GET / HTTP/1.1\r\nA: b\n", ErrAmbiguous},
		{"empty line without CR", "GET / HTTP/1.1\r\nA: b\r\n\n", ErrAmbiguous},
		{"a CR alone", "GET / HTTP/1.1\r\nA: b\rc", ErrAmbiguous},
		{"a zero", "GET / HTTP/1.1\r\nA: \x00", ErrAmbiguous},
		{"no colon", "GET / HTTP/1.1\r\nA\r\n\r\n", ErrAmbiguous},
		{"no name", "GET / HTTP/1.1\r\n: a\r\n\r\n", ErrAmbiguous},
		{"space in front of the colon", "GET / HTTP/1.1\r\nContent-Length : 5\r\n\r\n", ErrAmbiguous},
		{"folded at first", "GET / HTTP/1.1\r\n A: b\r\n\r\n", ErrAmbiguous},
		{"both lengths", "POST / HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", ErrAmbiguous},
		{"two lengths", "POST / HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n", ErrAmbiguous},
		{"list of lengths", "POST / HTTP/1.1\r\nContent-Length: 5, 5\r\n\r\n", ErrAmbiguous},
		{"signed length", "POST / HTTP/1.1\r\nContent-Length: +5\r\n\r\n", ErrAmbiguous},
		{"no length", "POST / HTTP/1.1\r\nContent-Length:\r\n\r\n", ErrAmbiguous},
		{"huge length", "POST / HTTP/1.1\r\nContent-Length: 1000000000000000000\r\n\r\n", ErrAmbiguous},
		{"folded length", "POST / HTTP/1.1\r\nContent-Length:\r\n 5\r\n\r\n", ErrAmbiguous},
		{"another coding", "POST / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", ErrAmbiguous},
		{"coding with a control", "POST / HTTP/1.1\r\nTransfer-Encoding: \vchunked\r\n\r\n", ErrAmbiguous},
		{"two codings", "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", ErrAmbiguous},
		{"folded coding", "POST / HTTP/1.1\r\nTransfer-Encoding:\r\n chunked\r\n\r\n", ErrAmbiguous},
		{"coding in 1.0", "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", ErrAmbiguous},
		{"too long", "GET /" + strings.Repeat("a", MaxHead-5), ErrTooLong},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := NewReader(iotest.OneByteReader(strings.NewReader(c.in)), nil)
			defer r.Close()
			if q, err := requestOf(r); !errors.Is(err, c.want) {
				t.Fatalf("got %+v, %v, want %v", q, err, c.want)
			}
			if got := string(r.Buffered()); got != c.in {
				t.Errorf("of %q it kept %q", c.in, got)
			}
		})
	}
}

func TestBegins(t *testing.T) {
	for in, want := range map[string]bool{
		"GET / HTTP/1.1\r\n": true, "GET / HTTP/1.1\r\nHost: a\r\n\r\n": true, "OPTIONS * HTTP/1.0\r\n\x00": true,
		"CONNECT a:1 HTTP/1.1\r\n": true, "GET http://a/b HTTP/1.1\r\n": true,
		"GET /" + strings.Repeat("a", 8000) + " HTTP/1.1\r\n": true,
		"GET /" + strings.Repeat("a", 9000) + " HTTP/1.1\r\n": false,
		"ET / HTTP/1.1\r\n": false, "get / HTTP/1.1\r\n": false, " / HTTP/1.1\r\n": false, "": false, "GET": false, "GET / HTTP/1.1": false, "GET / HTTP/1.1\r": false, "GET / HTTP/1.1\n": false,
		"PRI * HTTP/2.0\r\n\r\n": false, "EHLO a\r\n": false, "HTTP/1.1 200 OK\r\n": false, "\x16\x03\x01": false,
		"\r\nGET / HTTP/1.1\r\n": false, "text\r\nGET / HTTP/1.1\r\n": false, "{\"a\": 1}": false,
	} {
		if got := Begins([]byte(in)); got != want {
			t.Errorf("%.40q: got %v, want %v", in, got, want)
		}
	}
}

func TestProtocol(t *testing.T) {
	for in, want := range map[string]string{"PRI * HTTP/2.0\r\n": "HTTP/2", "\x16\x03\x01": "TLS", "\x16": "TLS", "\x16\x04": "", "GET /": "", "": "", "PRI * HTTP/1": ""} {
		if got := Protocol([]byte(in)); got != want {
			t.Errorf("%q is %q, want %q", in, got, want)
		}
	}
}

// bodies are messages without their first line, and how much of "rest" behind
// them is theirs too.
var bodies = []struct {
	name, in string
	err      error
}{
	{"sized", "Content-Length: 5\r\n\r\nhello", nil},
	{"sized with zeros", "content-length: 0005\r\n\r\nhello", nil},
	{"empty", "Content-Length: 0\r\n\r\n", nil},
	{"large", "Content-Length: 100000\r\n\r\n" + strings.Repeat("x", 100000), nil},
	{"chunked", "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", nil},
	{"any case", "transfer-encoding: Chunked\r\n\r\n00A\r\n0123456789\r\n0\r\n\r\n", nil},
	{"chunked with everything", "Transfer-Encoding: chunked\r\n\r\n5 ; a=\"b\"\r\nhello\r\na;x\r\n0123456789\r\n000\r\nT: 1\r\n folded\r\nU:\r\n\r\n", nil},
	{"data like ends", "Transfer-Encoding: chunked\r\n\r\n9\r\n\r\n0\r\n\r\n\r\n\r\n0\r\n\r\n", nil},
	{"large chunk", "Transfer-Encoding: chunked\r\n\r\n1ffff\r\n" + strings.Repeat("x", 0x1ffff) + "\r\n0\r\n\r\n", nil},
	{"no size", "Transfer-Encoding: chunked\r\n\r\n\r\n", ErrAmbiguous},
	{"no number", "Transfer-Encoding: chunked\r\n\r\nx", ErrAmbiguous},
	{"huge size", "Transfer-Encoding: chunked\r\n\r\n1234567890abcdef", ErrAmbiguous},
	{"size without CR", "Transfer-Encoding: chunked\r\n\r\n5\n", ErrAmbiguous},
	{"extension without CR", "Transfer-Encoding: chunked\r\n\r\n5;a\n", ErrAmbiguous},
	{"CR in an extension", "Transfer-Encoding: chunked\r\n\r\n5;a\rb", ErrAmbiguous},
	{"more data than said", "Transfer-Encoding: chunked\r\n\r\n1\r\nhe", ErrAmbiguous},
	{"data without CR", "Transfer-Encoding: chunked\r\n\r\n1\r\nh\n", ErrAmbiguous},
	{"trailer without CR", "Transfer-Encoding: chunked\r\n\r\n0\r\nA: b\n", ErrAmbiguous},
	{"end without LF", "Transfer-Encoding: chunked\r\n\r\n0\r\n\rx", ErrAmbiguous},
	{"cut", "Content-Length: 5\r\n\r\nhell", io.ErrUnexpectedEOF},
	{"cut in a chunk", "Transfer-Encoding: chunked\r\n\r\n5\r\nhell", io.ErrUnexpectedEOF},
}

func TestForward(t *testing.T) {
	readers := map[string]func(io.Reader) io.Reader{"at once": func(r io.Reader) io.Reader { return r }, "in bytes": iotest.OneByteReader, "in halves": iotest.HalfReader}
	for _, c := range bodies {
		for how, wrap := range readers {
			t.Run(c.name+" "+how, func(t *testing.T) {
				const rest = "GET / HTTP/1.1\r\n\r\n"
				for _, first := range []string{"POST / HTTP/1.1\r\n", "HTTP/1.1 200 OK\r\n"} {
					in := first + c.in
					if c.err == nil {
						in += rest
					}
					r := NewReader(wrap(strings.NewReader(in)), nil)
					var m *Message
					if strings.HasPrefix(first, "HTTP") {
						q, err := responseOf(r, "GET")
						if err != nil {
							t.Fatal(err)
						}
						m = &q.Message
					} else {
						q, err := requestOf(r)
						if err != nil {
							t.Fatal(err)
						}
						m = &q.Message
					}
					var out bytes.Buffer
					err := r.Forward(&out, m)
					if !errors.Is(err, c.err) {
						t.Fatalf("got %v, want %v", err, c.err)
					}
					left, _ := io.ReadAll(r.src)
					if got := out.String() + string(r.Buffered()) + string(left); got != in {
						t.Errorf("%d bytes came out of %d, or others", len(got), len(in))
					}
					if got, want := out.String(), first+c.in; c.err == nil && got != want {
						t.Errorf("forwarded %q, want %q", got, want)
					}
					if c.err == nil && strings.HasPrefix(first, "POST") {
						again := NewReader(io.MultiReader(bytes.NewReader(r.Buffered()), bytes.NewReader(left)), nil)
						if q, err := requestOf(again); err != nil || q.Method != "GET" {
							t.Errorf("then got %v, %v, want the next request", q, err)
						}
						again.Close()
					}
					r.Close()
				}
			})
		}
	}
}

func TestResponse(t *testing.T) {
	for _, c := range []struct {
		name, method, in         string
		status                   int
		interim, unbounded, last bool
		body                     string // of the message
		err                      error
	}{
		{"sized", "GET", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", 200, false, false, false, "ab", nil},
		{"no reason", "GET", "HTTP/1.1 200\r\nContent-Length: 2\r\n\r\n", 200, false, false, false, "ab", nil},
		{"until the end", "GET", "HTTP/1.1 200 OK\r\n\r\n", 200, false, true, false, "", nil},
		{"to HEAD", "HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", 200, false, false, false, "", nil},
		{"to HEAD with both", "HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n", 200, false, false, false, "", nil},
		{"204", "GET", "HTTP/1.1 204 No Content\r\n\r\n", 204, false, false, false, "", nil},
		{"304", "GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 2\r\n\r\n", 304, false, false, false, "", nil},
		{"100", "PUT", "HTTP/1.1 100 Continue\r\n\r\n", 100, true, false, false, "", nil},
		{"103", "GET", "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n", 103, true, false, false, "", nil},
		{"101", "GET", "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n", 101, false, true, false, "", nil},
		{"connected", "CONNECT", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", 200, false, true, false, "", nil},
		{"not connected", "CONNECT", "HTTP/1.1 403 No\r\nContent-Length: 2\r\n\r\n", 403, false, false, false, "ab", nil},
		{"close", "GET", "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\n", 200, false, false, true, "ab", nil},
		{"1.0", "GET", "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n", 200, false, false, true, "ab", nil},
		{"both lengths", "GET", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n", 0, false, false, false, "", ErrAmbiguous},
		{"a bad length", "GET", "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", 0, false, false, false, "", ErrAmbiguous},
		{"not HTTP", "GET", "220 mail.x ESMTP\r\n", 0, false, false, false, "", ErrNotHTTP},
		{"a status of two digits", "GET", "HTTP/1.1 20 OK\r\n", 0, false, false, false, "", ErrNotHTTP},
		{"lines without CR", "GET", "HTTP/1.1 200 OK\nA: b\n\n", 0, false, false, false, "", ErrAmbiguous},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := NewReader(iotest.OneByteReader(strings.NewReader(c.in+"ab")), nil)
			defer r.Close()
			s, err := responseOf(r, c.method)
			if !errors.Is(err, c.err) {
				t.Fatalf("got %v, want %v", err, c.err)
			}
			if err != nil {
				return
			}
			if s.Status != c.status || s.Interim != c.interim || s.Unbounded != c.unbounded || s.Last != c.last {
				t.Errorf("got %+v", s)
			}
			var out bytes.Buffer
			if err := r.Forward(&out, &s.Message); err != nil || out.String() != c.in+c.body {
				t.Errorf("forwarded %q, %v, want %q", out.String(), err, c.in+c.body)
			}
		})
	}
}

// Behind a message an empty line is tolerated, and is the next one's.
func TestEmptyLineBetween(t *testing.T) {
	const in = "POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\nab\r\nGET /x HTTP/1.1\r\nA: b\r\n\r\n"
	r := NewReader(strings.NewReader(in), nil)
	defer r.Close()
	var out bytes.Buffer
	for _, want := range []string{"/", "/x"} {
		q, err := requestOf(r)
		if err != nil || q.Target != want {
			t.Fatalf("got %v, %v, want %s", q, err, want)
		}
		for name := range q.Headers() {
			if strings.ContainsAny(name, "\r\n ") {
				t.Errorf("a header is called %q", name)
			}
		}
		if err := r.Forward(&out, &q.Message); err != nil {
			t.Fatal(err)
		}
	}
	if out.String() != in {
		t.Errorf("forwarded %q", out.String())
	}
}

// closed fails every write.
type closed struct{}

func (closed) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }

func TestWriteError(t *testing.T) {
	r := NewReader(strings.NewReader("POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello"), nil)
	defer r.Close()
	q, err := requestOf(r)
	if err != nil {
		t.Fatal(err)
	}
	var we *WriteError
	if err := r.Forward(closed{}, &q.Message); !errors.As(err, &we) || !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("got %v, want a WriteError", err)
	}
}

// A body of any size needs the same memory.
func TestMemory(t *testing.T) {
	const size = 256 << 20
	in := io.MultiReader(strings.NewReader("POST / HTTP/1.1\r\nContent-Length: 268435456\r\n\r\n"), io.LimitReader(zeros{}, size))
	r := NewReader(in, nil)
	defer r.Close()
	q, err := requestOf(r)
	if err != nil {
		t.Fatal(err)
	}
	n := &counter{}
	if got := testing.AllocsPerRun(1, func() {
		if q != nil {
			err = r.Forward(n, &q.Message)
			q = nil
		}
	}); got > 10 || err != nil {
		t.Errorf("%v allocations, %v", got, err)
	}
	if len(r.buf) > MaxHead || n.n != size+int64(len("POST / HTTP/1.1\r\nContent-Length: 268435456\r\n\r\n")) {
		t.Errorf("%d bytes with a buffer of %d", n.n, len(r.buf))
	}
	if err := r.Fill(); err != io.EOF || len(r.buf) != smallBuffer {
		t.Errorf("then got %v, a buffer of %d, want io.EOF, %d", err, len(r.buf), smallBuffer)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }

type counter struct{ n int64 }

func (c *counter) Write(p []byte) (int, error) { c.n += int64(len(p)); return len(p), nil }

// Readers with a common share hold no more large buffers than it has, whatever
// comes, and give them back.
func TestBudget(t *testing.T) {
	b := budget.New(MaxHead).Share(0, budget.All)
	long := "GET /" + strings.Repeat("a", 2*smallBuffer) + " HTTP/1.1\r\n\r\n"
	first := NewReader(strings.NewReader(long), b)
	if _, err := requestOf(first); err != nil {
		t.Fatal(err)
	}
	second := NewReader(strings.NewReader(long), b)
	if _, err := requestOf(second); !errors.Is(err, ErrTooLong) {
		t.Errorf("a long head without a buffer is %v, want %v", err, ErrTooLong)
	}
	if got := len(second.Buffered()); got != smallBuffer {
		t.Errorf("of that it keeps %d bytes, want %d", got, smallBuffer)
	}
	var rest strings.Builder
	if err := second.ForwardRest(&rest); err != nil || rest.String() != long {
		t.Errorf("of %d bytes %d are passed on, %v", len(long), rest.Len(), err)
	}
	body := "POST / HTTP/1.1\r\nContent-Length: 200000\r\n\r\n" + strings.Repeat("b", 200000)
	third := NewReader(strings.NewReader(body), b)
	q, err := requestOf(third)
	if err != nil {
		t.Fatal(err)
	}
	var got strings.Builder
	if err := third.Forward(&got, &q.Message); err != nil || got.String() != body {
		t.Errorf("of %d bytes %d are forwarded, %v", len(body), got.Len(), err)
	}
	if len(third.buf) != smallBuffer {
		t.Errorf("for that it has a buffer of %d bytes, want %d", len(third.buf), smallBuffer)
	}
	first.Close()
	if _, err := requestOf(NewReader(strings.NewReader(long), b)); err != nil {
		t.Errorf("when the buffer is given back, a long head is %v", err)
	}
}

// An empty Reader has no need of a large buffer.
func TestBudgetOfEmpty(t *testing.T) {
	r := NewReader(strings.NewReader(""), budget.New(0).Share(0, 0))
	defer r.Close()
	if _, err := r.Request(); !errors.Is(err, ErrIncomplete) {
		t.Errorf("got %v, want %v", err, ErrIncomplete)
	}
}
