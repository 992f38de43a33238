package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// What a session does with few rights: in the target's own pod, under the
// standards of Pod Security, and with exactly the role that mirrord prints.

// level makes a namespace that enforces a standard of Pod Security, with a pod
// that it takes: "app", whose user is 1234, and "www", whose group is the
// image's matter.
func level(t *testing.T, standard string) (namespace string) {
	t.Helper()
	namespace = w.cluster.Namespace(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if _, err := w.cluster.Kubectl(ctx, "label", "namespace", namespace, "pod-security.kubernetes.io/enforce="+standard); err != nil {
		t.Fatal(err)
	}
	const strict = `allowPrivilegeEscalation: false, runAsNonRoot: true, seccompProfile: {type: RuntimeDefault}, capabilities: {drop: [ALL]}`
	err := w.cluster.Apply(ctx, namespace, `
apiVersion: v1
kind: Pod
metadata: {name: app}
spec:
  terminationGracePeriodSeconds: 0
  volumes: [{name: data, emptyDir: {}}]
  containers:
  - name: app
    image: debian:1
    command: [sh, -c, "umask 077; echo from-pod >/data/own; exec python3 -m http.server 8001 --directory /data"]
    volumeMounts: [{name: data, mountPath: /data}]
    env: [{name: COLOR, value: blue}]
    securityContext: {runAsUser: 1234, runAsGroup: 99, `+strict+`}
---
apiVersion: v1
kind: Pod
metadata: {name: www}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - {name: app, image: "debian:1", command: [sleep, infinity], env: [{name: COLOR, value: green}], securityContext: {runAsUser: 33, `+strict+`}}
`)
	if err == nil {
		err = w.cluster.WaitReady(ctx, namespace, "pod/app", "pod/www")
	}
	if err != nil {
		t.Fatal(err)
	}
	return namespace
}

// settings writes a configuration and gives its name.
func settings(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(w.dir, "work", strings.ReplaceAll(t.Name(), "/", "-")+".json")
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Remove(path) })
	return path
}

const quietInPod = `{"agent": {"ephemeral": true}, "feature": {"network": {"incoming": "off"}}}`

// agentOf is the process on this machine that is the agent of a session.
func agentOf(t *testing.T, session string) (pid string) {
	t.Helper()
	exes, _ := filepath.Glob("/proc/[0-9]*/exe")
	for _, exe := range exes {
		if to, err := os.Readlink(exe); err != nil || to != "/mirrord-agent" {
			continue
		}
		if args, err := os.ReadFile(filepath.Join(filepath.Dir(exe), "cmdline")); err == nil && strings.Contains(string(args), session) {
			return filepath.Base(filepath.Dir(exe))
		}
	}
	t.Fatalf("no agent of session %s runs here", session)
	return ""
}

// inPodSession is the session whose agent was put into a pod last.
func inPodSession(t *testing.T, namespace, pod string) (session, container string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	out, err := w.cluster.Kubectl(ctx, "get", "pod", pod, "-n", namespace, "-o", "jsonpath={.spec.ephemeralContainers[*].name}")
	names := strings.Fields(out)
	if err != nil || len(names) == 0 {
		t.Fatalf("pod %s has no agent: %v", pod, err)
	}
	container = names[len(names)-1]
	return strings.TrimSuffix(strings.TrimPrefix(container, "mirrord-agent-"), "-2"), container
}

// ended waits until all agents of a pod have ended.
func ended(t *testing.T, namespace, pod string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), removedWithin)
	defer cancel()
	for {
		out, err := w.cluster.Kubectl(ctx, "get", "pod", pod, "-n", namespace, "-o", "jsonpath={.status.ephemeralContainerStatuses[*].state}")
		if err == nil && !strings.Contains(out, `"running"`) && strings.Contains(out, `"terminated"`) {
			return
		}
		if ctx.Err() != nil {
			t.Fatalf("agents of pod %s still run: %s %v", pod, out, err)
		}
	}
}

// Without a target nothing is asked of the cluster that the strictest standard
// refuses.
func TestTargetlessRestricted(t *testing.T) {
	namespace := level(t, "restricted")
	stdout, stderr, code := at(t, namespace, "getent", "hosts", "kubernetes.default.svc.cluster.local")
	if code != 0 || !strings.Contains(stdout, "kubernetes.default") {
		t.Errorf("exit code %d, stdout %q, stderr:\n%s", code, stdout, stderr)
	}
}

// With no capability at all, as the target's user: environment, files,
// connections and names, under both standards.
func TestInPodWithoutCapability(t *testing.T) {
	for _, standard := range []string{"baseline", "restricted"} {
		t.Run(standard, func(t *testing.T) {
			namespace := level(t, standard)
			config := settings(t, quietInPod)
			script := fmt.Sprintf(`echo "$COLOR $(cat /data/own) $(hostname) $(curl -sS --max-time 10 http://%s:8001/x)"
getent hosts kubernetes.default.svc.cluster.local; echo ready; read -r line; true`, podIP(t, "app"))
			r := startCommand(t, []string{w.mirrord, "exec", "-n", namespace, "-f", config, "-t", "pod/app", "bash", "-c", script}, nil)
			r.waitFor("ready")
			if got := r.stdout.String(); !strings.Contains(got, "blue from-pod app remote /x") || !strings.Contains(got, "kubernetes.default.svc") {
				t.Errorf("stdout %q, stderr:\n%s", got, r.stderr)
			}
			session, container := inPodSession(t, namespace, "app")
			pid := agentOf(t, session)
			status, err := os.ReadFile("/proc/" + pid + "/status")
			if err != nil {
				t.Fatal(err)
			}
			for _, want := range []string{"CapPrm:\t0000000000000000", "CapEff:\t0000000000000000", "CapBnd:\t0000000000000000", "Uid:\t1234\t1234\t1234\t1234", "NoNewPrivs:\t1", "Seccomp:\t2"} {
				if !strings.Contains(string(status), want) {
					t.Errorf("the agent has no line %q in:\n%s", want, status)
				}
			}
			// Its root cannot be written to.
			if err := os.WriteFile("/proc/"+pid+"/root/x", nil, 0o600); err == nil || !strings.Contains(err.Error(), "read-only") {
				t.Errorf("write to the agent's root: %v", err)
			}
			// The target's user sees it, and nothing in it.
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			out, _ := w.cluster.Kubectl(ctx, "exec", "-n", namespace, "app", "-c", "app", "--", "sh", "-c",
				`for p in /proc/[0-9]*; do grep -qs mirrord-agent $p/cmdline && grep -q Name:.mirrord-agent $p/status && { head -c1 $p/mem; cat $p/environ; ls $p/fd/; ls $p/root/; }; done 2>&1 | grep -c 'ermission denied'`)
			if strings.TrimSpace(out) != "4" {
				t.Errorf("of 4 looks into the agent %s were refused", out)
			}
			if code := r.end(); code != 0 {
				t.Errorf("exit code %d, stderr:\n%s", code, r.stderr)
			}
			ended(t, namespace, "app")
			// The log holds what anybody may read.
			log, err := w.cluster.Kubectl(ctx, "logs", "-n", namespace, "app", "-c", container)
			if err != nil || strings.Contains(strings.ToLower(log), "private") {
				t.Errorf("the agent's log: %v\n%s", err, log)
			}
		})
	}
}

// The user of the image is found out, by an agent that ends again.
func TestInPodAsTheUserOfTheImage(t *testing.T) {
	namespace := level(t, "restricted")
	r := startCommand(t, []string{w.mirrord, "exec", "-n", namespace, "-f", settings(t, quietInPod), "-t", "pod/www", "sh", "-c", "echo $COLOR"}, nil)
	if code := r.end(); code != 0 || strings.TrimSpace(r.stdout.String()) != "green" || !strings.Contains(r.stderr.String(), "begins again") {
		t.Errorf("exit code %d, stdout %q, stderr:\n%s", code, r.stdout, r.stderr)
	}
	ended(t, namespace, "www")
}

// What needs capabilities works where they are to be had; where not, what is
// missing is said, and the rest works.
func TestInPodTraffic(t *testing.T) {
	for _, c := range []struct {
		standard, flag string
		works          bool
		says           []string
	}{
		{"privileged", "", true, []string{"the target's traffic is mirrored"}},
		{"privileged", "--steal", true, []string{"the target's traffic is stolen"}},
		{"baseline", "", true, []string{"the target's traffic is mirrored"}}, // containerd gives NET_RAW
		{"restricted", "", false, []string{"the cluster refuses what mirroring takes (NET_RAW)", "gives the agent in the target's pod no NET_RAW", "enforce=privileged"}},
	} {
		t.Run(c.standard+c.flag, func(t *testing.T) {
			namespace := level(t, c.standard)
			args := []string{w.mirrord, "exec", "-n", namespace, "-e", "-t", "pod/app"}
			if c.flag != "" {
				args = append(args, c.flag)
			}
			r := startCommand(t, append(args, "python3", filepath.Join(w.dir, "bin", "server.py"), "8001"), nil)
			r.waitFor("listening")
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			ip, err := w.cluster.Kubectl(ctx, "get", "pod", "app", "-n", namespace, "-o", "jsonpath={.status.podIP}")
			if err != nil {
				t.Fatal(err)
			}
			got := request(t, "http://"+strings.TrimSpace(ip)+":8001/own")
			if local := strings.HasPrefix(got, "local"); local != (c.flag != "") {
				t.Errorf("the client got %q", got)
			}
			if c.works {
				r.waitFor("got /own")
			}
			for _, text := range c.says {
				if !strings.Contains(r.stderr.String(), text) {
					t.Errorf("it does not say %q", text)
				}
			}
			session, _ := inPodSession(t, namespace, "app")
			status, err := os.ReadFile("/proc/" + agentOf(t, session) + "/status")
			if err != nil {
				t.Fatal(err)
			}
			want := map[string]uint64{"privileged": 1 << unix.CAP_NET_RAW, "privileged--steal": 1<<unix.CAP_NET_ADMIN | 1<<unix.CAP_BPF | 1<<unix.CAP_NET_RAW, "baseline": 1 << unix.CAP_NET_RAW}[c.standard+c.flag]
			if line := fmt.Sprintf("CapEff:\t%016x", want); !strings.Contains(string(status), line) || !strings.Contains(string(status), "Uid:\t1234\t1234") {
				t.Errorf("the agent has no line %q in:\n%s", line, status)
			}
			r.stop()
			ended(t, namespace, "app")
		})
	}
	t.Run("steal refused", func(t *testing.T) {
		namespace := level(t, "baseline")
		_, stderr, code := at(t, namespace, "-e", "-t", "pod/app", "--steal", "true")
		for _, text := range []string{"agent-refused", "stealing takes the capabilities NET_ADMIN, BPF", "leave --steal away"} {
			if !strings.Contains(stderr, text) {
				t.Errorf("it does not say %q:\n%s", text, stderr)
			}
		}
		if code != 1 {
			t.Errorf("exit code %d", code)
		}
	})
}

// A stranger in the pod who finds the agent's port gets nothing from it; one
// who takes the port over gets nothing either, and the session ends and says so.
func TestStrangersInThePod(t *testing.T) {
	namespace := level(t, "baseline")
	r := startCommand(t, []string{w.mirrord, "exec", "-n", namespace, "-f", settings(t, quietInPod), "-t", "pod/app", "sh", "-c",
		"while read -r line; do cat /data/own; done; sleep 1000"}, nil)
	fmt.Fprintln(r.stdin)
	r.waitFor("from-pod")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	pod := func(script string) string {
		t.Helper()
		out, err := w.cluster.Kubectl(ctx, "exec", "-n", namespace, "app", "-c", "app", "--", "python3", "-c", script)
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(out)
	}
	// Listeners on 127.0.0.1: the agent's is the only one.
	port := pod(`print(*[int(l.split()[1].split(":")[1], 16) for l in open("/proc/net/tcp") if l.split()[1].startswith("0100007F") and l.split()[3] == "0A"])`)
	got := pod(`
import socket
seen = set()
for hello in (b"GET / HTTP/1.0\r\n\r\n", b"", bytes(100), b"\x16\x03\x01\x00\x05hello"):
    for i in range(20):
        s = socket.create_connection(("127.0.0.1", ` + port + `)); s.sendall(hello); s.shutdown(1)
        try: seen.add(s.recv(100))
        except ConnectionResetError: pass
print(max(map(len, seen), default=0))`)
	if got != "0" && got != "7" { // a TLS alert is 7 bytes
		t.Errorf("a stranger got %s bytes", got)
	}
	if n := strings.Count(r.stdout.String(), "from-pod"); n != 1 {
		t.Fatalf("%d answers before", n)
	}
	fmt.Fprintln(r.stdin)
	for end := time.Now().Add(20 * time.Second); strings.Count(r.stdout.String(), "from-pod") < 2; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the session does not answer after the strangers")
		}
	}
	// The same user may kill it, and take its port.
	session, _ := inPodSession(t, namespace, "app")
	begin := time.Now()
	go func() {
		_, _ = w.cluster.Kubectl(ctx, "exec", "-n", namespace, "app", "-c", "app", "--", "timeout", "60", "python3", "-c", `
import os, signal, socket, glob
for p in glob.glob("/proc/[0-9]*"):
    try:
        if "`+session+`" in open(p + "/cmdline").read() and open(p + "/comm").read().startswith("mirrord-agent"): os.kill(int(p[6:]), signal.SIGKILL)
    except OSError: pass
s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
while True:
    try: s.bind(("127.0.0.1", `+port+`)); break
    except OSError: pass
s.listen(50)
while True:
    c, _ = s.accept(); c.sendall(b"HTTP/1.0 200 OK\r\n\r\n"); c.close()`)
	}()
	select {
	case <-r.done:
	case <-time.After(30 * time.Second):
		t.Fatal("the session goes on without its agent")
	}
	if code := r.cmd.ProcessState.ExitCode(); code == 0 {
		t.Error("exit code 0")
	}
	t.Logf("ended after %v", time.Since(begin).Round(time.Second))
	if got := r.stderr.String(); !strings.Contains(got, "the agent is gone") {
		t.Errorf("stderr:\n%s", got)
	}
}

// quick opens the memory of each new process of its own user as fast as it can.
const quick = `
import os, time
have, last, end = {}, max(int(p) for p in os.listdir("/proc") if p.isdigit()), time.time() + 60
open("/tmp/begun", "w").close()
while time.time() < end and not os.path.exists("/tmp/enough"):
    for pid in range(last + 1, last + 20):
        try: fd = os.open("/proc/%d/mem" % pid, os.O_RDWR)
        except OSError: continue
        try:
            with open("/proc/%d/cmdline" % pid) as f: agent = "mirrord-agent" in f.read()
        except OSError: agent = False
        if agent: have[pid] = fd; print("has the memory of", pid, flush=True)
        else: os.close(fd)
print("ended")
`

// A program of the agent's own user that waits for it gets at its memory at no
// moment, not even while it begins; what it says of a port it has squatted is
// not believed, as in a pod of the agent's own.
func TestStrangersAwaitTheAgent(t *testing.T) {
	namespace := level(t, "privileged")
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	in := func(args ...string) (string, error) {
		return w.cluster.Kubectl(ctx, append([]string{"-n", namespace, "exec", "app", "-c", "app", "--"}, args...)...)
	}
	// stranger runs a script in the pod until it says that it has begun, and gives
	// what it has said at its end.
	stranger := func(script string) (said chan string) {
		t.Helper()
		said = make(chan string, 1)
		go func() {
			out, err := in("python3", "-c", script)
			said <- fmt.Sprint(out, err)
		}()
		if _, err := in("sh", "-c", "until test -e /tmp/begun; do sleep 0.05; done; rm /tmp/begun"); err != nil {
			t.Fatalf("the stranger does not begin: %v", err)
		}
		return said
	}
	said := stranger(quick)
	for range 3 {
		r := startCommand(t, []string{w.mirrord, "exec", "-n", namespace, "-f", settings(t, quietInPod), "-t", "pod/app", "sh", "-c", "echo $COLOR"}, nil)
		if code := r.end(); code != 0 || strings.TrimSpace(r.stdout.String()) != "blue" {
			t.Errorf("exit code %d, stdout %q, stderr:\n%s", code, r.stdout, r.stderr)
		}
	}
	if _, err := in("touch", "/tmp/enough"); err != nil {
		t.Fatal(err)
	}
	if got := <-said; strings.Contains(got, "has the memory") || !strings.Contains(got, "ended") {
		t.Errorf("the stranger: %s", got)
	}

	said = stranger(`
import os, socket
s = socket.socket(socket.AF_UNIX); s.bind("\0mirrord-claim-tcp-8080"); s.listen(5); s.settimeout(0.1)
open("/tmp/begun", "w").close()
while not os.path.exists("/tmp/over"):
    try:
        c, _ = s.accept()
        c.sendall(b"ana@laptop since 14:00 UTC")
        c.close()
    except OSError: continue # nobody asks, or he who asked did not stay`)
	r := startCommand(t, []string{w.mirrord, "exec", "-n", namespace, "-e", "-t", "pod/app", "--steal", "goserver", "8080"}, nil)
	if code := r.end(); code == 0 || strings.Contains(r.stderr.String(), "ana@laptop") || !strings.Contains(r.stderr.String(), "does not say who it is") {
		t.Errorf("exit code %d, a squatter passes for a colleague, or nobody says that port 8080 is held:\n%s", code, r.stderr)
	}
	if _, err := in("touch", "/tmp/over"); err != nil {
		t.Fatal(err)
	}
	<-said
	ended(t, namespace, "app")
}

// The end of the target's container takes the agent with it that is in its
// process list. The session goes on in the next one, or ends, and says so.
func TestInPodTargetEnds(t *testing.T) {
	namespace := w.cluster.Namespace(t)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	const pod = `
apiVersion: v1
kind: Pod
metadata: {name: %s}
spec:
  terminationGracePeriodSeconds: 0
  restartPolicy: %s
  containers:
  - name: app
    image: debian:1
    command: [python3, -c, "import signal, time; open('/tmp/born', 'w').write(str(time.time_ns())); signal.signal(signal.SIGUSR1, lambda *_: exit(3)); signal.pause()"]
    securityContext: {runAsUser: 1234}
---`
	if err := w.cluster.Apply(ctx, namespace, fmt.Sprintf(pod, "again", "Always")+fmt.Sprintf(pod, "once", "Never")); err != nil {
		t.Fatal(err)
	}
	if err := w.cluster.WaitReady(ctx, namespace, "pod/again", "pod/once"); err != nil {
		t.Fatal(err)
	}
	begin := func(name string) *run {
		t.Helper()
		r := startCommand(t, []string{w.mirrord, "exec", "-n", namespace, "-f", settings(t, quietInPod), "-t", "pod/" + name, "sh", "-c",
			"echo ready; while read -r line; do cat /.mirrord/remote/tmp/born; done"}, nil)
		r.waitFor("ready")
		crash(t, namespace, name)
		return r
	}
	again := begin("again")
	for !strings.Contains(again.stderr.String(), "the session goes on in again") {
		select {
		case <-again.done:
			t.Fatal("the session has ended instead of following its target")
		case <-ctx.Done():
			t.Fatal("the session did not follow its target")
		case <-time.After(20 * time.Millisecond):
		}
	}
	born, err := w.cluster.Kubectl(ctx, "-n", namespace, "exec", "again", "-c", "app", "--", "cat", "/tmp/born")
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintln(again.stdin)
	again.waitFor(strings.TrimSpace(born))
	if n := strings.Count(again.stderr.String(), "has ended: waiting for its successor"); n != 1 || strings.Contains(again.stderr.String(), "the agent is gone") {
		t.Errorf("the end of the target was said %d times", n)
	}
	if code := again.end(); code != 0 {
		t.Errorf("exit code %d", code)
	}

	once := begin("once")
	select { // its program waits for more
	case <-once.done:
	case <-time.After(runTime):
		t.Fatal("the session goes on without its target")
	}
	if code := once.end(); code != 1 || strings.Count(once.stderr.String(), "the session has ended: ") != 1 ||
		!strings.Contains(once.stderr.String(), "target-ended") || strings.Contains(once.stderr.String(), "agent-lost") {
		t.Errorf("exit code %d, want one message that the target has ended", code)
	}
}

// object is a role or a binding as mirrord rbac prints it.
type object struct {
	API   string         `json:"apiVersion"`
	Kind  string         `json:"kind"`
	Meta  map[string]any `json:"metadata"`
	Rules []struct {
		Groups    []string `json:"apiGroups"`
		Resources []string `json:"resources"`
		Verbs     []string `json:"verbs"`
	} `json:"rules,omitempty"`
	Ref      map[string]any   `json:"roleRef,omitempty"`
	Subjects []map[string]any `json:"subjects,omitempty"`
}

// Somebody with exactly the role that mirrord rbac prints can run each kind of
// session. Each verb is needed: without it the session fails and names it, or
// does what the role's comment says.
func TestRoles(t *testing.T) {
	namespace, agents := one(t), w.cluster.Namespace(t)
	ctx, cancel := context.WithTimeout(t.Context(), 9*time.Minute)
	defer cancel()
	err := w.cluster.Apply(ctx, namespace, `
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 0
      containers: [{name: app, image: "debian:1", command: [sleep, infinity]}]
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80}]}
`)
	if err == nil {
		err = w.cluster.WaitReady(ctx, namespace, "deployment/web")
	}
	if err != nil {
		t.Fatal(err)
	}
	kubeconfig := member(t, namespace, func(string) string { return "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: none}\n" })
	who := "system:serviceaccount:" + namespace + ":dev"
	for _, c := range []struct {
		name string
		args []string
		want string
	}{
		{"targetless", nil, ""},
		{"pod", []string{"-t", "pod/app"}, "app"},
		{"deployment", []string{"-t", "deployment/web"}, "web-"},
		{"service", []string{"-t", "service/web"}, "web-"},
		{"label", []string{"-t", "label/app=web"}, "web-"},
		{"in the pod", []string{"-t", "pod/app", "-e"}, "app"},
		{"agents elsewhere", []string{"-t", "pod/app", "-a", agents}, "app"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := startCommand(t, append([]string{w.mirrord, "rbac", "-n", namespace, "-o", "json", "--serviceaccount", namespace + ":dev"}, c.args...), nil)
			if code := r.end(); code != 0 {
				t.Fatalf("rbac: exit code %d: %s", code, r.stderr)
			}
			var printed struct {
				API   string   `json:"apiVersion"`
				Kind  string   `json:"kind"`
				Items []object `json:"items"`
			}
			if err := json.Unmarshal([]byte(r.stdout.String()), &printed); err != nil {
				t.Fatal(err)
			}
			apply := func() {
				t.Helper()
				b, err := json.Marshal(printed)
				if err != nil {
					t.Fatal(err)
				}
				if err := w.cluster.Apply(ctx, "", string(b)); err != nil {
					t.Fatal(err)
				}
			}
			may := func(verb, group, resource, namespace, want string) {
				t.Helper()
				resource, sub, _ := strings.Cut(resource, "/")
				for end := time.Now().Add(20 * time.Second); ; {
					out, _ := w.cluster.Kubectl(ctx, "auth", "can-i", verb, strings.TrimSuffix(resource+"."+group, "."), "--subresource="+sub, "-n", namespace, "--as", who)
					if strings.TrimSpace(out) == want {
						return
					}
					if time.Now().After(end) {
						t.Fatalf("the cluster does not know the role yet: %s %s is %q", verb, resource, out)
					}
				}
			}
			exec := func() (stdout, stderr string, code int) {
				r := startCommand(t, append(append([]string{w.mirrord, "exec", "-n", namespace, "--kubeconfig", kubeconfig}, c.args...), "hostname"), nil)
				code = r.end()
				return strings.TrimSpace(r.stdout.String()), r.stderr.String(), code
			}
			apply()
			for _, o := range printed.Items {
				for _, rule := range o.Rules {
					may(rule.Verbs[0], rule.Groups[0], rule.Resources[0], o.Meta["namespace"].(string), "yes")
				}
			}
			if stdout, stderr, code := exec(); code != 0 || !strings.HasPrefix(stdout, c.want) {
				t.Fatalf("with the role: exit code %d, stdout %q, stderr:\n%s", code, stdout, stderr)
			}
			for _, o := range printed.Items {
				for i := range o.Rules {
					rule := &o.Rules[i]
					whole := rule.Verbs
					for j, verb := range whole {
						rule.Verbs = slices.Delete(slices.Clone(whole), j, j+1)
						if len(rule.Verbs) == 0 {
							rule.Verbs = []string{"none"}
						}
						apply()
						may(verb, rule.Groups[0], rule.Resources[0], o.Meta["namespace"].(string), "no")
						without(t, verb, rule.Resources[0], exec)
					}
					rule.Verbs = whole
				}
			}
			ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
			defer cancel()
			for _, o := range printed.Items {
				if _, err := w.cluster.Kubectl(ctx, "delete", o.Kind, "mirrord", "-n", o.Meta["namespace"].(string)); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// without checks a session of somebody who lacks one verb.
func without(t *testing.T, verb, resource string, exec func() (stdout, stderr string, code int)) {
	t.Helper()
	// What the role's comments say, and that bare SPDY needs no get.
	does := slices.Contains([]string{"list pods", "delete jobs", "watch jobs", "watch events", "list events", "get pods/portforward"}, verb+" "+resource)
	_, stderr, code := exec()
	switch {
	case does && code == 0:
	case does && code == 1 && verb == "list" && resource == "pods" && strings.Contains(stderr, "you may not list pods"): // of a workload
	case !does && code == 1 && strings.Contains(stderr, "forbidden, see docs/errors.md") && strings.Contains(stderr, "verbs: ["+verb) ||
		!does && code == 1 && strings.Contains(stderr, ", "+verb+"]"):
	default:
		t.Errorf("without %s %s: exit code %d, stderr:\n%s", verb, resource, code, stderr)
	}
}
