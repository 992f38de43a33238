package e2e

import (
	"bufio"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Rules about connections and lookups: what they keep on this machine, and
// what still goes to the pod.

// configured gives the arguments of a session in app with feature.network set.
func configured(t testing.TB, network string) []string {
	t.Helper()
	file := filepath.Join(w.dir, "work", strings.ReplaceAll(t.Name(), "/", "-")+".json")
	if err := os.WriteFile(file, []byte(`{"target": "pod/app", "feature": {"network": `+network+`}}`), 0o644); err != nil {
		t.Fatal(err)
	}
	return []string{"-f", file}
}

// serveHere is a server of this machine that answers each TCP connection, and each
// datagram, with "here". It serves 127.0.0.1 and ::1 on one port.
func serveHere(t testing.TB) (port string) {
	t.Helper()
	at := "127.0.0.1:0"
	for range 2 {
		ln, err := net.Listen("tcp", at)
		if err != nil {
			t.Fatal(err)
		}
		at = ln.Addr().String()
		udp, err := net.ListenPacket("udp", at)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { ln.Close(); udp.Close() })
		go func() {
			for {
				c, err := ln.Accept()
				if err != nil {
					return
				}
				go func() {
					defer c.Close()
					_, _ = bufio.NewReader(c).ReadString('\n')
					fmt.Fprintln(c, "here")
				}()
			}
		}()
		go func() {
			buf := make([]byte, 512)
			for {
				_, from, err := udp.ReadFrom(buf)
				if err != nil {
					return
				}
				_, _ = udp.WriteTo([]byte("here\n"), from)
			}
		}()
		_, port, _ = net.SplitHostPort(at)
		at = "[::1]:" + port
	}
	return port
}

// ask is a line of a script: what a server answers, or the errno.
func ask(network, address string) string {
	return fmt.Sprintf("probe %s %s hi 2>/dev/null || probe connect %s\n", network, address, address)
}

func TestRules(t *testing.T) {
	port := serveHere(t)
	localhost, localhost6 := "127.0.0.1:"+port, "[::1]:"+port
	ip, ip6 := podIP(t, "app"), strings.Trim(podIP6(t, "app"), "[]")
	echoIP, echoIP6 := podIP(t, "echo"), podIP6(t, "echo")
	fromPod, fromPod6 := "echo hi from "+ip, "echo hi from "+ip6
	side, side6 := "echo hi from 127.0.0.1", "echo hi from ::1" // the pod's own localhost
	for _, c := range []struct {
		name, network string
		ask           []string // network and address, in turn
		want          []string
	}{
		{"none", `{}`, []string{"tcp", localhost, "tcp", localhost6, "tcp", "127.0.0.1:7000"}, []string{"ECONNREFUSED", "ECONNREFUSED", side}},
		{"local by port", `{"outgoing": {"filter": {"local": [":` + port + `"]}}}`,
			[]string{"tcp", localhost, "tcp", localhost6, "udp", localhost, "tcp", "[::1]:7000", "tcp", "echo:7000"}, []string{"here", "here", "here", side6, fromPod}},
		{"local by address", `{"outgoing": {"filter": {"local": ["127.0.0.1:` + port + `"]}}}`,
			[]string{"tcp", localhost, "tcp", localhost6}, []string{"here", "ECONNREFUSED"}},
		{"local by address, IPv6", `{"outgoing": {"filter": {"local": ["[::1]:` + port + `"]}}}`,
			[]string{"tcp", localhost, "tcp", localhost6}, []string{"ECONNREFUSED", "here"}},
		{"local by network", `{"outgoing": {"filter": {"local": ["127.0.0.0/8"]}}}`,
			[]string{"tcp", localhost, "tcp", "127.0.0.1:7000", "tcp", "[::1]:7000"}, []string{"here", "ECONNREFUSED", side6}},
		{"local by name", `{"outgoing": {"filter": {"local": ["localhost:` + port + `"]}}}`,
			[]string{"tcp", "localhost:" + port, "tcp", localhost6, "tcp", "localhost:7000"}, []string{"here", "here", side6}},
		{"local by protocol", `{"outgoing": {"filter": {"local": ["udp://localhost"]}}}`,
			[]string{"udp", localhost, "udp", localhost6, "tcp", localhost, "tcp", "127.0.0.1:7000"}, []string{"here", "here", "ECONNREFUSED", side}},
		{"a name of the cluster's that is local", `{"dns": {"filter": {"remote": ["*"]}}, "outgoing": {"filter": {"local": ["echo:7000"]}}}`,
			[]string{"tcp", "echo:7000", "tcp", "dbmaster:5432"}, []string{"EHOSTUNREACH", "connected"}},
		{"remote by name", `{"outgoing": {"filter": {"remote": ["echo:7000"]}}}`,
			[]string{"tcp", "echo:7000", "udp", "echo:7000", "tcp", localhost, "tcp", "127.0.0.1:7000"}, []string{fromPod, fromPod, "here", "ECONNREFUSED"}},
		{"remote by suffix", `{"outgoing": {"filter": {"remote": ["*.svc.cluster.local"]}}}`,
			[]string{"tcp", "echo:7000", "tcp", localhost}, []string{fromPod, "here"}},
		{"remote by network", `{"outgoing": {"filter": {"remote": ["` + netip.MustParsePrefix(echoIP+"/24").Masked().String() + `", "` + echoIP6 + `/64:7000"]}}}`,
			[]string{"tcp", echoIP + ":7000", "tcp", echoIP6 + ":7000", "tcp", localhost6}, []string{fromPod, fromPod6, "here"}},
		{"remote by protocol", `{"outgoing": {"filter": {"remote": "udp://"}}}`,
			[]string{"udp", "127.0.0.1:7000", "udp", echoIP6 + ":7000", "tcp", localhost}, []string{side, fromPod6, "here"}},
		{"TCP off", `{"outgoing": {"tcp": false}}`,
			[]string{"tcp", localhost, "tcp", localhost6, "udp", "echo:7000"}, []string{"here", "here", fromPod}},
		{"UDP off", `{"outgoing": {"udp": false}}`,
			[]string{"udp", localhost, "udp", localhost6, "tcp", "echo:7000"}, []string{"here", "here", fromPod}},
		{"localhost is ignored", `{"outgoing": {"ignore_localhost": true}}`,
			[]string{"tcp", localhost, "udp", localhost6, "tcp", "127.0.0.1:7000", "tcp", "echo:7000"}, []string{"here", "here", "ECONNREFUSED", fromPod}},
	} {
		t.Run(c.name, func(t *testing.T) {
			script := ""
			for i := 0; i < len(c.ask); i += 2 {
				script += ask(c.ask[i], c.ask[i+1])
			}
			got := in(t, "", append(configured(t, c.network), "sh", "-c", script)...)
			// A server that is not asked in words (a database) says nothing itself.
			got = strings.Join(strings.Fields(strings.ReplaceAll(got, "\n", " ")), " ")
			if want := strings.Join(c.want, " "); got != want {
				t.Errorf("got %q, want %q", got, want)
			}
		})
	}
}

// knowing gives what starts a command on a machine whose hosts file has one
// line more: in a mount namespace, as the user.
func knowing(t testing.TB, line string) func(*exec.Cmd) {
	t.Helper()
	here, err := os.ReadFile("/etc/hosts")
	if err != nil {
		t.Fatal(err)
	}
	hosts := filepath.Join(w.dir, "work", "hosts")
	if err := os.WriteFile(hosts, append(here, line+"\n"...), 0o644); err != nil {
		t.Fatal(err)
	}
	return func(c *exec.Cmd) {
		script := fmt.Sprintf(`mount --bind %s /etc/hosts && exec setpriv --reuid %d --regid %d --clear-groups "$@"`, hosts, user, user)
		c.Args = append([]string{"unshare", "--mount", "sh", "-c", script, "sh"}, c.Args...)
		c.Path, c.Err = "/usr/bin/unshare", nil
		c.SysProcAttr.Credential = nil
	}
}

func TestLookupsByRule(t *testing.T) {
	const name, address = "desk.of-this-machine", "192.0.2.77"
	lookup := func(names ...string) (script string) {
		for _, n := range names {
			script += fmt.Sprintf("getent ahostsv4 %s | cut -d' ' -f1 | uniq | grep . || echo none; probe lookup %s 2>/dev/null | grep -v : || echo none\n", n, n)
		}
		return script
	}
	db := kubectl(t, "get", "service", "dbmaster", "-o", "jsonpath={.spec.clusterIP}")
	dig := "dig +search +short +tcp " + name + " A\n"
	for _, c := range []struct {
		rules, network string
		more           string // of the script
		want           string
	}{
		{"none", `{}`, dig, "none none " + db + " " + db},
		{"local", `{"dns": {"filter": {"local": ["` + name + `"]}}}`, dig, strings.Join([]string{address, address, db, db, address}, " ")},
		{"remote", `{"dns": {"filter": {"remote": ["dbmaster"]}}}`, dig, strings.Join([]string{address, address, db, db, address}, " ")},
		{"local, of the cluster", `{"dns": {"filter": {"local": ["dbmaster", "` + name + `"]}}}`, dig, strings.Join([]string{address, address, "none none", address}, " ")},
		{"off", `{"dns": false}`, "", strings.Join([]string{address, address, "none none"}, " ")},
	} {
		t.Run(c.rules, func(t *testing.T) {
			argv := append([]string{w.mirrord, "exec", "-n", w.namespace}, configured(t, c.network)...)
			r := startCommand(t, append(argv, "sh", "-c", lookup(name, "dbmaster")+c.more), knowing(t, address+" "+name))
			if code := r.end(); code != 0 {
				t.Fatalf("exit code %d", code)
			}
			got := r.stdout.String()
			if got = strings.Join(strings.Fields(got), " "); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
	t.Run("off, resolv.conf", func(t *testing.T) {
		want, err := os.ReadFile("/etc/resolv.conf")
		if err != nil {
			t.Fatal(err)
		}
		if got := in(t, "", append(configured(t, `{"dns": false}`), "cat", "/etc/resolv.conf")...); got != strings.TrimSpace(string(want)) {
			t.Errorf("got %q, want %q", got, want)
		}
	})
}

// What listens on this machine's localhost is reached if it is a relative of
// the command, as an editor's debug adapter is; otherwise it is pointed to.
func TestLocalhostOfThisMachine(t *testing.T) {
	t.Run("a relative", func(t *testing.T) {
		const editor = `
import socket, subprocess, sys
s = socket.create_server(("127.0.0.1", 0))
port = s.getsockname()[1]
command = sys.argv[1:] + ["sh", "-c", f"probe connect 127.0.0.1:{port}; probe connect localhost:{port}; probe connect [::1]:{port}"]
sys.exit(subprocess.run(command).returncode)`
		r := startCommand(t, []string{"env", "python3", "-c", editor, w.mirrord, "exec", "-n", w.namespace, "-t", "pod/app"}, nil)
		if code := r.end(); code != 0 || strings.Join(strings.Fields(r.stdout.String()), " ") != "connected connected ECONNREFUSED" {
			t.Errorf("exit code %d, got %q", code, r.stdout)
		}
		if n := strings.Count(r.stderr.String(), "is nobody's in the target"); n != 1 {
			t.Errorf("it is said %d times, want once:\n%s", n, r.stderr)
		}
	})
	t.Run("a stranger", func(t *testing.T) {
		port := serveHere(t)
		r := start(t, "-t", "pod/app", "sh", "-c", "probe connect 127.0.0.1:"+port+"; probe connect 127.0.0.1:"+port)
		if code := r.end(); code != 0 || strings.Join(strings.Fields(r.stdout.String()), " ") != "ECONNREFUSED ECONNREFUSED" {
			t.Errorf("exit code %d, got %q", code, r.stdout)
		}
		if n := strings.Count(r.stderr.String(), `{"feature": {"network": {"outgoing": {"filter": {"local": ["localhost:`+port+`"]}}}}}`); n != 1 {
			t.Errorf("the line to add is given %d times, want once:\n%s", n, r.stderr)
		}
	})
}
