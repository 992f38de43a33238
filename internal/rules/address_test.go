package rules

import (
	"net/netip"
	"strings"
	"testing"
)

func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }

func TestParseAddress(t *testing.T) {
	for text, want := range map[string]Address{
		// The rows of the syntax.
		":5432":                    {Port: 5432},
		"10.0.0.0/8":               {Prefix: prefix("10.0.0.0/8")},
		"tcp://1.1.1.0/24:1337":    {Protocol: "tcp", Prefix: prefix("1.1.1.0/24"), Port: 1337},
		"[2001:db8::]/64:443":      {Prefix: prefix("2001:db8::/64"), Port: 443},
		"db.svc:5432":              {Name: "db.svc", Port: 5432},
		"tcp://":                   {Protocol: "tcp"},
		"UDP://":                   {Protocol: "udp"},
		"any://":                   {},
		"Any://db":                 {Name: "db"},
		"udp://:53":                {Protocol: "udp", Port: 53},
		"tcp://db:0":               {Protocol: "tcp", Name: "db"},
		"0.0.0.0":                  {},
		"[::]":                     {},
		"0.0.0.0:80":               {Port: 80},
		"tcp://[::]:80":            {Protocol: "tcp", Port: 80},
		"0.0.0.0/0":                {Prefix: prefix("0.0.0.0/0")},
		"[::]/0":                   {Prefix: prefix("::/0")},
		"127.0.0.1:65535":          {Prefix: prefix("127.0.0.1/32"), Port: 65535},
		"[::1]":                    {Prefix: prefix("::1/128")},
		"[::1]:80":                 {Prefix: prefix("::1/128"), Port: 80},
		"[2001:DB8::5]/32":         {Prefix: prefix("2001:db8::/32")},
		"10.1.2.3/8:80":            {Prefix: prefix("10.0.0.0/8"), Port: 80}, // bits behind the prefix do not count
		"10.1.2.3/32":              {Prefix: prefix("10.1.2.3/32")},
		"[::ffff:10.1.2.3]":        {Prefix: prefix("10.1.2.3/32")},
		"[::ffff:10.1.0.0]/112:80": {Prefix: prefix("10.1.0.0/16"), Port: 80},
		"localhost:3000":           {Name: "localhost", Port: 3000},
		"Db_1.My-Svc.":             {Name: "db_1.my-svc"},
		"1password.com":            {Name: "1password.com"},
		// Ours.
		"*.corp.example":     {Name: "*.corp.example"},
		"tcp://db-?.svc:443": {Protocol: "tcp", Name: "db-?.svc", Port: 443},
		"*:443":              {Name: "*", Port: 443},
	} {
		if got, err := ParseAddress(text); err != nil || got != want {
			t.Errorf("%q: got %+v, %v, want %+v", text, got, err, want)
		}
	}
}

func TestParseAddressErrors(t *testing.T) {
	for text, want := range map[string]string{
		"":                     "empty",
		"http://db":            `protocol "http"`,
		"://db":                `protocol ""`,
		"tcp:db":               "port",
		":":                    "port",
		"db:":                  "port",
		"db:http":              `port "http"`,
		"db:65536":             "1 to 65535",
		"db:-1":                "1 to 65535",
		"db:+1":                "1 to 65535",
		"db:80:90":             "brackets",
		"::1":                  "brackets",
		"2001:db8::1:443":      "brackets",
		"2001:db8::/64":        "brackets",
		"[2001:db8::1":         "not closed",
		"[::1]80":              "neither a prefix nor a port",
		"[::1]]":               "neither a prefix nor a port",
		"[]":                   "not an IPv6 address",
		"[db]:80":              "not an IPv6 address",
		"[10.0.0.1]:80":        "not an IPv6 address",
		"[fe80::1%eth0]":       "not an IPv6 address",
		"[::1]/129":            "0 to 128",
		"[::1]/":               "0 to 128",
		"[::ffff:10.0.0.0]/64": "too short",
		"10.0.0.0/33":          "0 to 32",
		"10.0.0.0/":            "0 to 32",
		"10.0.0.0/-1":          "0 to 32",
		"10.0.0.0/+8":          "0 to 32",
		"10.0.0.0/8/8":         "0 to 32",
		"10.0.0.0/255.0.0.0":   "0 to 32",
		"db/24":                "no prefix",
		"/24":                  "needs an address",
		"*/8":                  "no prefix",
		"10.0.0":               "nor an IPv4 address",
		"300.1.1.1":            "nor an IPv4 address",
		"10.0.0.*":             "nor an IPv4 address",
		"123":                  "nor an IPv4 address",
		"a..b":                 "empty part",
		".corp.example":        "empty part",
		".":                    "empty part",
		"db svc":               "part of a name",
		"bücher.example":       "part of a name",
		"user@db":              "part of a name",
		" db":                  "part of a name",
	} {
		if got, err := ParseAddress(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %+v, %v, want an error with %q", text, got, err, want)
		}
	}
}

// FuzzParseAddress: whatever comes, no panic; and what it reads it can be
// asked about.
func FuzzParseAddress(f *testing.F) {
	for _, s := range []string{"tcp://1.1.1.0/24:1337", "[2001:db8::]/64:443", "*.corp.example:0", "udp://", "[::ffff:1.2.3.4]/96", "a/", "://", "["} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		a, err := ParseAddress(text)
		if err != nil {
			if a != (Address{}) {
				t.Errorf("%q: an error and %+v", text, a)
			}
			return
		}
		if a.Protocol != "" && a.Protocol != "tcp" && a.Protocol != "udp" || a.Name != "" && a.Prefix.IsValid() || a.Name != normal(a.Name) {
			t.Errorf("%q: %+v", text, a)
		}
		if a.Prefix.IsValid() && (a.Prefix != a.Prefix.Masked() || a.Prefix.Addr().Is4In6() || a.Prefix.Addr().Zone() != "") {
			t.Errorf("%q: prefix %v", text, a.Prefix)
		}
		a.connects("tcp", netip.MustParseAddrPort("10.0.0.1:1"), []string{"db"})
	})
}

func TestNamesWithoutSearchDomains(t *testing.T) {
	search := []string{"shop.svc.cluster.local", "svc.cluster.local.", "Cluster.Local", "", "."}
	for asked, want := range map[string]string{
		"db":                            "db",
		"DB.Shop.svc.cluster.local.":    "db.shop.svc.cluster.local db db.shop db.shop.svc",
		"api.example.com.cluster.local": "api.example.com.cluster.local api.example.com",
		"cluster.local":                 "cluster.local",
		"xcluster.local":                "xcluster.local",
		".":                             "",
	} {
		if got := strings.Join(Names(asked, search), " "); got != want {
			t.Errorf("%q: got %q, want %q", asked, got, want)
		}
	}
}
