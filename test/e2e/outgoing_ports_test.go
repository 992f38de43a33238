package e2e

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"
)

// narrow is a pod with 200 local ports for connections.
const narrow = `
apiVersion: v1
kind: Pod
metadata: {name: narrow}
spec:
  terminationGracePeriodSeconds: 0
  securityContext: {sysctls: [{name: net.ipv4.ip_local_port_range, value: "40000 40199"}]}
  containers: [{name: app, image: "debian:1", command: [sleep, infinity]}]
`

// greedy makes 150 connections to one place and keeps them. One that has no peer is
// none: where an attempt is refused by ICMP, poll(2) can tell its end a moment before
// SO_ERROR has the reason, and python looks no second time, as Go does.
const greedy = `
import socket, sys
kept, refused = [], 0
for _ in range(150):
    try:
        s = socket.create_connection((sys.argv[1], 7002), 20)
        s.getpeername()
        kept.append(s)
    except OSError: refused += 1
print(len(kept), "connected", refused, "refused", flush=True)
sys.stdin.readline()
`

// A program with more connections than the target can spare gets half of the
// target's local ports and is told once; the target still reaches everybody.
func TestTargetKeepsItsPorts(t *testing.T) {
	namespace := w.cluster.Namespace(t)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	if err := w.cluster.Apply(ctx, namespace, narrow); err != nil {
		t.Fatal(err)
	}
	if err := w.cluster.WaitReady(ctx, namespace, "pod/narrow"); err != nil {
		t.Fatal(err)
	}
	echo := podIP(t, "echo")
	r := startCommand(t, []string{w.mirrord, "exec", "-n", namespace, "-t", "pod/narrow", "python3", "-c", greedy, echo}, nil)
	r.waitFor("refused")
	if got := r.stdout.String(); !strings.HasPrefix(got, "100 connected 50 refused") {
		t.Errorf("of 200 local ports the program got: %s", got)
	}
	if n := strings.Count(r.stderr.String(), "EADDRNOTAVAIL"); n != 1 {
		t.Errorf("it was said %d times:\n%s", n, r.stderr)
	}
	own := fmt.Sprintf("import socket; a = [socket.create_connection((%q, 7002), 20) for _ in range(50)]; print(len(a))", echo)
	if out, err := w.cluster.Kubectl(ctx, "exec", "-n", namespace, "narrow", "--", "python3", "-c", own); err != nil || strings.TrimSpace(out) != "50" {
		t.Errorf("the target's own connections: %q, %v", out, err)
	}
	if code := r.end(); code != 0 {
		t.Errorf("exit code %d, stderr:\n%s", code, r.stderr)
	}
}
