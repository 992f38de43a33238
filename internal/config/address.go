package config

import (
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"strconv"
	"strings"

	"github.com/mirrord-go/mirrord/internal/rules"
)

// namePattern is a host name, also with * in it.
var namePattern = regexp.MustCompile(`^[A-Za-z0-9_.*-]+$`)

// splitAddress takes [protocol://]address[/prefix][:port] apart. host is a name
// or "", if there is an address or none.
func splitAddress(entry string) (host string, err error) {
	rest := entry
	if protocol, after, ok := strings.Cut(entry, "://"); ok {
		switch strings.ToLower(protocol) {
		case "tcp", "udp", "any":
		default:
			return "", fmt.Errorf("there is no protocol %q; there are: tcp, udp, any", protocol)
		}
		if rest = after; rest == "" {
			return "", nil
		}
	}
	if rest == "" {
		return "", errors.New("it is empty")
	}
	address := rest
	if colon := strings.LastIndexByte(rest, ':'); colon > strings.LastIndexByte(rest, ']') {
		if _, err := strconv.ParseUint(rest[colon+1:], 10, 16); err != nil {
			return "", fmt.Errorf("%q is no port", rest[colon+1:])
		}
		address = rest[:colon]
	}
	if address == "" {
		return "", nil
	}
	bare := strings.NewReplacer("[", "", "]", "").Replace(address)
	if strings.Contains(address, "/") {
		if _, err := netip.ParsePrefix(bare); err != nil {
			return "", fmt.Errorf("%q is no network", address)
		}
		return "", nil
	}
	if _, err := netip.ParseAddr(bare); err == nil {
		return "", nil
	}
	if !namePattern.MatchString(address) {
		return "", fmt.Errorf("%q is neither a name nor an address; IPv6 stands in brackets", address)
	}
	return address, nil
}

// hostName gives the name in an entry of an address filter.
func hostName(entry string) (name string, ok bool) {
	name, err := splitAddress(entry)
	return name, err == nil && name != ""
}

// checkAddress is the default of Checks.Address.
func checkAddress(entry string) error {
	_, err := splitAddress(entry)
	return err
}

// checkFilter is the default of Checks.Filter.
func checkFilter(f rules.Filter) error {
	for _, p := range []*rules.Pattern{f.Header, f.Path} {
		if p == nil {
			continue
		}
		if err := rules.CheckExpression(p.Text); err != nil {
			return fmt.Errorf("%q is no regular expression: %w", p.Text, err)
		}
	}
	return nil
}
