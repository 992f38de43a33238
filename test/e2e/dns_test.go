package e2e

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Names that the resolvers are asked for.
var lookedUp = []string{"api", "api.shop", "four.example", "six.example", "both.example", "alias.example", "many.example", "hand", "alias", "localhost",
	"none.example", "text.example", handWorld}

// Every resolver sees the same in a session as in the pod: addresses and their
// order, all types of records, aliases, the search list, answers that do not
// fit a datagram, names that there are not and names without an address.
func TestNamesAsInThePod(t *testing.T) {
	p := handmadePod(t, families{four: true, six: true})
	z := newZone()
	z.serve(p)
	bin := func(name string) string { return filepath.Join(w.dir, "bin", name) }
	digs := ""
	for _, q := range []string{"both.example A", "six.example AAAA", "db.example SRV", "text.example TXT", "alias.example A", "alias.example CNAME", "-x " + handWorld,
		"four.example AAAA", "none.example A", "many.example A", "+ignore many.example A", "+bufsize=1232 many.example A", "+noedns many.example A", "+bufsize=4096 +ignore many.example A",
		"+tcp long.example TXT", "long.example TXT", "broken.example A", "denied.example A", "+search api A", "+qr +nocookie four.example A"} {
		digs += "echo '== " + q + "'; dig +time=3 +tries=1 +nocookie " + q + " | grep -v -e '^;; \\(Query time\\|WHEN\\|SERVER\\)' -e '^; <<>>' -e 'id: '\n"
	}
	for _, c := range []struct {
		name string
		argv []string
	}{
		{"glibc", append([]string{bin("lookup-glibc"), "db.example", "long.example", "broken.example", "denied.example"}, lookedUp...)},
		{"musl", append([]string{bin("lookup-musl"), "db.example", "long.example"}, lookedUp...)},
		{"Go", append([]string{bin("network"), "lookup", "db.example", "long.example", "broken.example", "denied.example"}, lookedUp...)},
		{"node", append([]string{"node", bin("look.js"), "db.example", "long.example"}, lookedUp...)},
		{"java", append([]string{"java", "-XX:TieredStopAtLevel=1", "-Xshare:auto", "-cp", filepath.Join(w.dir, "bin"), "Look", "-r", "db.example", "long.example"}, lookedUp...)},
		{"dig", []string{"sh", "-c", digs}},
	} {
		t.Run(c.name, func(t *testing.T) { p.same(t, nil, c.argv...) })
	}
	if n := z.count("tcp", "many.example."); n == 0 {
		t.Error("nobody asked again by TCP for what did not fit a datagram")
	}
}

// A name server that says nothing costs what it costs in the pod, and one that
// is not there costs nothing.
func TestSilentNameServer(t *testing.T) {
	p := handmadePod(t, families{four: true})
	newZone().serve(p)
	bin := func(name string) string { return filepath.Join(w.dir, "bin", name) }
	all := map[string][]string{
		"glibc": {bin("lookup-glibc"), "connect", "silent.example.", "1"},
		"musl":  {bin("lookup-musl"), "connect", "silent.example.", "1"},
		"Go":    {"probe", "lookup", "silent.example."},
		"node":  {"node", "-e", `new (require("dns").Resolver)({timeout: 2000, tries: 1}).resolve4("silent.example.", e => console.log(e.code))`},
		"java":  {"java", "-XX:TieredStopAtLevel=1", "-cp", filepath.Dir(bin("x")), "Look", "silent.example."},
	}
	for _, c := range []struct {
		name, conf string
		least      time.Duration
		resolvers  []string
	}{
		{"silent", "nameserver " + handNames + "\noptions timeout:2 attempts:1\n", 2 * time.Second, []string{"glibc", "musl", "Go", "node", "java"}},
		{"silent, and asked twice", "nameserver " + handNames + "\noptions timeout:1 attempts:2\n", 2 * time.Second, []string{"glibc", "Go"}},
		{"not there", "nameserver " + handOther + "\noptions timeout:2 attempts:1\n", 0, []string{"glibc", "node"}},
	} {
		for _, by := range c.resolvers {
			t.Run(c.name+"/"+by, func(t *testing.T) {
				p.resolv(c.conf)
				const script = `began=$(date +%s.%N); "$@" 2>&1 | sed 's/ on .*:/:/'; echo "$began $(date +%s.%N)"`
				argv := append([]string{"bash", "-c", script, "bash"}, all[by]...)
				here, there := strings.Split(p.here(t, argv...), "\n"), strings.Split(in(t, p.target(), argv...), "\n")
				took := map[string]time.Duration{}
				for where, lines := range map[string][]string{"in the pod": here, "in a session": there} {
					var began, ended float64
					if _, err := fmt.Sscan(lines[len(lines)-1], &began, &ended); err != nil {
						t.Fatal(err)
					}
					took[where] = time.Duration((ended - began) * float64(time.Second))
				}
				if got, want := strings.Join(there[:len(there)-1], " "), strings.Join(here[:len(here)-1], " "); got != want {
					t.Errorf("got %q, want %q", got, want)
				}
				if here, there := took["in the pod"], took["in a session"]; here < c.least || there < c.least || there > 2*here+1500*time.Millisecond {
					t.Errorf("in a session it takes %v, in the pod %v, want %v", there, here, c.least)
				}
			})
		}
	}
}

// A pod without one family: what is looked up, in which order, and that nobody
// waits for what cannot be.
func TestPodOfOneFamily(t *testing.T) {
	for _, f := range []struct {
		name, conf string
		families
		localhost string
	}{
		{"IPv4", handNames, families{four: true}, "127.0.0.1"}, {"IPv6", handWorld6, families{six: true}, "::1"},
	} {
		t.Run(f.name, func(t *testing.T) {
			p := handmadePod(t, f.families)
			newZone().serveAt(p, f.conf)
			p.serve()
			p.resolv("nameserver " + f.conf + "\noptions timeout:2 attempts:1\n")
			bin := func(name string) string { return filepath.Join(w.dir, "bin", name) }
			names := []string{"four.example", "six.example", "both.example", "alias.example", "localhost"}
			p.same(t, nil, append([]string{bin("lookup-glibc")}, names...)...)
			p.same(t, nil, append([]string{bin("lookup-musl")}, names...)...)
			p.same(t, nil, append([]string{"node", bin("look.js")}, names...)...)
			p.same(t, nil, append([]string{"java", "-XX:TieredStopAtLevel=1", "-cp", filepath.Join(w.dir, "bin"), "Look"}, names...)...)
			const connect = `
import socket, time
for name in ("both.example", "alias.example"):
    begin = time.monotonic()
    s = socket.create_connection((name, 7002))
    print(name, s.getpeername()[0], s.makefile().readline().strip(), "at once" if time.monotonic() - begin < 1 else time.monotonic() - begin)
for family, address in ((socket.AF_INET, "` + handWorld + `"), (socket.AF_INET6, "` + handWorld6 + `")):
    begin = time.monotonic()
    try: socket.socket(family).connect((address, 7002)); print(address, "connected")
    except OSError as e: print(address, e)
    print("at once" if time.monotonic() - begin < 1 else time.monotonic() - begin)
`
			p.same(t, nil, "python3", "-c", connect)
		})
	}
}
