package netstack

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/netip"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip/header"

	"github.com/mirrord-go/mirrord/internal/budget"
)

// pinger is a program's raw socket.
type pinger struct {
	t              *testing.T
	fd, ipLen      int
	to             unix.Sockaddr
	request, reply byte
}

func (w *world) pinger(t *testing.T, peer netip.Addr) *pinger {
	t.Helper()
	p := &pinger{t: t, to: sockaddr(netip.AddrPortFrom(peer, 0)), ipLen: header.IPv4MinimumSize, request: byte(header.ICMPv4Echo), reply: byte(header.ICMPv4EchoReply)}
	family, proto := unix.AF_INET, unix.IPPROTO_ICMP
	if peer.Is6() {
		family, proto, p.ipLen = unix.AF_INET6, unix.IPPROTO_ICMPV6, 0 // no header is read
		p.request, p.reply = byte(header.ICMPv6EchoRequest), byte(header.ICMPv6EchoReply)
	}
	w.do(func() (err error) {
		p.fd, err = unix.Socket(family, unix.SOCK_RAW|unix.SOCK_CLOEXEC, proto)
		return err
	})
	t.Cleanup(func() { unix.Close(p.fd) })
	timeout := unix.NsecToTimeval(patience.Nanoseconds())
	if err := unix.SetsockoptTimeval(p.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout); err != nil {
		t.Fatal(err)
	}
	return p
}

// ask sends a request and gives it as sent.
func (p *pinger) ask(id, number uint16) []byte {
	p.t.Helper()
	request := header.ICMPv4(make([]byte, 64))
	request[0] = p.request
	request.SetIdent(id)
	request.SetSequence(number)
	copy(request[8:], "payload")
	request.SetChecksum(header.ICMPv4Checksum(request, 0)) // over IPv6 the kernel does it
	if err := unix.Sendto(p.fd, request, 0, p.to); err != nil {
		p.t.Fatal(err)
	}
	return request
}

// answer is the next ICMP message that comes.
func (p *pinger) answer() []byte {
	p.t.Helper()
	buf := make([]byte, 1500)
	n, _, err := unix.Recvfrom(p.fd, buf, 0)
	if err != nil {
		p.t.Fatalf("no answer: %v", err)
	}
	return buf[p.ipLen:n]
}

// unreachable checks that an answer says so of the request.
func (p *pinger) unreachable(request []byte, v4 header.ICMPv4Code, v6 header.ICMPv6Code) {
	p.t.Helper()
	kind, code := byte(header.ICMPv4DstUnreachable), byte(v4)
	if p.ipLen == 0 {
		kind, code = byte(header.ICMPv6DstUnreachable), byte(v6)
	}
	got := p.answer()
	if got[0] != kind || got[1] != code {
		p.t.Fatalf("got an answer of type %d, code %d, want %d, %d", got[0], got[1], kind, code)
	}
	if quoted := got[len(got)-8:]; !bytes.Equal(quoted[4:], request[4:8]) {
		p.t.Errorf("the answer quotes %x, want the number of the request %x", quoted, request[:8])
	}
}

// Nobody knows whether the target's network would answer.
func TestEchoIsRefused(t *testing.T) { bothDevices(t, testEchoIsRefused) }

func testEchoIsRefused(t *testing.T) {
	w := newWorld(t, Handler{})
	bothFamilies(t, func(t *testing.T, program, peer netip.Addr) {
		p := w.pinger(t, peer)
		p.unreachable(p.ask(0x1234, 7), header.ICMPv4AdminProhibited, header.ICMPv6Prohibited)
	})
}

// A program that pings several addresses, with several identifiers: each is a
// flow of its own, and gets its own replies.
func TestEcho(t *testing.T) { bothDevices(t, testEcho) }

func testEcho(t *testing.T) {
	flows := make(chan *EchoFlow, 8)
	w := newWorld(t, Handler{Echo: func(_ context.Context, f *EchoFlow) {
		flows <- f
		buf := make([]byte, 1<<16)
		for {
			n, err := f.Read(buf)
			if err != nil {
				return
			}
			buf[0] = byte(header.ICMPv4EchoReply)
			if f.Dst().Addr().Is6() {
				buf[0] = byte(header.ICMPv6EchoReply)
			}
			buf[4], buf[5], buf[2], buf[3] = 0, 0, 0xff, 0xff // another socket's identifier, no checksum
			f.Write(buf[:n])
		}
	}})
	bothFamilies(t, func(t *testing.T, program, peer netip.Addr) {
		p := w.pinger(t, peer)
		for number, id := range []uint16{1, 1, 2} {
			request := p.ask(id, uint16(number))
			got := p.answer()
			for got[0] == p.request { // a raw socket sees what it sent to itself, too
				got = p.answer()
			}
			if got[0] != p.reply || !bytes.Equal(got[4:], request[4:]) {
				t.Errorf("got % x, want the reply to % x", got[:16], request[:16])
			}
		}
		for range 2 {
			if f := await(t, flows); f.Dst().Addr() != peer || f.Src().Addr() != program || f.Dst().Port() != 0 {
				t.Errorf("got a flow from %v to %v", f.Src(), f.Dst())
			}
		}
		if len(flows) != 0 {
			t.Error("one identifier and one peer were more than one flow")
		}
	})
}

func TestEchoUnreachable(t *testing.T) {
	w := newWorld(t, Handler{Echo: func(_ context.Context, f *EchoFlow) {
		if _, err := f.Read(make([]byte, 100)); err == nil {
			f.Unreachable(syscall.EHOSTUNREACH)
		}
	}})
	bothFamilies(t, func(t *testing.T, program, peer netip.Addr) {
		p := w.pinger(t, peer)
		p.unreachable(p.ask(9, 1), header.ICMPv4HostUnreachable, header.ICMPv6AddressUnreachable)
	})
}

// What the other side makes up is not passed on, and a flow that is closed says
// so.
func TestEchoRefusesNonsense(t *testing.T) {
	ended := make(chan error, 1)
	w := newWorld(t, Handler{Echo: func(_ context.Context, f *EchoFlow) {
		for _, m := range [][]byte{nil, {0}, make([]byte, maxEcho+1), bytes.Repeat([]byte{5}, 64)} {
			f.Write(m)
		}
		f.Unreachable(syscall.EACCES) // comes first, if all is well
		f.Close()
		_, err := f.Write(make([]byte, 64))
		ended <- err
	}})
	p := w.pinger(t, peer4)
	p.unreachable(p.ask(9, 1), header.ICMPv4AdminProhibited, header.ICMPv6Prohibited)
	if err := await(t, ended); !errors.Is(err, net.ErrClosed) {
		t.Errorf("a closed flow takes a reply: %v", err)
	}
}

// Without memory for another flow a request is lost, as on any way, and what a
// flow had is given back.
func TestEchoTakesMemory(t *testing.T) {
	const room = echoCost + 2*64 // and two requests
	share := budget.New(room).Share(room, room)
	flows, strays := make(chan *EchoFlow, 2), make(chan Stray, 1)
	w := newWorldWith(t, Handler{Echo: func(ctx context.Context, f *EchoFlow) {
		flows <- f
		<-ctx.Done()
	}, Stray: func(s Stray) { strays <- s }}, Memory{Datagrams: share})
	p := w.pinger(t, peer4)
	p.ask(1, 1)
	f := await(t, flows)
	p.ask(2, 1)
	p.ask(1, 2) // the way is in order: when this has come, that is lost
	for range 2 {
		if _, err := f.Read(make([]byte, 100)); err != nil {
			t.Fatal(err)
		}
	}
	if len(flows) != 0 || share.Used() != echoCost {
		t.Errorf("%d more flows, %d bytes", len(flows), share.Used())
	}
	for number := range uint16(4) { // of which two find room, and nobody reads them
		p.ask(1, 3+number)
	}
	p.request = byte(header.ICMPv4Timestamp) // the way is in order
	p.ask(1, 1)
	if s := await(t, strays); s.Type != p.request || share.Used() != room {
		t.Errorf("%+v, and %d bytes are taken, want %d", s, share.Used(), room)
	}
	f.Close()
	if share.Used() != 0 {
		t.Errorf("%d bytes are kept", share.Used())
	}
}

// Any length that a packet of the device's holds is carried; longer ones are
// lost, and nobody answers them instead.
func TestEchoSizes(t *testing.T) {
	lengths := make(chan int, 8)
	w := newWorld(t, Handler{Echo: func(_ context.Context, f *EchoFlow) {
		buf := make([]byte, 1<<16)
		for {
			n, err := f.Read(buf)
			if err != nil {
				return
			}
			lengths <- n
			buf[0] = byte(header.ICMPv4EchoReply)
			if f.Dst().Addr().Is6() {
				buf[0] = byte(header.ICMPv6EchoReply)
			}
			f.Write(buf[:n])
		}
	}})
	bothFamilies(t, func(t *testing.T, program, peer netip.Addr) {
		p := w.pinger(t, peer)
		if err := unix.SetsockoptInt(p.fd, unix.SOL_SOCKET, unix.SO_SNDBUF, 1<<20); err != nil {
			t.Fatal(err)
		}
		ipLen := header.IPv4MinimumSize
		if peer.Is6() {
			ipLen = header.IPv6MinimumSize
		}
		for _, size := range []int{8, 2009, 9000, tunMTU - ipLen + 1, tunMTU - ipLen} {
			request := make([]byte, size)
			request[0] = p.request
			header.ICMPv4(request).SetIdent(5)
			header.ICMPv4(request).SetChecksum(header.ICMPv4Checksum(request, 0))
			if err := unix.Sendto(p.fd, request, 0, p.to); err != nil {
				t.Fatal(err)
			}
			if size > tunMTU-ipLen {
				continue // the next one's answer comes first
			}
			buf := make([]byte, 1<<16)
			n, _, err := unix.Recvfrom(p.fd, buf, 0)
			if err != nil || n != p.ipLen+size || buf[p.ipLen] != p.reply || await(t, lengths) != size {
				t.Errorf("%d bytes: got %d of type %d, %v", size, n, buf[p.ipLen], err)
			}
		}
	})
}
