package main

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// ping sends echo requests by both kinds of sockets.
func (w *world) ping() {
	for _, s := range []struct {
		name string
		typ  int
	}{{"datagram", unix.SOCK_DGRAM}, {"raw", unix.SOCK_RAW}} {
		for _, size := range []int{0, 56, 1472, 1473, 2041, 9000, 60000} {
			show(fmt.Sprintf("a request of %d bytes by a %s socket", size, s.name), w.request(s.typ, size)...)
		}
		server := w.server
		w.server = w.localhost()
		show("localhost by a "+s.name+" socket", w.request(s.typ, 56)...)
		if w.server = w.nowhere; s.typ == unix.SOCK_RAW { // the other hears of it only if it asks for errors
			show("nowhere by a raw socket", w.request(s.typ, 56)...)
		}
		w.server = server
	}
}

// request sends one and gives what comes: type, code, length, and whether it is
// what was sent.
func (w *world) request(typ, size int) []any {
	domain, protocol, asks, header := unix.AF_INET, unix.IPPROTO_ICMP, byte(8), 20
	if w.server.Is6() {
		domain, protocol, asks, header = unix.AF_INET6, unix.IPPROTO_ICMPV6, 128, 0
	}
	if typ == unix.SOCK_DGRAM {
		header = 0
	}
	fd, err := unix.Socket(domain, typ|unix.SOCK_CLOEXEC, protocol)
	if err != nil {
		return []any{err}
	}
	defer unix.Close(fd)
	m := make([]byte, 8+size)
	m[0] = asks
	binary.BigEndian.PutUint16(m[4:], 0x4d69)
	for i := 8; i < len(m); i++ {
		m[i] = byte(i)
	}
	var sum uint32 // RFC 1071; over IPv6, and for the other kind, the kernel does it
	for i := 0; i < len(m); i += 2 {
		sum += uint32(m[i]) << 8
		if i+1 < len(m) {
			sum += uint32(m[i+1])
		}
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	binary.BigEndian.PutUint16(m[2:], ^uint16(sum))
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, 1<<20)
	if err := unix.Sendto(fd, m, 0, sockaddr(netip.AddrPortFrom(w.server, 0))); err != nil {
		return []any{err}
	}
	b := make([]byte, 1<<16)
	for end := time.Now().Add(patience); time.Now().Before(end) && readable(fd, time.Until(end)); {
		n, err := unix.Read(fd, b)
		if err != nil {
			return []any{err}
		}
		got := b[min(n, header):n]
		if len(got) < 8 || got[0] == asks { // a raw socket sees what goes to this host too
			continue
		}
		if got[0] != 0 && got[0] != 129 {
			return []any{got[0], got[1]}
		}
		return []any{got[0], got[1], len(got), string(got[8:]) == string(m[8:])}
	}
	return []any{"silence"}
}
