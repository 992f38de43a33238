package e2e

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

// openAt gives where mirrord said that a port is open on this machine.
func (r *run) openAt(port int) netip.AddrPort {
	r.t.Helper()
	begin := fmt.Sprintf("mirrord: port %d", port)
	if !r.stderr.waitFor(begin, runTime) {
		r.t.Fatalf("nothing was said of port %d", port)
	}
	_, line, _ := strings.Cut(r.stderr.String(), begin)
	line, _, _ = strings.Cut(line, "\n")
	_, at, ok := strings.Cut(line, "open here at ")
	if !ok {
		r.t.Fatalf("port %d is not said to be open here: %q", port, line)
	}
	a, err := netip.ParseAddrPort(strings.Fields(at)[0])
	if err != nil {
		r.t.Fatal(err)
	}
	return a
}

// Every kind of listener, in one session: stolen with the client's address, in
// both families, and open here.
func TestKindsOfListeners(t *testing.T) {
	kinds := []struct {
		kind     string
		port     int
		families []string // from which the client's address is shown
		answer   string   // empty: the kind
	}{
		{"any", 8029, []string{"4"}, ""},
		{"v6only", 8030, []string{"6"}, ""},
		{"::1", 8031, []string{"6"}, ""},
		{"127.0.0.1", 8032, []string{"4"}, ""},
		{"group", 8033, []string{"4"}, ""},
		{"child", 8034, []string{"4"}, ""},
		{"exec", 8035, []string{"4"}, ""},
		{"two", 8036, []string{"4"}, ""},
	}
	args := []string{"-t", "pod/app", "--steal", "python3", "../bin/listeners.py"}
	for _, k := range kinds {
		args = append(args, fmt.Sprintf("%s:%d", k.kind, k.port))
	}
	r := start(t, append(args, "anyport:0")...)
	ip4, ip6, from4, from6 := podIP(t, "app"), podIP6(t, "app"), podIP(t, "tools"), strings.Trim(podIP6(t, "tools"), "[]")
	for _, k := range kinds {
		t.Run(k.kind, func(t *testing.T) {
			r.waitFor(fmt.Sprintf("listening %s %d", k.kind, k.port))
			for family, c := range map[string]struct{ to, from string }{"4": {ip4, from4}, "6": {ip6, from6}} {
				got := request(t, fmt.Sprintf("http://%s:%d/x", c.to, k.port))
				if !strings.HasPrefix(got, k.kind) { // "two" on its loopback is a kind, too
					t.Errorf("IPv%s: got %q, want %s", family, got, k.kind)
				}
				for _, f := range k.families {
					if want := fmt.Sprintf("%s /x peer=%s", k.kind, c.from); f == family && got != want {
						t.Errorf("IPv%s: got %q, want %q", family, got, want)
					}
				}
			}
			if got, err := httpGet(fmt.Sprintf("http://%s/x", r.openAt(k.port))); err != nil || !strings.HasPrefix(got, k.kind) {
				t.Errorf("here: got %q, %v", got, err)
			}
		})
	}
	t.Run("port 0", func(t *testing.T) {
		r.waitFor("listening anyport ")
		_, rest, _ := strings.Cut(r.stdout.String(), "listening anyport ")
		port := strings.Fields(rest)[0]
		want := fmt.Sprintf("port %s is local only: the program asked for any free port, open here at 127.0.0.1:%s", port, port)
		if !r.stderr.waitFor(want, runTime) {
			t.Errorf("nobody said %q", want)
		}
		if got, err := httpGet("http://127.0.0.1:" + port + "/x"); err != nil || !strings.HasPrefix(got, "anyport /x") {
			t.Errorf("got %q, %v", got, err)
		}
	})
	r.signal(syscall.SIGKILL)
	r.end()
	vanish(t)
	if got := request(t, fmt.Sprintf("http://%s:8029/x", ip4)); !strings.HasPrefix(got, "remote") {
		t.Errorf("afterwards: got %q", got)
	}
}

// Reloaders: a server that closes and listens again, and a program that
// replaces itself. No request is lost to the target once the new one listens,
// and the published number stays.
func TestReloaders(t *testing.T) {
	r := start(t, "-t", "pod/app", "--steal", "python3", "../bin/listeners.py", "again:8037", "replaced:8038")
	ip := podIP(t, "app")
	for kind, port := range map[string]int{"again": 8037, "replaced": 8038} {
		listening := fmt.Sprintf("listening %s %d\n", kind, port)
		r.waitFor(listening)
		for range 3 {
			before := strings.Count(r.stdout.String(), listening)
			if got := request(t, fmt.Sprintf("http://%s:%d/reload", ip, port)); got != kind+" reloads" {
				t.Fatalf("got %q", got)
			}
			for end := time.Now().Add(runTime); strings.Count(r.stdout.String(), listening) == before; time.Sleep(5 * time.Millisecond) {
				if time.Now().After(end) {
					t.Fatalf("%s does not listen again", kind)
				}
			}
			if got := request(t, fmt.Sprintf("http://%s:%d/after", ip, port)); !strings.HasPrefix(got, kind+" /after") {
				t.Errorf("got %q", got)
			}
			if got, err := httpGet(fmt.Sprintf("http://127.0.0.1:%d/here", port)); err != nil || !strings.HasPrefix(got, kind+" /here") {
				t.Errorf("here: got %q, %v", got, err)
			}
		}
	}
	r.signal(syscall.SIGKILL)
	r.end()
	vanish(t)
}

// A number that is busy or privileged on this machine changes nothing for the
// program and the target; where it is open instead is said.
func TestPortsThatAreNotFreeHere(t *testing.T) {
	busy, err := net.Listen("tcp", "127.0.0.1:8039")
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	r := start(t, "-t", "pod/app", "--steal", "python3", "../bin/listeners.py", "busy:8039", "low:81")
	ip := podIP(t, "app")
	start, _ := os.ReadFile("/proc/sys/net/ipv4/ip_unprivileged_port_start")
	for kind, port := range map[string]int{"busy": 8039, "low": 81} {
		r.waitFor(fmt.Sprintf("listening %s %d", kind, port))
		if got := request(t, fmt.Sprintf("http://%s:%d/x", ip, port)); !strings.HasPrefix(got, kind+" /x") {
			t.Errorf("%s: got %q", kind, got)
		}
		at := r.openAt(port)
		if got, err := httpGet(fmt.Sprintf("http://%s/x", at)); err != nil || !strings.HasPrefix(got, kind+" /x") {
			t.Errorf("%s, here: got %q, %v", kind, got, err)
		}
		if kind == "low" && strings.TrimSpace(string(start)) == "0" {
			continue // anybody may have it here
		}
		if int(at.Port()) == port || !strings.Contains(r.stderr.String(), fmt.Sprintf("%d is not free here", port)) {
			t.Errorf("%s: open at %v, and nobody said why:\n%s", kind, at, r.stderr)
		}
	}
	r.signal(syscall.SIGKILL)
	r.end()
	vanish(t)
}

// A program that asks itself by localhost reaches itself, whatever the pod has
// at that port.
func TestSelfConnection(t *testing.T) {
	got := in(t, "pod/app", "python3", "-c", `
import socket, threading
for host in "127.0.0.1", "::1", "localhost", socket.gethostbyname(socket.gethostname()):
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    s = socket.socket(family); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind((host, 8016)); s.listen()
    threading.Thread(target=lambda: s.accept()[0].sendall(b"itself")).start()
    with socket.create_connection((host, 8016), 5) as c: print(c.recv(10).decode())
    s.close()`)
	if got != strings.TrimSpace(strings.Repeat("itself\n", 4)) {
		t.Errorf("got %q", got)
	}
}
