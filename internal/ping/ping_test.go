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

	"github.com/mirrord-go/mirrord/internal/leak"
	"github.com/mirrord-go/mirrord/internal/netns"
)

func TestMain(m *testing.M) { os.Exit(leak.Main(m)) }

// dialIn dials in a network namespace of its own, whose loopback device is up,
// where these groups may ping.
func dialIn(t *testing.T, groups, to string) (c net.Conn, err error) {
	t.Helper()
	err = netns.DoNew(func() error {
		if out, err := exec.Command("ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
			t.Errorf("%v: %s", err, out)
		}
		// /proc/sys/net is that of the thread that looks.
		if err := os.WriteFile("/proc/sys/net/ipv4/ping_group_range", []byte(groups), 0o644); err != nil {
			t.Error(err)
		}
		c, err = Dial(netip.MustParseAddr(to), Socket)
		return err
	})
	if c != nil {
		t.Cleanup(func() { c.Close() })
	}
	return c, err
}

func TestEcho(t *testing.T) {
	for to, kinds := range map[string][2]byte{"127.0.0.1": {8, 0}, "::1": {128, 129}} {
		c, err := dialIn(t, "0 0", to)
		if err != nil {
			t.Fatal(err)
		}
		request := append([]byte{kinds[0], 0, 0, 0, 0, 0, 0, 7}, "hello"...)
		if _, err := c.Write(request); err != nil {
			t.Fatal(err)
		}
		_ = c.SetReadDeadline(time.Now().Add(5 * time.Second))
		buf := make([]byte, 100)
		n, err := c.Read(buf)
		if err != nil || n != len(request) || buf[0] != kinds[1] || buf[7] != 7 || string(buf[8:n]) != "hello" {
			t.Errorf("%s: got % x, %v", to, buf[:n], err)
		}
	}
}

func TestGroupThatMayNot(t *testing.T) {
	if _, err := dialIn(t, "1 0", "127.0.0.1"); !errors.Is(err, syscall.EACCES) {
		t.Errorf("got %v, want EACCES", err)
	}
}

func TestNoWay(t *testing.T) {
	if _, err := dialIn(t, "0 0", "192.0.2.1"); !errors.Is(err, syscall.ENETUNREACH) {
		t.Errorf("got %v, want ENETUNREACH", err)
	}
}
