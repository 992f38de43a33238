package ping

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mirrord-go/mirrord/internal/leak"
	"github.com/mirrord-go/mirrord/internal/netns"
)

func TestMain(m *testing.M) { os.Exit(leak.Main(m)) }

// dialIn dials in a network namespace of its own, whose loopback device is up,
// where these groups may ping.
func dialIn(t *testing.T, groups, to string, socket func(domain, typ, protocol int) (int, error)) (c net.Conn, err error) {
	t.Helper()
	err = netns.DoNew(func() error {
		if out, err := exec.Command("ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
			t.Errorf("%v: %s", err, out)
		}
		// /proc/sys/net is that of the thread that looks.
		if err := os.WriteFile("/proc/sys/net/ipv4/ping_group_range", []byte(groups), 0o644); err != nil {
			t.Error(err)
		}
		c, err = Dial(netip.MustParseAddr(to), socket)
		return err
	})
	if c != nil {
		t.Cleanup(func() { c.Close() })
	}
	return c, err
}

// notRaw is socket(2) of who has no CAP_NET_RAW.
func notRaw(domain, typ, protocol int) (int, error) {
	if typ == unix.SOCK_RAW {
		return -1, unix.EPERM
	}
	return Socket(domain, typ, protocol)
}

func TestEcho(t *testing.T) {
	for to, kinds := range map[string][2]byte{"127.0.0.1": {8, 0}, "::1": {128, 129}} {
		for name, groups := range map[string]string{"a socket for ping": "0 0", "a raw one": "1 0"} {
			t.Run(to+" by "+name, func(t *testing.T) {
				c, err := dialIn(t, groups, to, Socket)
				if err != nil {
					t.Fatal(err)
				}
				if _, raw := c.(*rawConn); raw != (groups == "1 0") {
					t.Errorf("got a %T", c)
				}
				for number := range byte(3) {
					request := append([]byte{kinds[0], 0, 0, 0, 0x12, 0x34, 0, number}, "hello"...)
					if _, err := c.Write(request); err != nil {
						t.Fatal(err)
					}
					_ = c.SetReadDeadline(time.Now().Add(5 * time.Second))
					buf := make([]byte, 100)
					n, err := c.Read(buf)
					if err != nil || n != len(request) || buf[0] != kinds[1] || buf[7] != number || string(buf[8:n]) != "hello" {
						t.Errorf("got % x, %v", buf[:n], err)
					}
				}
			})
		}
	}
}

func TestGroupThatMayNot(t *testing.T) {
	if _, err := dialIn(t, "1 0", "127.0.0.1", notRaw); !errors.Is(err, syscall.EACCES) {
		t.Errorf("got %v, want EACCES", err)
	}
}

func TestNoWay(t *testing.T) {
	for _, groups := range []string{"0 0", "1 0"} {
		if _, err := dialIn(t, groups, "192.0.2.1", Socket); !errors.Is(err, syscall.ENETUNREACH) {
			t.Errorf("%s: got %v, want ENETUNREACH", groups, err)
		}
	}
}

// Of two raw sockets for one peer each gets its own replies.
func TestRawRepliesOfOthers(t *testing.T) {
	for _, to := range []string{"127.0.0.1", "::1"} {
		var both [2]net.Conn
		err := netns.DoNew(func() error {
			if out, err := exec.Command("ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
				t.Errorf("%v: %s", err, out)
			}
			for i := range both {
				c, err := Dial(netip.MustParseAddr(to), Socket) // a new namespace lets no group ping
				if err != nil {
					return err
				}
				t.Cleanup(func() { c.Close() })
				both[i] = c
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		both[0].(*rawConn).id, both[1].(*rawConn).id = 1, 2
		kind := map[string]byte{"127.0.0.1": 8, "::1": 128}[to]
		for i, c := range both {
			if _, err := c.Write([]byte{kind, 0, 0, 0, 0, 0, 0, byte(i)}); err != nil {
				t.Fatal(err)
			}
		}
		for i, c := range both {
			buf := make([]byte, 100)
			_ = c.SetReadDeadline(time.Now().Add(5 * time.Second))
			if n, err := c.Read(buf); err != nil || n != 8 || buf[7] != byte(i) {
				t.Errorf("%s: socket %d got % x, %v", to, i, buf[:n], err)
			}
			_ = c.SetReadDeadline(time.Now()) // no other has come, or it has been passed over
			if n, err := c.Read(buf); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("%s: socket %d got % x too, %v", to, i, buf[:n], err)
			}
		}
	}
}

func TestRawWriteOfLessThanAHeader(t *testing.T) {
	c, err := dialIn(t, "1 0", "127.0.0.1", Socket)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write(make([]byte, 7)); !errors.Is(err, syscall.EINVAL) {
		t.Errorf("got %v, want EINVAL", err)
	}
}

// What a network gives is no reply to this socket unless it says so.
func FuzzRawReply(f *testing.F) {
	f.Add([]byte{0x45, 0}, true)
	f.Add(append(make([]byte, 20), 0, 0, 0, 0, 0, 7, 0, 1), true)
	f.Add([]byte{129, 0, 0, 0, 0, 7, 0, 1}, false)
	f.Add([]byte{0x4f}, true)
	f.Fuzz(func(t *testing.T, pkt []byte, four bool) {
		m := (&rawConn{id: 7, four: four}).reply(pkt)
		if m != nil && (len(m) < messageMin || len(m) > len(pkt) || m[5] != 7) {
			t.Errorf("% x of % x", m, pkt)
		}
	})
}
