package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// pooled is a client in another pod that makes one connection, says when it is there,
// and with each line that comes asks for a path on it; where the server has ended it,
// it makes another first.
const pooled = `
import socket, sys, time
def connect(): return socket.create_connection(("%[1]s", %[2]d), timeout=30)
def ask(s, path):
    s.sendall(("GET %%s HTTP/1.1\r\nHost: a\r\n\r\n" %% path).encode())
    got = b""
    while b"\r\n\r\n" not in got:
        d = s.recv(4096)
        if not d: raise EOFError
        got += d
    head, _, body = got.partition(b"\r\n\r\n")
    length = int([l for l in head.lower().split(b"\r\n") if l.startswith(b"content-length:")][0].split(b":")[1])
    while len(body) < length: body += s.recv(4096)
    print(body.decode().split(" peer")[0], flush=True)
s = connect()
ask(s, "/before")
open("/tmp/%[3]s.there", "w").close()
while True:
    try: open("/tmp/%[3]s.go").close(); break
    except OSError: time.sleep(.05)
ask(s, "/first")
s.settimeout(%[4]d)
try: print("end", s.recv(1), flush=True)
except Exception as e: print(type(e).__name__, flush=True)
s.settimeout(30)
try: ask(s, "/again")
except Exception: s = connect(); ask(s, "/again")
`

// A client that has kept a connection since before the session comes anew behind
// its next request, unless it is told otherwise.
func TestExistingConnections(t *testing.T) {
	for i, c := range []struct {
		name, config, want, counted string
		wait                        int // seconds, for the end
	}{
		{"idle", "", "remote /before\nremote /first\nend b''\nlocal /again", "1 from before ended", 20},
		{"off", `, "agent": {"flush_connections": false}`, "remote /before\nremote /first\nTimeoutError\nremote /again", "", 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			port, name := 8023+6*i, "kept"+c.name
			script := fmt.Sprintf(pooled, podIP(t, "app"), port, name, c.wait)
			done := make(chan string, 1)
			go func() { done <- kubectl(t, "exec", "tools", "--", "python3", "-c", script) }()
			kubectl(t, "exec", "tools", "--", "bash", "-c", "until test -e /tmp/"+name+".there; do sleep .1; done")
			file := filepath.Join(w.dir, "work", name+".json")
			if err := os.WriteFile(file, []byte(`{"target": "pod/app", "feature": {"network": {"incoming": "steal"}}`+c.config+`}`), 0o644); err != nil {
				t.Fatal(err)
			}
			r := start(t, "-f", file, "python3", "../bin/web.py", fmt.Sprint(port))
			r.waitFor(fmt.Sprintf("listening %d", port))
			kubectl(t, "exec", "tools", "--", "touch", "/tmp/"+name+".go")
			select {
			case got := <-done:
				if got != c.want {
					t.Errorf("got\n%s\nwant\n%s", got, c.want)
				}
			case <-time.After(time.Minute):
				t.Fatal("the client does not end")
			}
			r.stop()
			line := r.stderr.String()[strings.LastIndex(r.stderr.String(), "session with "):]
			if c.counted != "" && (!strings.Contains(line, "1 stolen") || !strings.Contains(line, c.counted)) || c.counted == "" && strings.Contains(line, "from before") {
				t.Errorf("the last line is %s", line)
			}
		})
	}
}

// Of a connection that a client has kept since before the session, the requests
// that come are copied.
func TestExistingConnectionsAreCopied(t *testing.T) {
	const port, name = 8035, "keptcopied"
	script := fmt.Sprintf(pooled, podIP(t, "app"), port, name, 2)
	done := make(chan string, 1)
	go func() { done <- kubectl(t, "exec", "tools", "--", "python3", "-c", script) }()
	kubectl(t, "exec", "tools", "--", "bash", "-c", "until test -e /tmp/"+name+".there; do sleep .1; done")
	r := start(t, "-t", "pod/app", "python3", "../bin/web.py", fmt.Sprint(port))
	r.waitFor(fmt.Sprintf("listening %d", port))
	kubectl(t, "exec", "tools", "--", "touch", "/tmp/"+name+".go")
	r.waitFor("got /first")
	r.waitFor("got /again")
	select {
	case got := <-done:
		if want := "remote /before\nremote /first\nTimeoutError\nremote /again"; got != want {
			t.Errorf("the client got\n%s\nwant\n%s", got, want)
		}
	case <-time.After(time.Minute):
		t.Fatal("the client does not end")
	}
	r.stop()
	if said := r.stderr.String(); !strings.HasSuffix(said, ": 2 mirrored\n") || strings.Contains(r.stdout.String(), "got /before") {
		t.Errorf("the program said\n%s\nand the session\n%s", r.stdout.String(), said)
	}
}

// Lossless copies are taken by the stealing path: the target answers whatever the
// program does, each request comes, and nobody else may steal the port meanwhile.
func TestLosslessCopies(t *testing.T) {
	const port, requests = 8036, 20
	file := filepath.Join(w.dir, "work", "lossless.json")
	if err := os.WriteFile(file, []byte(`{"target": "pod/app", "feature": {"network": {"incoming": {"mode": "mirror", "lossless": true}}}}`), 0o644); err != nil {
		t.Fatal(err)
	}
	r := start(t, "-f", file, "python3", "../bin/web.py", fmt.Sprint(port))
	r.waitFor(fmt.Sprintf("listening %d", port))
	url := fmt.Sprintf("http://%s:%d", podIP(t, "app"), port)
	for n := range requests {
		if got, want := request(t, fmt.Sprintf("%s/lossless%d", url, n)), fmt.Sprintf("remote /lossless%d peer=%s", n, podIP(t, "tools")); got != want {
			t.Errorf("the client got %q, want %q", got, want)
		}
	}
	for n := range requests {
		r.waitFor(fmt.Sprintf("got /lossless%d\n", n))
	}
	other := startCommandOnly(t, []string{w.mirrord, "exec", "-n", w.namespace, "-t", "pod/app", "--steal", "python3", "../bin/web.py", fmt.Sprint(port)})
	if other.wait() == 0 || !strings.Contains(other.stderr.String(), fmt.Sprintf("port %d of the target is taken", port)) {
		t.Errorf("another session's steal: %s", other.stderr)
	}
	r.stop()
	if got := request(t, url+"/after"); !strings.HasPrefix(got, "remote /after") {
		t.Errorf("after: got %q", got)
	}
	if said := r.stderr.String(); !strings.HasSuffix(said, fmt.Sprintf(": %d mirrored\n", requests)) {
		t.Errorf("the session said\n%s", said)
	}
}

// A copy of a request that writes is warned of, once; the last line counts copies.
func TestMirroredWrites(t *testing.T) {
	const port = 8023
	r := start(t, "-t", "pod/app", "python3", "../bin/web.py", fmt.Sprint(port))
	r.waitFor(fmt.Sprintf("listening %d", port))
	url := fmt.Sprintf("http://%s:%d", podIP(t, "app"), port)
	for i := range 2 {
		curl(t, "-d", "text", fmt.Sprintf("%s/%d", url, i))
		r.waitFor(fmt.Sprintf("got /%d", i))
	}
	r.stop()
	said := r.stderr.String()
	if n := strings.Count(said, "a copy of a POST request has reached the program"); n != 1 || !strings.HasSuffix(said, ": 2 mirrored\n") {
		t.Errorf("warned %d times, in:\n%s", n, said)
	}
}
