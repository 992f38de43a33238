package http2

import (
	"errors"
	"iter"
	"strings"

	"golang.org/x/net/http2/hpack"
)

// Why a body cannot be looked at.
var (
	ErrTooLarge = errors.New("the body is too large")
	ErrTooSlow  = errors.New("the body takes too long")
)

// Request is what decides whose a stream is, in the terms of HTTP/1 where the two
// differ, so that one filter fits both.
type Request struct {
	// Understood: the head is whole and says nothing twice. If not, what it means is its
	// server's to say.
	Understood bool
	Method     string
	Target     string // the path with its query; the authority for CONNECT
	// Asked: the body has been waited for. Body is all of it, or Unread says why it
	// cannot be looked at.
	Asked  bool
	Body   []byte
	Unread error

	fields  []hpack.HeaderField
	host    string
	expects bool // it waits for 100 Continue
	calls   bool // it is gRPC's
}

// newRequest understands the fields of a request's head.
func newRequest(fields []hpack.HeaderField) *Request {
	q := &Request{fields: fields}
	q.Understood = q.read()
	return q
}

// read is for newRequest, which gives the result.
func (q *Request) read() bool {
	seen := map[string]bool{}
	scheme, path, regular, extended := "", "", false, false
	for _, f := range q.fields {
		if !f.IsPseudo() {
			regular = true
			switch f.Name {
			case "expect":
				q.expects = q.expects || strings.EqualFold(f.Value, "100-continue")
			case "content-type":
				q.calls = q.calls || strings.HasPrefix(f.Value, "application/grpc")
			}
			continue
		}
		if regular || seen[f.Name] {
			return false // RFC 9113 §8.3
		}
		seen[f.Name] = true
		switch f.Name {
		case ":method":
			q.Method = f.Value
		case ":path":
			path = f.Value
		case ":authority":
			q.host = f.Value
		case ":scheme":
			scheme = f.Value
		case ":protocol":
			extended = true
		default:
			return false
		}
	}
	q.Target = path
	if q.Method == "CONNECT" && !extended {
		q.Target = q.host
		return q.host != "" && path == "" && scheme == ""
	}
	return q.Method != "" && path != "" && scheme != ""
}

// Headers gives the header fields in order, first the host that the request is for.
// Cookies are one line again, as RFC 9113 §8.2.3 has it.
func (q *Request) Headers() iter.Seq2[string, string] {
	return func(yield func(string, string) bool) {
		if q.host != "" && !yield("host", q.host) {
			return
		}
		var cookies []string
		for _, f := range q.fields {
			if f.Name == "cookie" {
				cookies = append(cookies, f.Value)
			}
		}
		for _, f := range q.fields {
			value := f.Value
			switch {
			case f.IsPseudo(), f.Name == "host" && q.host != "": // the authority counts
				continue
			case f.Name == "cookie" && cookies == nil:
				continue
			case f.Name == "cookie":
				value, cookies = strings.Join(cookies, "; "), nil
			}
			if !yield(f.Name, value) {
				return
			}
		}
	}
}

// status is that of a reply's header block; 0: it has none.
func status(fields []hpack.HeaderField) (n int) {
	for _, f := range fields {
		if f.Name != ":status" {
			continue
		}
		if len(f.Value) != 3 {
			return 0
		}
		for i := range 3 {
			if f.Value[i] < '0' || f.Value[i] > '9' {
				return 0
			}
			n = n*10 + int(f.Value[i]-'0')
		}
		return n
	}
	return 0
}
