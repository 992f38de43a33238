package forward

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/mirrord-go/mirrord/internal/failure"
)

// Local is a port of this machine that leads to one that the target reaches: a -L.
type Local struct {
	Text   string     // as it was given
	Listen netip.Addr // where it is opened; invalid: on this machine's loopback
	Port   uint16     // 0: any that is free
	Host   string     // a name or an address, as the target knows it
	Remote uint16
}

// To is where it leads, as a person writes it.
func (l Local) To() string { return net.JoinHostPort(l.Host, strconv.Itoa(int(l.Remote))) }

// Remote is a port of the target whose traffic comes to one of this machine: a -R.
type Remote struct {
	Text  string // as it was given
	Port  uint16 // of the target
	Local uint16 // of this machine's loopback
}

// maxForwards bounds what one command forwards: far more than a person types, and
// the descriptors that a process has by default are enough for their listeners.
const maxForwards = 200

// Parse reads the values of -L and -R. The error names what is wrong with which of
// them.
func Parse(locals, remotes []string) (ls []Local, rs []Remote, err error) {
	if len(locals)+len(remotes) == 0 {
		return nil, nil, failure.Usage("forward-nothing", "there is nothing to forward", "mirrord port-forward -L 8080:shop:80",
			"-L [LOCAL:]HOST:PORT leads from this machine to a port that the target reaches, -R [PORT:]LOCAL brings a port of the target's here")
	}
	if n := len(locals) + len(remotes); n > maxForwards {
		return nil, nil, failure.Usage("forward-malformed", fmt.Sprintf("there are %d ports to forward", n), "several commands, each with some of them", "one command forwards at most %d", maxForwards)
	}
	for i, text := range locals {
		l, err := parseLocal(text)
		if err != nil {
			return nil, nil, malformed("L", text, "8080:shop:80, shop:80, 127.0.0.1:8080:10.0.0.7:80, 8080:[fd00::7]:80, 0:db:5432 for any free port", err)
		}
		for k, other := range ls {
			if l.meets(other) {
				return nil, nil, twice("L", k, i, locals, "this machine's port %d would lead to two places", l.Port)
			}
		}
		ls = append(ls, l)
	}
	for i, text := range remotes {
		r, err := parseRemote(text)
		if err != nil {
			return nil, nil, malformed("R", text, "3000, 80:3000", err)
		}
		if k := slices.IndexFunc(rs, func(other Remote) bool { return other.Port == r.Port }); k >= 0 {
			return nil, nil, twice("R", k, i, remotes, "the target's port %d would come to two places", r.Port)
		}
		rs = append(rs, r)
	}
	return ls, rs, nil
}

func malformed(flag, text, examples string, err error) error {
	return failure.Usage("forward-malformed", fmt.Sprintf("-%s %s cannot be read", flag, text), fmt.Sprintf("for example -%s %s", flag, examples), "%v", err)
}

func twice(flag string, first, second int, all []string, why string, port uint16) error {
	return failure.Usage("forward-twice", fmt.Sprintf("-%s %s (no. %d of them) and -%s %s (no. %d) are for the same port", flag, all[first], first+1, flag, all[second], second+1),
		"leave one of them away, or give one another port", why, port)
}

// meets reports whether two cannot be opened at the same time.
func (l Local) meets(o Local) bool {
	if l.Port == 0 || l.Port != o.Port {
		return false
	}
	a, b := l.Listen, o.Listen
	switch {
	case a == b, a.IsValid() && a.IsUnspecified(), b.IsValid() && b.IsUnspecified():
		return true
	case !a.IsValid():
		return onLoopback(b)
	case !b.IsValid():
		return onLoopback(a)
	}
	return false
}

// onLoopback: it is one of the two that a -L without an address is opened on.
func onLoopback(a netip.Addr) bool {
	return a == netip.AddrFrom4([4]byte{127, 0, 0, 1}) || a == netip.IPv6Loopback()
}

// parseLocal reads [[ADDRESS:]PORT:]HOST:PORT.
func parseLocal(text string) (l Local, err error) {
	parts, err := split(text)
	if err != nil {
		return l, err
	}
	l.Text = text
	n := len(parts)
	if n < 2 || n > 4 {
		return l, fmt.Errorf("it is [[ADDRESS:]LOCAL:]HOST:PORT, and an IPv6 address stands in brackets")
	}
	if l.Remote, err = port(parts[n-1], "the remote port", 1); err != nil {
		return l, err
	}
	l.Port = l.Remote
	if n >= 3 {
		if l.Port, err = port(parts[n-3], "the local port", 0); err != nil {
			return l, err
		}
	}
	if l.Host, err = host(parts[n-2]); err != nil {
		return l, err
	}
	if n == 4 {
		if l.Listen, err = netip.ParseAddr(unbracketed(parts[0])); err != nil {
			return l, fmt.Errorf("%q is no address of this machine: it is an IP address, or left away for 127.0.0.1 and [::1]", parts[0])
		}
		l.Listen = l.Listen.Unmap()
	}
	return l, nil
}

// parseRemote reads [PORT:]LOCAL.
func parseRemote(text string) (r Remote, err error) {
	remote, local, two := strings.Cut(text, ":")
	if !two {
		local = remote
	}
	r.Text = text
	if r.Port, err = port(remote, "the target's port", 1); err != nil {
		return r, err
	}
	r.Local, err = port(local, "the local port", 1)
	return r, err
}

// split takes a text apart at its colons, but for those in brackets.
func split(text string) (parts []string, err error) {
	begin, inside := 0, false
	for i, c := range text {
		switch {
		case c == '[' && !inside && i == begin:
			inside = true
		case c == ']' && inside && (i+1 == len(text) || text[i+1] == ':'):
			inside = false
		case c == '[' || c == ']':
			return nil, fmt.Errorf("brackets stand around an IPv6 address, as in [::1]:80")
		case c == ':' && !inside:
			parts = append(parts, text[begin:i])
			begin = i + 1
		}
	}
	if inside {
		return nil, fmt.Errorf("a bracket is not closed")
	}
	return append(parts, text[begin:]), nil
}

// unbracketed is an address without its brackets.
func unbracketed(s string) string {
	if in, ok := strings.CutPrefix(s, "["); ok {
		return strings.TrimSuffix(in, "]")
	}
	return s
}

// host checks a name, or an address, and gives it without brackets.
func host(s string) (string, error) {
	if h := unbracketed(s); h != s {
		a, err := netip.ParseAddr(h)
		if err != nil || !a.Is6() {
			return "", fmt.Errorf("%q is no IPv6 address", h)
		}
		if a.Zone() != "" {
			return "", fmt.Errorf("%q: zones of this machine mean nothing to the target", h)
		}
		return h, nil
	}
	if a, err := netip.ParseAddr(s); err == nil {
		return a.String(), nil
	}
	name := strings.TrimSuffix(s, ".")
	if name == "" {
		return "", fmt.Errorf("the host is missing")
	}
	if len(name) > 253 || strings.Trim(name, "0123456789.") == "" || strings.ContainsFunc(name, func(r rune) bool { return !nameRune(r) }) {
		return "", fmt.Errorf("%q is no name of a host", s)
	}
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > 63 {
			return "", fmt.Errorf("%q is no name of a host", s)
		}
	}
	return s, nil
}

// nameRune: a letter of names as resolvers take them; the underscore is in use.
func nameRune(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_' || r == '.'
}

// port reads a number of at least least.
func port(s, what string, least uint64) (uint16, error) {
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil || n < least {
		return 0, fmt.Errorf("%s is %q; it is a number from %d to 65535", what, s, least)
	}
	return uint16(n), nil
}
