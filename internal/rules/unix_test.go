package rules

import (
	"errors"
	"strings"
	"testing"
)

func TestDecideUnix(t *testing.T) {
	long := "/" + strings.Repeat("x", 107)
	for _, c := range []struct {
		patterns []string
		name     string
		want     Where
		why      string
	}{
		{nil, "/var/run/docker.sock", Local, "is empty"},
		{[]string{"docker"}, "/var/run/docker.sock", Remote, `KEY in FILE:3: "docker"`},
		{[]string{"Docker"}, "/var/run/docker.sock", Local, "no pattern"},
		{[]string{"(?i)Docker"}, "/var/run/docker.sock", Remote, "Docker"},
		{[]string{"^docker"}, "/var/run/docker.sock", Local, "no pattern"},
		{[]string{"^/var/run/.*\\.sock$"}, "/var/run/docker.sock", Remote, ".sock"},
		{[]string{"^/a$", "^/b$"}, "/b", Remote, `"^/b$"`},
		{[]string{"^app$"}, "\x00app", Remote, "^app$"},
		{[]string{"^app$"}, "\x00app\x00\x00\x00", Remote, "^app$"},
		{[]string{"^a.b$"}, "\x00a\x00b", Remote, "^a.b$"},
		{[]string{"^app$"}, "\x00\x00app", Local, "no pattern"},
		{[]string{"^/app$"}, "\x00app", Local, "no pattern"},
		{[]string{"^/tmp/\uFFFD$"}, "/tmp/\xff", Remote, "/tmp/"},
		{[]string{"^/x{107}$"}, long, Remote, "x{107}"},
		{[]string{".*"}, "\x00", Remote, ".*"},
	} {
		var o OutgoingOptions
		for _, p := range c.patterns {
			o.UnixStreams = append(o.UnixStreams, Pattern{Text: p, Origin: "KEY in FILE:3"})
		}
		// What else is configured has no say.
		o.TCPLocal, o.UDPLocal = true, true
		r, err := NewOutgoing(o)
		if err != nil {
			t.Fatal(err)
		}
		d := r.DecideUnix(c.name)
		if d.Where != c.want || !strings.Contains(d.Why, c.why) {
			t.Errorf("%q with %q: got %+v, want %v because of %q", c.name, c.patterns, d, c.want, c.why)
		}
		if got, want := r.Unix(), len(c.patterns) > 0; got != want {
			t.Errorf("%q: Unix is %v, want %v", c.patterns, got, want)
		}
	}
	var wrong *PatternError
	if _, err := NewOutgoing(OutgoingOptions{UnixStreams: []Pattern{{Text: "(", Origin: "KEY in FILE:3"}}}); !errors.As(err, &wrong) || !strings.Contains(err.Error(), `KEY in FILE:3: "("`) {
		t.Errorf("a pattern that is none: %v", err)
	}
}
