package rules

import (
	"errors"
	"net/netip"
)

// DNS decides who answers the program's lookups. The zero value leaves all of
// them to the target.
type DNS struct {
	local  bool
	filter addresses
	search []string
}

// NewDNS reads o; search are the search domains of the resolv.conf that the
// program sees. An entry that means nothing is an *AddressError.
func NewDNS(o DNSOptions, search []string) (*DNS, error) {
	f, err := newAddresses("dns.filter", o.Filter, func(a Address) error {
		if a.Protocol != "" {
			return errors.New("a lookup has no protocol: leave " + a.Protocol + ":// out")
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &DNS{o.Local, f, search}, nil
}

// Off reports whether all lookups are this machine's.
func (d *DNS) Off() bool { return d.local }

// Filtered reports whether answers depend on the name.
func (d *DNS) Filtered() bool { return d.filter.set && !d.local }

// Decide says who answers a lookup of name. meant is the name that the rule
// meant: the one that was asked for, or that without a search domain. Lookups
// carry no port, so the ports of entries are not looked at.
func (d *DNS) Decide(name string) (dec Decision, meant string) {
	names := Names(name, d.search)
	if d.local {
		return Decision{Local, "dns is off"}, names[0]
	}
	for _, meant := range names {
		ip, _ := netip.ParseAddr(meant)
		found := false
		dec, ok := d.filter.decide(func(a Address) bool {
			found = a.names(meant) || a.Prefix.IsValid() && a.Prefix.Contains(ip)
			return found
		})
		switch {
		case !ok:
			return Decision{Remote, "default"}, names[0]
		case found:
			return dec, meant
		}
	}
	dec, _ = d.filter.decide(func(Address) bool { return false })
	return dec, names[0]
}

// Searched reports whether name ends with a search domain.
func (d *DNS) Searched(name string) bool { return len(Names(name, d.search)) > 1 }
