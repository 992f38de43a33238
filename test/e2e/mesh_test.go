package e2e

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// Targets behind the proxy of a service mesh: stand-ins with the rules of Istio and
// of Linkerd, which take what comes in and call the program's port themselves.

// meshed is a pod of testdata/mesh.yaml.
type meshed struct {
	name, proxy, tool string
	peer              string // where the proxy calls the program from; empty: the pod's own address
	inbound           int    // the proxy's port
	told              string
	ip                string
}

var meshes = []meshed{
	{"istio", "istio-proxy", "iptables-nft", "127.0.0.6", 15006, "the target is behind Istio's sidecar: ", ""},
	{"linkerd", "linkerd-proxy", "iptables-legacy", "", 4143, "the target is behind Linkerd's proxy: ", ""},
}

// leftPort is the one that the rules leave to the program.
const leftPort = 8039

// TestMesh is all of it for each mesh; the rules are afterwards what they were.
func TestMesh(t *testing.T) {
	lent(t, "mesh.yaml")
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	if _, err := w.cluster.Kubectl(ctx, "-n", w.namespace, "wait", "--for=condition=Ready", "pod/istio", "pod/linkerd", "--timeout=110s"); err != nil {
		t.Fatal(err)
	}
	for _, m := range meshes {
		if m.ip = podIP(t, m.name); m.peer == "" {
			m.peer = m.ip
		}
		for name, f := range map[string]func(*testing.T){"steal": m.steals, "filter": m.filters, "mirror": m.mirrors,
			"from before": m.endsIdle, "outgoing": m.goesOut, "the proxy's port": m.refusesOwn} {
			t.Run(m.name+"/"+name, func(t *testing.T) {
				defer func() {
					if t.Failed() {
						t.Logf("the proxy has said\n%s", kubectl(t, "logs", m.name, "-c", m.proxy))
					}
				}()
				before := m.rules(t)
				f(t)
				if after := m.rules(t); after != before {
					t.Errorf("the rules are\n%s\nwere\n%s", after, before)
				}
				if got := curl(t, "-k", fmt.Sprintf("https://%s:8001/after", m.ip)); got != "remote /after peer="+m.peer {
					t.Errorf("after the session: %q", got)
				}
			})
		}
	}
}

// rules are the mesh's, without counters.
func (m meshed) rules(t testing.TB) string {
	out := kubectl(t, "exec", m.name, "-c", "rules", "--", m.tool+"-save", "-t", "nat")
	return regexp.MustCompile(`(?m)^#.*\n?| \[\d+:\d+\]`).ReplaceAllString(out, "")
}

// served is how often the target's own program was asked for a path.
func (m meshed) served(t testing.TB, path string) (n int) {
	for line := range strings.Lines(kubectl(t, "logs", m.name, "-c", "app")) {
		if strings.TrimSpace(line) == path {
			n++
		}
	}
	return n
}

// ways are the clients: one in the mesh, whose proxy seals what it sends, and one
// outside of it.
func (m meshed) ways(port int) [][]string {
	return [][]string{{"-k", fmt.Sprintf("https://%s:%d", m.ip, port)}, {fmt.Sprintf("http://%s:%d", m.ip, port)}}
}

// to is a way with a path.
func to(way []string, path string) []string {
	way = slices.Clone(way)
	way[len(way)-1] += path
	return way
}

func (m meshed) steals(t *testing.T) {
	r := start(t, "-t", "pod/"+m.name, "--steal", "python3", "../bin/server.py", "8001")
	r.waitFor("listening")
	for i, way := range m.ways(8001) {
		path := fmt.Sprintf("/whole%d", i)
		if got, want := curl(t, to(way, path)...), fmt.Sprintf("local python %s peer=%s", path, m.peer); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
		if n := strings.Count(r.stdout.String(), "got "+path+" "); n != 1 {
			t.Errorf("the program got %s %d times", path, n)
		}
	}
	r.stop()
	if n := strings.Count(r.stderr.String(), m.told); n != 1 {
		t.Errorf("the mesh was told of %d times", n)
	}
	left := start(t, "-t", "pod/"+m.name, "--steal", "python3", "../bin/server.py", fmt.Sprint(leftPort))
	left.waitFor("listening")
	if got, want := curl(t, fmt.Sprintf("http://%s:%d/left", m.ip, leftPort)), "local python /left peer="+podIP(t, "tools"); got != want {
		t.Errorf("the port that is left out: got %q, want %q", got, want)
	}
	left.stop()
}

func (m meshed) filters(t *testing.T) {
	r := start(t, "-t", "pod/"+m.name, "--steal", "--header", "X-User: ana", "python3", "../bin/web.py", "8002")
	r.waitFor("listening 8002")
	for i, way := range m.ways(8002) {
		mine, other := fmt.Sprintf("/mine%d", i), fmt.Sprintf("/other%d", i)
		args := append([]string{"-H", "X-User: ana"}, to(way, mine)...)
		args = append(append(args, "--next", "-sS"), to(way, other)...)
		got, want := curl(t, args...), fmt.Sprintf("local %s peer=%s\nremote %s peer=%s", mine, m.peer, other, m.peer)
		if got != want {
			t.Errorf("got\n%s\nwant\n%s", got, want)
		}
		if a, b := m.served(t, mine), m.served(t, other); a != 0 || b != 1 {
			t.Errorf("the target was asked for %s %d times, for %s %d times", mine, a, other, b)
		}
	}
	r.stop()
	if want := "2 stolen, 2 passed through\n"; !strings.HasSuffix(r.stderr.String(), want) {
		t.Errorf("the last line does not end in %q", want)
	}
}

// mirrors: each request is copied once, though its packets are there twice.
func (m meshed) mirrors(t *testing.T) {
	r := start(t, "-t", "pod/"+m.name, "python3", "../bin/web.py", "8003", fmt.Sprint(leftPort))
	r.waitFor("listening 8003")
	r.waitFor(fmt.Sprintf("listening %d", leftPort))
	var paths []string
	for n := range 3 {
		for i, way := range m.ways(8003) {
			path := fmt.Sprintf("/copy%d-%d", n, i)
			paths = append(paths, path)
			if got, want := curl(t, to(way, path)...), fmt.Sprintf("remote %s peer=%s", path, m.peer); got != want {
				t.Errorf("got %q, want %q", got, want)
			}
		}
	}
	// Copies come in the order of their packets.
	if got, want := curl(t, fmt.Sprintf("http://%s:%d/last", m.ip, leftPort)), "remote /last peer="+podIP(t, "tools"); got != want {
		t.Errorf("the port that is left out: got %q, want %q", got, want)
	}
	for _, path := range append(paths, "/last") {
		r.waitFor("got " + path)
	}
	r.stop()
	for _, path := range append(paths, "/last") {
		if n := strings.Count(r.stdout.String(), "got "+path); n != 1 {
			t.Errorf("the program got %s %d times", path, n)
		}
	}
	if want := fmt.Sprintf(": %d mirrored\n", len(paths)+1); !strings.HasSuffix(r.stderr.String(), want) {
		t.Errorf("the last line does not end in %q", want)
	}
}

// endsIdle: a connection that the proxy has kept open to the target's program is
// ended between two requests, and the next request is taken.
func (m meshed) endsIdle(t *testing.T) {
	const port = 8005
	name := "meshed" + m.name
	script := fmt.Sprintf(pooled, m.ip, port, name, 20)
	done := make(chan string, 1)
	go func() { done <- kubectl(t, "exec", "tools", "--", "python3", "-c", script) }()
	kubectl(t, "exec", "tools", "--", "bash", "-c", "until test -e /tmp/"+name+".there; do sleep .1; done")
	r := start(t, "-t", "pod/"+m.name, "--steal", "python3", "../bin/web.py", fmt.Sprint(port))
	r.waitFor(fmt.Sprintf("listening %d", port))
	kubectl(t, "exec", "tools", "--", "touch", "/tmp/"+name+".go")
	select {
	case got := <-done:
		if want := "remote /before\nremote /first\nend b''\nlocal /again"; got != want {
			t.Errorf("got\n%s\nwant\n%s", got, want)
		}
	case <-time.After(time.Minute):
		t.Fatal("the client does not end")
	}
	r.stop()
}

// goesOut: the program's own connections go through the proxy as the target's do.
func (m meshed) goesOut(t *testing.T) {
	url := fmt.Sprintf("http://%s:8004/out-%s", podIP(t, "app"), m.name)
	r := start(t, "-t", "pod/"+m.name, "curl", "-sS", "--max-time", "20", url)
	if code := r.end(); code != 0 || !strings.HasPrefix(r.stdout.String(), "remote /out-"+m.name) {
		t.Errorf("exit code %d, got %q", code, r.stdout)
	}
	if got, want := kubectl(t, "logs", m.name, "-c", m.proxy), fmt.Sprintf("out %s:8004", podIP(t, "app")); !strings.Contains(got, want) {
		t.Errorf("the proxy has said\n%s\nwithout %q", got, want)
	}
}

// refusesOwn: the proxy's own port cannot be taken.
func (m meshed) refusesOwn(t *testing.T) {
	r := start(t, "-t", "pod/"+m.name, "--steal", "python3", "../bin/server.py", fmt.Sprint(m.inbound))
	if text := fmt.Sprintf("port %d is where", m.inbound); !r.stderr.waitFor(text, runTime) {
		t.Errorf("does not say %q", text)
	}
	r.stop()
}
