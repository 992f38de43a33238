package dns

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/mirrord-go/mirrord/internal/protocol"
)

// podAgent is an agent beside a target with files and name servers.
type podAgent struct {
	files map[string]string
	// servers answer by name and type: "web.shop.svc A"; a server that is not there
	// says nothing.
	servers map[string]map[string][]string

	mu    sync.Mutex
	asked []string
}

func (a *podAgent) Call(_ context.Context, m protocol.Message) (protocol.Message, error) {
	switch m := m.(type) {
	case *protocol.Stat:
		if text, ok := a.files[m.Path]; ok {
			return &protocol.Attr{Data: []byte(text), HasData: true}, nil
		}
		return &protocol.Answer{Errno: syscall.ENOENT}, nil
	case *protocol.Lookup:
		q, ok := parseQuery(m.Query)
		if !ok {
			return nil, fmt.Errorf("no query: %x", m.Query)
		}
		kind := strings.TrimPrefix(q.question.Type.String(), "Type")
		if kind == "A" {
			a.mu.Lock()
			a.asked = append(a.asked, q.name)
			a.mu.Unlock()
		}
		server, ok := a.servers[m.Addr.Addr().String()]
		if !ok {
			return &protocol.Answer{}, nil
		}
		if server["refuses"] != nil {
			return &protocol.Datagram{Data: q.answer(dnsmessage.RCodeRefused, nil, true)}, nil
		}
		addrs, known := server[q.name+" "+kind]
		if !known {
			return &protocol.Datagram{Data: q.answer(dnsmessage.RCodeNameError, nil, true)}, nil
		}
		var all []netip.Addr
		for _, addr := range addrs {
			all = append(all, netip.MustParseAddr(addr))
		}
		return &protocol.Datagram{Data: q.answer(dnsmessage.RCodeSuccess, all, true)}, nil
	}
	return nil, fmt.Errorf("asked %T", m)
}

// TestResolver: names mean what they mean to the target's programs.
func TestResolver(t *testing.T) {
	const cluster = "nameserver 10.96.0.10\nsearch shop.svc.cluster.local svc.cluster.local\noptions ndots:5\n"
	server := map[string][]string{
		"web.shop.svc.cluster.local A":    {"10.96.1.1"},
		"web.shop.svc.cluster.local AAAA": {"fd00::1"},
		"db.data.svc.cluster.local A":     {"10.96.1.2"},
		"example.org A":                   {"192.0.2.1"},
	}
	many := map[string][]string{"crowd A": nil}
	for i := range 200 {
		many["crowd A"] = append(many["crowd A"], fmt.Sprintf("10.0.0.%d", i))
	}
	for _, c := range []struct {
		name   string
		conf   string
		hosts  string
		server map[string]map[string][]string
		lookup string
		want   string // addresses
		err    string
		asked  string
	}{
		{"search", cluster, "", map[string]map[string][]string{"10.96.0.10": server}, "web", "[10.96.1.1 fd00::1]", "", "[web.shop.svc.cluster.local]"},
		{"other namespace", cluster, "", map[string]map[string][]string{"10.96.0.10": server}, "db.data", "[10.96.1.2]", "", "[db.data.shop.svc.cluster.local db.data.svc.cluster.local]"},
		{"short by ndots, then as it is", cluster, "", map[string]map[string][]string{"10.96.0.10": server}, "Example.org", "[192.0.2.1]", "",
			"[example.org.shop.svc.cluster.local example.org.svc.cluster.local example.org]"},
		{"whole", cluster, "", map[string]map[string][]string{"10.96.0.10": server}, "example.org.", "[192.0.2.1]", "", "[example.org]"},
		{"long by the default", "nameserver 10.96.0.10\nsearch a.example", "", map[string]map[string][]string{"10.96.0.10": server}, "example.org", "[192.0.2.1]", "", "[example.org]"},
		{"no such name", cluster, "", map[string]map[string][]string{"10.96.0.10": server}, "nobody", "",
			"no such name in the target; asked for nobody.shop.svc.cluster.local, nobody.svc.cluster.local, nobody", ""},
		{"hosts file", cluster, "10.0.0.7 here.example here\n", nil, "HERE", "[10.0.0.7]", "", "[]"},
		{"localhost without a hosts file", cluster, "", nil, "localhost", "[127.0.0.1 ::1]", "", "[]"},
		{"the second server", "nameserver 10.0.0.1\nnameserver 10.0.0.2\nnameserver 10.0.0.3", "", map[string]map[string][]string{"10.0.0.2": {"refuses": {}}, "10.0.0.3": server},
			"example.org", "[192.0.2.1]", "", ""},
		{"no server", "nameserver 10.0.0.1", "", nil, "web", "", "look up web: name server 10.0.0.1: it says nothing", ""},
		{"refused", "nameserver 10.0.0.1", "", map[string]map[string][]string{"10.0.0.1": {"refuses": {}}}, "web", "", `it says "refused"`, ""},
		{"no file", "", "", nil, "web", "", "/etc/resolv.conf of the target cannot be read", ""},
		{"not a name", cluster, "", map[string]map[string][]string{"10.96.0.10": server}, strings.Repeat("x", 64) + ".", "", "is no name", ""},
		{"too many addresses", "nameserver 10.0.0.1", "", map[string]map[string][]string{"10.0.0.1": many}, "crowd", "", "longer than a datagram may be", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := &podAgent{files: map[string]string{}, servers: c.server}
			if c.conf != "" {
				a.files["/etc/resolv.conf"] = c.conf
			}
			if c.hosts != "" {
				a.files["/etc/hosts"] = c.hosts
			}
			got, err := ReadResolver(t.Context(), a).Lookup(t.Context(), c.lookup)
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) {
					t.Errorf("got %v, %v, want %q", got, err, c.err)
				}
				return
			}
			if err != nil || fmt.Sprint(got) != c.want {
				t.Errorf("got %v, %v, want %v", got, err, c.want)
			}
			if asked := fmt.Sprint(a.asked); c.asked != "" && asked != c.asked {
				t.Errorf("asked for %v, want %v", asked, c.asked)
			}
		})
	}
}

// TestNoNameErrno: who connects to a name that is not there is told that no way
// leads to it.
func TestNoNameErrno(t *testing.T) {
	if err := error(&NoNameError{"x", []string{"x"}}); !errors.Is(err, syscall.EHOSTUNREACH) {
		t.Errorf("%v is no EHOSTUNREACH", err)
	}
}
