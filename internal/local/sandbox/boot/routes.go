package boot

import (
	"errors"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"

	"github.com/mirrord-go/mirrord/internal/local/sandbox/handoff"
	"github.com/mirrord-go/mirrord/internal/local/sandbox/route"
)

// missing tells whether nftables, or its NAT, is not there at all.
func missing(err error) bool {
	return errors.Is(err, unix.EPROTONOSUPPORT) || errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EOPNOTSUPP)
}

// tableLoopback is the routing table of localhost and the pod's own addresses.
const tableLoopback = 101

// Properties of an interface (IPV4_DEVCONF_…, linux/ip.h).
const confAcceptLocal = 23

// routeLoopback does without nftables what loopbackRules do, for IPv4: packets
// to localhost and the pod's own addresses are routed to the device, as they
// are, and come back from there. Ports that the program serves itself get rules
// of their own (handoff.RulePort). ::1 cannot be had: the kernel takes it from
// no interface but lo (ip6_rcv_core).
func routeLoopback(tun int, addrs []netip.Prefix) error {
	fd, err := route.Socket()
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	r := route.On(fd)
	// What comes back has a source of our own.
	conf := route.Nested(unix.AF_INET, route.Nested(inetConf, route.Attr32(confAcceptLocal, 1)))
	if err := r.SetLink(tun, 0, route.Nested(unix.IFLA_AF_SPEC, conf)); err != nil {
		return err
	}
	// The way back of what came by the device is the device, so a strict filter
	// is content too; off is merely cheaper.
	_ = os.WriteFile("/proc/sys/net/ipv4/conf/"+handoff.Device+"/rp_filter", []byte("0"), 0)
	own := []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	for _, a := range addrs {
		if a.Addr().Is4() {
			own = append(own, netip.PrefixFrom(a.Addr(), a.Addr().BitLen()))
		}
	}
	rules := []route.Rule{
		{Priority: handoff.RuleArrived, Table: unix.RT_TABLE_LOCAL, Iif: handoff.Device},
		{Priority: handoff.RuleArrived, Table: unix.RT_TABLE_LOCAL, Mark: handoff.Mark},
		{Priority: handoff.RuleLocal, Table: unix.RT_TABLE_LOCAL},
	}
	for _, dst := range own {
		src := dst.Addr()
		if src.IsLoopback() {
			src = netip.AddrFrom4([4]byte{127, 0, 0, 1})
		}
		if err := r.AddRoute(tun, route.Route{Dst: dst, Table: tableLoopback, Src: src}); err != nil {
			return err
		}
		rules = append(rules, route.Rule{Priority: handoff.RuleLoopback, Table: tableLoopback, Dst: dst})
	}
	for _, u := range rules {
		if err := r.AddRule(u); err != nil {
			return err
		}
	}
	// The kernel's own rule for the table "local" stands before all others. It
	// has just been added again, below: bind(2) needs it.
	return r.DeleteRule(route.Rule{Table: unix.RT_TABLE_LOCAL})
}
