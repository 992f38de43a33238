package redirect_test

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"github.com/mirrord-go/mirrord/internal/agent/conntrack"
	"github.com/mirrord-go/mirrord/internal/agent/redirect"
	"github.com/mirrord-go/mirrord/internal/agent/target"
	"github.com/mirrord-go/mirrord/internal/testnet"
)

// Connections that nftables steals are marked, but for those that have a mark of
// somebody else's, who needs it.
func TestMarksOfOthersStay(t *testing.T) {
	const marked = `nft 'add table ip t; add chain ip t p { type filter hook prerouting priority -150; }; add rule ip t p tcp dport 81 tcp flags & (fin|syn|rst|ack) == syn ct mark set 0x111'`
	inside, outside := testnet.Cabled(t, marked)
	tg, client := testnet.Opened(t, target.Open, inside), testnet.Opened(t, target.Open, outside)
	r, err := redirect.NewByNAT(tg, "")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	table, err := conntrack.Open(tg.Do)
	if err != nil {
		t.Fatal(err)
	}
	defer table.Close()
	for _, port := range []uint16{80, 81} {
		if err := r.Add(port); err != nil {
			t.Fatal(err)
		}
		dialed := netip.AddrPortFrom(netip.MustParseAddr(testnet.PodAddr), port)
		c, err := dialFrom(client, dialed)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		s, err := r.Accept(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		e, ok := table.Find(netip.MustParseAddrPort(c.LocalAddr().String()), dialed)
		own := e.Mark&redirect.MarkMask == redirect.MarkValue
		if theirs := e.Mark == 0x111; !ok || own != (port == 80) || theirs != (port == 81) {
			t.Errorf("a stolen connection to port %d: got %+v, %v", port, e, ok)
		}
	}
}

func dialFrom(client *target.Target, to netip.AddrPort) (c net.Conn, err error) {
	err = client.Do(func() (err error) {
		c, err = net.DialTimeout("tcp", to.String(), 5*time.Second)
		return err
	})
	return c, err
}

// Whatever rules of others lead elsewhere goes there, also where those come later
// than rules of NAT do by custom.
func TestRulesOfOthersComeFirst(t *testing.T) {
	const late = `nft 'add table ip t; add chain ip t p { type nat hook prerouting priority 50; }; add rule ip t p tcp dport 80 redirect to :82'`
	inside, outside := testnet.Cabled(t, late)
	tg, client := testnet.Opened(t, target.Open, inside), testnet.Opened(t, target.Open, outside)
	var ln net.Listener
	if err := tg.Do(func() (err error) { ln, err = net.Listen("tcp", ":82"); return err }); err != nil {
		t.Fatal(err)
	}
	testnet.Serve(t, ln, func(c net.Conn) { hears(c, "proxy") })
	ways(t, func(t *testing.T, open func(*pod) (*redirect.Redirect, error)) {
		opened(t, &pod{tg}, open, 80)
		if got, err := says(client, 80, false, word); err != nil || got != "proxy "+testnet.ClientAddr+" "+word {
			t.Errorf("got %q, %v", got, err)
		}
	})
}

// Who has a port by nftables is known to others, and that BPF has it is not: it is
// nobody's matter.
func TestTakenByNAT(t *testing.T) {
	inside, _ := testnet.Cabled(t, ":")
	tg := testnet.Opened(t, target.Open, inside)
	for name, open := range map[string]func(redirect.Namespace, string) (*redirect.Redirect, error){"Ada": redirect.NewByNAT, "Bob": redirect.NewByLookup} {
		r, err := open(tg, name)
		if err != nil {
			t.Fatal(err)
		}
		if err := r.Add(80); err != nil {
			t.Fatal(err)
		}
		redirect.SetUp(r) // with BPF there is a table, too
		for port, want := range map[uint16]bool{80: name == "Ada", 81: false} {
			if holder, yes := redirect.TakenByNAT(tg, port); yes != want || yes && holder != name {
				t.Errorf("%s has port 80, of port %d it is said: %q, %v", name, port, holder, yes)
			}
		}
		r.Close()
	}
}

// noBPF is a namespace to which no program can be attached.
type noBPF struct{ *target.Target }

func (noBPF) Handle(func(int) error) error { return syscall.EPERM }

// Where BPF cannot be used and nftables must not, stealing is refused, with why.
func TestRefusedNAT(t *testing.T) {
	inside, _ := testnet.Cabled(t, ":")
	tg := testnet.Opened(t, target.Open, inside)
	why := errors.New("a mesh")
	for _, c := range []struct {
		name string
		ns   redirect.Namespace
		nat  func() error
		want error
	}{
		{"BPF", tg, func() error { return why }, nil},
		{"neither", noBPF{tg}, func() error { return why }, why},
		{"nftables", noBPF{tg}, func() error { return nil }, nil},
		{"nobody minds", noBPF{tg}, nil, nil},
	} {
		r, err := redirect.New(c.ns, redirect.Options{NAT: c.nat})
		if !errors.Is(err, c.want) || (err != nil) != (c.want != nil) {
			t.Errorf("%s: got %v, want %v", c.name, err, c.want)
		}
		if err == nil {
			r.Close()
		}
	}
}

// A kernel without marks of connections, or without the module that reads them,
// steals without.
func TestUnmarkable(t *testing.T) {
	for err, want := range map[error]bool{syscall.EOPNOTSUPP: true, syscall.ENOENT: true, syscall.EPERM: false, nil: false} {
		if err != nil {
			err = fmt.Errorf("add a rule: %w", err)
		}
		if got := redirect.Unmarkable(err); got != want {
			t.Errorf("%v: got %v", err, got)
		}
	}
}
