package e2e

import (
	"fmt"
	"strings"
	"testing"
)

// HTTP/2 and gRPC under a filter: each stream of a client's connection goes where it
// belongs.

const (
	byAna     = `{"mode": "steal", "http_filter": {"header_filter": "^x-user: ana$"}}`
	copyOfAna = `{"mode": "mirror", "http_filter": {"header_filter": "^x-user: ana$"}}`
)

// onBothSides starts the program modern in pod app and, in a session with that
// setting of incoming, here, on one port.
func onBothSides(t *testing.T, incoming, what, port string) *run {
	t.Helper()
	program := modern(t)
	there, _ := podRun(t, "app", podProgram(t, "app", "modern"), what, ":"+port, "remote")
	if !there.waitFor("ready", runTime) {
		t.Fatalf("there is no server in the pod: %s", there)
	}
	r := start(t, append(filtered(t, incoming), program, what, ":"+port, "local")...)
	r.waitFor("ready")
	return r
}

func TestHTTP2ByFilter(t *testing.T) {
	const port = "8051"
	r := onBothSides(t, byAna, "web", port)
	url := fmt.Sprintf("http://%s:%s", podIP(t, "app"), port)
	from := podIP(t, "tools")
	const ana = "X-User: ana"
	script := fmt.Sprintf(`head -c 3000000 /dev/zero >/tmp/body
		for who in ana bob; do
			curl -sS --max-time 60 --http2-prior-knowledge -H "X-User: $who" %[1]s/1?x
			curl -sS --max-time 60 --http2-prior-knowledge -H "X-User: $who" --data-binary @/tmp/body %[1]s/up
			curl -sS --max-time 60 --http2-prior-knowledge -H "X-User: $who" %[1]s/large | tail -c +3000001
		done
		%[2]s ask %[1]s/many`, url, podProgram(t, "tools", "modern"))
	want := ""
	for _, who := range []string{"local", "remote"} {
		want += fmt.Sprintf("%[1]s HTTP/2.0 GET /1?x 0 peer=%[2]s <nil>\n%[1]s HTTP/2.0 POST /up 3000000 peer=%[2]s <nil>\n%[1]s HTTP/2.0 GET /large 0 peer=%[2]s <nil>\n", who, from)
	}
	want += fmt.Sprintf("first: remote HTTP/2.0 POST /many 0 peer=%[1]s <nil> (remote)\n"+
		"20 ana: local HTTP/2.0 POST /many 200000 peer=%[1]s <nil> (local)\n20 bob: remote HTTP/2.0 POST /many 200000 peer=%[1]s <nil> (remote)\nconnections: 1", from)
	if got := kubectl(t, "exec", "tools", "--", "bash", "-c", script); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	r.stop()
	if got := curl(t, "--http2-prior-knowledge", "-H", ana, url+"/5"); !strings.HasPrefix(got, "remote ") {
		t.Errorf("after the session: %q", got)
	}
	if strings.Contains(r.stderr.String(), "stay with the target") {
		t.Error("HTTP/2 is said not to be filtered")
	}
}

func TestGRPCByMetadata(t *testing.T) {
	const port = "8052"
	r := onBothSides(t, byAna, "answer", port)
	want := ""
	for _, who := range []string{"local", "remote"} {
		want += fmt.Sprintf("unary: %[1]s one [%[1]s] <nil>\nfail: NotFound %[1]s has none\nslow: DeadlineExceeded\ndown: %[1]s a0, %[1]s a1, %[1]s a2 <nil>\nup: %[1]s a+b <nil>\nboth: %[1]s a, %[1]s b <nil>\n", who)
	}
	want += "connections: 1"
	if got := kubectl(t, "exec", "tools", "--", podProgram(t, "tools", "modern"), "calls", podIP(t, "app")+":"+port); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	r.stop()
}

// Under a filter copies are made of the streams that it matches, and of no others;
// the pod answers all of them.
func TestHTTP2IsMirroredByFilter(t *testing.T) {
	const port = "8055"
	r := onBothSides(t, copyOfAna, "web", port)
	url := fmt.Sprintf("http://%s:%s", podIP(t, "app"), port)
	script := fmt.Sprintf(`head -c 3000000 /dev/zero >/tmp/body
		for who in ana bob; do
			curl -sS --max-time 60 --http2-prior-knowledge -H "X-User: $who" %[1]s/known --next -sS -H "X-User: $who" %[1]s/1 --next -sS -H "X-User: $who" --data-binary @/tmp/body %[1]s/up
		done`, url)
	got := kubectl(t, "exec", "tools", "--", "bash", "-c", script)
	if strings.Count(got, "remote HTTP/2.0") != 6 {
		t.Errorf("the client got %s", got)
	}
	r.waitFor("got /known ana 0 <nil>")
	r.waitFor("got /1 ana 0 <nil>")
	r.waitFor("got /up ana 3000000 <nil>")
	r.stop()
	if strings.Contains(r.stdout.String(), "bob") {
		t.Error("a request that does not match was copied")
	}
}

func TestGRPCIsMirroredByMetadata(t *testing.T) {
	const port = "8056"
	r := onBothSides(t, copyOfAna, "answer", port)
	got := kubectl(t, "exec", "tools", "--", podProgram(t, "tools", "modern"), "calls", podIP(t, "app")+":"+port)
	if strings.Contains(got, "local") || strings.Count(got, "unary: remote one [remote] <nil>") != 2 || !strings.HasSuffix(got, "connections: 1") {
		t.Errorf("the client got\n%s", got)
	}
	for _, method := range []string{"Unary", "Fail", "Slow", "Down", "Up", "Both"} {
		r.waitFor("got /test.Calls/" + method + " [ana]")
	}
	r.waitFor("up a+b")
	r.stop()
	if said := r.stdout.String(); strings.Count(said, "got ") != 6 {
		t.Errorf("the program got\n%s", said)
	}
}

// Other people's clients, in the clear and under TLS: node, nghttp and h2load, which has
// many streams on many connections.
func TestHTTP2OfOthers(t *testing.T) {
	const port = "8058"
	plain := onBothSides(t, byAna, "web", port)
	others(t, "http://"+podIP(t, "app")+":"+port, "")
	plain.stop()
	if got := strings.Count(plain.stdout.String(), "got /many"); got != 400 {
		t.Errorf("the program got %d requests of h2load, want 400", got)
	}
	const secret = "8059"
	s := secure(t)
	s.there("web", secret)
	r := s.here(`{"mode": "steal", "http_filter": {"header_filter": "^x-user: ana$"}, `+withShop+`}`, "web", secret, "MODERN_TLS="+s.own())
	others(t, "https://"+podIP(t, "app")+":"+secret, " TLS 1.3 name="+shop+" client=")
	r.stop()
}

// others lets them ask, in a session that has the cluster's connectivity and no target.
func others(t *testing.T, url, secured string) {
	t.Helper()
	script := fmt.Sprintf(`node ../bin/streams.js %[1]s %[2]s
		for who in ana bob; do
			nghttp -H "x-user: $who" %[1]s/n
			h2load -n 400 -c 4 -m 25 -H "x-user: $who" %[1]s/many | grep -o "requests: .*"
		done`, url, shop)
	got := in(t, "", "bash", "-c", script)
	for i, path := range []string{"/a", "/b", "/c", "/d", "/e"} {
		want := []string{"ana: local", "bob: remote"}[i%2] + " HTTP/2.0 GET " + path + " 0 peer="
		if !strings.Contains(got, want) {
			t.Errorf("%s: there is no %q", url, want)
		}
	}
	for _, want := range []string{"local HTTP/2.0 GET /n 0", "remote HTTP/2.0 GET /n 0"} {
		if !strings.Contains(got, want) {
			t.Errorf("%s: there is no %q", url, want)
		}
	}
	if n := strings.Count(got, "requests: 400 total, 400 started, 400 done, 400 succeeded, 0 failed, 0 errored, 0 timeout"); n != 2 {
		t.Errorf("%s: h2load was content %d times, want 2", url, n)
	}
	if strings.Count(got, secured) < 5 {
		t.Errorf("%s: not all is %q", url, secured)
	}
	if t.Failed() {
		t.Log(got)
	}
}
