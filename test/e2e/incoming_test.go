package e2e

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
)

// servers are programs that listen on a port and print "listening" right after
// listen(2) has returned.
var servers = []struct {
	name string
	argv []string
}{
	{"python", []string{"python3", "../bin/server.py"}},
	{"node", []string{"node", "../bin/server.js"}},
	{"java", []string{"java", "-XX:TieredStopAtLevel=1", "-cp", "../bin", "Server"}},
	{"go", []string{"goserver"}},
	{"c", []string{"cserver"}},
}

func TestSteal(t *testing.T) {
	for i, s := range servers {
		t.Run(s.name, func(t *testing.T) {
			port := 8001 + i
			url := fmt.Sprintf("http://%s:%d/steal", podIP(t, "app"), port)
			if got := request(t, url); !strings.HasPrefix(got, "remote /steal") {
				t.Fatalf("before: %q", got)
			}
			r := start(t, append(append([]string{"-t", "pod/app", "--steal"}, s.argv...), fmt.Sprint(port))...)
			r.waitFor("listening")
			// The very first request after listen is ours, with the client's address.
			want := fmt.Sprintf("local %s /steal peer=%s", s.name, podIP(t, "tools"))
			if got := request(t, url); got != want {
				t.Errorf("got %q, want %q", got, want)
			}
			r.stop()
			if got := request(t, url); !strings.HasPrefix(got, "remote /steal") {
				t.Errorf("after: %q", got)
			}
		})
	}
}

func TestStealIPv6(t *testing.T) {
	url := fmt.Sprintf("http://%s:8006/v6", podIP6(t, "app"))
	r := start(t, "-t", "pod/app", "--steal", "goserver", "8006")
	r.waitFor("listening")
	want := "local go /v6 peer=" + strings.Trim(podIP6(t, "tools"), "[]")
	if got := request(t, url); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	r.stop()
}

func TestStealFromInsideThePod(t *testing.T) {
	r := start(t, "-t", "pod/app", "--steal", "python3", "../bin/server.py", "8007")
	r.waitFor("listening")
	got := kubectl(t, "exec", "app", "-c", "side", "--", "curl", "-sS", "--max-time", "10", "http://127.0.0.1:8007/in")
	if got != "local python /in peer=127.0.0.1" {
		t.Errorf("got %q", got)
	}
	r.stop()
}

func TestStealToLoopbackListener(t *testing.T) {
	r := start(t, "-t", "pod/app", "--steal", "python3", "../bin/server.py", "8008", "127.0.0.1")
	r.waitFor("listening")
	want := "local python /lo peer=" + podIP(t, "tools")
	if got := request(t, fmt.Sprintf("http://%s:8008/lo", podIP(t, "app"))); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	r.stop()
}

func TestMirror(t *testing.T) {
	for i, s := range servers {
		t.Run(s.name, func(t *testing.T) {
			port := 8011 + i
			r := start(t, append(append([]string{"-t", "pod/app"}, s.argv...), fmt.Sprint(port))...)
			r.waitFor("listening")
			for n := range 5 {
				got := request(t, fmt.Sprintf("http://%s:%d/mirror%d", podIP(t, "app"), port, n))
				if want := fmt.Sprintf("remote /mirror%d peer=%s", n, podIP(t, "tools")); got != want {
					t.Errorf("the client got %q, want %q", got, want)
				}
				r.waitFor(fmt.Sprintf("got /mirror%d from %s", n, podIP(t, "tools")))
			}
			r.stop()
		})
	}
}

// Every port of every process of the tree, whoever opens it and when.
func TestEveryPort(t *testing.T) {
	r := start(t, "-t", "pod/app", "--steal", "bash", "-c", `
		goserver 8026 & python3 ../bin/server.py 8027 &
		read -r line; cserver 8028 & wait`)
	ip := podIP(t, "app")
	steals := func(port int, want string) {
		t.Helper()
		r.stderr.waitFor(fmt.Sprintf("port %d: ", port), runTime)
		if got := request(t, fmt.Sprintf("http://%s:%d/every", ip, port)); !strings.HasPrefix(got, "local "+want) {
			t.Errorf("port %d: got %q, want local %s", port, got, want)
		}
	}
	steals(8026, "go")
	steals(8027, "python")
	if got := request(t, fmt.Sprintf("http://%s:8028/every", ip)); !strings.HasPrefix(got, "remote /every") {
		t.Errorf("a port that nobody listens on yet: got %q", got)
	}
	fmt.Fprintln(r.stdin, "go on")
	steals(8028, "c")
	r.signal(syscall.SIGKILL) // bash waits for its children, which no signal to it ends
	r.end()
}

func TestPublishedHere(t *testing.T) {
	r := start(t, "-t", "pod/app", "--steal", "python3", "../bin/server.py", "8017")
	r.waitFor("listening")
	for _, host := range []string{"127.0.0.1", "[::1]"} {
		// The program sees a client on its own loopback, as of a browser here.
		got, err := httpGet(fmt.Sprintf("http://%s:8017/here", host))
		if err != nil || got != "local python /here peer="+strings.Trim(host, "[]") && got != "local python /here peer=127.0.0.1" {
			t.Errorf("%s: got %q, %v", host, got, err)
		}
	}
	r.stop()
}

func TestOwnListenerIsLocal(t *testing.T) {
	// A program that asks itself by localhost reaches itself, not the pod,
	// which serves the port as well.
	got := in(t, "pod/app", "bash", "-c", `python3 ../bin/server.py 8018 >log & until grep -q listening log; do :; done
		curl -sS http://localhost:8018/self; kill $!; wait`)
	if !strings.HasPrefix(got, "local python /self peer=") {
		t.Errorf("got %q", got)
	}
}

func TestPrivilegedPort(t *testing.T) {
	r := start(t, "-t", "pod/app", "--steal", "goserver", "80")
	r.waitFor("listening")
	want := "local go /80 peer=" + podIP(t, "tools")
	if got := request(t, fmt.Sprintf("http://%s:80/80", podIP(t, "app"))); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	r.stop()
}
