package conntrack_test

import (
	"encoding/binary"
	"net"
	"net/netip"
	"os"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/mirrord-go/mirrord/internal/agent/conntrack"
	"github.com/mirrord-go/mirrord/internal/leak"
	"github.com/mirrord-go/mirrord/internal/netns"
	"github.com/mirrord-go/mirrord/internal/testnet"
)

func TestMain(m *testing.M) { os.Exit(leak.Main(m)) }

// What is redirected has an entry with who answers, also when it is over; what is
// not has its own server, and a socket for as long as it lives. Both families.
func TestTable(t *testing.T) {
	const rules = `nft 'add table inet t; add chain inet t output { type nat hook output priority -100; }; ' \
		'add rule inet t output tcp dport 80 ct mark set 7 redirect to :81'`
	ns, err := netns.Open(testnet.Process(t, syscall.CLONE_NEWNET, nil, testnet.Addressed+"; "+rules))
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	do := func(f func() error) error { return netns.Do(ns, f) }
	table, err := conntrack.Open(do)
	if err != nil {
		t.Fatal(err)
	}
	defer table.Close()
	if !table.Tracks() || !table.Diagnoses() {
		t.Errorf("can be asked: connection tracking %v, sockets %v", table.Tracks(), table.Diagnoses())
	}
	var ln net.Listener
	if err := do(func() (err error) { ln, err = net.Listen("tcp", ":81"); return err }); err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	for _, host := range []string{"192.0.2.7", "2001:db8::7"} {
		for _, port := range []uint16{80, 81} {
			called := netip.AddrPortFrom(netip.MustParseAddr(host), port)
			var c net.Conn
			if err := do(func() (err error) { c, err = net.Dial("tcp", called.String()); return err }); err != nil {
				t.Fatal(err)
			}
			s, err := ln.Accept()
			if err != nil {
				t.Fatal(err)
			}
			client := netip.MustParseAddrPort(c.LocalAddr().String())
			// Answers to what is over are not taken for those to what is asked now.
			if err := conntrack.Unheard(table, netip.MustParseAddrPort("192.0.2.9:9"), called); err != nil {
				t.Fatal(err)
			}
			if got := table.Connected(client, called); got != (port == 81) {
				t.Errorf("%v: connected %v", called, got)
			}
			c.Close()
			s.Close()
			e, ok := table.Find(client, called)
			if direct := ok && e.Server == called && e.Mark == 0; port == 81 && !direct {
				t.Errorf("%v: got %+v, %v", called, e, ok)
			}
			if led := ok && e.Server.Port() == 81 && e.Mark == 7; port == 80 && !led {
				t.Errorf("%v: got %+v, %v, want port 81 and mark 7", called, e, ok)
			}
		}
	}
	if e, ok := table.Find(netip.MustParseAddrPort("192.0.2.9:9"), netip.MustParseAddrPort("192.0.2.7:80")); ok {
		t.Errorf("of nobody: %+v", e)
	}
}

// A kernel that cannot list sockets says so as it says that there is none.
func TestEnded(t *testing.T) {
	no := binary.NativeEndian.AppendUint32(nil, uint32(1<<32-int64(unix.ENOENT)))
	for _, c := range []struct {
		name string
		typ  uint16
		data []byte
		want bool
	}{
		{"no answer", 0, nil, false},
		{"a list", unix.NLMSG_DONE, make([]byte, 4), true},
		{"no tcp_diag", unix.NLMSG_DONE, no, false},
		{"no inet_diag", unix.NLMSG_ERROR, no, false},
	} {
		if got := conntrack.Ended(c.typ, c.data); got != c.want {
			t.Errorf("%s: got %v", c.name, got)
		}
	}
}
