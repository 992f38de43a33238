package testnet

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// Mesh is a service mesh: rules that lead a pod's connections to a proxy, and how
// that calls the pod's ports.
type Mesh struct {
	Name  string
	Tool  string // that brings the rules: iptables-nft, iptables-legacy
	Rules string // as its restore takes them
	// Inbound is the proxy's port; From is where it calls from, the zero value:
	// the address that it calls.
	Inbound uint16
	From    netip.Addr
	// Transparent: it calls from the client's address, by packets with a mark.
	Transparent bool
	Leaves      bool // LeftPort
}

// Addresses of a pod and its client, and the port that meshes leave to the pod.
const PodAddr, ClientAddr, LeftPort = "198.51.100.2", "198.51.100.1", 81

// Meshes are those that redirect by iptables, with the rules that they make for
// IPv4 when LeftPort is excluded. The programs of tests are none of the users
// that the rules exempt; they need not be, on the way in.
var Meshes = []Mesh{
	{"Istio", "iptables-nft", `*nat
:ISTIO_INBOUND - [0:0]
:ISTIO_IN_REDIRECT - [0:0]
:ISTIO_OUTPUT - [0:0]
:ISTIO_REDIRECT - [0:0]
-A PREROUTING -p tcp -j ISTIO_INBOUND
-A OUTPUT -j ISTIO_OUTPUT
-A ISTIO_INBOUND -p tcp -m tcp --dport 15008 -j RETURN
-A ISTIO_INBOUND -p tcp -m tcp --dport 81 -j RETURN
-A ISTIO_INBOUND -p tcp -m tcp --dport 15090 -j RETURN
-A ISTIO_INBOUND -p tcp -m tcp --dport 15021 -j RETURN
-A ISTIO_INBOUND -p tcp -m tcp --dport 15020 -j RETURN
-A ISTIO_INBOUND -p tcp -j ISTIO_IN_REDIRECT
-A ISTIO_IN_REDIRECT -p tcp -j REDIRECT --to-ports 15006
-A ISTIO_OUTPUT -s 127.0.0.6/32 -o lo -j RETURN
-A ISTIO_OUTPUT ! -d 127.0.0.1/32 -o lo -p tcp -m tcp ! --dport 15008 -m owner --uid-owner 1337 -j ISTIO_IN_REDIRECT
-A ISTIO_OUTPUT -o lo -m owner ! --uid-owner 1337 -j RETURN
-A ISTIO_OUTPUT -m owner --uid-owner 1337 -j RETURN
-A ISTIO_OUTPUT ! -d 127.0.0.1/32 -o lo -p tcp -m tcp ! --dport 15008 -m owner --gid-owner 1337 -j ISTIO_IN_REDIRECT
-A ISTIO_OUTPUT -o lo -m owner ! --gid-owner 1337 -j RETURN
-A ISTIO_OUTPUT -m owner --gid-owner 1337 -j RETURN
-A ISTIO_OUTPUT -d 127.0.0.1/32 -j RETURN
-A ISTIO_OUTPUT -j ISTIO_REDIRECT
-A ISTIO_REDIRECT -p tcp -j REDIRECT --to-ports 15001
COMMIT
`, 15006, netip.MustParseAddr("127.0.0.6"), false, true},
	{"Linkerd", "iptables-legacy", `*nat
:PROXY_INIT_OUTPUT - [0:0]
:PROXY_INIT_REDIRECT - [0:0]
-A PREROUTING -m comment --comment "proxy-init/install-proxy-init-prerouting" -j PROXY_INIT_REDIRECT
-A OUTPUT -m comment --comment "proxy-init/install-proxy-init-output" -j PROXY_INIT_OUTPUT
-A PROXY_INIT_OUTPUT -m owner --uid-owner 2102 -m comment --comment "proxy-init/ignore-proxy-user-id" -j RETURN
-A PROXY_INIT_OUTPUT -o lo -m comment --comment "proxy-init/ignore-loopback" -j RETURN
-A PROXY_INIT_OUTPUT -p tcp -m comment --comment "proxy-init/redirect-all-outgoing-to-proxy-port" -j REDIRECT --to-ports 4140
-A PROXY_INIT_REDIRECT -p tcp -m multiport --dports 4190,4191,81 -m comment --comment "proxy-init/ignore-port-4190,4191,81" -j RETURN
-A PROXY_INIT_REDIRECT -p tcp -m comment --comment "proxy-init/redirect-all-incoming-to-proxy-port" -j REDIRECT --to-ports 4143
COMMIT
`, 4143, netip.Addr{}, false, true},
	{"Istio (ambient)", "iptables-nft", `*mangle
:ISTIO_OUTPUT - [0:0]
:ISTIO_PRERT - [0:0]
-A PREROUTING -j ISTIO_PRERT
-A OUTPUT -j ISTIO_OUTPUT
-A ISTIO_OUTPUT -m connmark --mark 0x111/0xfff -j CONNMARK --restore-mark --nfmask 0xffffffff --ctmask 0xffffffff
-A ISTIO_PRERT -m mark --mark 0x539/0xfff -j CONNMARK --set-xmark 0x111/0xfff
COMMIT
*nat
:ISTIO_OUTPUT - [0:0]
:ISTIO_PRERT - [0:0]
-A PREROUTING -j ISTIO_PRERT
-A OUTPUT -j ISTIO_OUTPUT
-A ISTIO_OUTPUT -d 169.254.7.127/32 -p tcp -m tcp -j ACCEPT
-A ISTIO_OUTPUT -p tcp -m mark --mark 0x111/0xfff -j ACCEPT
-A ISTIO_OUTPUT ! -d 127.0.0.1/32 -o lo -j ACCEPT
-A ISTIO_OUTPUT ! -d 127.0.0.1/32 -p tcp -m mark ! --mark 0x539/0xfff -j REDIRECT --to-ports 15001
-A ISTIO_PRERT -s 169.254.7.127/32 -p tcp -m tcp -j ACCEPT
-A ISTIO_PRERT ! -d 127.0.0.1/32 -p tcp -m tcp ! --dport 15008 -m mark ! --mark 0x539/0xfff -j REDIRECT --to-ports 15006
COMMIT
`, 15006, netip.Addr{}, true, false},
}

// local is the route of the answers to a transparent proxy.
const local = "ip rule add fwmark 0x111/0xfff lookup 100 priority 32764; ip route add local 0.0.0.0/0 dev lo table 100; "

// Caller is the address that the pod's program sees the proxy call from.
func (m Mesh) Caller() string {
	switch {
	case m.Transparent:
		return ClientAddr
	case m.From.IsValid():
		return m.From.String()
	}
	return PodAddr
}

// Meshed is Cabled, with the mesh's rules.
func (m Mesh) Meshed(t testing.TB) (pod, client int) {
	t.Helper()
	return Cabled(t, local+m.Tool+"-restore <<'E'\n"+m.Rules+"E\n:")
}

// Cabled starts a pod, where script runs, and a client that is joined to it by a
// cable, and gives the processes of the two.
func Cabled(t testing.TB, script string) (pod, client int) {
	t.Helper()
	pod = Process(t, syscall.CLONE_NEWNET, nil, "ip link set lo up; "+script)
	client = Process(t, syscall.CLONE_NEWNET, nil, fmt.Sprintf("ip link set lo up; ip link add eth0 type veth peer name eth0 netns %[1]d; ip addr add %[2]s/24 dev eth0; "+
		"nsenter -t %[1]d -n sh -c 'ip addr add %[3]s/24 dev eth0; ip link set eth0 up'; ip link set eth0 up; until ip link show eth0 | grep -q 'state UP'; do :; done",
		pod, ClientAddr, PodAddr))
	return pod, client
}

// Sealed is p as the mesh's proxies send it to each other, and back: nobody else
// understands it.
func Sealed(p []byte) []byte {
	out := make([]byte, len(p))
	for i := range p {
		out[i] = p[i] ^ 0x80
	}
	return out
}

// Proxy is the proxy, until the test's end, in the pod that do runs functions in.
// It unseals what comes to its port and sends it on to where it was meant for.
func (m Mesh) Proxy(t testing.TB, do func(func() error) error) {
	t.Helper()
	var ln net.Listener
	err := do(func() (err error) {
		ln, err = net.Listen("tcp4", fmt.Sprintf("0.0.0.0:%d", m.Inbound))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	Serve(t, ln, func(c net.Conn) { m.carry(c.(*net.TCPConn), do) })
}

// carry owns c.
func (m Mesh) carry(c *net.TCPConn, do func(func() error) error) {
	defer c.Close()
	to, err := meant(c)
	if err != nil {
		return
	}
	var up net.Conn
	err = do(func() (err error) {
		d := net.Dialer{}
		if m.From.IsValid() {
			d.LocalAddr = &net.TCPAddr{IP: m.From.AsSlice()}
		}
		if m.Transparent {
			d.LocalAddr = &net.TCPAddr{IP: c.RemoteAddr().(*net.TCPAddr).IP}
			d.Control = transparent
		}
		up, err = d.Dial("tcp4", to.String())
		return err
	})
	if err != nil {
		return
	}
	defer up.Close()
	var wg sync.WaitGroup
	wg.Go(func() { unseal(up.(*net.TCPConn), c) })
	unseal(c, up.(*net.TCPConn))
	wg.Wait()
}

// transparent lets a socket have another's address, as Istio's ztunnel does.
func transparent(_, _ string, rc syscall.RawConn) error {
	const mark = 0x539
	var err error
	cerr := rc.Control(func(fd uintptr) {
		if err = unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_TRANSPARENT, 1); err == nil {
			err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK, mark)
		}
	})
	if cerr != nil {
		return cerr
	}
	return err
}

func unseal(to, from *net.TCPConn) {
	buf := make([]byte, 4096)
	for {
		n, err := from.Read(buf)
		if n > 0 {
			if _, werr := to.Write(Sealed(buf[:n])); werr != nil {
				err = werr
			}
		}
		if err == io.EOF {
			_ = to.CloseWrite()
			return
		}
		if err != nil {
			_ = to.SetLinger(0)
			to.Close()
			return
		}
	}
}

// meant is what the client of a redirected connection has called
// (SO_ORIGINAL_DST, linux/netfilter_ipv4.h).
func meant(c *net.TCPConn) (to netip.AddrPort, err error) {
	rc, err := c.SyscallConn()
	if err != nil {
		return to, err
	}
	const originalDst = 80
	cerr := rc.Control(func(fd uintptr) {
		var sa *unix.IPv6Mreq // large enough for struct sockaddr_in
		if sa, err = unix.GetsockoptIPv6Mreq(int(fd), unix.SOL_IP, originalDst); err == nil {
			to = netip.AddrPortFrom(netip.AddrFrom4([4]byte(sa.Multiaddr[4:8])), binary.BigEndian.Uint16(sa.Multiaddr[2:4]))
		}
	})
	if cerr != nil {
		return to, cerr
	}
	return to, err
}
