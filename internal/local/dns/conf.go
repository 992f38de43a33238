package dns

import (
	"net/netip"
	"strconv"
	"strings"
)

const (
	// maxServers and maxSearch bound what a resolv.conf may name: more than any
	// resolver asks (glibc: 3 servers), and than a pod may have (32 domains).
	maxServers, maxSearch = 16, 64
	// maxHosts bounds the lines of a hosts file that count.
	maxHosts = 10_000
	// defaultDots and maxDots are those of resolv.conf(5).
	defaultDots, maxDots = 1, 15
)

// Conf is what a resolv.conf says.
type Conf struct {
	Servers []netip.Addr // in their order; where the file names none, 127.0.0.1 (resolv.conf(5))
	Search  []string     // domains that are tried behind short names
	Dots    int          // a name with as many is no short one: options ndots
}

// ParseConf reads a resolv.conf; what it does not know it skips, as resolvers
// do.
func ParseConf(text string) Conf {
	c := Conf{Dots: defaultDots}
	for line := range strings.Lines(text) {
		if i := strings.IndexAny(line, "#;"); i >= 0 {
			line = line[:i]
		}
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		switch f[0] {
		case "nameserver":
			if a, err := netip.ParseAddr(f[1]); err == nil && len(c.Servers) < maxServers {
				c.Servers = append(c.Servers, a.Unmap())
			}
		case "domain": // the last of both lines counts
			c.Search = []string{f[1]}
		case "search":
			c.Search = f[1:min(len(f), 1+maxSearch)]
		case "options":
			for _, o := range f[1:] {
				if n, ok := strings.CutPrefix(o, "ndots:"); ok {
					if dots, err := strconv.Atoi(n); err == nil && dots >= 0 {
						c.Dots = min(dots, maxDots)
					}
				}
			}
		}
	}
	if len(c.Servers) == 0 {
		c.Servers = []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1})}
	}
	return c
}

// ParseHosts reads a hosts file: names by address, in lower case and without
// a final dot.
func ParseHosts(text string) map[netip.Addr][]string {
	hosts := map[netip.Addr][]string{}
	lines := 0
	for line := range strings.Lines(text) {
		if lines++; lines > maxHosts {
			break
		}
		line, _, _ = strings.Cut(line, "#")
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		a, err := netip.ParseAddr(f[0])
		if err != nil {
			continue
		}
		a = a.Unmap().WithZone("")
		for _, n := range f[1:] {
			hosts[a] = append(hosts[a], strings.ToLower(strings.TrimSuffix(n, ".")))
		}
	}
	return hosts
}
