package rules

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// Address is an entry of an address filter: where a connection goes, or which
// name is looked up. The zero value matches everything.
type Address struct {
	Protocol string // "tcp", "udp"; empty: any
	// Name is in lower case and has no final dot; * stands for any run of
	// characters, ? for one. Empty: no name is asked for.
	Name   string
	Prefix netip.Prefix // not valid: any address
	Port   uint16       // 0: any
}

// ParseAddress reads [protocol://]address[/prefix][:port], where address is a
// name, an IPv4 address, or an IPv6 address in brackets. 0.0.0.0 and [::]
// without a prefix are any address. The error says what is wrong with text.
func ParseAddress(text string) (Address, error) {
	var a Address
	rest := text
	if protocol, after, ok := strings.Cut(text, "://"); ok {
		switch p := strings.ToLower(protocol); p {
		case "tcp", "udp":
			a.Protocol = p
		case "any":
		default:
			return Address{}, fmt.Errorf("protocol %q is not tcp, udp or any", protocol)
		}
		if rest = after; rest == "" {
			return a, nil
		}
	}
	if rest == "" {
		return Address{}, errors.New("it is empty")
	}
	var err error
	switch {
	case rest[0] == '[':
		rest, err = a.bracketed(rest)
	case strings.Count(rest, ":") > 1:
		err = errors.New("it has more than one colon; an IPv6 address stands in brackets, as in [2001:db8::1]:443 or [2001:db8::]/64")
	default:
		rest, err = a.plain(rest)
	}
	if err == nil && rest != "" {
		err = a.port(rest)
	}
	if err != nil {
		return Address{}, err
	}
	return a, nil
}

// bracketed reads [address][/prefix] and gives what follows.
func (a *Address) bracketed(text string) (rest string, err error) {
	host, rest, ok := strings.Cut(text[1:], "]")
	if !ok {
		return "", errors.New("a bracket is not closed")
	}
	ip, err := netip.ParseAddr(host)
	if err != nil || !ip.Is6() || ip.Zone() != "" {
		return "", fmt.Errorf("%q in brackets is not an IPv6 address", host)
	}
	bits, port := cutPort(rest)
	if bits != "" && bits[0] != '/' {
		return rest, nil // it is neither
	}
	return port, a.network(ip, bits)
}

// plain reads a name or an IPv4 address with its prefix, and gives what
// follows.
func (a *Address) plain(text string) (rest string, err error) {
	host, rest := cutPort(text)
	host, bits := cutPrefix(host)
	switch ip, err := netip.ParseAddr(host); {
	case err == nil:
		return rest, a.network(ip, bits)
	case host == "" && bits == "":
		return rest, nil
	case host == "":
		return "", errors.New("a prefix needs an address in front of it")
	case bits != "":
		return "", fmt.Errorf("%q is a name, and names have no prefix", host)
	}
	name := normal(host)
	for _, c := range []byte(name) {
		if !nameByte(c) {
			return "", fmt.Errorf("%q cannot be part of a name: letters, digits, '-', '_', '.', and the wildcards * and ? can", c)
		}
	}
	last := name[strings.LastIndexByte(name, '.')+1:]
	switch {
	case strings.Contains("."+name+".", ".."):
		return "", fmt.Errorf("name %q has an empty part", host)
	case strings.Trim(last, "0123456789") == "", name != "*" && strings.Trim(name, "0123456789.*?") == "":
		return "", fmt.Errorf("%q is neither a name nor an IPv4 address (a network is written as 10.1.0.0/16)", host)
	}
	a.Name = name
	return rest, nil
}

// network sets the prefix; bits is empty, or "/" and the length.
func (a *Address) network(ip netip.Addr, bits string) error {
	n := ip.BitLen()
	if bits != "" {
		var err error
		if n, err = strconv.Atoi(bits[1:]); err != nil || n < 0 || n > ip.BitLen() || bits[1] < '0' || bits[1] > '9' {
			return fmt.Errorf("prefix %q is not a number from 0 to %d", bits, ip.BitLen())
		}
	} else if ip.IsUnspecified() {
		return nil
	}
	if ip.Is4In6() {
		if n -= 96; n < 0 {
			return fmt.Errorf("prefix %q is too short for an IPv4 address in IPv6 form", bits)
		}
		ip = ip.Unmap()
	}
	a.Prefix = netip.PrefixFrom(ip, n).Masked()
	return nil
}

func (a *Address) port(text string) error {
	if text[0] != ':' {
		return fmt.Errorf("%q after the address is neither a prefix nor a port", text)
	}
	n, err := strconv.ParseUint(text[1:], 10, 16)
	if err != nil {
		return fmt.Errorf("port %q is not a number from 1 to 65535 (or 0 for any)", text[1:])
	}
	a.Port = uint16(n)
	return nil
}

// cutPort splits before the first colon.
func cutPort(s string) (before, port string) {
	if i := strings.IndexByte(s, ':'); i >= 0 {
		return s[:i], s[i:]
	}
	return s, ""
}

// cutPrefix splits before the first slash.
func cutPrefix(s string) (host, bits string) {
	if i := strings.IndexByte(s, '/'); i >= 0 {
		return s[:i], s[i:]
	}
	return s, ""
}

func nameByte(c byte) bool {
	return 'a' <= c && c <= 'z' || '0' <= c && c <= '9' || strings.IndexByte("-_.*?", c) >= 0
}

// normal is a name as names are compared: DNS knows no case, and the final dot
// only says that no search domain is to be tried.
func normal(name string) string { return strings.ToLower(strings.TrimSuffix(name, ".")) }

// Names gives a name that was looked up and what a person may have meant by
// it: without each search domain that it ends with. All are in lower case and
// without a final dot.
func Names(asked string, search []string) []string {
	name := normal(asked)
	list := []string{name}
	for _, s := range search {
		if short, ok := strings.CutSuffix(name, "."+normal(s)); ok && short != "" && normal(s) != "" {
			list = append(list, short)
		}
	}
	return list
}

// names reports whether a asks for a name and name is it.
func (a Address) names(name string) bool { return a.Name != "" && glob(a.Name, name) }

// connects reports whether a connection is meant. A name stands for every
// address that it was the answer for; "*" also for those without a name.
func (a Address) connects(network string, dst netip.AddrPort, names []string) bool {
	switch {
	case a.Protocol != "" && a.Protocol != network, a.Port != 0 && a.Port != dst.Port():
		return false
	case a.Prefix.IsValid():
		return a.Prefix.Contains(dst.Addr().Unmap())
	case a.Name == "" || a.Name == "*":
		return true
	}
	for _, n := range names {
		if a.names(n) {
			return true
		}
	}
	return false
}

// AddressError is an entry of an address filter that means nothing.
type AddressError struct {
	Pattern Pattern
	Err     error // what is wrong with it
}

// Error names the entry and where it stands.
func (e *AddressError) Error() string {
	return fmt.Sprintf("%s: %q: %v", e.Pattern.where("an address filter"), e.Pattern.Text, e.Err)
}

// Unwrap gives what is wrong.
func (e *AddressError) Unwrap() error { return e.Err }

// addresses is an AddressFilter that can be asked.
type addresses struct {
	key     string // of the filter: "outgoing.filter"
	set     bool
	matched Where // what is listed goes there
	entries []addressEntry
}

type addressEntry struct {
	Address
	from Pattern
}

// newAddresses reads f. check refuses entries that mean nothing there.
func newAddresses(key string, f AddressFilter, check func(Address) error) (addresses, error) {
	list := addresses{key: key, set: f.Side != ""}
	switch {
	case f.Side == SideRemote:
		list.matched = Remote
	case f.Side == "" && len(f.Entries) == 0, f.Side == SideLocal:
	default:
		return addresses{}, fmt.Errorf("%s is for side %q; it can be %s or %s", key, f.Side, SideLocal, SideRemote)
	}
	for _, p := range f.Entries {
		a, err := ParseAddress(p.Text)
		if err == nil && check != nil {
			err = check(a)
		}
		if err != nil {
			return addresses{}, &AddressError{p, err}
		}
		list.entries = append(list.entries, addressEntry{a, p})
	}
	return list, nil
}

// decide gives the side of what match finds; ok is false if there is no
// filter.
func (l *addresses) decide(match func(Address) bool) (d Decision, ok bool) {
	if !l.set {
		return Decision{}, false
	}
	side, other := SideLocal, Remote
	if l.matched == Remote {
		side, other = SideRemote, Local
	}
	for _, e := range l.entries {
		if match(e.Address) {
			return Decision{l.matched, e.from.where(l.key+"."+side) + " has " + strconv.Quote(e.from.Text)}, true
		}
	}
	return Decision{other, l.key + "." + side + " has no entry for it"}, true
}
