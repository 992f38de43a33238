package e2e

import (
	"fmt"
	"os/exec"
	"strings"
	"testing"
)

// whose asks on one connection and gives who answered each request, and how many
// connections it took. A request is arguments of curl, without the address's
// beginning.
func whose(t *testing.T, base string, requests ...[]string) string {
	t.Helper()
	var args []string
	for i, r := range requests {
		if i > 0 {
			args = append(args, "--next", "-sS")
		}
		path := len(r) - 1
		args = append(append(args, r[:path]...), "-w", "%{num_connects}\n", base+r[path])
	}
	var who []string
	connections := 0
	for i, line := range strings.Fields(curl(t, args...)) {
		// "local", what follows, and the number
		switch {
		case line == "local" || line == "remote":
			who = append(who, line)
		case line == "1" && i > 0:
			connections++
		}
	}
	return fmt.Sprintf("%s on %d", strings.Join(who, " "), connections)
}

// Every kind of filter, and each combined: what it means comes here, all else
// reaches the pod, on one connection of the client.
func TestFilterKinds(t *testing.T) {
	base, tools := fmt.Sprintf("http://%s:8022", podIP(t, "app")), podIP(t, "tools")
	const me, you = `{"for": "me", "n": [1, 2]}`, `{"for": "you", "n": []}`
	get := func(args ...string) []string { return args }
	post := func(body string, args ...string) []string { return append([]string{"--data-binary", body}, args...) }
	for _, c := range []struct {
		name, filter string
		requests     [][]string
		want         string
	}{
		{"method", `"method_filter": "post"`, [][]string{post(me, "/1"), get("/2"), post(you, "/3")}, "local remote local"},
		{"host", `"host_filter": "^shop\\.example$"`, [][]string{get("-H", "Host: shop.example:80", "/1"), get("/2"), get("-H", "Host: xshop.example", "/3")}, "local remote remote"},
		{"not", `"not": {"path": "^/health"}`, [][]string{get("/health"), get("/1"), get("/healthy")}, "remote local remote"},
		{"all of", `"all_of": [{"path": "^/a"}, {"method": "POST"}, {"not": {"header": "^x-user: bob"}}]`,
			[][]string{post(me, "/a"), post(me, "-H", "X-User: bob", "/a"), get("/a"), post(me, "/b")}, "local remote remote remote"},
		{"any of", `"any_of": [{"all_of": [{"path": "^/a"}, {"host": "^shop$"}]}, {"header": "^x-user: ana$"}]`,
			[][]string{get("-H", "Host: shop", "/a"), get("/a"), get("-H", "x-USER: ana", "/b")}, "local remote local"},
		{"jq of headers", `"header_filter_jq": "startswith(\"x-user: \") and endswith(\"ana\")"`,
			[][]string{get("-H", "X-User: ana", "/1"), get("-H", "X-Other: ana", "/2"), get("/3")}, "local remote remote"},
		{"JSON", `"body_filter": {"body": "json", "query": "$.for", "matches": "^me$"}`,
			[][]string{post(me, "/1"), post(you, "/2"), get("/3"), post(me, "-H", "Transfer-Encoding: chunked", "/4"), post(you, "-H", "Transfer-Encoding: chunked", "/5"),
				post(me, "-H", "Expect: 100-continue", "/6"), post(you, "-H", "Expect: 100-continue", "/7"), post(me, "-H", "Content-Encoding: br", "/8")},
			"local remote remote local remote local remote remote"},
		{"text", `"body_filter": {"body": "text", "matches": "(?<=for\": \")me"}`, [][]string{post(me, "/1"), post(you, "/2"), post("x", "/3")}, "local remote remote"},
		{"jq", `"body_filter": {"body": "jq", "query": ".n | length > 1"}`, [][]string{post(me, "/1"), post(you, "/2"), post("x", "/3")}, "local remote remote"},
		{"client", `"client_filter": "` + tools + `"`, [][]string{post(me, "/1"), get("/2")}, "local local"},
		{"client and head", `"all_of": [{"client": "` + tools + `/24"}, {"path": "^/a"}]`, [][]string{get("/a"), get("/b")}, "local remote"},
		{"another client", `"not": {"client": "` + tools + `"}`, [][]string{get("/a"), get("/b")}, "remote remote"},
		{"body and head", `"all_of": [{"body": "json", "query": "$.n[*]", "matches": "2"}, {"path": "^/a"}]`, [][]string{post(me, "/a"), post(me, "/b"), post(you, "/a")}, "local remote remote"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := start(t, append(filtered(t, `{"mode": "steal", "http_filter": {`+c.filter+`}}`), "python3", "../bin/web.py", "8022")...)
			r.waitFor("listening 8022")
			if got, want := whose(t, base, c.requests...), c.want+" on 1"; got != want {
				t.Errorf("got %s, want %s", got, want)
			}
			r.stop()
		})
	}
}

// A filter about the client alone is one for any protocol: here a server speaks first.
func TestFilterOfClient(t *testing.T) {
	r := start(t, append(filtered(t, `{"mode": "steal", "http_filter": {"client_filter": "`+podIP(t, "tools")+`"}}`), "python3", "-uc", `
import socket
s = socket.create_server(("", 8022))
print("listening", flush=True)
while True:
    c = s.accept()[0]
    c.sendall(b"220 local\n")
    c.close()`)...)
	r.waitFor("listening")
	if got := kubectl(t, "exec", "tools", "--", "bash", "-c", "exec 3<>/dev/tcp/"+podIP(t, "app")+"/8022; head -n 1 <&3"); got != "220 local" {
		t.Errorf("got %q", got)
	}
	r.stop()
}

// Bodies of any size reach the target whole where they are not looked at, and
// that is told once.
func TestFilterOfLargeBodies(t *testing.T) {
	url := fmt.Sprintf("http://%s:8022", podIP(t, "app"))
	r := start(t, append(filtered(t, `{"mode": "steal", "http_filter": {"body_filter": {"body": "text", "matches": "^a"}}}`), "python3", "../bin/web.py", "8022")...)
	r.waitFor("listening 8022")
	script := fmt.Sprintf(`head -c 3000000 /dev/zero | tr '\0' a >/tmp/large; head -c 60000 /tmp/large >/tmp/small; sha256sum /tmp/large /tmp/small | cut -c1-64
		for file in large small; do
			curl -sS --max-time 30 --data-binary @/tmp/$file %[1]s/1
			curl -sS --max-time 30 -H 'Transfer-Encoding: chunked' --data-binary @/tmp/$file %[1]s/2
			curl -sS --max-time 30 -H 'Expect: 100-continue' --data-binary @/tmp/$file %[1]s/3
		done`, url)
	got := strings.Fields(kubectl(t, "exec", "tools", "--", "bash", "-c", script))
	large, small := got[0], got[1]
	want := strings.Join([]string{"remote", large, "remote", large, "remote", large, "local", small, "local", small, "local", small}, " ")
	if got := strings.Join(got[2:], " "); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	r.stop()
	if n := strings.Count(r.stderr.String(), "max_body_buffer_size"); n != 1 {
		t.Errorf("it is told %d times that a body is too large:\n%s", n, r.stderr)
	}
}

// Bodies that match are copied, and no others.
func TestFilterOfMirroredBodies(t *testing.T) {
	url := fmt.Sprintf("http://%s:8022", podIP(t, "app"))
	r := start(t, append(filtered(t, `{"mode": "mirror", "http_filter": {"body_filter": {"body": "json", "query": "$.for", "matches": "^me$"}}}`), "python3", "../bin/web.py", "8022")...)
	r.waitFor("listening 8022")
	got := curl(t, "--data-binary", `{"for": "you"}`, url+"/other", "--next", "-sS", "--data-binary", `{"for": "me"}`, url+"/copy")
	if strings.Count(got, "remote ") != 2 {
		t.Errorf("the client got %q", got)
	}
	r.waitFor("got /copy")
	r.stop()
	if strings.Contains(r.stdout.String(), "got /other") {
		t.Error("a request that does not match was copied")
	}
}

// A filter with a mistake is refused before anything is started.
func TestFilterMistakes(t *testing.T) {
	for filter, want := range map[string]string{
		`"path_filter": "("`: "http_filter.path_filter: ", `"host_filter": "[a"`: "http_filter.host_filter: ", `"header_filter_jq": "env"`: "http_filter.header_filter_jq: ",
		`"body_filter": {"body": "json", "query": "a", "matches": "x"}`: "http_filter.body_filter: ", `"any_of": [{"not": {"body": "jq", "query": "|"}}]`: "http_filter.any_of: ",
	} {
		r := startCommand(t, append([]string{w.mirrord, "exec"}, append(filtered(t, `{"mode": "steal", "http_filter": {`+filter+`}}`), "true")...), func(*exec.Cmd) {})
		if code := r.end(); code != 2 || !strings.Contains(r.stderr.String(), ".json:1:") || !strings.Contains(r.stderr.String(), want) {
			t.Errorf("%s: exit code %d, %s", filter, code, r.stderr)
		}
	}
}
