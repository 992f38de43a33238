package e2e

import (
	"encoding/base64"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Sessions without a sandbox: mirrord port-forward and mirrord dump.

// bareSession starts a command that makes one, and waits until it is ready.
func bareSession(t *testing.T, command string, args ...string) (r *run, ready struct{ Local []struct{ Listen []string } }) {
	t.Helper()
	r = startCommand(t, append([]string{w.mirrord, command, "-n", w.namespace, "-o", "json"}, args...), nil)
	r.waitFor(`"kind":"ready"`)
	r.waitFor("\n")
	for line := range strings.Lines(r.stdout.String()) {
		if strings.Contains(line, `"kind":"ready"`) {
			if err := json.Unmarshal([]byte(line), &ready); err != nil {
				t.Fatalf("%v in %s", err, line)
			}
		}
	}
	return r, ready
}

// interrupt ends a session as its user does.
func interrupt(t *testing.T, r *run) {
	t.Helper()
	r.signal(syscall.SIGINT)
	if code := r.end(); code != 0 {
		t.Errorf("interrupted: exit code %d:\n%s", code, r.stderr)
	}
}

func get(t *testing.T, address string) string {
	t.Helper()
	client := &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get("http://" + address + "/out")
	if err != nil {
		return err.Error()
	}
	defer resp.Body.Close()
	b, _ := io.ReadAll(resp.Body)
	return string(b)
}

// TestPortForwardLocal: ports here lead to what the target reaches.
func TestPortForwardLocal(t *testing.T) {
	for _, target := range []string{"", "pod/app"} {
		t.Run("target "+target, func(t *testing.T) {
			args := []string{"-L", "0:echo:7000", "-L", "0:" + podIP6(t, "probed") + ":8001", "-L", "0:" + podIP(t, "probed") + ":1"}
			if target != "" {
				args = append(args, "-t", target)
			}
			r, ready := bareSession(t, "port-forward", args...)
			c, err := net.Dial("tcp", ready.Local[0].Listen[0])
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			_, _ = c.Write([]byte("said"))
			_ = c.(*net.TCPConn).CloseWrite()
			_ = c.SetReadDeadline(time.Now().Add(20 * time.Second))
			if b, err := io.ReadAll(c); err != nil || !strings.Contains(string(b), "said") {
				t.Errorf("a service by its name answers %q, %v", b, err)
			}
			if got := get(t, ready.Local[1].Listen[1]); strings.Contains(got, "http://") {
				t.Errorf("by an IPv6 address: %s", got)
			}
			if got := get(t, ready.Local[2].Listen[0]); !strings.Contains(got, "reset") {
				t.Errorf("a port where nobody listens: %s, want a reset", got)
			}
			if !r.stderr.waitFor("connection refused", 10*time.Second) {
				t.Errorf("nothing was said:\n%s", r.stderr)
			}
			if all := shown(t); !slices.ContainsFunc(all, func(s shownSession) bool { return s.Mode == "port-forward" && s.PID == r.cmd.Process.Pid }) {
				t.Errorf("status shows %+v", all)
			}
			interrupt(t, r)
		})
	}
}

// TestPortForwardRemote: the target's traffic comes to a server of this machine.
func TestPortForwardRemote(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	here := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "laptop") })}
	go func() { _ = here.Serve(ln) }()
	t.Cleanup(func() { here.Close() })
	_, port, _ := net.SplitHostPort(ln.Addr().String())
	url := "http://" + podIP(t, "probed") + ":8001/out"
	r, _ := bareSession(t, "port-forward", "-t", "pod/probed", "--steal", "-R", "8001:"+port)
	if got := request(t, url); got != "laptop" {
		t.Errorf("stolen: the client got %q", got)
	}
	interrupt(t, r)
	if got := request(t, url); got == "laptop" {
		t.Error("the target has not its port back")
	}
	r, _ = bareSession(t, "port-forward", "-t", "pod/probed", "--steal", "--header", "x-user: ana", "-R", "8001:"+port)
	if got := request(t, url); got == "laptop" {
		t.Error("a request that the filter does not match came here")
	}
	if got := kubectl(t, "exec", "tools", "--", "curl", "-sS", "--max-time", "10", "-H", "x-user: ana", url); got != "laptop" {
		t.Errorf("with the header the client got %q", got)
	}
	interrupt(t, r)
}

// TestDump: what clients send is printed, and the target answers as ever.
func TestDump(t *testing.T) {
	r, _ := bareSession(t, "dump", "-t", "pod/probed")
	url := "http://" + podIP(t, "probed") + ":8001/out?dumped"
	if got := request(t, url); got == "" {
		t.Error("the client got nothing")
	}
	r.waitFor(`"kind":"close"`)
	var all []byte
	for line := range strings.Lines(r.stdout.String()) {
		var one struct{ Data []byte }
		if err := json.Unmarshal([]byte(line), &one); err != nil {
			t.Fatalf("%v in %s", err, line)
		}
		all = append(all, one.Data...)
	}
	if !strings.Contains(string(all), "GET /out?dumped HTTP/1.1\r\n") {
		t.Errorf("printed %q", all)
	}
	interrupt(t, r)
}

// TestDumpBesideFilter: what another session lets through to the target is printed
// once, as its client sent it.
func TestDumpBesideFilter(t *testing.T) {
	filtering, _ := bareSession(t, "port-forward", "-t", "pod/probed", "--steal", "--header", "x-user: ana", "-R", "8001:1")
	r, _ := bareSession(t, "dump", "-t", "pod/probed", "-p", "8001")
	url := "http://" + podIP(t, "probed") + ":8001/out"
	for _, what := range []string{"?one", "?two", "?end"} {
		if got := request(t, url+what); got == "" {
			t.Error("the client got nothing")
		}
	}
	r.waitFor(base64.StdEncoding.EncodeToString([]byte("GET /out?end")))
	interrupt(t, r)
	if n := strings.Count(r.stdout.String(), base64.StdEncoding.EncodeToString([]byte("GET /out?"))); n != 3 { // others are probes
		t.Errorf("3 requests were printed as %d:\n%s", n, r.stdout)
	}
	interrupt(t, filtering)
}
