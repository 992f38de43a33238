package http1

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/iotest"
)

// FuzzRequests: whatever comes is forwarded as it came, in the same portions
// however it arrives; and where net/http understands a request as well, it
// sees the same one, with the same body.
func FuzzRequests(f *testing.F) {
	for _, c := range bodies {
		if len(c.in) < 1000 {
			f.Add([]byte("POST /x HTTP/1.1\r\nHost: a\r\n" + c.in + "GET / HTTP/1.1\r\nHost: b\r\n\r\n"))
		}
	}
	f.Add([]byte("GET / HTTP/1.0\r\nA: b\r\n c\r\n\r\n"))
	f.Add([]byte("CONNECT a:1 HTTP/1.1\r\n\r\n\r\nOPTIONS * HTTP/1.1\r\n\r\nGET http://a/ HTTP/1.1\r\nA:\r\n\r\n"))
	f.Fuzz(func(t *testing.T, in []byte) {
		whole, wholeErr := requests(t, bytes.NewReader(in), in)
		single, singleErr := requests(t, iotest.OneByteReader(bytes.NewReader(in)), in)
		if len(whole) != len(single) || wholeErr != singleErr {
			t.Fatalf("%d requests and %v at once, %d and %v byte by byte", len(whole), wholeErr, len(single), singleErr)
		}
		if len(whole) > 0 && methods[whole[0].Method] && len(in) < maxLine && !Begins(in) {
			t.Errorf("%q does not begin a request", in)
		}
		at := 0
		for _, m := range whole {
			compare(t, in[at:at+m.size], m)
			at += m.size
		}
	})
}

type message struct {
	*Request
	size int
}

// requests forwards all of in and gives what it was.
func requests(t *testing.T, src io.Reader, in []byte) (all []message, err error) {
	t.Helper()
	var out bytes.Buffer
	r := NewReader(src, nil)
	defer r.Close()
	for {
		q, e := requestOf(r)
		if e != nil {
			err = e
			break
		}
		before := out.Len()
		if err = r.Forward(&out, &q.Message); err != nil {
			break
		}
		all = append(all, message{q, out.Len() - before})
	}
	out.Write(r.Buffered())
	_, _ = io.Copy(&out, src)
	if !bytes.Equal(out.Bytes(), in) {
		t.Fatalf("%q became %q", in, out.Bytes())
	}
	return all, err
}

func compare(t *testing.T, raw []byte, m message) {
	t.Helper()
	raw = bytes.TrimPrefix(raw, []byte("\r\n"))
	br := bufio.NewReader(bytes.NewReader(raw))
	want, err := http.ReadRequest(br)
	if err != nil {
		return // it is stricter: about Host, about values
	}
	if m.Method != want.Method || m.Target != want.RequestURI {
		t.Errorf("%q: got %s %s, net/http %s %s", raw, m.Method, m.Target, want.Method, want.RequestURI)
	}
	n := 0
	for name, value := range m.Headers() {
		key := http.CanonicalHeaderKey(name)
		if key == "Host" || key == "Transfer-Encoding" || key == "Trailer" || key == "Content-Length" || key == "Pragma" {
			continue // net/http keeps them elsewhere, or adds one
		}
		n++
		found := false
		for _, v := range want.Header[key] {
			found = found || strings.Trim(v, " \t") == value // it leaves the white space of an empty folded line
		}
		if !found {
			t.Errorf("%q: %s is %q, net/http has %q", raw, name, value, want.Header[key])
		}
	}
	if _, err := io.Copy(io.Discard, want.Body); err != nil {
		var pe *http.ProtocolError
		if errors.As(err, &pe) || strings.Contains(err.Error(), "trailer") || strings.Contains(err.Error(), "chunk") || strings.Contains(err.Error(), "malformed") || strings.Contains(err.Error(), "header") {
			return // stricter about extensions and trailers
		}
		t.Errorf("%q: net/http reads the body with %v", raw, err)
	}
	if left, _ := io.ReadAll(br); len(left) > 0 {
		t.Errorf("%q: net/http leaves %q", raw, left)
	}
}

// FuzzResponses is the same for responses to each of the methods that matter.
func FuzzResponses(f *testing.F) {
	for _, c := range bodies {
		if len(c.in) < 1000 {
			f.Add("GET", []byte("HTTP/1.1 200 OK\r\n"+c.in))
		}
	}
	f.Add("HEAD", []byte("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"))
	f.Add("GET", []byte("HTTP/1.0 304 Not\r\n\r\n"))
	f.Fuzz(func(t *testing.T, method string, in []byte) {
		if method != "HEAD" && method != "CONNECT" {
			method = "GET"
		}
		r := NewReader(iotest.OneByteReader(bytes.NewReader(in)), nil)
		defer r.Close()
		s, err := responseOf(r, method)
		if err != nil {
			if !bytes.HasPrefix(in, r.Buffered()) {
				t.Fatalf("%q: kept %q", in, r.Buffered())
			}
			return
		}
		var out bytes.Buffer
		err = r.Forward(&out, &s.Message)
		if got := out.String() + string(r.Buffered()); !strings.HasPrefix(string(in), got) {
			t.Fatalf("%q became %q", in, got)
		}
		if err != nil || s.Interim || s.Unbounded {
			return
		}
		br := bufio.NewReader(bytes.NewReader(out.Bytes()))
		want, err := http.ReadResponse(br, &http.Request{Method: method})
		if err != nil {
			return
		}
		if want.StatusCode != s.Status {
			t.Errorf("%q: got %d, net/http %d", in, s.Status, want.StatusCode)
		}
		if _, err := io.Copy(io.Discard, want.Body); err != nil {
			return
		}
		if left, _ := io.ReadAll(br); len(left) > 0 {
			t.Errorf("%q: net/http leaves %q", in, left)
		}
	})
}
