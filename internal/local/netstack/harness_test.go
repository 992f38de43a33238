package netstack

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/mirrord-go/mirrord/internal/leak"
	"github.com/mirrord-go/mirrord/internal/local/sandbox/veth"
	"github.com/mirrord-go/mirrord/internal/netns"
)

// The tests put a real kernel at the other end: the programs are sockets in a
// network namespace whose only way out is a device that the stack serves: a TUN
// or, in tests named so, one end of a veth pair.

const (
	deviceName = "tun0"
	tunMTU     = 65520 // of the sandbox
	withoutTUN = "without_tun"

	// patience bounds every wait; nothing comes near it.
	patience = 10 * time.Second
)

// noDeadline is for connections that a benchmark keeps.
var noDeadline time.Time

// The programs' addresses, and those of a peer that the stack plays.
var (
	program4, program6 = netip.MustParseAddr("10.1.2.3"), netip.MustParseAddr("fd00:1::3")
	peer4, peer6       = netip.MustParseAddr("192.0.2.9"), netip.MustParseAddr("2001:db8::9")
)

func TestMain(m *testing.M) {
	if os.Getuid() != 0 {
		fmt.Fprintln(os.Stderr, "these tests make network namespaces: run them as root")
		os.Exit(1)
	}
	os.Exit(leak.Main(m))
}

// bothFamilies runs a test with the addresses of each family.
func bothFamilies(t *testing.T, f func(t *testing.T, program, peer netip.Addr)) {
	t.Run("v4", func(t *testing.T) { f(t, program4, peer4) })
	t.Run("v6", func(t *testing.T) { f(t, program6, peer6) })
}

// bothDevices runs a test over each device; newWorld knows by its name.
func bothDevices(t *testing.T, f func(t *testing.T)) {
	f(t)
	t.Run(withoutTUN, f)
}

// world is a namespace and the stack that serves it.
type world struct {
	t     testing.TB
	ns    *os.File
	stack *Stack
	veth  bool // the device
}

// newWorld makes one. It ends with the test. Flows without handler are refused.
func newWorld(t *testing.T, h Handler) *world {
	t.Helper()
	return newWorldWith(t, h, Memory{})
}

func newWorldWith(t *testing.T, h Handler, memory Memory) *world {
	t.Helper()
	if h.TCP == nil {
		h.TCP = func(context.Context, *TCPFlow) {}
	}
	if h.UDP == nil {
		h.UDP = func(context.Context, *UDPFlow) {}
	}
	w := &world{t: t, veth: strings.Contains(t.Name(), "/"+withoutTUN)}
	w.start(h, memory)
	return w
}

func (w *world) start(h Handler, memory Memory) {
	w.t.Helper()
	var device *os.File
	var address net.HardwareAddr
	err := netns.DoNew(func() (err error) {
		if w.ns, err = netns.Current(); err != nil {
			return err
		}
		if w.veth {
			device, address, err = openVeth()
		} else {
			device, err = openTUN()
		}
		return err
	})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { w.ns.Close() })
	w.stack, err = New(device, address, h, memory)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() {
		if err := w.stack.Close(); err != nil {
			w.t.Errorf("close the stack: %v", err)
		}
	})
}

// do runs f in the namespace.
func (w *world) do(f func() error) {
	w.t.Helper()
	if err := netns.Do(w.ns, f); err != nil {
		w.t.Fatal(err)
	}
}

// dial connects a program. from is its own port, 0 for any.
func (w *world) dial(network string, from uint16, to netip.AddrPort) (c net.Conn, err error) {
	err = netns.Do(w.ns, func() (err error) {
		d := net.Dialer{Timeout: patience}
		if from != 0 {
			local := netip.AddrPortFrom(program4, from)
			if to.Addr().Is6() {
				local = netip.AddrPortFrom(program6, from)
			}
			d.LocalAddr = net.TCPAddrFromAddrPort(local)
		}
		c, err = d.Dial(network, to.String())
		return err
	})
	if err == nil {
		c.SetDeadline(time.Now().Add(patience))
	}
	return c, err
}

// connect is dial for what must succeed. The connection is closed with the test.
func (w *world) connect(network string, to netip.AddrPort) net.Conn {
	w.t.Helper()
	c, err := w.dial(network, 0, to)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { c.Close() })
	return c
}

// pair is a connection: the program's end and the stack's.
func pair(t *testing.T, peer netip.Addr) (program *net.TCPConn, near *Conn) {
	t.Helper()
	accepted := make(chan *Conn, 1)
	w := newWorld(t, Handler{TCP: func(ctx context.Context, f *TCPFlow) {
		c, err := f.Accept()
		if err != nil {
			t.Errorf("accept: %v", err)
			return
		}
		accepted <- c.(*Conn)
	}})
	program = w.connect("tcp", netip.AddrPortFrom(peer, 80)).(*net.TCPConn)
	near = await(t, accepted)
	near.SetDeadline(time.Now().Add(patience))
	t.Cleanup(func() { near.Close() })
	return program, near
}

// await receives what must come.
func await[T any](t *testing.T, c <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-c:
	case <-time.After(patience):
		t.Fatal("waited in vain")
	}
	return v
}

// echo accepts every connection and says everything back.
func echo(t *testing.T) func(context.Context, *TCPFlow) {
	return func(ctx context.Context, f *TCPFlow) {
		c, err := f.Accept()
		if err != nil {
			t.Errorf("accept %v: %v", f.Src(), err)
			return
		}
		defer c.Close()
		if _, err := io.Copy(struct{ io.Writer }{c}, struct{ io.Reader }{c}); err != nil && ctx.Err() == nil {
			t.Errorf("echo %v: %v", f.Src(), err)
		}
		_ = c.(*Conn).CloseWrite()
	}
}

// openTUN makes the device as the sandbox does, in the thread's namespace.
func openTUN() (*os.File, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open /dev/net/tun: %w", err)
	}
	f := os.NewFile(uintptr(fd), "tun")
	ifr, err := unix.NewIfreq(deviceName)
	if err == nil {
		ifr.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr)
	}
	if err == nil {
		err = unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, unix.TUN_F_CSUM)
	}
	if err == nil {
		err = configure(tunMTU)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("make %s: %w", deviceName, err)
	}
	return f, nil
}

// openVeth makes the device as the sandbox does where there is no TUN.
func openVeth() (*os.File, net.HardwareAddr, error) {
	fd, address, err := veth.Open(deviceName)
	if err != nil {
		return nil, nil, err
	}
	f := os.NewFile(uintptr(fd), "packets")
	if err := configure(veth.MTU); err != nil {
		f.Close()
		return nil, nil, fmt.Errorf("make %s: %w", deviceName, err)
	}
	return f, address, nil
}

// configure gives the device its addresses and all routes.
func configure(mtu uint32) error {
	c, err := netlink.Dial(unix.NETLINK_ROUTE, nil)
	if err != nil {
		return err
	}
	defer c.Close()
	do := func(kind netlink.HeaderType, flags netlink.HeaderFlags, head []byte, attrs ...netlink.Attribute) {
		b, merr := netlink.MarshalAttributes(attrs)
		_, xerr := c.Execute(netlink.Message{Data: append(head, b...),
			Header: netlink.Header{Type: kind, Flags: netlink.Request | netlink.Acknowledge | flags}})
		err = errors.Join(err, merr, xerr)
	}
	number := func(n uint32) []byte { return binary.NativeEndian.AppendUint32(nil, n) }
	index, err := ifindex(deviceName)
	if err != nil {
		return err
	}
	for _, i := range []uint32{1, index} { // 1 is lo
		head := append(append(append(make([]byte, 4), number(i)...), number(unix.IFF_UP)...), number(unix.IFF_UP)...)
		var attrs []netlink.Attribute
		if i == index {
			attrs = append(attrs, netlink.Attribute{Type: unix.IFLA_MTU, Data: number(mtu)})
		}
		do(unix.RTM_NEWLINK, 0, head, attrs...)
	}
	for _, a := range []netip.Prefix{netip.PrefixFrom(program4, 24), netip.PrefixFrom(program6, 64)} {
		family := byte(unix.AF_INET)
		if a.Addr().Is6() {
			family = unix.AF_INET6
		}
		ip := a.Addr().AsSlice()
		do(unix.RTM_NEWADDR, netlink.Create, append([]byte{family, byte(a.Bits()), 0, 0}, number(index)...),
			netlink.Attribute{Type: unix.IFA_LOCAL, Data: ip}, netlink.Attribute{Type: unix.IFA_ADDRESS, Data: ip},
			netlink.Attribute{Type: unix.IFA_FLAGS, Data: number(unix.IFA_F_NODAD)})
		do(unix.RTM_NEWROUTE, netlink.Create,
			[]byte{family, 0, 0, 0, unix.RT_TABLE_MAIN, unix.RTPROT_BOOT, unix.RT_SCOPE_LINK, unix.RTN_UNICAST, 0, 0, 0, 0},
			netlink.Attribute{Type: unix.RTA_OIF, Data: number(index)})
	}
	if err != nil {
		return err
	}
	return awaitLocalRoute(program6)
}

// awaitLocalRoute waits until packets to the address are taken. The kernel
// enters the route in a work queue, even without duplicate address detection
// (addrconf_dad_work in net/ipv6/addrconf.c), after it has confirmed the address.
func awaitLocalRoute(a netip.Addr) error {
	entry := fmt.Appendf(nil, "\n%x 80 ", a.AsSlice())
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(time.Millisecond) {
		b, err := os.ReadFile("/proc/thread-self/net/ipv6_route")
		if err != nil {
			return err
		}
		if bytes.Contains(append([]byte("\n"), b...), entry) {
			return nil
		}
	}
	return fmt.Errorf("no local route to %v", a)
}

func ifindex(name string) (uint32, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	ifr, err := unix.NewIfreq(name)
	if err == nil {
		err = unix.IoctlIfreq(fd, unix.SIOCGIFINDEX, ifr)
	}
	if err != nil {
		return 0, err
	}
	return ifr.Uint32(), nil
}

// setDown switches the device off, so that nobody answers any more.
func (w *world) setDown() {
	w.t.Helper()
	w.do(func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		ifr, err := unix.NewIfreq(deviceName)
		if err != nil {
			return err
		}
		ifr.SetUint16(0)
		return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, ifr)
	})
}
