package e2e

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

// Many connections, new ones all the time, and one that is silent for long.
// "make chaos" does it at length.

func TestManyConnections(t *testing.T) {
	p := handmadePod(t, families{four: true, six: true})
	p.serve()
	all := []string{handWorld + ":7001", handOther + ":7001", "[" + handWorld6 + "]:7001", "[" + handOther6 + "]:7001"}
	n := number(2000, 500)
	r := start(t, "-q", "-t", p.target(), "bash", "-c", fmt.Sprintf("crowd hold %d %s; crowd rate %d %d %s; read -r _; true", n, all[0], number(500, 100), number(60, 5), strings.Join(all, " ")))
	r.waitFor("slowest")
	if got := r.stdout.String(); !strings.Contains(got, fmt.Sprint(n, " intact")) || !strings.Contains(got, " made") {
		t.Errorf("got %s", got)
	}
	t.Log(r.stdout)
	// What they took is given back while the session goes on.
	const few = 150 // a session without connections has some 70
	pid := supervisor(t)
	for end := time.Now().Add(10 * time.Second); descriptors(pid) > few; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Errorf("the supervisor still has %d descriptors", descriptors(pid))
			break
		}
	}
	if code := r.end(); code != 0 {
		t.Errorf("exit code %d, stderr:\n%s", code, r.stderr)
	}
}

// descriptors counts what a process has open.
func descriptors(pid int) int {
	all, _ := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	return len(all)
}

// Nobody ends a connection or a datagram's answer because nothing was said for
// ten minutes.
func TestIdleConnection(t *testing.T) {
	p := handmadePod(t, families{four: true})
	p.serve()
	idle := time.Duration(number(620, 20)) * time.Second
	r := start(t, "-q", "-t", p.target(), "bash", "-c", fmt.Sprintf("exec 3<>/dev/tcp/%s/7001; echo silent; sleep %d; echo hi >&3; head -n 1 <&3; echo done", handWorld, int(idle.Seconds())))
	r.waitFor("silent")
	select {
	case <-r.done:
		t.Fatalf("it ended: %s", r.stderr)
	case <-time.After(idle):
	}
	r.waitFor("done")
	if code := r.end(); code != 0 || r.stdout.String() != "silent\nhi\ndone\n" {
		t.Errorf("exit code %d, got %q", code, r.stdout)
	}
}
