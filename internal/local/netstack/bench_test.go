package netstack

import (
	"context"
	"io"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// cpuTime is what this process has used, in user space and kernel: it says
// more than the clock where other work goes on.
func cpuTime(b *testing.B) time.Duration {
	var r unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &r); err != nil {
		b.Fatal(err)
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

// native is no device: both ends are sockets of the loopback interface.
const native = "native"

// BenchmarkDevices is what the program's side of a connection costs over each
// device: bulk each way over 1 and 8 connections, a round trip of 64 bytes, and a
// connection with one.
func BenchmarkDevices(b *testing.B) {
	const piece = 256 << 10
	over := func(name string, f func(b *testing.B, connect func() net.Conn, accepted <-chan net.Conn)) {
		for _, device := range []string{"tun", withoutTUN, native} {
			b.Run(name+"/"+device, func(b *testing.B) {
				accepted := make(chan net.Conn, 8)
				connect := overLoopback(b, accepted)
				if device != native {
					w := &world{t: b, veth: device == withoutTUN}
					w.start(Handler{UDP: func(context.Context, *UDPFlow) {}, TCP: func(_ context.Context, f *TCPFlow) {
						if c, err := f.Accept(); err == nil {
							accepted <- c
						}
					}}, Memory{})
					connect = func() net.Conn { return w.connect("tcp", netip.AddrPortFrom(peer4, 80)) }
				}
				before := cpuTime(b)
				f(b, connect, accepted)
				b.ReportMetric(float64((cpuTime(b)-before).Microseconds())/float64(b.N), "cpu-µs/op")
			})
		}
	}
	for _, n := range []int{1, 8} {
		for _, way := range []string{"up", "down"} {
			over(way+"/"+string(rune('0'+n)), func(b *testing.B, connect func() net.Conn, accepted <-chan net.Conn) {
				var wg sync.WaitGroup
				b.SetBytes(piece)
				for i := range n {
					from := connect()
					dst := <-accepted
					if way == "down" {
						from, dst = dst, from
					}
					share := b.N / n
					if i < b.N%n {
						share++
					}
					for _, c := range []net.Conn{from, dst} {
						c.SetDeadline(noDeadline)
					}
					wg.Go(func() {
						data := make([]byte, piece)
						for range share {
							if _, err := from.Write(data); err != nil {
								b.Error(err)
								return
							}
						}
					})
					wg.Go(func() {
						defer from.Close()
						defer dst.Close()
						data := make([]byte, piece)
						for range share {
							if _, err := io.ReadFull(dst, data); err != nil {
								b.Error(err)
								return
							}
						}
					})
				}
				wg.Wait()
			})
		}
	}
	over("round trip", func(b *testing.B, connect func() net.Conn, accepted <-chan net.Conn) {
		program := connect()
		peer := <-accepted
		program.SetDeadline(noDeadline)
		defer peer.Close()
		go io.Copy(struct{ io.Writer }{peer}, struct{ io.Reader }{peer})
		buf := make([]byte, 64)
		for b.Loop() {
			if _, err := program.Write(buf); err != nil {
				b.Fatal(err)
			}
			if _, err := io.ReadFull(program, buf); err != nil {
				b.Fatal(err)
			}
		}
	})
	over("connection", func(b *testing.B, connect func() net.Conn, accepted <-chan net.Conn) {
		for b.Loop() {
			program := connect()
			(<-accepted).Close()
			if _, err := program.Read(make([]byte, 1)); err != io.EOF {
				b.Fatal(err)
			}
			program.Close()
		}
	})
}

// overLoopback gives what makes connections without a stack.
func overLoopback(b *testing.B, accepted chan<- net.Conn) (connect func() net.Conn) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { ln.Close() })
	return func() net.Conn {
		program, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			b.Fatal(err)
		}
		peer, err := ln.Accept()
		if err != nil {
			b.Fatal(err)
		}
		accepted <- peer
		return program
	}
}
