package forward

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/mirrord-go/mirrord/internal/failure"
	"github.com/mirrord-go/mirrord/internal/rules"
)

// TestOpen: ports are opened on both loopback addresses, or nothing is, with what
// to do about it.
func TestOpen(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	number := netip.MustParseAddrPort(taken.Addr().String()).Port()
	all, err := Open(net.Listen, []Local{{Text: "0:a:1", Host: "a", Remote: 1}, {Text: "x", Listen: netip.MustParseAddr("127.0.0.9"), Host: "b", Remote: 1}})
	if err != nil {
		t.Fatal(err)
	}
	if at := all[0].At(); len(at) != 2 || !strings.HasPrefix(at[0], "127.0.0.1:") || !strings.HasPrefix(at[1], "[::1]:") {
		t.Errorf("opened at %v, want both loopback addresses", at)
	}
	if at := all[1].At(); len(at) != 1 || !strings.HasPrefix(at[0], "127.0.0.9:") {
		t.Errorf("opened at %v, want 127.0.0.9 alone", at)
	}
	first := all[0].At()[0]
	Close(all)
	for _, c := range []struct {
		name string
		l    Local
		open func(string, string) (net.Listener, error)
		do   string
	}{
		{"taken", Local{Port: number, Host: "a", Remote: 1}, net.Listen, fmt.Sprintf("ss -ltnp 'sport = :%d'", number)},
		{"not allowed", Local{Port: 80, Host: "a", Remote: 1}, func(string, string) (net.Listener, error) { return nil, syscall.EACCES }, "-L 8080:a:1"},
		{"not ours", Local{Port: 80, Listen: netip.MustParseAddr("192.0.2.1"), Host: "a", Remote: 1}, func(string, string) (net.Listener, error) { return nil, syscall.EADDRNOTAVAIL }, "ip -br address"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var opened []net.Listener
			_, err := Open(func(network, address string) (net.Listener, error) {
				ln, err := c.open(network, address)
				if err == nil {
					opened = append(opened, ln)
				}
				return ln, err
			}, []Local{c.l})
			if f := failure.From(err); f == nil || f.Code != "forward-port" || !strings.Contains(f.Do, c.do) {
				t.Errorf("got %+v, want to do %q", f, c.do)
			}
			for _, ln := range opened {
				if _, err := ln.Accept(); !errors.Is(err, net.ErrClosed) {
					t.Errorf("%v is left open", ln.Addr())
				}
			}
		})
	}
	if c, err := net.Dial("tcp", first); err == nil {
		c.Close()
		t.Errorf("%s is still open", first)
	}
}

// TestRules: who names a port means it; mode and filter count.
func TestRules(t *testing.T) {
	filter := &rules.HTTPOptions{Filter: rules.Filter{Header: &rules.Pattern{Text: "x"}}, Ports: []uint16{80}}
	for _, c := range []struct {
		name       string
		o          rules.IncomingOptions
		targetless bool
		remote     string
		mode       string
		code       string
	}{
		{"none", rules.IncomingOptions{Mode: rules.IncomingSteal}, true, "", rules.IncomingOff, ""},
		{"default", rules.IncomingOptions{}, false, "80", "", ""},
		{"steal", rules.IncomingOptions{Mode: rules.IncomingSteal}, false, "80:1", rules.IncomingSteal, ""},
		{"not among the ports", rules.IncomingOptions{Ports: []uint16{81}, IgnorePorts: []uint16{80}, IgnoreLocalhost: true, PortMapping: []rules.PortPair{{From: 80, To: 90}}}, false, "80:1", "", ""},
		{"filtered", rules.IncomingOptions{Mode: rules.IncomingSteal, HTTP: filter}, false, "80:1", rules.IncomingSteal, ""},
		{"off", rules.IncomingOptions{Mode: rules.IncomingOff}, false, "80:1", "", "forward-rules"},
		{"not among the filtered", rules.IncomingOptions{Mode: rules.IncomingSteal, HTTP: filter}, false, "81:80", "", "forward-rules"},
		{"no target", rules.IncomingOptions{}, true, "80:1", "", "forward-no-target"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var rs []Remote
			if c.remote != "" {
				r, err := parseRemote(c.remote)
				if err != nil {
					t.Fatal(err)
				}
				rs = append(rs, r)
			}
			got, err := Rules(c.o, c.targetless, rs)
			if c.code != "" {
				if f := failure.From(err); f == nil || f.Code != c.code || f.Exit != failure.ExitUsage {
					t.Errorf("got %v, want %s", err, c.code)
				}
				return
			}
			if err != nil || got.Mode != c.mode || got.Ports != nil || got.IgnorePorts != nil || got.PortMapping != nil || got.IgnoreLocalhost || got.HTTP != c.o.HTTP && len(rs) > 0 {
				t.Errorf("got %+v, %v", got, err)
			}
		})
	}
}

// TestByFamily: what the target has an address for is tried first.
func TestByFamily(t *testing.T) {
	addr := func(texts ...string) (all []netip.Addr) {
		for _, s := range texts {
			all = append(all, netip.MustParseAddr(s))
		}
		return all
	}
	for _, c := range []struct {
		own  string
		want []netip.Addr
	}{
		{"10.0.0.7/24", addr("10.1.1.1", "::1", "fd00::1")},
		{"fd00::7/64", addr("fd00::1", "::1", "10.1.1.1")},
	} {
		got := byFamily(addr("fd00::1", "10.1.1.1", "::1"), []netip.Prefix{netip.MustParsePrefix(c.own)})
		if fmt.Sprint(got) != fmt.Sprint(c.want) {
			t.Errorf("for %s: %v, want %v", c.own, got, c.want)
		}
	}
}

// TestToldAgain: the same failure is one line for some time, another is told.
func TestToldAgain(t *testing.T) {
	now := time.Now()
	var told told
	for i, c := range []struct {
		text  string
		after time.Duration
		more  int
		tell  bool
	}{
		{"refused", 0, 0, true},
		{"refused", time.Second, 0, false},
		{"refused", 2 * time.Second, 0, false},
		{"no name", 2 * time.Second, 0, true},
		{"refused", 3 * time.Second, 0, true},
		{"refused", 4 * time.Second, 0, false},
		{"refused", 3*time.Second + againTime, 1, true},
	} {
		if more, tell := told.again(c.text, now.Add(c.after)); more != c.more || tell != c.tell {
			t.Errorf("%d: got %d, %v, want %d, %v", i, more, tell, c.more, c.tell)
		}
	}
}
