package sandbox

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"os/exec"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/mirrord-go/mirrord/internal/local/sandbox/handoff"
)

// datagram is a UDP packet, with what the tests look at.
type datagram struct {
	src, dst netip.AddrPort
	text     string
}

// packet gives the bytes of an IP packet.
func (d datagram) packet() []byte {
	udp := binary.BigEndian.AppendUint16(nil, d.src.Port())
	udp = binary.BigEndian.AppendUint16(udp, d.dst.Port())
	udp = binary.BigEndian.AppendUint16(udp, uint16(8+len(d.text)))
	udp = append(append(udp, 0, 0), d.text...)
	src, dst := d.src.Addr().AsSlice(), d.dst.Addr().AsSlice()
	if d.src.Addr().Is6() {
		pseudo := append(append(append([]byte{}, src...), dst...), 0, 0, 0, byte(len(udp)), 0, 0, 0, unix.IPPROTO_UDP)
		binary.BigEndian.PutUint16(udp[6:], checksum(append(pseudo, udp...)))
		head := []byte{0x60, 0, 0, 0, 0, byte(len(udp)), unix.IPPROTO_UDP, 64}
		return append(append(append(head, src...), dst...), udp...)
	}
	head := append([]byte{0x45, 0, 0, byte(20 + len(udp)), 0, 0, 0, 0, 64, unix.IPPROTO_UDP, 0, 0}, append(src, dst...)...)
	binary.BigEndian.PutUint16(head[10:], checksum(head))
	return append(head, udp...) // IPv4: no checksum is fine
}

func checksum(b []byte) uint16 {
	var sum uint32
	for i := 0; i < len(b); i += 2 {
		sum += uint32(b[i]) << 8
		if i+1 < len(b) {
			sum += uint32(b[i+1])
		}
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// parseDatagram reads a packet; ok is false if it is no UDP.
func parseDatagram(b []byte) (d datagram, ok bool) {
	if len(b) < 28 {
		return d, false
	}
	size, proto := int(b[0]&15)*4, b[9]
	src, dst := netip.AddrFrom4([4]byte(b[12:])), netip.AddrFrom4([4]byte(b[16:]))
	if b[0]>>4 == 6 {
		if len(b) < 48 {
			return d, false
		}
		size, proto = 40, b[6]
		src, dst = netip.AddrFrom16([16]byte(b[8:])), netip.AddrFrom16([16]byte(b[24:]))
	}
	udp := b[size:]
	return datagram{netip.AddrPortFrom(src, binary.BigEndian.Uint16(udp)), netip.AddrPortFrom(dst, binary.BigEndian.Uint16(udp[2:])), string(udp[8:])}, proto == unix.IPPROTO_UDP
}

// awaitDatagram waits for a UDP packet that leaves the sandbox to a port.
func (r *run) awaitDatagram(port uint16) datagram {
	r.t.Helper()
	e := r.await("packet", func(e event) bool {
		d, ok := parseDatagram(e.Data)
		return ok && d.dst.Port() == port
	})
	d, _ := parseDatagram(e.Data)
	return d
}

func addrs(texts ...string) (all []netip.Prefix) {
	for _, s := range texts {
		all = append(all, netip.MustParsePrefix(s))
	}
	return all
}

// TestOutgoing: where packets go, under which source, and that answers come
// back: the pod's localhost in both families, its own address, the world. Also
// for pods of one family.
func TestOutgoing(t *testing.T) {
	both := addrs("10.1.2.3/24", "fd00:1::3/64")
	for _, c := range []struct {
		name     string
		addrs    []netip.Prefix
		to       string
		src, dst string // of the packet
	}{
		{"127.0.0.1", both, "127.0.0.1", "10.1.2.3", "198.18.0.1"},
		{"127.0.0.5", both, "127.0.0.5", "10.1.2.3", "198.18.0.1"},
		{"::1", both, "::1", "fd00:1::3", "fd00:6d69::1"},
		{"own address", both, "10.1.2.3", "10.1.2.3", "198.18.0.2"},
		{"own address, IPv6", both, "fd00:1::3", "fd00:1::3", "fd00:6d69::2"},
		{"the world", both, "192.0.2.1", "10.1.2.3", "192.0.2.1"},
		{"the world, IPv6", both, "2001:db8::1", "fd00:1::3", "2001:db8::1"},
		{"::1 of an IPv4 pod", addrs("10.1.2.3/24"), "::1", "fd00:6d69::3", "fd00:6d69::1"},
		{"127.0.0.1 of an IPv6 pod", addrs("fd00:1::3/64"), "127.0.0.1", "198.18.0.3", "198.18.0.1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			overBoth(t, func(t *testing.T, uid int) {
				to := netip.AddrPortFrom(netip.MustParseAddr(c.to), 9999)
				sc := scenario{}.prog(t, "send", to.String(), "question")
				sc.Spec.Addrs = c.addrs
				r := start(t, uid, sc)
				d := r.awaitDatagram(9999)
				if d.src.Addr().String() != c.src || d.dst.Addr().String() != c.dst || d.text != "question" {
					t.Errorf("packet: got %+v, want from %s to %s", d, c.src, c.dst)
				}
				r.order(order{Do: "packet", Data: datagram{d.dst, d.src, "answer"}.packet()})
				r.prints(fmt.Sprintf("answer %q from %s", "answer", to))
				if got := r.code(); got != 0 {
					t.Errorf("exit code: got %d, want 0", got)
				}
			})
		})
	}
}

// TestOtherFamilyIsUnreachable at once, as in a pod without it.
func TestOtherFamilyIsUnreachable(t *testing.T) {
	for to, a := range map[string][]netip.Prefix{"[2001:db8::1]:9": addrs("10.1.2.3/24"), "192.0.2.1:9": addrs("fd00:1::3/64"), "192.0.2.2:9": {}} {
		sc := scenario{}.prog(t, "send", to, "x")
		sc.Spec.Addrs = append([]netip.Prefix{}, a...)
		r := start(t, userUID, sc)
		if got := r.code(); got != int(unix.ENETUNREACH) {
			t.Errorf("%s: got %d, want ENETUNREACH; output %s", to, got, r.output)
		}
	}
}

// TestPatience: connect(2) gives up when the pod's would.
func TestPatience(t *testing.T) {
	overBoth(t, func(t *testing.T, uid int) {
		sc := scenario{}.sh("cd /proc/sys/net/ipv4 && echo $(cat tcp_syn_retries tcp_syn_linear_timeouts).")
		sc.Spec.SYNRetries, sc.Spec.SYNLinear = 2, 1
		r := start(t, uid, sc)
		r.prints("2 1.")
		r.code()
	})
}

// TestNoIPv6: the program finds a kernel without the family, the other one goes
// on.
func TestNoIPv6(t *testing.T) {
	for to, want := range map[string]int{"[2001:db8::1]:9": int(unix.EAFNOSUPPORT), "[::1]:9": int(unix.EAFNOSUPPORT), "192.0.2.1:9": 0} {
		sc := scenario{}.prog(t, "send", to, "x")
		sc.Spec.Addrs, sc.Spec.NoIPv6 = addrs("10.1.2.3/24"), true
		r := start(t, userUID, sc)
		if want == 0 {
			d := r.awaitDatagram(9)
			r.order(order{Do: "packet", Data: datagram{d.dst, d.src, "answer"}.packet()})
		}
		if got := r.code(); got != want {
			t.Errorf("%s: got %d, want %d; output %s", to, got, want, r.output)
		}
	}
}

// TestIncoming: packets out of the device reach listeners with the client's
// address, also those on loopback only, and answers leave.
func TestIncoming(t *testing.T) {
	for _, c := range []struct{ listen, to, client string }{
		{"127.0.0.1:5300", handoff.Localhost4.String(), "203.0.113.7"},
		{"[::1]:5300", handoff.Localhost6.String(), "2001:db8::7"},
		{"10.1.2.3:5300", "10.1.2.3", "203.0.113.7"},
		{"[::]:5300", "fd00:1::3", "2001:db8::7"},
	} {
		t.Run(c.listen, func(t *testing.T) {
			overBoth(t, func(t *testing.T, uid int) {
				r := start(t, uid, scenario{}.prog(t, "udp", c.listen))
				r.answersUDP(netip.AddrPortFrom(netip.MustParseAddr(c.client), 40000), netip.AddrPortFrom(netip.MustParseAddr(c.to), 5300))
				unix.Kill(r.cmd.Process.Pid, unix.SIGTERM)
				r.code()
			})
		})
	}
}

// answersUDP sends the program a datagram, as soon as it listens, and wants its
// answer.
func (r *run) answersUDP(client, to netip.AddrPort) {
	r.t.Helper()
	r.await("udp", onPort(to.Port()))
	r.prints("bound")
	r.order(order{Do: "packet", Data: datagram{client, to, "hello"}.packet()})
	r.prints(fmt.Sprintf("got %q from %s", "hello", client))
	if d := r.awaitDatagram(client.Port()); d.src != to || d.dst != client || d.text != "answer" {
		r.t.Errorf("answer: got %+v, want from %s to %s", d, to, client)
	}
}

// TestPortGoesBack: what the program no longer serves is the pod's again.
func TestPortGoesBack(t *testing.T) {
	sc := scenario{}.prog(t, "udp", "127.0.0.1:5301")
	self := sc.Spec.Argv[0]
	sc.Spec.Argv = []string{"/bin/sh", "-c", fmt.Sprintf(`%s 127.0.0.1:5301 & read x; kill $!; wait $!; read x; %s=send exec %s 127.0.0.1:5301 remote`, self, programVar, self)}
	var keys interface{ Write([]byte) (int, error) }
	r := start(t, userUID, sc, func(c *exec.Cmd) { keys, _ = c.StdinPipe() })
	l := r.await("udp").L
	keys.Write([]byte("\n"))
	r.await("closed", withID(l.ID))
	keys.Write([]byte("\n"))
	if d := r.awaitDatagram(5301); d.dst.Addr() != handoff.Localhost4 || d.text != "remote" {
		t.Errorf("got %+v, want it at %s", d, handoff.Localhost4)
	}
	r.order(order{Do: "end"})
	r.code()
	r.await("done")
}
