package e2e

import (
	"fmt"
	"os/exec"
	"strings"
	"testing"
)

// Requests that a filter means come here, all others reach the pod as if
// nobody were there.

// filtered gives the arguments of a session in app with feature.network.incoming
// set.
func filtered(t testing.TB, incoming string) []string {
	return configured(t, `{"incoming": `+incoming+`}`)
}

// curl runs curl in another pod and gives its output.
func curl(t testing.TB, args ...string) string {
	t.Helper()
	return kubectl(t, append([]string{"exec", "tools", "--", "curl", "-sS", "--max-time", "20"}, args...)...)
}

// One connection of a client, and each of its requests goes where it belongs.
func TestFilterByHeader(t *testing.T) {
	url := fmt.Sprintf("http://%s:8021", podIP(t, "app"))
	from := podIP(t, "tools")
	r := start(t, append(filtered(t, `{"mode": "steal", "http_filter": {"header_filter": "^x-user: (?!bob)ana$"}}`), "python3", "../bin/web.py", "8021")...)
	r.waitFor("listening 8021")
	got := curl(t, "-H", "X-User: ana", url+"/1", "--next", "-sS", url+"/2", "--next", "-sS", "-H", "x-USER:   Ana", url+"/3",
		"--next", "-sS", "-H", "X-User: bob", "-w", "connections: %{num_connects}\n", url+"/4")
	want := fmt.Sprintf("local /1 peer=%s\nremote /2 peer=%s\nlocal /3 peer=%s\nremote /4 peer=%s\nconnections: 0", from, from, from, from)
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	r.stop()
	if want := "2 stolen, 2 passed through\n"; !strings.HasSuffix(r.stderr.String(), want) {
		t.Errorf("the last line does not end in %q", want)
	}
	if got := curl(t, "-H", "X-User: ana", url+"/5"); !strings.HasPrefix(got, "remote /5") {
		t.Errorf("after the session: %q", got)
	}
	for _, path := range []string{"/2", "/4"} {
		if strings.Contains(r.stdout.String(), "got "+path) {
			t.Errorf("%s was not meant for this machine", path)
		}
	}
}

// Bodies by length and in chunks, both ways to both sides.
func TestFilterByPath(t *testing.T) {
	url := fmt.Sprintf("http://%s:8022", podIP(t, "app"))
	r := start(t, append(filtered(t, `{"mode": "steal", "http_filter": {"path_filter": "^/api/"}}`), "python3", "../bin/web.py", "8022")...)
	r.waitFor("listening 8022")
	script := fmt.Sprintf(`head -c 3000000 /dev/urandom >/tmp/body; sha256sum /tmp/body
		for path in /api/x /other; do
			curl -sS --max-time 30 --data-binary @/tmp/body %[1]s$path
			curl -sS --max-time 30 -H 'Transfer-Encoding: chunked' --data-binary @/tmp/body %[1]s$path
			curl -sS --max-time 30 -H 'Expect: 100-continue' --data-binary @/tmp/body %[1]s$path
		done`, url)
	lines := strings.Split(kubectl(t, "exec", "tools", "--", "bash", "-c", script), "\n")
	sum := strings.Fields(lines[0])[0]
	want := []string{"local " + sum, "local " + sum, "local " + sum, "remote " + sum, "remote " + sum, "remote " + sum}
	if got := lines[1:]; strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	r.stop()
}

// What does not match is passed on as it came, HTTP or not: the server is an
// echo.
func TestFilterPassesBytes(t *testing.T) {
	file := configured(t, `{"incoming": {"mode": "steal", "http_filter": {"header_filter": "^x-user: ana$"}}}`)
	r := start(t, append(file, "-t", "pod/echo", "python3", "../bin/web.py", "7002")...)
	r.waitFor("listening 7002")
	ip := podIP(t, "echo")
	for name, text := range map[string]string{
		"odd HTTP":        `GET /x HTTP/1.1\r\nhOst:   x\r\nX-User : ana\r\nA: 1\r\nA: 2\r\n\r\n`,
		"chunks":          `POST /x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n003;ext=1\r\nabc\r\n0\r\nTrailer: t\r\n\r\n`,
		"pipelined":       `GET /1 HTTP/1.1\r\nHost: x\r\n\r\nGET /2 HTTP/1.0\r\n\r\n`,
		"not HTTP":        `\x16\x03\x01\x00\x05hello`,
		"HTTP/2":          `PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n`,
		"half a head":     `GET /x HT`,
		"two lengths":     `POST / HTTP/1.1\r\nHost: x\r\nX-User: ana\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd`,
		"a long nonsense": strings.Repeat("x", 5000),
	} {
		t.Run(name, func(t *testing.T) {
			script := fmt.Sprintf(`printf '%s' >/tmp/in; python3 - <<'E'
import socket
s = socket.create_connection(("%s", 7002)); s.settimeout(10)
want = open("/tmp/in", "rb").read(); s.sendall(want); s.shutdown(socket.SHUT_WR)
got = b""
while d := s.recv(65536): got += d
print("same" if got == want else repr(got))
E`, text, ip)
			if got := kubectl(t, "exec", "tools", "--", "bash", "-c", script); got != "same" {
				t.Errorf("the echo is %s", got)
			}
		})
	}
	r.stop()
}

// Filters by flags, and the command that is told for trying one.
func TestFilterFlags(t *testing.T) {
	url := fmt.Sprintf("http://%s:8024", podIP(t, "app"))
	r := start(t, "-t", "pod/app", "--steal", "--header", "X-User: ana+", "python3", "../bin/web.py", "8024")
	r.waitFor("listening 8024")
	const told = "a request that comes here: "
	if !r.stderr.waitFor(told, runTime) {
		t.Fatal("no command was told")
	}
	_, command, _ := strings.Cut(r.stderr.String(), told)
	command, _, _ = strings.Cut(command, "\n")
	if want := " curl -H 'X-User: ana+' " + url + "/"; !strings.HasSuffix(command, want) {
		t.Errorf("got %s, want …%s", command, want)
	}
	if got := curl(t, url+"/other"); !strings.HasPrefix(got, "remote ") {
		t.Errorf("without the header: %q", got)
	}
	if out, err := asUser(t, "bash", "-c", command); err != nil || !strings.HasPrefix(out, "local /") {
		t.Errorf("%s: %v, %s", command, err, out)
	}
	r.stop()
	r = start(t, "-t", "pod/app", "--steal", "--path", "/api", "python3", "../bin/web.py", "8024")
	r.waitFor("listening 8024")
	for path, want := range map[string]string{"/api/x": "local", "/api?x": "local", "/api": "local", "/apis": "remote", "/x/api": "remote"} {
		if got := curl(t, url+path); !strings.HasPrefix(got, want+" ") {
			t.Errorf("%s: %q, want %s", path, got, want)
		}
	}
	r.stop()
}

func TestFilterUpgrade(t *testing.T) {
	ip := podIP(t, "app")
	r := start(t, append(filtered(t, `{"mode": "steal", "http_filter": {"path_filter": "^/socket"}}`), "python3", "../bin/web.py", "8023")...)
	r.waitFor("listening 8023")
	script := fmt.Sprintf(`python3 - <<'E'
import socket
s = socket.create_connection(("%s", 8023)); s.settimeout(10); f = s.makefile("rwb")
f.write(b"GET /socket HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: lines\r\n\r\n"); f.flush()
print(f.readline().decode().strip())
while f.readline().strip(): pass
for i in range(3):
    f.write(b"line %%d\n" %% i); f.flush(); print(f.readline().decode().strip())
E`, ip)
	want := "HTTP/1.1 101 Switching Protocols\nlocal line 0\nlocal line 1\nlocal line 2"
	if got := kubectl(t, "exec", "tools", "--", "bash", "-c", script); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	r.stop()
}

func TestFilterOfPorts(t *testing.T) {
	ip := podIP(t, "app")
	for _, c := range []struct{ name, more, want string }{
		{"others are left alone", "", "remote"},
		{"others are taken whole", `, "other_ports": "steal"`, "local"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := start(t, append(filtered(t, `{"mode": "steal", "http_filter": {"header_filter": "^x-user: ana$", "ports": [8024]`+c.more+`}}`), "python3", "../bin/web.py", "8024", "8025")...)
			r.waitFor("ready")
			for url, want := range map[string]string{"8024/a": "remote", "8025/a": c.want} {
				if got := curl(t, fmt.Sprintf("http://%s:%s", ip, url)); !strings.HasPrefix(got, want+" ") {
					t.Errorf("%s without the header: %q, want %s", url, got, want)
				}
			}
			if got := curl(t, "-H", "X-User: ana", fmt.Sprintf("http://%s:8024/b", ip)); !strings.HasPrefix(got, "local /b") {
				t.Errorf("with the header: %q", got)
			}
			r.stop()
		})
	}
}

func TestFilterOfMirror(t *testing.T) {
	url := fmt.Sprintf("http://%s:8037", podIP(t, "app"))
	r := start(t, append(filtered(t, `{"mode": "mirror", "http_filter": {"path_filter": "^/copy"}}`), "python3", "../bin/web.py", "8037")...)
	r.waitFor("listening 8037")
	got := curl(t, url+"/other1", url+"/copy1", url+"/other2", url+"/copy2")
	if strings.Count(got, "remote ") != 4 {
		t.Errorf("the client got %q", got)
	}
	r.waitFor("got /copy1")
	r.waitFor("got /copy2")
	r.stop()
	if strings.Contains(r.stdout.String(), "got /other") {
		t.Error("a request that does not match was copied")
	}
}

// The node's questions are answered by the pod, also while its port is taken,
// and while the program here answers nothing at all.
func TestProbesReachTheOriginal(t *testing.T) {
	url := fmt.Sprintf("http://%s:8001", podIP(t, "probed"))
	state := func() string {
		return kubectl(t, "get", "pod", "probed", "-o", "jsonpath={.status.containerStatuses[0].restartCount} {.status.containerStatuses[0].ready}")
	}
	for name, args := range map[string][]string{
		"whole":    {"-t", "pod/probed", "--steal"},
		"filtered": append(filtered(t, `{"mode": "steal", "http_filter": {"path_filter": "."}}`), "-t", "pod/probed"),
	} {
		t.Run(name, func(t *testing.T) {
			before := state()
			r := start(t, append(args, "python3", "../bin/web.py", "8001")...)
			r.waitFor("listening 8001")
			logged := strings.Count(kubectl(t, "logs", "probed"), "/live?deep=1")
			if got := curl(t, url+"/ready"); !strings.HasPrefix(got, "local /ready") {
				t.Errorf("who only asks the same path is no probe: %q", got)
			}
			for strings.Count(kubectl(t, "logs", "probed"), "/live?deep=1") < logged+3 { // the test's own limit ends it
			}
			r.stop()
			if out := r.stdout.String(); strings.Contains(out, "/live") || strings.Count(out, "/ready") != 1 {
				t.Errorf("a probe came here:\n%s", out)
			}
			if got := state(); got != before || !strings.HasSuffix(got, " true") {
				t.Errorf("restarts and readiness: %s, and %s before the session", got, before)
			}
		})
	}
}

// explain knows what only the cluster can tell: probes and volumes.
func TestExplainAsksTheCluster(t *testing.T) {
	for _, c := range []struct {
		want string
		args []string
	}{
		{"the target only", []string{"request", "-t", "pod/probed", "--steal", "-p", "8001", "-H", "User-Agent: kube-probe/1.36", "GET /live?deep=1"}},
		{"your program", []string{"request", "-t", "pod/probed", "--steal", "-p", "8001", "-H", "User-Agent: curl/8", "GET /live?deep=1"}},
		{"is a volume of the target", []string{"path", "-t", "pod/app", "/run/secrets/kubernetes.io/serviceaccount/token"}},
		{"taken to be " + w.namespace + ".svc.cluster.local", []string{"dns", "-f", "-", "-t", "pod/app", "echo." + w.namespace + ".svc.cluster.local"}},
	} {
		r := startCommand(t, append([]string{w.mirrord, "explain", c.args[0], "-n", w.namespace}, c.args[1:]...), func(e *exec.Cmd) {
			e.Stdin = strings.NewReader(`{"feature": {"network": {"dns": {"filter": {"local": ["echo"]}}}}}`)
		})
		if code := r.end(); code != 0 || !strings.Contains(r.stdout.String(), c.want) {
			t.Errorf("explain %q: exit code %d, got %q, want %q", c.args, code, r.stdout, c.want)
		}
	}
}

func TestPortOptions(t *testing.T) {
	ip := podIP(t, "app")
	for _, c := range []struct {
		name, incoming string
		port           int    // of the program
		listen         string // its address
		target         int    // port of the pod that is asked
		want           string // who answers there
		here           int    // where the program is reached on this machine
	}{
		{"port_mapping", `{"mode": "steal", "port_mapping": [[9101, 8038]]}`, 9101, "0.0.0.0", 8038, "local", 9101},
		{"listen_ports", `{"mode": "steal", "listen_ports": [[8038, 9102]]}`, 8038, "0.0.0.0", 8038, "local", 9102},
		{"ports has it", `{"mode": "steal", "ports": [8038]}`, 8038, "0.0.0.0", 8038, "local", 8038},
		{"ports has it not", `{"mode": "steal", "ports": [8039]}`, 8038, "0.0.0.0", 8038, "remote", 8038},
		{"ignore_ports", `{"mode": "steal", "ignore_ports": [8038]}`, 8038, "0.0.0.0", 8038, "remote", 8038},
		{"ignore_localhost", `{"mode": "steal", "ignore_localhost": true}`, 8038, "127.0.0.1", 8038, "remote", 8038},
		{"ignore_localhost, not bound to it", `{"mode": "steal", "ignore_localhost": true}`, 8038, "0.0.0.0", 8038, "local", 8038},
		{"off", `"off"`, 8038, "0.0.0.0", 8038, "remote", 8038},
		{"false", `false`, 8038, "0.0.0.0", 8038, "remote", 8038},
		{"steal, in short", `"steal"`, 8038, "0.0.0.0", 8038, "local", 8038},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := start(t, append(filtered(t, c.incoming), "python3", "../bin/server.py", fmt.Sprint(c.port), c.listen)...)
			r.waitFor("listening")
			if got := curl(t, fmt.Sprintf("http://%s:%d/x", ip, c.target)); !strings.HasPrefix(got, c.want+" ") {
				t.Errorf("the pod's port %d: %q, want %s", c.target, got, c.want)
			}
			if got, err := httpGet(fmt.Sprintf("http://127.0.0.1:%d/x", c.here)); err != nil || !strings.HasPrefix(got, "local ") {
				t.Errorf("this machine's port %d: %q, %v", c.here, got, err)
			}
			r.stop()
		})
	}
}

// Without a target a server is this machine's, with the cluster's network: a
// console in the browser.
func TestTargetlessServer(t *testing.T) {
	r := start(t, "python3", "../bin/web.py", "8040")
	r.waitFor("listening 8040")
	if got, err := httpGet("http://localhost:8040/console"); err != nil || !strings.HasPrefix(got, "local /console") {
		t.Errorf("got %q, %v", got, err)
	}
	r.stop()
}
