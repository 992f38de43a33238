package e2e

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"
)

// socketsPod waits for a pod of servers at unix sockets, beside a container "app"
// of PostgreSQL's user.
func socketsPod(t *testing.T) {
	t.Helper()
	applied(t, w.namespace, "sockets.yaml")
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	if err := w.cluster.WaitReady(ctx, w.namespace, "pod/sockets"); err != nil {
		t.Fatal(err)
	}
}

// Unmodified programs reach the pod's unix sockets, in each way to run the agent.
func TestUnixSockets(t *testing.T) {
	socketsPod(t)
	postgres := kubectl(t, "exec", "sockets", "-c", "app", "--", "id", "-u", "postgres")
	const python = `import socket
for typ, name in ((socket.SOCK_STREAM, "\0mirrord-e2e"), (socket.SOCK_SEQPACKET, "/sockets/packets.sock")):
    s = socket.socket(socket.AF_UNIX, typ); s.connect(name); s.send(b"hello"); print(s.recv(100).decode())`
	const node = `const s = require("net").connect("/sockets/web.sock", () => s.write("GET /node HTTP/1.0\r\n\r\n"));
let all = ""; s.on("data", d => all += d).on("end", () => console.log(all.split("\r\n\r\n")[1])).on("error", e => console.log(e.code))`
	for agent, text := range map[string]string{"job": "", "ephemeral": `"agent": {"ephemeral": true},`} {
		file := settings(t, fmt.Sprintf(`{%s "feature": {"network": {"incoming": "off", "outgoing": {"unix_streams": ["^/sockets/", "^mirrord-e2e$"]}}}}`, text))
		for name, c := range map[string]struct {
			argv []string
			want string
		}{
			// The server lets in whom the kernel tells it to be postgres.
			"psql":      {[]string{"psql", "-h", "/sockets", "-U", "postgres", "-Atc", "select current_user, 6 * 7"}, "postgres|42"},
			"redis-cli": {[]string{"sh", "-c", "redis-cli -s /sockets/redis.sock set who " + agent + " && redis-cli -s /sockets/redis.sock get who"}, "OK\n" + agent},
			"curl":      {[]string{"curl", "-sS", "--unix-socket", "/sockets/web.sock", "http://pod/x"}, "GET /x from user " + postgres},
			"link":      {[]string{"curl", "-sS", "--unix-socket", "/sockets/link", "http://pod/x"}, "GET /x from user " + postgres},
			"node":      {[]string{"node", "-e", node}, "GET /node from user " + postgres},
			"python":    {[]string{"python3", "-c", python}, "hello from user " + postgres + "\nhello from user " + postgres},
			"static Go": {[]string{"probe", "unix", "/sockets/web.sock", "GET /go HTTP/1.0"}, "GET /go from user " + postgres},
			"relative":  {[]string{"sh", "-c", "curl -sS --unix-socket ../../../../../../sockets/web.sock http://pod/x"}, "GET /x from user " + postgres},
			"errors":    {[]string{"sh", "-c", "for s in none dead closed/web.sock; do curl -sS --unix-socket /sockets/$s http://pod/ 2>/dev/null; printf '%d ' $?; done"}, "7 7 7"},
		} {
			t.Run(agent+" "+name, func(t *testing.T) {
				r := start(t, append([]string{"-f", file, "-t", "pod/sockets/container/app"}, c.argv...)...)
				if code := r.end(); code != 0 || strings.TrimSpace(r.stdout.String()) != c.want {
					t.Errorf("exit code %d, stdout %q, want %q", code, r.stdout, c.want)
				}
				if name == "errors" {
					for _, want := range []string{"/sockets/none: remote, refused: no such file", "/sockets/dead: remote, refused: connection refused", "web.sock: remote, refused: permission denied"} {
						if !strings.Contains(r.stderr.String(), want) {
							t.Errorf("stderr lacks %q", want)
						}
					}
				}
			})
		}
	}
	t.Run("without patterns", func(t *testing.T) {
		r := start(t, "-t", "pod/sockets/container/app", "curl", "-sS", "--unix-socket", "/sockets/web.sock", "http://pod/x")
		if code := r.end(); code != 7 {
			t.Errorf("exit code %d, want 7", code)
		}
	})
	t.Run("without a target", func(t *testing.T) {
		file := settings(t, `{"feature": {"network": {"outgoing": {"unix_streams": ["^/sockets/"]}}}}`)
		r := start(t, "-f", file, "curl", "-sS", "--unix-socket", "/sockets/web.sock", "http://pod/x")
		if code := r.end(); code != 7 || !strings.Contains(r.stderr.String(), "/sockets/web.sock: remote, refused: no such file") {
			t.Errorf("exit code %d, want 7", code)
		}
	})
}
