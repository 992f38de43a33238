package forward

import (
	"fmt"
	"strings"
	"testing"

	"github.com/mirrord-go/mirrord/internal/failure"
)

func TestParse(t *testing.T) {
	const malformed, twice = "forward-malformed", "forward-twice"
	for _, c := range []struct {
		name string
		l, r string // separated by blanks
		want string
		code string
		text string // in the failure
	}{
		{"host and port", "shop:80", "", "invalid IP:80>shop:80", "", ""},
		{"local port", "8080:shop:80", "", "invalid IP:8080>shop:80", "", ""},
		{"free port", "0:db.data:5432", "", "invalid IP:0>db.data:5432", "", ""},
		{"two free ports", "0:a:1 0:a:1", "", "invalid IP:0>a:1 invalid IP:0>a:1", "", ""},
		{"address here", "127.0.0.2:8080:shop:80", "", "127.0.0.2:8080>shop:80", "", ""},
		{"all addresses here", "0.0.0.0:8080:shop:80", "", "0.0.0.0:8080>shop:80", "", ""},
		{"IPv6 here", "[::1]:8080:shop:80", "", "::1:8080>shop:80", "", ""},
		{"IPv4 there", "8080:10.0.0.7:80", "", "invalid IP:8080>10.0.0.7:80", "", ""},
		{"IPv6 there", "8080:[fd00::7]:80", "", "invalid IP:8080>[fd00::7]:80", "", ""},
		{"IPv6 both", "[::1]:8080:[fd00::7]:80", "", "::1:8080>[fd00::7]:80", "", ""},
		{"only IPv6", "[fd00::7]:80", "", "invalid IP:80>[fd00::7]:80", "", ""},
		{"whole name", "8080:shop.example.:80", "", "invalid IP:8080>shop.example.:80", "", ""},
		{"same port, other address", "127.0.0.2:80:a:1 127.0.0.3:80:b:1", "", "127.0.0.2:80>a:1 127.0.0.3:80>b:1", "", ""},
		{"from the target", "", "80:3000 443", "80<3000 443<443", "", ""},
		{"two ports to one", "", "80:3000 81:3000", "80<3000 81<3000", "", ""},

		{"nothing", "", "", "", "forward-nothing", "-L"},
		{"port alone", "80", "", "", malformed, "-L 80 cannot be read: it is [[ADDRESS:]LOCAL:]HOST:PORT"},
		{"too much", "1:2:3:4:5", "", "", malformed, "in brackets"},
		{"no brackets", "8080:fd00::7:80", "", "", malformed, "in brackets"},
		{"no host", "8080::80", "", "", malformed, "the host is missing"},
		{"no port", "8080:shop:", "", "", malformed, `the remote port is ""`},
		{"port 0 there", "8080:shop:0", "", "", malformed, `the remote port is "0"; it is a number from 1 to 65535`},
		{"large port", "65536:shop:80", "", "", malformed, `the local port is "65536"`},
		{"sign", "+80:shop:80", "", "", malformed, `the local port is "+80"`},
		{"host before the port", "shop:8080:80", "", "", malformed, `the local port is "shop"`},
		{"name here", "laptop:8080:shop:80", "", "", malformed, `"laptop" is no address of this machine`},
		{"empty address", ":8080:shop:80", "", "", malformed, `"" is no address of this machine`},
		{"all by a star", "*:8080:shop:80", "", "", malformed, `"*" is no address`},
		{"IPv4 in brackets", "80:[10.0.0.1]:80", "", "", malformed, "is no IPv6 address"},
		{"zone", "80:[fe80::1%eth0]:80", "", "", malformed, "zones"},
		{"open bracket", "80:[fd00::1:80", "", "", malformed, "not closed"},
		{"bracket inside", "80:a[fd00::1]:80", "", "", malformed, "brackets stand around"},
		{"IPv4 with too many parts", "80:10.0.0.0.1:80", "", "", malformed, "is no name of a host"},
		{"name with a blank letter", "80:a\x1bb:80", "", "", malformed, "is no name of a host"},
		{"empty label", "80:a..b:80", "", "", malformed, "is no name of a host"},
		{"remote 0", "", "0:80", "", malformed, `the target's port is "0"`},
		{"remote words", "", "80:http", "", malformed, `the local port is "http"`},
		{"remote with three", "", "80:localhost:3000", "", malformed, "-R 80:localhost:3000"},
		{"same port", "8080:a:1 9:c:1 8080:b:1", "", "", twice, "-L 8080:a:1 (no. 1 of them) and -L 8080:b:1 (no. 3)"},
		{"same port by loopback", "8080:a:1 127.0.0.1:8080:b:1", "", "", twice, "port 8080"},
		{"same port by loopback, first", "[::1]:8080:a:1 8080:b:1", "", "", twice, "port 8080"},
		{"same port on all", "0.0.0.0:8080:a:1 127.0.0.5:8080:b:1", "", "", twice, "port 8080"},
		{"same port of the target", "", "80:1 81:1 80:2", "", twice, "-R 80:1 (no. 1 of them) and -R 80:2 (no. 3)"},
		{"too many", strings.Repeat("0:a:1 ", maxForwards+1), "", "", malformed, "at most 200"},
	} {
		t.Run(c.name, func(t *testing.T) {
			ls, rs, err := Parse(strings.Fields(c.l), strings.Fields(c.r))
			if c.code != "" {
				if f := failure.From(err); f == nil || f.Code != c.code || f.Exit != failure.ExitUsage || !strings.Contains(f.Error(), c.text) {
					t.Errorf("got %v, %v, %v, want %s with %q", ls, rs, err, c.code, c.text)
				}
				return
			}
			var got []string
			for _, l := range ls {
				got = append(got, fmt.Sprintf("%v:%d>%s", l.Listen, l.Port, l.To()))
			}
			for _, r := range rs {
				got = append(got, fmt.Sprintf("%d<%d", r.Port, r.Local))
			}
			if text := strings.Join(got, " "); err != nil || text != c.want {
				t.Errorf("got %q, %v, want %q", text, err, c.want)
			}
		})
	}
}
