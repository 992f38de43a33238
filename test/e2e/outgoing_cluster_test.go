package e2e

import (
	"context"
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
