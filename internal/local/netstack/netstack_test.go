package netstack

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/buffer"

	"github.com/mirrord-go/mirrord/internal/leak"
)

// Close must end whatever there is, in whatever state, also when the kernel on
// the other side does not answer any more.
func TestCloseEndsEverything(t *testing.T) {
	for _, down := range []bool{false, true} {
		name := map[bool]string{false: "device up", true: "device down"}[down]
		t.Run(name, func(t *testing.T) {
			leak.Check(t)
			const (
				reading, writing, halfClosed, pending, silent, handshake = 1, 2, 3, 4, 5, 6

				started = 8 // handlers, by what follows
			)
			arrived, shake := make(chan uint16, started), make(chan struct{})
			ended := make(chan uint16, started)
			w := newWorld(t, Handler{
				TCP: func(ctx context.Context, f *TCPFlow) {
					port := f.Dst().Port()
					defer func() { ended <- port }()
					switch port {
					case pending:
						arrived <- port
						<-ctx.Done()
						f.Refuse(syscall.ETIMEDOUT)
						return
					case silent:
						f.Refuse(syscall.ETIMEDOUT)
						arrived <- port
						return
					case handshake:
						arrived <- port
						<-shake
						if c, err := f.Accept(); err == nil {
							c.Close()
						}
						return
					}
					c, err := f.Accept()
					if err != nil {
						t.Errorf("accept: %v", err)
						return
					}
					defer c.Close()
					if port == halfClosed {
						_ = c.(*Conn).CloseWrite()
					}
					arrived <- port
					if port == writing {
						_, err = io.Copy(c, neverEnding{}) // the program does not read
					} else {
						_, err = c.Read(make([]byte, 1))
					}
					if err == nil {
						t.Errorf("port %d: no error after the end", port)
					}
				},
				UDP: func(ctx context.Context, f *UDPFlow) {
					defer func() { ended <- 0 }()
					buf := make([]byte, 1)
					f.Read(buf)
					arrived <- 0
					if _, err := f.Read(buf); !errors.Is(err, net.ErrClosed) {
						t.Errorf("datagram flow: got %v, want net.ErrClosed", err)
					}
				},
			})
			for port := uint16(1); port <= handshake; port++ {
				s := w.socket(peer4, unix.SOCK_NONBLOCK)
				if err := s.connect(netip.AddrPortFrom(peer4, port)); err != unix.EINPROGRESS {
					t.Fatal(err)
				}
			}
			for _, peer := range []netip.Addr{peer4, peer6} {
				if _, err := w.connect("udp", netip.AddrPortFrom(peer, 7)).Write([]byte("x")); err != nil {
					t.Fatal(err)
				}
			}
			for range started {
				await(t, arrived)
			}
			ln := w.listen("10.1.2.3:8080")
			dialed, err := w.stack.Dial(t.Context(), netip.AddrPortFrom(peer4, 4000), ln.Addr().(*net.TCPAddr).AddrPort())
			if err != nil {
				t.Fatal(err)
			}
			defer dialed.Close()
			program, err := ln.Accept()
			if err != nil {
				t.Fatal(err)
			}
			defer program.Close()
			dialing := make(chan error, 1)
			go func() { // towards nobody
				_, err := w.stack.Dial(context.Background(), netip.AddrPortFrom(peer4, 4001), netip.MustParseAddrPort("198.51.100.1:80"))
				dialing <- err
			}()
			if down {
				w.setDown()
			}
			close(shake) // at the same time as Close, or before

			begin := time.Now()
			if err := w.stack.Close(); err != nil {
				t.Errorf("close: %v", err)
			}
			if took := time.Since(begin); took > 2*time.Second {
				t.Errorf("close took %v", took)
			}
			if len(ended) != started {
				t.Errorf("%d handlers have returned, want all %d", len(ended), started)
			}
			if err := await(t, dialing); !errors.Is(err, net.ErrClosed) {
				t.Errorf("dial in progress: got %v, want net.ErrClosed", err)
			}
			if _, err := dialed.Read(make([]byte, 1)); err == nil {
				t.Error("dialed connection: no error after the end")
			}
			if !down {
				program.SetReadDeadline(time.Now().Add(patience))
				if _, err := program.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
					t.Errorf("the program reads: got %v, want ECONNRESET", err)
				}
			}
			if _, err := w.stack.Dial(t.Context(), netip.AddrPortFrom(peer4, 4002), netip.MustParseAddrPort("10.1.2.3:8080")); !errors.Is(err, net.ErrClosed) {
				t.Errorf("dial after the end: got %v, want net.ErrClosed", err)
			}
			if err := w.stack.Close(); err != nil {
				t.Errorf("second close: %v", err)
			}
		})
	}
}

type neverEnding struct{}

func (neverEnding) Read(p []byte) (int, error) { return len(p), nil }

// What waits in the device before the stack runs is not lost.
func TestPacketsBeforeNew(t *testing.T) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	other := os.NewFile(uintptr(fds[1]), "kernel")
	defer other.Close()
	if _, err := other.Write(append(make([]byte, vnetHeader), datagram4()...)); err != nil {
		t.Fatal(err)
	}
	flows := make(chan netip.AddrPort, 1)
	s, err := New(os.NewFile(uintptr(fds[0]), "device"), nil, Handler{UDP: func(ctx context.Context, f *UDPFlow) { flows <- f.Dst() }}, Memory{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if got, want := await(t, flows), netip.AddrPortFrom(peer4, 53); got != want {
		t.Errorf("got a flow to %v, want %v", got, want)
	}
}

// datagram4 is a packet from the program to port 53 of the peer.
func datagram4() []byte {
	return append([]byte{0x45, 0, 0, 29, 0, 1, 0, 0, 64, 17, 0, 0, 10, 1, 2, 3, 192, 0, 2, 9},
		0x10, 0, 0, 53, 0, 9, 0, 0, 'x')
}

func TestNewFails(t *testing.T) {
	leak.Check(t)
	f, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	if s, err := New(f, nil, Handler{}, Memory{}); err == nil {
		s.Close()
		t.Error("a closed file was taken for a device")
	}
}

// FuzzPacket gives the stack packets as a hostile program could: by raw
// sockets, or with a device of its own.
func FuzzPacket(f *testing.F) {
	f.Add(datagram4())
	f.Add([]byte{0x45})
	f.Add([]byte{0x60})
	f.Add([]byte{0x45, 0, 0, 28, 0, 1, 0, 0, 64, 1, 0, 0, 10, 1, 2, 3, 192, 0, 2, 9, 8, 0, 0, 0, 0, 0, 0, 0})
	f.Add([]byte{0x4f, 0, 0, 28, 0, 1, 0, 0, 64, 1, 0, 0, 10, 1, 2, 3, 192, 0, 2, 9, 8, 0, 0, 0, 0, 0, 0, 0})
	syn := []byte{0x45, 0, 0, 40, 0, 1, 0, 0, 64, 6, 0, 0, 10, 1, 2, 3, 192, 0, 2, 9,
		0x10, 0, 0, 80, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 0xff, 0xff, 0, 0, 0, 0}
	f.Add(syn)
	f.Add(syn[:30])
	v6 := append([]byte{0x60, 0, 0, 0, 0, 8, 58, 64}, append(program6.AsSlice(), peer6.AsSlice()...)...)
	f.Add(append(v6, 128, 0, 0, 0, 0, 1, 0, 2))
	f.Add(append(v6, 128))
	f.Fuzz(func(t *testing.T, packet []byte) {
		if len(packet) == 0 || len(packet) > tunMTU {
			return
		}
		fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fds[1])
		s, err := New(os.NewFile(uintptr(fds[0]), "device"), nil, Handler{
			TCP: func(_ context.Context, f *TCPFlow) { f.Refuse(syscall.EHOSTUNREACH) },
			UDP: func(_ context.Context, f *UDPFlow) { f.Unreachable(syscall.ECONNREFUSED) },
		}, Memory{})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		for range 2 { // the second finds what the first left
			s.device.deliver(buffer.NewViewWithData(packet))
		}
	})
}
