package http1

import (
	"iter"
	"slices"
	"strings"
)

// Request is the head of a request.
type Request struct {
	Message
	Method string
	Target string // as sent
	// Last: nothing that the client sends afterwards is a request to be
	// answered; the connection ends with the reply.
	Last bool
	// Expects: the client waits for an interim reply before it sends the body.
	Expects bool
	// Continues: of that kind which 100 Continue answers.
	Continues bool
	// Upgrades: the reply may change the protocol.
	Upgrades bool
	// Offers: among what it may be changed to is HTTP/2.
	Offers bool

	text   string // the whole head
	fields int    // where the header begins in it
}

// Headers gives the header fields as sent, in order, without the white space
// around a value; a folded value is one line.
func (q *Request) Headers() iter.Seq2[string, string] {
	return func(yield func(string, string) bool) {
		_ = eachField(q.text[q.fields:], func(f field) bool { return yield(f.name, f.unfolded()) })
	}
}

// Response is the head of a response.
type Response struct {
	Message
	Status int
	// Interim: another response to the same request follows.
	Interim bool
	// Unbounded: from its body on, the connection cannot be divided any more.
	// The body ends with the connection, or another protocol begins.
	Unbounded bool
	// Switches: Unbounded, and another protocol begins.
	Switches bool
	// Agrees: that is HTTP/2, as the client has offered.
	Agrees bool
	// Last: the sender will end the connection behind the body.
	Last bool
}

// Request understands the head that is buffered and consumes nothing.
func (r *Reader) Request() (*Request, error) {
	text, err := r.head(request)
	if err != nil {
		return nil, err
	}
	return readRequest(text)
}

// readRequest understands a whole head.
func readRequest(text string) (*Request, error) {
	q := &Request{text: text}
	line, _, _ := strings.Cut(strings.TrimPrefix(text, "\r\n"), "\r\n")
	q.fields = strings.Index(text, line) + len(line) + len("\r\n")
	q.Method, line, _ = strings.Cut(line, " ")
	at := strings.LastIndexByte(line, ' ')
	q.Target = line[:at]
	old := strings.HasSuffix(line, "0") // HTTP/1.0
	var f framing
	if err := f.read(text[q.fields:], old); err != nil {
		return nil, err
	}
	if f.ambiguous || f.coded && (f.sized || old || !f.chunked) {
		return nil, ErrAmbiguous
	}
	q.head, q.body = len(text), f.body()
	q.Last, q.Expects, q.Upgrades, q.Offers = f.last, f.expects, f.upgrades || q.Method == "CONNECT", f.h2c
	q.Continues = f.continues && !old // RFC 9110 §10.1.1
	return q, nil
}

// Response understands the head that is buffered, the answer to a request of
// the given method, and consumes nothing.
func (r *Reader) Response(method string) (*Response, error) {
	text, err := r.head(response)
	if err != nil {
		return nil, err
	}
	return readResponse(text, method)
}

// readResponse understands a whole head.
func readResponse(text, method string) (*Response, error) {
	line, _, _ := strings.Cut(text, "\r\n")
	fields := len(line) + len("\r\n")
	old := line[len(httpVersion)] == '0'
	s := &Response{Status: int(line[9]-'0')*100 + int(line[10]-'0')*10 + int(line[11]-'0')}
	var f framing
	if err := f.read(text[fields:], old); err != nil {
		return nil, err
	}
	s.head, s.Last = len(text), f.last
	// RFC 9112 §6.3, in its order.
	switch ok := s.Status >= 200 && s.Status < 300; {
	case s.Status == 101, ok && method == "CONNECT":
		s.Unbounded, s.Switches, s.Agrees = true, true, s.Status == 101 && f.h2c
	case s.Status < 200:
		s.Interim = true
	case method == "HEAD", s.Status == 204, s.Status == 304:
	case f.ambiguous, f.coded && (f.sized || old || !f.chunked):
		return nil, ErrAmbiguous
	case !f.coded && !f.sized:
		s.Unbounded = true
	default:
		s.body = f.body()
	}
	return s, nil
}

// field is one header field.
type field struct {
	name, value string
	folded      bool // value has line ends in it
}

// unfolded replaces line ends inside a value, with the white space around
// them, by one space (RFC 9112 §5.2).
func (f field) unfolded() string {
	if !f.folded {
		return f.value
	}
	lines := strings.Split(f.value, "\r\n")
	for i, l := range lines {
		lines[i] = strings.Trim(l, " \t")
	}
	return strings.TrimSpace(strings.Join(lines, " "))
}

// eachField calls visit with the fields of a header, which ends with an empty
// line, until it returns false. What is no field is ErrAmbiguous.
func eachField(header string, visit func(field) bool) error {
	for header != "\r\n" {
		end, folded := fieldEnd(header)
		f := field{folded: folded}
		name, value, ok := strings.Cut(header[:end], ":")
		if !ok || name == "" {
			return ErrAmbiguous
		}
		for i := range len(name) { // also a space in front of the colon
			if !token(name[i]) {
				return ErrAmbiguous
			}
		}
		f.name, f.value = name, strings.Trim(value, " \t")
		if !visit(f) {
			return nil
		}
		header = header[end+2:]
	}
	return nil
}

// fieldEnd is where the line end is behind the field that header begins with, and
// whether there are others in it.
func fieldEnd(header string) (end int, folded bool) {
	end = strings.Index(header, "\r\n")
	for next := end + 2; header[next] == ' ' || header[next] == '\t'; next = end + 2 {
		end = next + strings.Index(header[next:], "\r\n")
		folded = true
	}
	return end, folded
}

// framing is what a header says about the message's end and the connection.
type framing struct {
	coded, chunked bool // there is a Transfer-Encoding; it is "chunked" alone
	sized          bool // there is a Content-Length
	size           uint64
	ambiguous      bool
	last           bool
	expects        bool
	continues      bool
	upgrades       bool
	h2c            bool
}

func (f *framing) read(header string, old bool) error {
	keep := false
	err := eachField(header, func(h field) bool {
		switch {
		case strings.EqualFold(h.name, "Transfer-Encoding"):
			f.ambiguous = f.ambiguous || f.coded || h.folded
			f.coded, f.chunked = true, strings.EqualFold(h.value, "chunked")
		case strings.EqualFold(h.name, "Content-Length"):
			n, ok := parseSize(h.value)
			f.ambiguous = f.ambiguous || f.sized || h.folded || !ok
			f.sized, f.size = true, n
		case strings.EqualFold(h.name, "Connection"):
			for word := range strings.SplitSeq(h.unfolded(), ",") {
				switch word = strings.Trim(word, " \t"); {
				case strings.EqualFold(word, "close"):
					f.last = true
				case strings.EqualFold(word, "keep-alive"):
					keep = true
				}
			}
		case strings.EqualFold(h.name, "Upgrade"):
			f.upgrades = true
			f.h2c = f.h2c || slices.ContainsFunc(words(h.unfolded()), isH2C)
		case strings.EqualFold(h.name, "Expect"):
			f.expects = true
			f.continues = strings.EqualFold(h.value, "100-continue")
		}
		return true
	})
	if old && !keep {
		f.last = true // RFC 9112 §9.3
	}
	return err
}

func (f *framing) body() body {
	if f.chunked {
		return body{state: chunkStart}
	}
	return body{left: f.size}
}

// parseSize reads a Content-Length: digits and nothing else, of a length that
// fits everybody's integers.
func parseSize(s string) (n uint64, ok bool) {
	if s == "" || len(s) > 18 {
		return 0, false
	}
	for i := range len(s) {
		if !digit(s[i]) {
			return 0, false
		}
		n = n*10 + uint64(s[i]-'0')
	}
	return n, true
}
