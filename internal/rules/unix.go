package rules

import (
	"regexp"
	"strings"
)

// unixPattern is a regular expression on names of unix sockets, in this case
// only.
type unixPattern struct {
	re  *regexp.Regexp
	why string
}

func newUnixPatterns(list []Pattern) (all []unixPattern, err error) {
	const key = "outgoing.unix_streams"
	for _, p := range list {
		re, err := regexp.Compile(p.Text)
		if err != nil {
			return nil, &PatternError{key, p, err}
		}
		all = append(all, unixPattern{re, origin(key, p)})
	}
	return all, nil
}

// Unix reports whether any unix socket may be the target's.
func (o *Outgoing) Unix() bool { return len(o.unix) > 0 }

// DecideUnix says whose a unix socket is. name is what sun_path has (unix(7)): a
// path, which is to be absolute, or NUL and an abstract name, whose NULs at the
// end do not count. Bytes that are no UTF-8 match as U+FFFD.
func (o *Outgoing) DecideUnix(name string) Decision {
	if abstract, ok := strings.CutPrefix(name, "\x00"); ok {
		name = strings.TrimRight(abstract, "\x00")
	}
	for _, p := range o.unix {
		if p.re.MatchString(name) {
			return Decision{Remote, p.why}
		}
	}
	if !o.Unix() {
		return Decision{Local, "default: outgoing.unix_streams is empty"}
	}
	return Decision{Local, "no pattern of outgoing.unix_streams matches"}
}
