package capture_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mirrord-go/mirrord/internal/agent/capture"
	"github.com/mirrord-go/mirrord/internal/agent/target"
	"github.com/mirrord-go/mirrord/internal/relay"
	"github.com/mirrord-go/mirrord/internal/testnet"
)

// namespace is a network namespace with addresses on its loopback.
func namespace(t *testing.T) *target.Target {
	t.Helper()
	tg, err := target.Open(testnet.Process(t, syscall.CLONE_NEWNET, nil, testnet.Addressed))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tg.Close() })
	return tg
}

// sink reads connections to addr to their end and answers with one byte.
func sink(t *testing.T, tg *target.Target, addr string) {
	t.Helper()
	err := tg.Do(func() error {
		ln, err := net.Listen("tcp", addr)
		if err == nil {
			t.Cleanup(func() { ln.Close() })
			go func() {
				for {
					c, err := ln.Accept()
					if err != nil {
						return
					}
					go func() {
						defer c.Close()
						io.Copy(io.Discard, c)
						c.Write([]byte("."))
					}()
				}
			}()
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// send gives a server data and waits until it has read all.
func send(t *testing.T, tg *target.Target, addr string, data []byte) {
	t.Helper()
	c, err := tg.Dial(t.Context(), "tcp", netip.MustParseAddrPort(addr))
	if err != nil {
		t.Error(err)
		return
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(20 * time.Second))
	c.Write(data)
	c.(relay.Conn).CloseWrite()
	io.ReadAll(c)
}

func TestCopiesAreWhole(t *testing.T) {
	tg := namespace(t)
	sink(t, tg, "[::]:80")
	sink(t, tg, "[::]:81")
	tap, err := capture.Open(tg.Do, nil, capture.Marks{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer tap.Close()
	send(t, tg, "192.0.2.7:80", []byte("before"))
	if err := tap.Add(80); err != nil {
		t.Fatal(err)
	}

	const connections = 60
	sums := map[[32]byte]bool{}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for i := range connections {
		data := make([]byte, rand.IntN(200_000))
		for i := range data {
			data[i] = byte(rand.Uint32())
		}
		sums[sha256.Sum256(data)] = true
		wg.Go(func() {
			send(t, tg, []string{"192.0.2.7:80", "[2001:db8::7]:80", "127.0.0.1:80", "[::1]:80"}[i%4], data)
			send(t, tg, "192.0.2.7:81", []byte("another port"))
		})
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var readers sync.WaitGroup
	for range connections {
		c, err := tap.Accept(ctx)
		if err != nil {
			t.Fatalf("%v; %+v", err, tap.Stats())
		}
		if addr := netip.MustParseAddrPort(c.LocalAddr().String()); addr.Port() != 80 {
			t.Errorf("copy of a connection to %v", addr)
		}
		readers.Go(func() {
			b, err := io.ReadAll(c)
			mu.Lock()
			defer mu.Unlock()
			if sum := sha256.Sum256(b); err != nil || !sums[sum] {
				t.Errorf("a copy of %d bytes is nobody's (%v)", len(b), err)
			} else {
				delete(sums, sum)
			}
		})
	}
	wg.Wait()
	readers.Wait()
	if len(sums) > 1 { // two may be empty and equal
		t.Errorf("%d connections have no copy; %+v", len(sums), tap.Stats())
	}
	if err := tap.Remove(80); err != nil {
		t.Fatal(err)
	}
	send(t, tg, "192.0.2.7:80", []byte("after"))
	short, stop := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer stop()
	if c, err := tap.Accept(short); err == nil {
		b, _ := io.ReadAll(c)
		t.Errorf("a copy after the end: %q", bytes.TrimSpace(b))
	}
	if s := tap.Stats(); s.Dropped != 0 || s.Incomplete != 0 || s.Slow != 0 {
		t.Errorf("counted %+v", s)
	}
}

// What has a mark of those that are not meant is nobody's copy, by any way.
func TestMarksAreLeftOut(t *testing.T) {
	tg := namespace(t)
	sink(t, tg, "[::]:80")
	tap, err := capture.Open(tg.Do, nil, capture.Marks{Value: 0x6d720000, Mask: 0xffffffc0}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer tap.Close()
	if err := tap.Add(80); err != nil {
		t.Fatal(err)
	}
	for _, at := range []string{"192.0.2.7:80", "[2001:db8::7]:80", "127.0.0.1:80", "[::1]:80"} {
		for _, mark := range []int{0x6d720000, 0x6d72003f, 0x6d720040, 0} {
			want := fmt.Sprintf("mark %#x to %s", mark, at)
			c, err := tg.DialWith(t.Context(), "tcp", netip.MustParseAddrPort(at), func(fd int) error {
				return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, mark)
			})
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprint(c, want)
			c.(relay.Conn).CloseWrite()
			io.ReadAll(c)
			c.Close()
			if mark&0xffffffc0 == 0x6d720000 {
				continue // the next copy would be this one
			}
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			copied, err := tap.Accept(ctx)
			cancel()
			if err != nil {
				t.Fatalf("%s: %v", want, err)
			}
			if b, err := io.ReadAll(copied); err != nil || string(b) != want {
				t.Errorf("got %q, %v, want %q", b, err, want)
			}
		}
	}
}
