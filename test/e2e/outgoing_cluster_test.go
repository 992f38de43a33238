package e2e

import (
	"context"
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Servers of the cluster's own, by the names that it gives them.

func TestRedis(t *testing.T) {
	const yaml = `
apiVersion: v1
kind: Pod
metadata: {name: redis, labels: {app: redis}}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - {name: redis, image: "debian:1", command: [redis-server, --bind, "*", "-::*", --protected-mode, "no", --save, ""]}
---
apiVersion: v1
kind: Service
metadata: {name: cache}
spec: {selector: {app: redis}, ipFamilyPolicy: PreferDualStack, ports: [{port: 6379}]}
---
# It has an IPv6 address only, and so has its name.
apiVersion: v1
kind: Service
metadata: {name: six}
spec: {selector: {app: redis}, ipFamilyPolicy: SingleStack, ipFamilies: [IPv6], ports: [{port: 6379}]}
---
# Its name has the pod's own addresses, and a record of its port.
apiVersion: v1
kind: Service
metadata: {name: headless}
spec: {selector: {app: redis}, clusterIP: None, ports: [{name: redis, port: 6379}]}
`
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := w.cluster.Apply(ctx, w.namespace, yaml); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // t's context has ended by then
		if _, err := w.cluster.Kubectl(context.Background(), "-n", w.namespace, "delete", "--wait=false", "pod/redis", "service/cache", "service/six", "service/headless"); err != nil {
			t.Error(err)
		}
	})
	if err := w.cluster.WaitReady(ctx, w.namespace, "pod/redis"); err != nil {
		t.Fatal(err)
	}
	ip := podIP(t, "redis")
	for _, c := range []struct{ name, script, want string }{
		{"a service", "until redis-cli -h cache ping 2>/dev/null; do sleep 0.1; done; redis-cli -h cache set k v; redis-cli -h cache get k", "PONG\nOK\nv"},
		{"IPv6 only", "until redis-cli -h six ping 2>/dev/null; do sleep 0.1; done; getent ahosts six | cut -d' ' -f1 | grep -c '\\.'", "PONG\n0"},
		{"without an address of its own", "redis-cli -h headless ping; dig +short +search headless A; dig +short +search _redis._tcp.headless SRV | cut -d' ' -f3", "PONG\n" + ip + "\n6379"},
		{"by another namespace's name", "redis-cli -h cache." + w.namespace + " ping; redis-cli -h cache." + w.namespace + ".svc.cluster.local. ping", "PONG\nPONG"},
		{"the address's own name", "dig +short -x $(dig +short +search cache A)", "cache." + w.namespace + ".svc.cluster.local."},
		{"who is connected", "redis-cli -h cache client info | tr ' ' '\\n' | grep ^addr= | cut -d= -f2 | cut -d: -f1", podIP(t, "app")},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := start(t, "-t", "pod/app", "bash", "-c", c.script)
			_ = r.end() // of the last program: grep -c of nothing ends with 1
			if got := strings.TrimSpace(r.stdout.String()); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

// In a pod of the cluster ping reaches other pods and the gateway; where the
// pod's network lets no ordinary process ping, by an agent that mirrors, and one
// that does not says what to do.
func TestPingInTheCluster(t *testing.T) {
	const yaml = `
apiVersion: v1
kind: Pod
metadata: {name: quiet}
spec:
  terminationGracePeriodSeconds: 0
  securityContext: {sysctls: [{name: net.ipv4.ping_group_range, value: "1 0"}]}
  containers:
  - {name: quiet, image: "debian:1", command: [sleep, infinity]}
`
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := w.cluster.Apply(ctx, w.namespace, yaml); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // t's context has ended by then
		if _, err := w.cluster.Kubectl(context.Background(), "-n", w.namespace, "delete", "--wait=false", "pod/quiet"); err != nil {
			t.Error(err)
		}
	})
	if err := w.cluster.WaitReady(ctx, w.namespace, "pod/quiet"); err != nil {
		t.Fatal(err)
	}
	gateway := strings.Fields(kubectl(t, "-n", w.namespace, "exec", "app", "--", "sh", "-c", "awk '$2 == \"00000000\" {print $3}' /proc/net/route"))[0]
	var g [4]byte
	if _, err := fmt.Sscanf(gateway, "%02x%02x%02x%02x", &g[3], &g[2], &g[1], &g[0]); err != nil {
		t.Fatal(err)
	}
	const ping = "ping -q -c 3 -i 0.2 -W 5 "
	for _, c := range []struct {
		target, peer, incoming string
		want                   int // pings that are answered
	}{{"app", "quiet", "mirror", 5}, {"quiet", "app", "mirror", 5}, {"quiet", "app", "off", 1}} {
		t.Run(c.target+" "+c.incoming, func(t *testing.T) {
			ip, ip6 := podIP(t, c.peer), strings.Trim(podIP6(t, c.peer), "[]")
			script := strings.Join([]string{ping + ip, ping + ip6, ping + netip.AddrFrom4(g).String(), ping + "-s 4000 " + ip, ping + "localhost"}, "; ")
			config := filepath.Join(w.dir, "work", "ping.json")
			write(t, config, `{"feature": {"network": {"incoming": "`+c.incoming+`"}}}`)
			r := start(t, "-t", "pod/"+c.target, "-f", config, "bash", "-c", script)
			r.end()
			if got := strings.Count(r.stdout.String(), "3 packets transmitted, 3 received"); got != c.want {
				t.Errorf("got %d answers, want %d", got, c.want)
			}
			if said := strings.Count(r.stderr.String(), "securityContext"); said != 0 && c.want == 5 || said != 1 && c.want != 5 {
				t.Errorf("what to do is said %d times", said)
			}
		})
	}
}
