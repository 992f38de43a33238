package rules

import (
	"errors"
	"strings"
	"testing"
)

func TestDNSDecide(t *testing.T) {
	search := []string{"shop.svc.cluster.local", "svc.cluster.local", "cluster.local"}
	listed := func(side string, e ...string) DNSOptions {
		return DNSOptions{Filter: AddressFilter{Side: side, Entries: entries(e...)}}
	}
	for _, c := range []struct {
		name  string
		o     DNSOptions
		asked string
		want  Where
		meant string
		why   string
	}{
		{"default", DNSOptions{}, "db.shop.svc.cluster.local.", Remote, "db.shop.svc.cluster.local", "default"},
		{"off", DNSOptions{Local: true}, "DB.", Local, "db", "dns is off"},
		{"off beats the filter", DNSOptions{Local: true, Filter: AddressFilter{SideRemote, entries("db")}}, "db", Local, "db", "off"},
		{"itself", listed("local", "db.corp"), "db.corp.", Local, "db.corp", "db.corp"},
		{"whatever the case", listed("local", "Db.Corp."), "dB.cORP", Local, "db.corp", "Db.Corp"},
		{"with the first search domain", listed("local", "db"), "db.shop.svc.cluster.local", Local, "db", `"db"`},
		{"with the last", listed("local", "db"), "db.cluster.local", Local, "db", `"db"`},
		{"with a domain that is not searched", listed("local", "db"), "db.example.com", Remote, "db.example.com", "no entry"},
		{"partly written out", listed("local", "db.shop"), "db.shop.svc.cluster.local", Local, "db.shop", "db.shop"},
		{"fully written out", listed("local", "db.shop.svc.cluster.local"), "db.shop.svc.cluster.local", Local, "db.shop.svc.cluster.local", "has"},
		{"a name inside", listed("local", "db"), "mydb", Remote, "mydb", "no entry"},
		{"below it", listed("local", "db"), "_pg._tcp.db", Remote, "_pg._tcp.db", "no entry"},
		{"suffix", listed("local", "*.corp.example"), "a.b.corp.example", Local, "a.b.corp.example", "*.corp"},
		{"suffix with search domain", listed("local", "*.corp.example"), "a.corp.example.svc.cluster.local", Local, "a.corp.example", "*.corp"},
		{"rest of local", listed("local", "db"), "web", Remote, "web", "dns.filter.local has no entry"},
		{"remote", listed("remote", "db"), "db.shop.svc.cluster.local", Remote, "db", `"db"`},
		{"rest of remote", listed("remote", "db"), "web.shop.svc.cluster.local", Local, "web.shop.svc.cluster.local", "dns.filter.remote has no entry"},
		{"any", listed("local", "*"), "web", Local, "web", `"*"`},
		{"port of a name", listed("local", "db:5432"), "db", Local, "db", "5432"},
		{"port alone is nobody's name", listed("local", ":5432"), "db", Remote, "db", "no entry"},
		{"address", listed("local", "10.0.0.0/8"), "10.1.2.3", Local, "10.1.2.3", "10.0.0.0/8"},
		{"address is no name", listed("local", "10.0.0.0/8", "0.0.0.0"), "db", Remote, "db", "no entry"},
		{"empty list", listed("remote"), "db", Local, "db", "no entry"},
		{"the root", listed("local", "db"), ".", Remote, "", "no entry"},
	} {
		t.Run(c.name, func(t *testing.T) {
			d, err := NewDNS(c.o, search)
			if err != nil {
				t.Fatal(err)
			}
			got, meant := d.Decide(c.asked)
			if got.Where != c.want || meant != c.meant || !strings.Contains(got.Why, c.why) {
				t.Errorf("got %v, %q, want %v, %q because of %q", got, meant, c.want, c.meant, c.why)
			}
			if d.Filtered() != (c.o.Filter.Side != "" && !c.o.Local) || d.Off() != c.o.Local {
				t.Errorf("filtered %v, off %v", d.Filtered(), d.Off())
			}
		})
	}
	d, err := NewDNS(DNSOptions{}, search)
	if err != nil || !d.Searched("x.cluster.local.") || d.Searched("x.example") {
		t.Errorf("search domains are not recognised: %v", err)
	}
	if got, _ := new(DNS).Decide("db"); got.Where != Remote {
		t.Errorf("the zero value: got %v", got)
	}
}

func TestDNSErrors(t *testing.T) {
	for _, text := range []string{"tcp://db", "a..b"} {
		_, err := NewDNS(DNSOptions{Filter: AddressFilter{SideLocal, entries(text)}}, nil)
		var e *AddressError
		if !errors.As(err, &e) || e.Pattern.Text != text {
			t.Errorf("%q: got %v", text, err)
		}
	}
}
