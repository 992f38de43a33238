package http1

import "bytes"

// kind tells the two sorts of messages apart.
type kind uint8

const (
	request kind = iota
	response
)

// maxMethod bounds a method's name in bytes; the longest registered one
// (UPDATEREDIRECTREF) has 17. Longer words are another protocol's.
const maxMethod = 32

// scanner finds the end of a head, byte by byte, as early as possible: whether
// the first line is HTTP's is known before the line is complete, for protocols
// whose clients wait for an answer to a few bytes.
type scanner struct {
	at    int // bytes looked at
	state state
	since int // bytes in the present state's word
	proxy bool
	later bool // other messages came before on the connection
}

type state uint8

const (
	start     state = iota // of a request: an empty line may come first
	startLF                // after the CR of that line
	method                 // in a token
	target                 // before the target
	authority              // in a target of CONNECT
	scheme                 // in a target that begins with a letter
	slashes                // behind the colon of a scheme
	asterisk               // behind a target *
	visible                // in the rest of a target
	version                // in "HTTP/1.x"
	status                 // behind the version of a response
	text                   // in a line
	lineLF                 // after a CR
	bol                    // at the beginning of a header line
	lastLF                 // after a CR there
	complete
)

const httpVersion = "HTTP/1."

// Protocol names the protocol that a connection's first bytes show, where they
// are not HTTP/1: "HTTP/2" (RFC 9113 §3.4), "TLS" (RFC 8446 §5.1), or "".
func Protocol(b []byte) string {
	switch {
	case bytes.HasPrefix(b, []byte("PRI * HTTP/2")):
		return "HTTP/2"
	case len(b) > 0 && b[0] == 0x16 && (len(b) == 1 || b[1] == 3): // a handshake record, of version 3.x
		return "TLS"
	}
	return ""
}

// maxLine bounds the first line that Begins looks for, in bytes: what servers take
// by default.
const maxLine = 8 << 10

// methods are those that are registered (IANA, HTTP Method Registry), but for PRI.
var methods = map[string]bool{
	"ACL": true, "BASELINE-CONTROL": true, "BIND": true, "CHECKIN": true, "CHECKOUT": true, "CONNECT": true, "COPY": true, "DELETE": true,
	"GET": true, "HEAD": true, "LABEL": true, "LINK": true, "LOCK": true, "MERGE": true, "MKACTIVITY": true, "MKCALENDAR": true, "MKCOL": true,
	"MKREDIRECTREF": true, "MKWORKSPACE": true, "MOVE": true, "OPTIONS": true, "ORDERPATCH": true, "PATCH": true, "POST": true, "PROPFIND": true,
	"PROPPATCH": true, "PUT": true, "QUERY": true, "REBIND": true, "REPORT": true, "SEARCH": true, "TRACE": true, "UNBIND": true, "UNCHECKOUT": true,
	"UNLINK": true, "UNLOCK": true, "UPDATE": true, "UPDATEREDIRECTREF": true, "VERSION-CONTROL": true,
}

// Begins reports whether b, from the middle of a connection, begins with the whole
// first line of a request of a registered method: any other word may be the end of
// one. Of most of what is none it looks at no more than a word.
func Begins(b []byte) bool {
	if n := bytes.IndexByte(b[:min(len(b), maxMethod)], ' '); n < 0 || !methods[string(b[:n])] {
		return false
	}
	var s scanner
	for b = b[:min(len(b), maxLine)]; s.at < len(b); s.at++ {
		if !s.step(b[s.at], b, request) {
			return false
		}
		if s.state == bol {
			return true
		}
	}
	return false
}

// scan looks at what it has not seen of b, which begins with the head. When it
// is done the head is b[:s.at].
func (s *scanner) scan(b []byte, k kind) (done bool, err error) {
	if s.state == complete {
		return true, nil
	}
	for ; s.at < len(b); s.at++ {
		c := b[s.at]
		if s.state == text && c > '\r' {
			continue // most bytes of most heads
		}
		if !s.step(c, b, k) {
			if s.state >= text {
				return false, ErrAmbiguous
			}
			return false, ErrNotHTTP
		}
		if s.state == complete {
			s.at++
			return true, nil
		}
	}
	return false, nil
}

// to goes to another state.
func (s *scanner) to(next state) bool {
	s.state, s.since = next, 0
	return true
}

// step takes c, which is b[s.at]; false if it cannot stand there.
func (s *scanner) step(c byte, b []byte, k kind) bool {
	switch s.state {
	case start:
		switch {
		case k == response:
			s.state = version
			return s.step(c, b, k)
		case c == '\r' && s.later: // clients of old sent one behind a body (RFC 9112 §2.2)
			return s.to(startLF)
		}
		s.state = method
		return s.step(c, b, k)
	case startLF:
		return c == '\n' && s.to(method)
	case method:
		if c == ' ' && s.since > 0 {
			s.proxy = string(b[s.at-s.since:s.at]) == "CONNECT"
			return s.to(target)
		}
		s.since++
		return token(c) && s.since <= maxMethod
	case target:
		switch {
		case s.proxy:
			return hostByte(c) && s.to(authority)
		case c == '/':
			return s.to(visible)
		case c == '*':
			return s.to(asterisk)
		}
		return letter(c) && s.to(scheme)
	case authority:
		return c == ' ' && s.to(version) || hostByte(c)
	case scheme:
		return c == ':' && s.to(slashes) || letter(c) || digit(c) || c == '+' || c == '-' || c == '.'
	case slashes:
		if s.since++; s.since == 2 {
			return c == '/' && s.to(visible)
		}
		return c == '/'
	case asterisk:
		return c == ' ' && s.to(version)
	case visible:
		return c == ' ' && s.to(version) || c > ' ' && c != 0x7f
	case version:
		switch {
		case s.since < len(httpVersion):
			s.since++
			return c == httpVersion[s.since-1]
		case s.since == len(httpVersion):
			s.since++
			return c == '0' || c == '1'
		case k == response:
			return c == ' ' && s.to(status)
		}
		return c == '\r' && s.to(lineLF)
	case status:
		if s.since == 3 {
			return c == '\r' && s.to(lineLF) || c == ' ' && s.to(text)
		}
		s.since++
		return digit(c)
	case text:
		// A line that ends without CR, a CR that ends no line, a zero: some
		// servers see the end of a line there and others do not.
		return c == '\r' && s.to(lineLF) || c != '\n' && c != 0
	case lineLF:
		return c == '\n' && s.to(bol)
	case bol:
		if c == '\r' {
			return s.to(lastLF)
		}
		s.state = text
		return s.step(c, b, k)
	case lastLF:
		return c == '\n' && s.to(complete)
	}
	return false
}

func letter(c byte) bool { return c|0x20 >= 'a' && c|0x20 <= 'z' }

func digit(c byte) bool { return c >= '0' && c <= '9' }

// token reports whether c may stand in a method or a header's name (RFC 9110
// §5.6.2).
func token(c byte) bool {
	return letter(c) || digit(c) || c < 0x80 && bytes.IndexByte([]byte("!#$%&'*+-.^_`|~"), c) >= 0
}

// hostByte reports whether c may stand in host:port.
func hostByte(c byte) bool {
	return letter(c) || digit(c) || c < 0x80 && bytes.IndexByte([]byte("-._~%:[]!$&'()*+,;="), c) >= 0
}
