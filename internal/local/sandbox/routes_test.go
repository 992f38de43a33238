package sandbox

import (
	"fmt"
	"net/netip"
	"os/exec"
	"testing"

	"golang.org/x/sys/unix"
)

// withoutNFT is a machine without nftables.
func withoutNFT(c *exec.Cmd) { c.Env = append(c.Env, denyVar+"=nftables") }

// over runs a test over each device.
func over(t *testing.T, name string, f func(t *testing.T)) {
	t.Run(name, f)
	t.Run(name+" "+withoutTUN, f)
}

// TestRoutes: without nftables the addresses of packets are the program's own,
// and everything else is as with them, but for ::1.
func TestRoutes(t *testing.T) {
	for _, c := range []struct{ to, src, dst string }{
		{"127.0.0.1", "127.0.0.1", "127.0.0.1"},
		{"127.0.0.5", "127.0.0.1", "127.0.0.5"},
		{"10.1.2.3", "10.1.2.3", "10.1.2.3"},
		{"192.0.2.1", "10.1.2.3", "192.0.2.1"},
		{"fd00:1::9", "fd00:1::3", "fd00:1::9"},
	} {
		over(t, "to "+c.to, func(t *testing.T) {
			t.Parallel()
			to := netip.AddrPortFrom(netip.MustParseAddr(c.to), 9999)
			r := start(t, userUID, scenario{}.prog(t, "send", to.String(), "question"), withoutNFT)
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
	}
	for listen, to := range map[string]string{"127.0.0.1:5300": "127.0.0.1", "10.1.2.3:5300": "10.1.2.3", "0.0.0.0:5300": "10.1.2.3"} {
		over(t, "listening on "+listen, func(t *testing.T) {
			t.Parallel()
			r := start(t, userUID, scenario{}.prog(t, "udp", listen), withoutNFT)
			r.answersUDP(netip.MustParseAddrPort("203.0.113.7:40000"), netip.AddrPortFrom(netip.MustParseAddr(to), 5300))
			unix.Kill(r.cmd.Process.Pid, unix.SIGTERM)
			r.code()
		})
	}
}

// TestRoutedPortGoesBack: a port is the program's own while it serves it, and
// the pod's before and after.
func TestRoutedPortGoesBack(t *testing.T) {
	sc := scenario{}.prog(t, "udp", "127.0.0.1:5301")
	self := sc.Spec.Argv[0]
	sc.Spec.Argv = []string{"/bin/sh", "-c", fmt.Sprintf(`%s 127.0.0.1:5301 & read x; %s=send %[1]s 127.0.0.1:5301 local; kill $!; wait $!; read x; %[2]s=send exec %[1]s 127.0.0.1:5301 remote`, self, programVar)}
	var keys interface{ Write([]byte) (int, error) }
	r := start(t, userUID, sc, withoutNFT, func(c *exec.Cmd) { keys, _ = c.StdinPipe() })
	l := r.await("udp", onPort(5301)).L
	keys.Write([]byte("\n"))
	r.prints(`got "local" from 127.0.0.1:`)
	r.await("closed", withID(l.ID))
	keys.Write([]byte("\n"))
	if d := r.awaitDatagram(5301); d.dst.Addr() != netip.AddrFrom4([4]byte{127, 0, 0, 1}) || d.text != "remote" {
		t.Errorf("got %+v, want it at 127.0.0.1", d)
	}
	r.order(order{Do: "end"})
	r.code()
	r.await("done")
}
