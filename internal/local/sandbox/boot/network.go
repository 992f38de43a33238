package boot

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/mirrord-go/mirrord/internal/local/sandbox/handoff"
	"github.com/mirrord-go/mirrord/internal/local/sandbox/route"
	"github.com/mirrord-go/mirrord/internal/local/sandbox/veth"
	"github.com/mirrord-go/mirrord/internal/nft"
)

const (
	loopbackIndex = 1 // LOOPBACK_IFINDEX: in every network namespace

	// IFLA_AF_SPEC/AF_INET/IFLA_INET_CONF is an array by IPV4_DEVCONF_… numbers
	// (linux/ip.h, linux/if_link.h).
	inetConf          = 1
	confRouteLocalnet = 26
	// IFLA_AF_SPEC/AF_INET6/IFLA_INET6_ADDR_GEN_MODE
	inet6AddrGenMode = 8
	addrGenNone      = 1 // no link-local address, no router solicitations

	// tunMTU in bytes is the largest multiple of 16 that an IPv4 packet holds, so
	// that bulk costs few packets.
	tunMTU = 65520

	// localPriority of the second route to ::1: worse than that of lo (0), so
	// that outgoing packets prefer lo.
	localPriority = 2048
)

// network makes the device, gives it the pod's addresses and sends localhost
// there, except what the program serves itself.
func (s *setup) network() *handoff.Error {
	fd, address, err := openDevice()
	if err != nil {
		return failure(handoff.StepTUN, "/dev/net/tun", err)
	}
	index, err := ifindex(handoff.Device)
	if err != nil {
		unix.Close(fd)
		return failure(handoff.StepTUN, handoff.Device, err)
	}
	if err := s.send(handoff.Packets, fd, address...); err != nil {
		return failure(handoff.StepTUN, "", err)
	}
	s.writeSysctls()
	_, err = os.Stat("/proc/net/if_inet6")
	v6 := err == nil
	mtu := veth.MTU
	if len(address) == 0 {
		mtu = tunMTU
	}
	if err := s.configure(index, mtu, v6); err != nil {
		return failure(handoff.StepNetwork, "", err)
	}
	err = applyRules(s.spec.Addrs)
	if missing(err) {
		// Without nftables routes do it.
		if s.routed = routeLoopback(index, s.spec.Addrs) == nil; s.routed {
			return nil
		}
	}
	if err != nil {
		return failure(handoff.StepNFT, "", err)
	}
	return nil
}

func applyRules(addrs []netip.Prefix) error {
	c, err := nft.Open()
	if err != nil {
		return err
	}
	defer c.Close()
	return c.Apply(loopbackRules(addrs)...)
}

// openDevice makes the device and gives the descriptor of its packets. Where
// there is no TUN, one end of a veth pair is the device, with the address that
// comes with it.
func openDevice() (fd int, address net.HardwareAddr, err error) {
	if fd, err = openTUN(); err != nil {
		return vethFor(err)
	}
	return fd, nil, nil
}

// vethFor makes a veth pair the device where there is no TUN because of err. It
// fails with that, which is what can be mended, and says why there is no pair.
func vethFor(err error) (fd int, address net.HardwareAddr, _ error) {
	fd, address, missing := veth.Open(handoff.Device)
	if missing != nil {
		e := failure(handoff.StepTUN, "/dev/net/tun", err)
		e.Text = fmt.Sprintf("there is no veth pair instead (%v)", missing)
		return -1, nil, e
	}
	return fd, address, nil
}

func openTUN() (int, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return -1, err
	}
	ifr, err := unix.NewIfreq(handoff.Device)
	if err == nil {
		ifr.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr)
	}
	if err == nil {
		// Checksum offload only: with a 64 KiB MTU segmentation gains nothing.
		err = unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, unix.TUN_F_CSUM)
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

func ifindex(name string) (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	ifr, err := unix.NewIfreq(name)
	if err != nil {
		return 0, err
	}
	if err := unix.IoctlIfreq(fd, unix.SIOCGIFINDEX, ifr); err != nil {
		return 0, err
	}
	return int(ifr.Uint32()), nil
}

// writeSysctls sets what only a sysctl can. All of it is a convenience: in
// containers /proc/sys is read-only, and the supervisor does without.
func (s *setup) writeSysctls() {
	settings := map[string]string{
		"net/mptcp/enabled":                   "0", // listeners are TCP sockets then, also Go's
		"net/ipv4/ip_unprivileged_port_start": "0",
		"net/ipv6/conf/all/disable_ipv6":      "0",
	}
	if s.spec.SYNRetries > 0 { // of IPv6 too: ip-sysctl.rst
		settings["net/ipv4/tcp_syn_retries"] = strconv.Itoa(int(s.spec.SYNRetries))
		settings["net/ipv4/tcp_syn_linear_timeouts"] = strconv.Itoa(int(s.spec.SYNLinear))
	}
	for name, value := range settings {
		_ = os.WriteFile("/proc/sys/"+name, []byte(value), 0)
	}
	// Who may have sockets for ping (icmp(7)): all groups, or the command's own where
	// the namespace does not know all; the kernel takes none that it does not know.
	const groups = "/proc/sys/net/ipv4/ping_group_range"
	if err := os.WriteFile(groups, []byte("0 2147483647"), 0); err != nil {
		own := os.Getegid()
		_ = os.WriteFile(groups, fmt.Appendf(nil, "%d %d", own, own), 0)
	}
}

// configure sets up lo and the device.
func (s *setup) configure(tun, mtu int, v6 bool) error {
	fd, err := route.Socket()
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	r := route.On(fd)
	// By netlink, not by /proc/sys, which may be read-only: localhost may leave
	// and enter through the device.
	localnet := route.Nested(unix.AF_INET, route.Nested(inetConf, route.Attr32(confRouteLocalnet, 1)))
	spec := route.Nested(unix.IFLA_AF_SPEC, localnet)
	if err := r.SetLink(loopbackIndex, 0, spec); err != nil {
		return fmt.Errorf("route_localnet of lo: %w", err)
	}
	if v6 { // before the device is up, or it gets a link-local address
		spec = route.Nested(unix.IFLA_AF_SPEC, localnet, route.Nested(unix.AF_INET6, route.Attr(inet6AddrGenMode, []byte{addrGenNone})))
	}
	if err := r.SetLink(tun, 0, route.Attr32(unix.IFLA_MTU, uint32(mtu)), spec); err != nil {
		return fmt.Errorf("properties of %s: %w", handoff.Device, err)
	}
	for _, index := range []int{loopbackIndex, tun} {
		if err := r.SetLink(index, unix.IFF_UP); err != nil {
			return fmt.Errorf("interface up: %w", err)
		}
	}
	has := map[bool]bool{}
	for _, a := range s.spec.Addrs {
		if a.Addr().Is6() && !v6 {
			continue
		}
		if err := r.AddAddress(tun, a); err != nil {
			return fmt.Errorf("address %s: %w", a, err)
		}
		has[a.Addr().Is6()] = true
	}
	return addRoutes(r, tun, v6, has)
}

// addRoutes sends everything to the device that the pod has addresses for; the
// other family is unreachable at once, as in the pod.
func addRoutes(r *route.Conn, tun int, v6 bool, has map[bool]bool) error {
	routes := []route.Route{{Dst: handoff.Reserved4}}
	if has[false] {
		routes = append(routes, route.Route{Dst: netip.PrefixFrom(netip.IPv4Unspecified(), 0)})
	}
	if v6 {
		routes = append(routes, route.Route{Dst: handoff.Reserved6},
			// Answers that the NAT turns back into ::1 arrive on the device,
			// and the kernel looks ::1 up strictly by interface: without this
			// second local route it drops them (Ip6InAddrErrors).
			route.Route{Dst: netip.PrefixFrom(netip.IPv6Loopback(), 128), Local: true, Priority: localPriority})
		if has[true] {
			routes = append(routes, route.Route{Dst: netip.PrefixFrom(netip.IPv6Unspecified(), 0)})
		}
	}
	for _, t := range routes {
		if err := r.AddRoute(tun, t); err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("route %s: %w", t.Dst, err)
		}
	}
	return nil
}

// loopbackRules sends localhost, and the pod's own addresses, to the tunnel
// except for ports in the sets of ports that the program serves itself.
func loopbackRules(addrs []netip.Prefix) []nft.Change {
	table := nft.Table{Name: handoff.Table}
	output := nft.Chain{Table: table, Name: "output", Hook: nft.NATOutput}
	postrouting := nft.Chain{Table: table, Name: "postrouting", Hook: nft.NATPostrouting}
	prerouting := nft.Chain{Table: table, Name: "prerouting", Hook: nft.NATPrerouting}
	changes := []nft.Change{table.Create(), output.Create(), postrouting.Create(), prerouting.Create(),
		output.Rule(nft.Mark(handoff.Mark), nft.Accept())}

	loop4, loop6 := netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")
	source4, source6 := handoff.Source4, handoff.Source6
	for _, a := range addrs {
		if a.Addr().Is6() {
			source6 = a.Addr()
		} else {
			source4 = a.Addr()
		}
	}
	for _, p := range []struct {
		proto byte
		set   string
	}{{unix.IPPROTO_TCP, handoff.SetTCP}, {unix.IPPROTO_UDP, handoff.SetUDP}} {
		set := nft.Set{Table: table, Name: p.set, Key: nft.TypePort}
		foreign := nft.All(nft.L4(p.proto), nft.DportNotIn(set))
		changes = append(changes, set.Create(),
			output.Rule(nft.Daddr(loop4), foreign, nft.DNAT(handoff.Localhost4)),
			output.Rule(nft.Daddr(loop6), foreign, nft.DNAT(handoff.Localhost6)))
		for _, a := range addrs {
			self := handoff.Self4
			if a.Addr().Is6() {
				self = handoff.Self6
			}
			changes = append(changes, output.Rule(nft.Daddr(netip.PrefixFrom(a.Addr(), a.Addr().BitLen())), foreign, nft.DNAT(self)))
		}
	}
	return append(changes,
		// An answer must find its way back to the device's side.
		postrouting.Rule(nft.Oif(handoff.Device), nft.Saddr(loop4), nft.SNAT(source4)),
		postrouting.Rule(nft.Oif(handoff.Device), nft.Saddr(loop6), nft.SNAT(source6)),
		// The supervisor reaches programs that listen on 127.0.0.1 or ::1 only;
		// the loopback check of the kernel comes before prerouting.
		prerouting.Rule(nft.Iif(handoff.Device), nft.Daddr(netip.PrefixFrom(handoff.Localhost4, 32)), nft.DNAT(netip.AddrFrom4([4]byte{127, 0, 0, 1}))),
		prerouting.Rule(nft.Iif(handoff.Device), nft.Daddr(netip.PrefixFrom(handoff.Localhost6, 128)), nft.DNAT(netip.IPv6Loopback())))
}

// sockets opens the netlink sockets that the supervisor uses. They work there
// without entering the namespace: who made a user namespace has all
// capabilities in it.
func (s *setup) sockets() *handoff.Error {
	for _, k := range []struct {
		label handoff.Label
		open  func() (int, error)
	}{
		{handoff.NFT, func() (int, error) {
			if s.routed {
				return route.Socket()
			}
			f, err := nft.OpenFile()
			if err != nil {
				return -1, err
			}
			defer f.Close()
			return unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
		}},
		{handoff.Dump, openDiag},
		{handoff.EventsTCP, func() (int, error) { return openEvents(1, 3, true) }}, // SKNLGRP_INET_TCP_DESTROY, SKNLGRP_INET6_TCP_DESTROY
		{handoff.EventsUDP, func() (int, error) { return openEvents(2, 4, false) }},
	} {
		fd, err := k.open()
		if err == nil {
			var how []byte
			if k.label == handoff.NFT && s.routed {
				how = []byte{handoff.Routed}
			}
			err = s.send(k.label, fd, how...)
		}
		if err != nil {
			return failure(handoff.StepSockets, "", err)
		}
	}
	return nil
}

func openDiag() (int, error) {
	return unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_SOCK_DIAG)
}

// openEvents gives a socket that reports destroyed sockets of two multicast
// groups. Of TCP only those without a peer are wanted, listeners: the end of
// every connection would be a message too. A bound UDP socket may have got a
// peer since, so no filter there.
func openEvents(group4, group6 uint32, listeners bool) (int, error) {
	fd, err := openDiag()
	if err != nil {
		return -1, err
	}
	if listeners {
		prog := []unix.SockFilter{ // struct inet_diag_msg: dport is at 6
			{Code: unix.BPF_LD | unix.BPF_H | unix.BPF_ABS, K: unix.NLMSG_HDRLEN + 6},
			{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jt: 0, Jf: 1, K: 0},
			{Code: unix.BPF_RET | unix.BPF_K, K: 0xffff},
			{Code: unix.BPF_RET | unix.BPF_K, K: 0},
		}
		err = unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER,
			&unix.SockFprog{Len: uint16(len(prog)), Filter: &prog[0]})
	}
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: 1<<(group4-1) | 1<<(group6-1)})
	}
	if err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("sock_diag events: %w", err)
	}
	return fd, nil
}
