package mesh

import (
	"encoding/binary"
	"errors"
	"net"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/mirrord-go/mirrord/internal/leak"
	"github.com/mirrord-go/mirrord/internal/netns"
	"github.com/mirrord-go/mirrord/internal/nft"
	"github.com/mirrord-go/mirrord/internal/testnet"
)

func TestMain(m *testing.M) { os.Exit(leak.Main(m)) }

// in makes chains of one table.
func in(table string, names ...string) (all []Chain) {
	for _, n := range names {
		all = append(all, Chain{table, n})
	}
	return all
}

func TestMesh(t *testing.T) {
	const istio, ambient, linkerd = "Istio's sidecar", "Istio's ztunnel (ambient)", "Linkerd's proxy"
	for _, c := range []struct {
		name        string
		facts       Facts
		want        string
		transparent bool
	}{
		{"nothing", Facts{}, "", false},
		{"rules of others", Facts{Chains: in("nat", "PREROUTING", "KUBE-SERVICES"), Listeners: []uint16{80, 443}}, "", false},
		{"Istio", Facts{Chains: in("nat", "PREROUTING", "ISTIO_INBOUND", "ISTIO_IN_REDIRECT", "ISTIO_OUTPUT", "ISTIO_REDIRECT")}, istio, false},
		{"Istio by nftables", Facts{Chains: in("istio-proxy-nat", "prerouting", "istio-inbound", "istio-redirect")}, istio, false},
		{"Istio with TPROXY", Facts{Chains: append(in("mangle", "ISTIO_INBOUND", "ISTIO_DIVERT", "ISTIO_TPROXY"), in("nat", "ISTIO_OUTPUT")...)}, istio, true},
		{"Istio with TPROXY and an exempt port", Facts{Chains: append(in("mangle", "ISTIO_INBOUND", "ISTIO_DIVERT", "ISTIO_TPROXY"), in("nat", "ISTIO_INBOUND", "ISTIO_OUTPUT")...)}, istio, true},
		{"Istio with TPROXY by nftables", Facts{Chains: append(in("istio-proxy-mangle", "istio-inbound", "istio-tproxy"), in("istio-proxy-nat", "istio-inbound")...)}, istio, true},
		{"Istio that takes only what goes out", Facts{Chains: in("nat", "ISTIO_OUTPUT", "ISTIO_REDIRECT")}, "", false},
		{"ambient", Facts{Chains: append(in("mangle", "ISTIO_PRERT", "ISTIO_OUTPUT"), in("nat", "ISTIO_PRERT", "ISTIO_OUTPUT")...)}, ambient, false},
		{"ambient by nftables", Facts{Chains: append(in("istio-ambient-mangle", "istio-prerouting"), in("istio-ambient-nat", "istio-prerouting")...)}, ambient, false},
		{"ambient with TPROXY", Facts{Chains: append(in("mangle", "ISTIO_PRERT", "ISTIO_OUTPUT"), in("nat", "ISTIO_OUTPUT")...)}, ambient, true},
		{"Linkerd", Facts{Chains: in("nat", "PROXY_INIT_OUTPUT", "PROXY_INIT_REDIRECT")}, linkerd, false},
		{"Kuma", Facts{Chains: in("nat", "KUMA_MESH_INBOUND", "KUMA_MESH_OUTBOUND"), Listeners: []uint16{15001, 15006}}, "Kuma's sidecar", false},
		{"Consul", Facts{Chains: in("nat", "CONSUL_PROXY_INBOUND")}, "Consul's sidecar", false},
		{"Linkerd by its ports", Facts{Listeners: []uint16{8080, 4143, 4140}}, linkerd, false},
		{"no rules, and Linkerd's ports", Facts{Read: true, Listeners: []uint16{4143, 4140}}, "", false},
		{"one of Linkerd's ports", Facts{Listeners: []uint16{4143}}, "", false},
		{"Istio or another by its ports", Facts{Listeners: []uint16{15006, 15001}}, "a sidecar like Istio's", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := c.facts.Mesh()
			if m.Name != c.want || m.Transparent != c.transparent {
				t.Errorf("got %q, transparent %v, want %q, %v", m.Name, m.Transparent, c.want, c.transparent)
			}
			if text := m.Text(); (text == "") != (c.want == "") || !strings.Contains(text, c.want) {
				t.Errorf("says %q", text)
			}
		})
	}
}

func TestRefuses(t *testing.T) {
	sidecar := Facts{Chains: in("nat", "ISTIO_INBOUND")}.Mesh()
	proxied := Facts{Chains: in("mangle", "ISTIO_INBOUND")}.Mesh()
	for _, c := range []struct {
		name   string
		mesh   Mesh
		port   uint16
		copies bool
		want   string // part of why; empty: it does not
	}{
		{"no mesh", Mesh{}, 15006, true, ""},
		{"a port of the program", sidecar, 8080, false, ""},
		{"copies of it", sidecar, 8080, true, ""},
		{"the proxy's port", sidecar, 15006, false, "port 15006 is where Istio's sidecar takes"},
		{"copies of the proxy's port", sidecar, 15008, true, "port 15008 is where"},
		{"stealing with TPROXY", proxied, 8080, false, ""},
		{"copies with TPROXY", proxied, 8080, true, "--steal --header"},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := c.mesh.Refuses(c.port, c.copies)
			if (err == nil) != (c.want == "") || err != nil && (!strings.Contains(err.Error(), c.want) || !errors.Is(err, syscall.EOPNOTSUPP)) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

// By nftables nothing is stolen where rules hand connections to a socket.
func TestRefusesRedirect(t *testing.T) {
	for want, chain := range map[bool]Chain{true: {"mangle", "ISTIO_TPROXY"}, false: {"nat", "ISTIO_REDIRECT"}} {
		m := Facts{Chains: append(in("nat", "ISTIO_INBOUND"), chain)}.Mesh()
		if err := m.RefusesRedirect(); errors.Is(err, syscall.EOPNOTSUPP) != want || (err != nil) != want {
			t.Errorf("%v: got %v", chain, err)
		}
	}
}

// What may not be read, or not to its end, may be a mesh's.
func TestUnread(t *testing.T) {
	for err, want := range map[error]bool{nil: false, syscall.EPERM: true, syscall.EACCES: true, nft.ErrManyChains: true, errLarge: true, syscall.ENOENT: false, syscall.EOPNOTSUPP: false} {
		if got := unread(err); got != want {
			t.Errorf("%v: got %v", err, got)
		}
	}
}

func TestListeners(t *testing.T) {
	const table = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000:3A9E 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1337        0 1
   1: 0100007F:1F90 0100007F:C350 01 00000000:00000000 00:00000000 00000000  1000        0 2
   2: 00000000000000000000000000000000:102F 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 3
   3: nonsense 0A
`
	if got, want := listeners(strings.NewReader(table)), []uint16{15006, 4143}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// entry is one of iptables', with a target of that name and data.
func entry(target string, data string) []byte {
	const head, size = 112, 112 + 64
	b := make([]byte, size)
	binary.NativeEndian.PutUint16(b[88:], head)
	binary.NativeEndian.PutUint16(b[90:], size)
	binary.NativeEndian.PutUint16(b[head:], size-head)
	copy(b[head+2:], target)
	copy(b[head+32:], data)
	return b
}

func TestChains(t *testing.T) {
	whole := slices.Concat(entry("", ""), entry("REDIRECT", "ERROR"), entry("ERROR", "PROXY_INIT_REDIRECT"), entry("", ""), entry("ERROR", "ERROR"))
	if got, want := chains(whole), []string{"PROXY_INIT_REDIRECT"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	for n := range whole { // cut anywhere it must end, and say nothing else
		for _, name := range chains(whole[:n]) {
			if name != "PROXY_INIT_REDIRECT" {
				t.Errorf("of %d bytes: %q", n, name)
			}
		}
	}
	wrong := entry("ERROR", "x")
	for _, c := range []struct{ at, value uint16 }{{88, 0xffff}, {90, 0}, {90, 0xffff}, {88, 100}} {
		b := slices.Clone(wrong)
		binary.NativeEndian.PutUint16(b[c.at:], c.value)
		chains(b)
	}
}

// The rules of meshes are found whichever iptables has brought them, and looking
// leaves nothing there.
func TestLook(t *testing.T) {
	look := func(pid int) Facts {
		ns, err := netns.Open(pid)
		if err != nil {
			t.Fatal(err)
		}
		defer ns.Close()
		return Look(func(f func() error) error { return netns.Do(ns, f) })
	}
	listen := func(t *testing.T, pid int) {
		ns, err := netns.Open(pid)
		if err != nil {
			t.Fatal(err)
		}
		defer ns.Close()
		var ln net.Listener
		if err := netns.Do(ns, func() (err error) { ln, err = net.Listen("tcp", ":80"); return err }); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { ln.Close() })
	}
	for _, m := range testnet.Meshes {
		t.Run(m.Name, func(t *testing.T) {
			pod, client := m.Meshed(t)
			listen(t, pod)
			if f := look(pod); !f.Read || len(f.Listeners) > 0 {
				t.Errorf("read: %v, and then %v", f.Read, f.Listeners)
			}
			if got := look(pod).Mesh().Name; !strings.HasPrefix(got, strings.Fields(m.Name)[0]+"'s ") || strings.HasSuffix(got, "(ambient)") != m.Transparent {
				t.Errorf("the pod's mesh is %q", got)
			}
			for range 2 {
				if f := look(client); len(f.Chains) > 0 || f.Mesh().Name != "" {
					t.Errorf("the client has %+v", f)
				}
			}
		})
	}
}
