package filter

import (
	"iter"
	"net/netip"
	"strings"
	"time"
)

// Request is what a filter looks at.
type Request struct {
	Client netip.Addr // whose connection it came on; the zero Addr: nobody knows
	// ServerName is whom its client of TLS has asked for; empty: nobody, or there is no TLS.
	ServerName string
	Method     string
	Target     string // as sent: origin form, absolute form, authority or *
	// Headers gives every header as sent, in order. It may be asked several
	// times.
	Headers iter.Seq2[string, string]
	// Body gives the body, without the framing of its chunks, or says why it cannot
	// be looked at. It is called once, and only where the head does not decide. nil:
	// there is none.
	Body func() ([]byte, error)
}

// subject is a request under examination.
type subject struct {
	Request
	whole    bool          // only what holds for the whole connection is known
	nameless bool          // and not even ServerName
	look     func(Step)    // nil: nobody wants to know
	spent    time.Duration // on searches that backtrack
	work     int           // of others; see maxWork
	lines    []string      // see headerLines
	listed   bool
	err      error // of the first pattern that could not be decided

	asked   bool // for the body
	content []byte
	unread  error // why it cannot be looked at
	parsed  bool
	json    any
	isJSON  bool
}

// headerLines gives each header as "name: value": the name in lower case, as
// HTTP/2 has it, the value trimmed. Values that are not visible ASCII are left
// out: what they mean is between the two ends.
func (s *subject) headerLines() []string {
	if s.listed || s.Headers == nil {
		return s.lines
	}
	s.listed = true
	for name, value := range s.Headers {
		if value = strings.Trim(value, " \t"); visible(value) {
			s.lines = append(s.lines, strings.ToLower(name)+": "+value)
		}
	}
	return s.lines
}

func visible(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < ' ' && c != '\t') || c > '~' {
			return false
		}
	}
	return true
}

// hosts gives what the request calls the server: the authority of its target,
// which counts before any Host header (RFC 9112 §3.2.2), else these.
func (s *subject) hosts() (all []string) {
	if authority, ok := authorityOf(s.Method, s.Target); ok {
		return []string{authority}
	}
	for _, line := range s.headerLines() {
		if host, ok := strings.CutPrefix(line, "host: "); ok {
			all = append(all, host)
		}
	}
	return all
}

// authorityOf gives host and port of a request's target, if it has them.
func authorityOf(method, target string) (string, bool) {
	if method == "CONNECT" {
		return target, true
	}
	if strings.HasPrefix(target, "/") {
		return "", false
	}
	_, rest, ok := strings.Cut(target, "://")
	if !ok {
		return "", false
	}
	if end := strings.IndexAny(rest, "/?"); end >= 0 {
		rest = rest[:end]
	}
	return rest[strings.LastIndexByte(rest, '@')+1:], true
}

// withoutPort is a host without the port behind it.
func withoutPort(host string) string {
	colon := strings.LastIndexByte(host, ':')
	if colon < 0 || strings.HasSuffix(host, "]") { // an address of IPv6
		return host
	}
	return host[:colon]
}

// pathOf gives path and query of a request's target (RFC 9112 §3.2). The
// authority form, of CONNECT, has neither.
func pathOf(target string) string {
	if strings.HasPrefix(target, "/") || target == "*" {
		return target
	}
	_, rest, ok := strings.Cut(target, "://")
	if !ok {
		return ""
	}
	switch at := strings.IndexAny(rest, "/?"); {
	case at < 0:
		return "/"
	case rest[at] == '?':
		return "/" + rest[at:]
	default:
		return rest[at:]
	}
}
