package http2

import (
	"strconv"
	"strings"

	"golang.org/x/net/http2/hpack"
)

// This file is about what is wrong with a program's reply (RFC 9113 §8.1, §8.2,
// §8.3). Many clients end their whole connection for a malformed one, which
// carries the streams of others as well. A reply of the original's passes as it is:
// its client would have got it so.

// breaks reports whether a header block of a reply is malformed, and takes what it
// says of the length.
func (s *stream) breaks(l list, code int, ends bool) bool {
	pseudo := 0
	for _, f := range l.fields {
		switch {
		case f.IsPseudo():
			pseudo++
		case !token(f.Name) || ofConnection[f.Name]:
			return true
		}
		if strings.ContainsFunc(f.Value, control) {
			return true
		}
	}
	if s.begun {
		return pseudo > 0 || !ends || s.short()
	}
	if pseudo != 1 || l.fields[0].Name != ":status" || code < 100 || code < 200 && ends {
		return true
	}
	return code >= 200 && s.announced(l.fields, code) || ends && s.short()
}

// announced takes the length that a reply's body is to have; true: there is no
// telling.
func (s *stream) announced(fields []hpack.HeaderField, code int) bool {
	s.length = -1
	for _, f := range fields {
		if f.Name != "content-length" {
			continue
		}
		n, err := strconv.ParseUint(f.Value, 10, 62)
		if err != nil || s.length >= 0 && s.length != int64(n) {
			return true
		}
		s.length = int64(n)
	}
	if s.isHead || code == 204 || code == 304 { // it is that of another reply
		s.length = 0
	}
	return false
}

// short reports whether there was less DATA than announced.
func (s *stream) short() bool { return s.length > 0 }

// exceeds counts n bytes of a reply's DATA, and reports whether they are malformed.
func (s *stream) exceeds(n int, ends bool) bool {
	if !s.begun {
		return true
	}
	if s.length >= 0 {
		if s.length -= int64(n); s.length < 0 {
			return true
		}
	}
	return ends && s.short()
}

// ofConnection are the fields that HTTP/2 does not have (RFC 9113 §8.2.2).
var ofConnection = map[string]bool{"connection": true, "keep-alive": true, "proxy-connection": true, "transfer-encoding": true, "upgrade": true}

// token reports whether name can be that of a field: a token without upper case.
func token(name string) bool {
	for i := range len(name) {
		c := name[i]
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && !strings.ContainsRune("!#$%&'*+-.^_`|~", rune(c)) {
			return false
		}
	}
	return name != ""
}

func control(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }
