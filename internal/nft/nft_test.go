package nft

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/mirrord-go/mirrord/internal/netns"
)

// inside runs f in a network namespace made for it, with lo up.
func inside(t *testing.T, f func() error) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Fatal("this test makes network namespaces: run it as root")
	}
	err := netns.DoNew(func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		lo, err := unix.NewIfreq("lo")
		if err != nil {
			return err
		}
		lo.SetUint16(unix.IFF_UP)
		if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, lo); err != nil {
			return err
		}
		return f()
	})
	if err != nil {
		t.Fatal(err)
	}
}

func tables() ([]string, error) {
	c, err := nftables.New()
	if err != nil {
		return nil, err
	}
	list, err := c.ListTables()
	var names []string
	for _, t := range list {
		names = append(names, t.Name)
	}
	return names, err
}

func TestOwnedTableDiesWithItsSocket(t *testing.T) {
	inside(t, func() error {
		c, table, err := OwnedTable("mine")
		if err != nil {
			return err
		}
		other, err := Open()
		if err != nil {
			return err
		}
		defer other.Close()
		if err := other.Apply(table.Delete()); !errors.Is(err, syscall.EPERM) {
			t.Errorf("delete by another socket: got %v, want EPERM", err)
		}
		if err := other.Apply(table.Create()); !errors.Is(err, syscall.EPERM) && !errors.Is(err, syscall.EEXIST) {
			t.Errorf("create again: got %v, want EPERM or EEXIST", err)
		}
		if err := c.Close(); err != nil {
			return err
		}
		got, err := tables()
		if err != nil {
			return err
		}
		if len(got) != 0 {
			t.Errorf("tables after Close: got %v, want none", got)
		}
		return nil
	})
}

// TestTransactionIsAtomic: an error in the middle undoes what came before.
func TestTransactionIsAtomic(t *testing.T) {
	inside(t, func() error {
		c, err := Open()
		if err != nil {
			return err
		}
		defer c.Close()
		table := Table{Name: "t"}
		s := Set{Table: table, Name: "s", Key: TypePort}
		err = c.Apply(table.Create(), s.Delete(Port(1)), s.Create())
		if !errors.Is(err, syscall.ENOENT) {
			t.Errorf("got %v, want ENOENT", err)
		}
		if want := "delete from set s of table t: no such file or directory"; err != nil && err.Error() != want {
			t.Errorf("got %q, want %q", err, want)
		}
		got, err := tables()
		if err != nil {
			return err
		}
		if len(got) != 0 {
			t.Errorf("tables after a failed transaction: got %v, want none", got)
		}
		return nil
	})
}

func TestElements(t *testing.T) {
	inside(t, func() error {
		c, table, err := OwnedTable("t")
		if err != nil {
			return err
		}
		defer c.Close()
		ports := Set{Table: table, Name: "ports", Key: TypePort}
		v4 := Set{Table: table, Name: "v4", Key: TypePort, Value: TypeIPv4}
		v6 := Set{Table: table, Name: "v6", Key: TypePort, Value: TypeIPv6}
		a4, a6 := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")
		steps := []struct {
			name    string
			changes []Change
			want    error
		}{
			{"create", []Change{ports.Create(), v4.Create(), v6.Create()}, nil},
			{"nothing", nil, nil},
			{"add", []Change{ports.Add(Port(80), Port(443)), v4.Add(PortAddr(1, a4)), v6.Add(PortAddr(1, a6))}, nil},
			{"add again", []Change{ports.Add(Port(80))}, nil},
			{"another value", []Change{v4.Add(PortAddr(1, netip.MustParseAddr("192.0.2.2")))}, syscall.EEXIST},
			{"delete", []Change{ports.Delete(Port(80)), v4.Delete(Port(1))}, nil},
			{"delete again", []Change{ports.Delete(Port(80))}, syscall.ENOENT},
			{"wrong family", []Change{v4.Add(PortAddr(2, a6))}, syscall.EINVAL},
		}
		for _, s := range steps {
			if err := c.Apply(s.changes...); !errors.Is(err, s.want) {
				t.Errorf("%s: got %v, want %v", s.name, err, s.want)
			}
		}
		// As many as a block of the agent, and more than one answer's buffer.
		var many []Element
		for p := range uint16(1000) {
			many = append(many, Port(p+10000))
		}
		if err := c.Apply(ports.Add(many...)); err != nil {
			t.Errorf("1000 elements: %v", err)
		}
		return nil
	})
}

func TestConcurrentChanges(t *testing.T) {
	inside(t, func() error {
		c, table, err := OwnedTable("t")
		if err != nil {
			return err
		}
		defer c.Close()
		s := Set{Table: table, Name: "ports", Key: TypePort}
		if err := c.Apply(s.Create()); err != nil {
			return err
		}
		var wg sync.WaitGroup
		for w := range uint16(4) {
			wg.Go(func() {
				for i := range uint16(50) {
					p := Port(1000*w + i + 1)
					if err := errors.Join(c.Apply(s.Add(p)), c.Apply(s.Delete(p))); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		return nil
	})
}

// TestAnotherNamespaceBySocket: a socket made inside works on a thread outside.
func TestAnotherNamespaceBySocket(t *testing.T) {
	inside(t, func() error {
		f, err := OpenFile()
		if err != nil {
			return err
		}
		c := NewConn(f)
		defer c.Close()
		table := Table{Name: "fromoutside", Owned: true}
		done := make(chan error)
		go func() { done <- c.Apply(table.Create()) }() // on another thread
		if err := <-done; err != nil {
			return err
		}
		got, err := tables()
		if err != nil {
			return err
		}
		if diff := cmp.Diff(got, []string{"fromoutside"}); diff != "" {
			t.Errorf("tables inside (-got +want):\n%s", diff)
		}
		return nil
	})
}

// TestRulesInKernel reads rules back: each expression must have arrived.
func TestRulesInKernel(t *testing.T) {
	inside(t, func() error {
		c, table, err := OwnedTable("t")
		if err != nil {
			return err
		}
		defer c.Close()
		ports := Set{Table: table, Name: "ports", Key: TypePort}
		m4 := Set{Table: table, Name: "m4", Key: TypePort, Value: TypeIPv4}
		m6 := Set{Table: table, Name: "m6", Key: TypePort, Value: TypeIPv6}
		out := Chain{table, "output", NATOutput}
		pre := Chain{table, "prerouting", NATPrerouting}
		post := Chain{table, "postrouting", NATPostrouting}
		first := Chain{table, "first", NATPostroutingFirst}
		tcp := L4(unix.IPPROTO_TCP)
		err = c.Apply(ports.Create(), m4.Create(), m6.Create(), out.Create(), pre.Create(), post.Create(), first.Create(),
			out.Rule(Daddr(netip.MustParsePrefix("127.0.0.0/8")), tcp, DportNotIn(ports), DNAT(netip.MustParseAddr("198.18.0.1"))),
			out.Rule(Daddr(netip.MustParsePrefix("::1/128")), tcp, DportIn(ports), DNAT(netip.MustParseAddr("fd00::1"))),
			pre.Rule(Iif("lo"), tcp, Syn(), Dport(80), SetConnMark(7), Redirect(8080)),
			first.Rule(Oif("lo"), Mark(7), tcp, Family(false), SNATBySport(m4)),
			first.Rule(Oif("lo"), Mark(7), tcp, Family(true), SNATBySport(m6)),
			post.Rule(Saddr(netip.MustParsePrefix("10.0.0.0/9")), SNAT(netip.MustParseAddr("10.1.2.3"))),
			pre.Rule(Accept()),
		)
		if err != nil {
			return err
		}
		lib, err := nftables.New()
		if err != nil {
			return err
		}
		got := map[string][]int{} // chain: number of expressions of each rule
		for _, ch := range []Chain{out, pre, post, first} {
			rules, err := lib.GetRules(&nftables.Table{Name: "t", Family: nftables.TableFamilyINet}, &nftables.Chain{Name: ch.Name})
			if err != nil {
				return err
			}
			for _, r := range rules {
				got[ch.Name] = append(got[ch.Name], len(r.Exprs))
				if ch.Name == "output" {
					if _, ok := r.Exprs[len(r.Exprs)-1].(*expr.NAT); !ok {
						t.Errorf("last expression of an output rule: got %T, want NAT", r.Exprs[len(r.Exprs)-1])
					}
				}
			}
		}
		want := map[string][]int{"output": {11, 11}, "prerouting": {13, 1}, "postrouting": {7}, "first": {12, 12}}
		if diff := cmp.Diff(got, want); diff != "" {
			t.Errorf("expressions of rules (-got +want):\n%s", diff)
		}
		return nil
	})
}

// TestRedirectWorks: the rules do with packets what they say.
func TestRedirectWorks(t *testing.T) {
	inside(t, func() error {
		lnReal, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			return err
		}
		defer lnReal.Close()
		lnOurs, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp4", "127.0.0.1:0")
		if err != nil {
			return err
		}
		defer lnOurs.Close()
		port := func(l net.Listener) uint16 { return uint16(l.Addr().(*net.TCPAddr).Port) }
		c, table, err := OwnedTable("t")
		if err != nil {
			return err
		}
		defer c.Close()
		stolen := Set{Table: table, Name: "stolen", Key: TypePort}
		out := Chain{table, "output", NATOutput}
		err = c.Apply(stolen.Create(), out.Create(),
			out.Rule(L4(unix.IPPROTO_TCP), Syn(), DportIn(stolen), Redirect(port(lnOurs))))
		if err != nil {
			return err
		}
		reached := func() (string, error) { // sockets made on this thread: dial by hand
			fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				return "", err
			}
			defer unix.Close(fd)
			if err := unix.Connect(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}, Port: int(port(lnReal))}); err != nil {
				return "", err
			}
			for name, ln := range map[string]net.Listener{"real": lnReal, "ours": lnOurs} {
				rc, err := ln.(*net.TCPListener).SyscallConn()
				if err != nil {
					return "", err
				}
				waiting := 0
				rc.Control(func(fd uintptr) { waiting, err = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0) })
				if err != nil {
					return "", err
				}
				if waiting > 0 {
					conn, err := ln.Accept()
					if err != nil {
						return "", err
					}
					conn.Close()
					return name, nil
				}
			}
			return "", fmt.Errorf("nobody was reached")
		}
		for _, s := range []struct {
			change Change
			want   string
		}{
			{stolen.Add(Port(1)), "real"}, {stolen.Add(Port(port(lnReal))), "ours"}, {stolen.Delete(Port(port(lnReal))), "real"},
		} {
			if err := c.Apply(s.change); err != nil {
				return err
			}
			if got, err := reached(); err != nil || got != s.want {
				t.Errorf("%s: reached %q, %v; want %q", s.change.what, got, err, s.want)
			}
		}
		return nil
	})
}
