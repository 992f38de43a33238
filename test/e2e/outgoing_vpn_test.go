package e2e

import (
	"bufio"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/mirrord-go/mirrord/internal/testnet"
)

// A machine in a company: its names and a proxy are known there only, by a route
// that the target has not.
const corp, corpSelf = "10.99.0.1", "10.99.0.2"

// serveText answers each HTTP request with what text makes of its first line and
// of who asks.
func serveText(text func(line, from string) string) func(*net.TCPConn) {
	return func(c *net.TCPConn) {
		in := bufio.NewReader(c)
		line, _ := in.ReadString('\n')
		for next := line; strings.TrimSpace(next) != ""; next, _ = in.ReadString('\n') {
		}
		from, _, _ := net.SplitHostPort(c.RemoteAddr().String())
		body := text(strings.TrimSpace(line), from) + "\n"
		fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
	}
}

// TestVPN: what rules leave to this machine goes by its name server, its route
// and its proxy, the rest by the target's, in one program.
func TestVPN(t *testing.T) {
	p := handmadePod(t, families{four: true})
	newZone().serve(p)
	p.tcp(p.world, handWorld, 8080, serveText(func(_, from string) string { return "the pod's world to " + from }))
	company := testnet.Process(t, syscall.CLONE_NEWNET, os.Environ(), "ip link set lo up")
	machine := testnet.Process(t, syscall.CLONE_NEWNET, os.Environ(), "ip link set lo up")
	p.ip(0, "link add tun0 netns "+strconv.Itoa(machine)+" type veth peer name tun0 netns "+strconv.Itoa(company))
	p.ip(company, "addr add "+corp+"/24 dev tun0", "link set tun0 up")
	p.ip(machine, "addr add "+corpSelf+"/24 dev tun0", "link set tun0 up", "route add default via "+corp)
	z := &zone{asked: map[string]int{}, records: map[string][]dnsmessage.ResourceBody{
		"intranet.corp.example.": {&dnsmessage.AResource{A: netip.MustParseAddr(corp).As4()}, &dnsmessage.TXTResource{TXT: []string{"of the company"}}},
		"proxy.corp.example.":    {&dnsmessage.AResource{A: netip.MustParseAddr(corp).As4()}},
		"four.example.":          {&dnsmessage.AResource{A: netip.MustParseAddr(corp).As4()}}, // split: another answer
	}}
	p.udp(company, corp, 53, func(q []byte, _ netip.AddrPort) []byte { return z.answer(q, true) })
	p.tcp(company, corp, 8080, serveText(func(_, from string) string { return "the company to " + from }))
	p.tcp(company, corp, 3128, serveText(func(line, from string) string { return "the proxy to " + from + ": " + line }))
	conf := filepath.Join(p.dir, "resolv.conf.machine")
	if err := os.WriteFile(conf, []byte("nameserver "+corp+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	const bind = `mount --bind %s /etc/resolv.conf && exec setpriv --reuid %d --regid %[2]d --clear-groups "$@"`
	run := func(network, script string) string {
		t.Helper()
		argv := append([]string{"nsenter", "-t", strconv.Itoa(machine), "--net", "unshare", "--mount", "sh", "-c", fmt.Sprintf(bind, conf, user), "sh", w.mirrord, "exec", "-q"}, p.configure(t, network)...)
		r := startCommand(t, append(argv, "--", "bash", "-c", script), func(c *exec.Cmd) {
			c.SysProcAttr.Credential = nil
		})
		if code := r.end(); code != 0 {
			t.Fatalf("exit code %d", code)
		}
		return strings.TrimSpace(r.stdout.String())
	}
	const rules = `{"dns": {"filter": {"local": ["*.corp.example"]}}, "outgoing": {"filter": {"local": ["*.corp.example"]}}}`
	const curl = "curl -sS --max-time 20 "
	for _, c := range []struct{ name, network, script, want string }{
		{"both sides", rules, curl + "http://intranet.corp.example:8080/ http://four.example:8080/", "the company to " + corpSelf + "\nthe pod's world to " + handPod},
		{"a resolver of its own", rules, "probe lookup intranet.corp.example; probe lookup four.example", corp + "\n" + handWorld},
		{"another type of record", rules, "dig +short intranet.corp.example TXT", `"of the company"`},
		{"no such name there", rules, "getent hosts none.corp.example || echo none", "none"},
		{"the user's proxy", rules, "http_proxy=http://proxy.corp.example:3128 " + curl + "http://anything.example/x", "the proxy to " + corpSelf + ": GET http://anything.example/x HTTP/1.1"},
		{"without rules", `{}`, "getent hosts intranet.corp.example || echo none; http_proxy=http://proxy.corp.example:3128 " + curl + "http://anything.example/x 2>&1 | grep -c resolve", "none\n1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := run(c.network, c.script); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
	if n := z.count("udp", "four.example."); n > 0 {
		t.Errorf("the company's name server was asked %d times for a name of the target's", n)
	}
}
