package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Ports of the target that these tests take.
const (
	chaosSteal  = 8036
	chaosMirror = 8037
)

// whole reports whether the whole of the chaos is asked for: make chaos.
func whole() bool { return os.Getenv("MIRRORD_CHAOS") == "whole" }

// cutting is a way of cutting the link.
type cutting struct {
	name  string
	short bool // also without make chaos: it harms nobody else
	// silent: the ends do not see the cut, but nothing passes.
	silent bool
	// harmless: the link survives it.
	harmless bool
	quiet    bool // nothing passes but what the link itself says
	// flickers: the way may be open for a moment now and then.
	flickers bool
	// sudden: the supervisor knows of the loss when it is over.
	sudden bool
	// hurts: the cluster needs time to be itself again.
	hurts bool
	// relayed: the session goes through the relay.
	relayed bool
	// cut cuts for d and returns when the way is open again; began is when that was.
	cut func(t *testing.T, r *relay, d time.Duration) (began time.Time)
}

var cuttings = []cutting{
	{name: "connection closed", short: true, relayed: true, cut: func(_ *testing.T, r *relay, d time.Duration) (began time.Time) {
		began = time.Now()
		r.set(func() { r.closes = true })
		time.Sleep(d)
		r.set(func() { r.closes = false })
		return began
	}},
	{name: "connection stalled", short: true, silent: true, relayed: true, cut: func(_ *testing.T, r *relay, d time.Duration) (began time.Time) {
		began = time.Now()
		r.set(func() { r.stalls = true })
		time.Sleep(d)
		r.set(func() { r.stalls = false })
		return began
	}},
	{name: "idle cut after 3 s", relayed: true, harmless: true, quiet: true, cut: func(t *testing.T, r *relay, d time.Duration) (began time.Time) {
		began = time.Now()
		r.set(func() { r.idle = 3 * time.Second })
		time.Sleep(d)
		r.set(func() { r.idle = 0 })
		return began
	}},
	{name: "packets to the API server dropped", silent: true, cut: func(t *testing.T, _ *relay, d time.Duration) (began time.Time) {
		return drop(t, d, "output", "ip daddr %s tcp dport 6443 meta skuid %d drop")
	}},
	{name: "packets from the API server dropped", silent: true, cut: func(t *testing.T, _ *relay, d time.Duration) (began time.Time) {
		return drop(t, d, "input", "ip saddr %s tcp sport 6443 drop comment \"%d\"")
	}},
	{name: "API server killed", hurts: true, cut: func(t *testing.T, _ *relay, d time.Duration) (began time.Time) {
		return keepKilling(t, "node-1", "kube-apiserver", d)
	}},
	{name: "kubelet killed", flickers: true, cut: func(t *testing.T, _ *relay, d time.Duration) (began time.Time) {
		return keepKilling(t, kubectl(t, "get", "pod", "app", "-o", "jsonpath={.spec.nodeName}"), "kubelet", d)
	}},
	// The nearest to a suspend that can be had without one: see TestSuspendIsNoticed
	// for the clocks. The program stops first, or its kernel goes on to talk to a
	// supervisor that does not answer.
	{name: "program and supervisor stopped", silent: true, sudden: true, cut: func(t *testing.T, _ *relay, d time.Duration) (began time.Time) {
		for _, p := range append(processes(filepath.Join(w.dir, "bin", "lasting")), fmt.Sprint(supervisor(t))) {
			id, _, _ := strings.Cut(p, " ")
			pid, err := strconv.Atoi(id)
			if err == nil {
				err = syscall.Kill(pid, syscall.SIGSTOP)
			}
			if err != nil {
				t.Fatal(err)
			}
			defer syscall.Kill(pid, syscall.SIGCONT)
			began = time.Now()
			time.Sleep(200 * time.Millisecond) // what is on its way arrives
		}
		time.Sleep(d)
		return began
	}},
}

// drop drops packets for d, by a table of the test's own.
func drop(t *testing.T, d time.Duration, hook, rule string) (began time.Time) {
	t.Helper()
	text, err := os.ReadFile(w.cluster.Kubeconfig())
	if err != nil {
		t.Fatal(err)
	}
	server := regexp.MustCompile(`server: https://([^:\s]+):`).FindStringSubmatch(string(text))
	table := "mirrord_" + strings.ReplaceAll(w.namespace, "-", "_")
	nft := func(args ...string) {
		t.Helper()
		if out, err := exec.Command("nft", args...).CombinedOutput(); err != nil {
			t.Fatalf("nft %v: %v: %s", args, err, out)
		}
	}
	nft("add", "table", "inet", table)
	defer nft("delete", "table", "inet", table)
	nft("add", "chain", "inet", table, "cut", "{ type filter hook "+hook+" priority 0; }")
	nft("add", "rule", "inet", table, "cut", fmt.Sprintf(rule, server[1], user))
	began = time.Now()
	time.Sleep(d)
	return began
}

// keepKilling kills a service of a node, and again whenever it has been
// restarted, for d.
func keepKilling(t *testing.T, node, service string, d time.Duration) (began time.Time) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d+30*time.Second)
	defer cancel()
	// In the node's own process namespace, where it is the only one of its name.
	script := fmt.Sprintf(`end=$((SECONDS+%d)); while kill -9 $(pgrep -f '^%s ') 2>/dev/null; [ $SECONDS -lt $end ]; do sleep .1; done`, int(d.Seconds()), service)
	began = time.Now()
	if _, err := w.cluster.NodeExec(ctx, node, "bash", "-c", script); err != nil {
		t.Fatal(err)
	}
	// The way is open again when it has started, which takes the API server some
	// seconds, and the kubelet until its node is ready.
	for ctx.Err() == nil {
		if _, err := w.cluster.Kubectl(ctx, "get", "--raw", "/api/v1/nodes/"+node+"/proxy/healthz"); err == nil {
			return began
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Fatalf("%s does not come up again", service)
	return began
}

// recovered waits until the cluster has recovered from what was done to it
// before.
func recovered(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	for _, args := range [][]string{{"node", "--all"}, {"pod", "app", "echo", "-n", w.namespace}} {
		if _, err := w.cluster.Kubectl(ctx, append([]string{"wait", "--for=condition=Ready", "--timeout=110s"}, args...)...); err != nil {
			t.Fatal(err)
		}
	}
}

// TestChaosLink: whatever cuts the link, and for however long up to the window,
// nothing is lost or doubled, and the target serves its clients meanwhile.
func TestChaosLink(t *testing.T) {
	for _, c := range cuttings {
		if !c.short && !whole() {
			continue
		}
		durations := []time.Duration{time.Second, 10 * time.Second}
		if whole() {
			durations = append(durations, time.Minute)
		}
		t.Run(c.name, func(t *testing.T) {
			s := startLasting(t, c)
			for _, d := range durations {
				t.Run(d.String(), func(t *testing.T) { s.survives(t, c, d) })
			}
			s.finish(t)
			if c.hurts {
				noAgent(t, collectTime)
			}
		})
	}
}

// lasting is the program that does everything, in a session.
type lasting struct {
	*run
	relay  *relay
	ip     string // the target's
	checks int
}

func startLasting(t *testing.T, c cutting) *lasting {
	t.Helper()
	recovered(t)
	s := &lasting{ip: podIP(t, "app")}
	kubeconfig := filepath.Join(w.dir, "kubeconfig")
	if c.relayed {
		s.relay, kubeconfig = newRelay(t)
	}
	config := filepath.Join(w.dir, "work", "chaos.json")
	text := fmt.Sprintf(`{"feature": {"network": {"incoming": {"mode": "steal", "http_filter": {"header_filter": "^x-chaos: yes$", "ports": [%d], "other_ports": "mirror"}}}}}`, chaosSteal)
	if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	sum, _, _ := strings.Cut(kubectl(t, "exec", "app", "-c", "app", "--", "cat", "/data/big.sha256"), " ")
	s.run = startCommand(t, []string{w.mirrord, "exec", "-n", w.namespace, "-t", "pod/app", "-f", config, "--kubeconfig", kubeconfig,
		"lasting", "-echo", "echo:7002", "-n", "200", "-file", "/data/big.bin", "-sum", sum,
		"-steal", fmt.Sprint(chaosSteal), "-mirror", fmt.Sprint(chaosMirror), fmt.Sprintf("-quiet=%v", c.quiet)},
		func(cmd *exec.Cmd) { cmd.Env = append(cmd.Env, "MIRRORD_VERBOSE=false") }) // a line for each of thousands of connections says nothing
	s.waitFor("ready\n")
	return s
}

// check has the program count what has come back.
func (s *lasting) check(t *testing.T) {
	t.Helper()
	s.checks++
	fmt.Fprintln(s.stdin, "check")
	for end := time.Now().Add(40 * time.Second); strings.Count(s.stdout.String(), "\ncheck ") < s.checks; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("the program does not answer")
		}
	}
	if n := strings.Count(s.stdout.String(), "\ncheck 200 of 200 intact, "); n < s.checks {
		t.Errorf("%d of %d checks found everything intact:\n%s", n, s.checks, s.stdout)
	}
}

// bounds of what a cut may cost.
const (
	closedBound = time.Second     // a closed link is noticed at once
	silentBound = 6 * time.Second // three heartbeats
	replyTime   = 15 * time.Second
	// servedTime is what a request may take that waits for nobody, on a machine
	// with much else to do.
	servedTime = 5 * time.Second
	// backBound is how long after the way is open again the link is back: the
	// longest pause between two attempts, and an attempt that was under way.
	backBound = 8 * time.Second
	// slack is for the two busy processors that these tests run on.
	slack = time.Second
)

// survives cuts the link for d and looks at everything.
func (s *lasting) survives(t *testing.T, c cutting, d time.Duration) {
	lost, back := strings.Count(s.stderr.String(), "the link to the agent is lost"), strings.Count(s.stderr.String(), "the link to the agent is back")
	clients := s.startClients(t, c, d)
	began := c.cut(t, s.relay, d)
	open := time.Now()
	noticed := began.Add(closedBound + slack)
	if c.silent {
		noticed = began.Add(silentBound + slack)
	}
	s.check(t) // returns when all is back
	if took := time.Since(open); !c.harmless && took > backBound+slack {
		t.Errorf("everything went on %v after the cut, want less than %v", took, backBound)
	}
	clients.stop()
	if clients.err != nil {
		t.Error(clients.err)
	}
	s.stealsAgain(t)

	clients.judge(t, c, d, open.Sub(began), began, noticed)
	if sum, ok := strings.CutPrefix(strings.TrimSpace(clients.post), "remote "); !c.quiet && (!ok || !s.stdout.waitFor("posted /mirrored "+sum, 10*time.Second)) {
		t.Errorf("the target got %q, the copy is another:\n%s", clients.post, s.stdout)
	}
	lost, back = strings.Count(s.stderr.String(), "the link to the agent is lost")-lost, strings.Count(s.stderr.String(), "the link to the agent is back")-back
	switch {
	case c.harmless && lost+back > 0:
		t.Errorf("the link was lost %d times, want never", lost)
	case c.harmless, c.sudden, d < 10*time.Second:
	case lost == 0 || back != lost || lost > 1 && !c.flickers:
		t.Errorf("told of %d losses and %d ends of one, want one of each", lost, back)
	}
}

// stealsAgain waits until requests are the program's.
func (s *lasting) stealsAgain(t *testing.T) {
	t.Helper()
	for end := time.Now().Add(5 * time.Second); ; {
		got, err := s.curl(t.Context(), "-H", "x-chaos: yes", fmt.Sprintf("http://%s:%d/again", s.ip, chaosSteal))
		if err == nil && strings.HasPrefix(got, "local /again") {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("the port is not stolen again: %q, %v", got, err)
		}
	}
}

// curl asks the target from a node: without the API server.
func (s *lasting) curl(ctx context.Context, args ...string) (string, error) {
	return w.cluster.NodeExec(ctx, "node-2", append([]string{"curl", "-sS", "--max-time", "100"}, args...)...)
}

// clients are what others ask of the target while the link is cut.
type clients struct {
	stop func() // waits for them
	wg   sync.WaitGroup

	asks    string // output of the loop that asks again and again
	slow    string // the answer to a request that was in flight
	slowEnd time.Time
	post    string // the target's answer to what is mirrored: its digest
	err     error
}

// startClients returns when the long requests are under way.
func (s *lasting) startClients(t *testing.T, c cutting, d time.Duration) *clients {
	t.Helper()
	k := &clients{}
	ctx, stop := context.WithTimeout(context.WithoutCancel(t.Context()), d+2*time.Minute)
	k.stop = stop
	t.Cleanup(stop)
	steal := fmt.Sprintf("http://%s:%d", s.ip, chaosSteal)
	begun := func() int { return strings.Count(s.stdout.String(), "asked /slow") }
	slow := begun()
	flag := filepath.Join("/tmp", fmt.Sprintf("%s-%d", w.namespace, time.Now().UnixNano())) // in the node
	if !c.quiet {
		// Each line: when it began and how long it took in ms, and the answer.
		script := fmt.Sprintf(`while [ ! -e %s ]; do
			( s=$(date +%%s%%3N); r=$(curl -sS --max-time 60 -H 'x-chaos: yes' %s/new 2>&1 | tr '\n' ' '); echo "$s $(($(date +%%s%%3N)-s)) $r" ) & sleep .25; done; wait; rm %[1]s`, flag, steal)
		k.wg.Go(func() { k.asks, k.err = w.cluster.NodeExec(ctx, "node-2", "bash", "-c", script) })
		k.wg.Go(func() {
			k.slow, _ = s.curl(ctx, "-w", " %{http_code}", "-H", "x-chaos: yes", steal+"/slow?for=4s")
			k.slowEnd = time.Now()
		})
		// Longer than the cut, at 20 kB a second.
		k.wg.Go(func() {
			k.post, _ = w.cluster.NodeExec(ctx, "node-2", "bash", "-c", fmt.Sprintf(
				`seq 1 9999999 | head -c %d | curl -sS --limit-rate 20k --max-time 150 -H Expect: --data-binary @- http://%s:%d/mirrored`,
				int(d.Seconds()+4)*20_000, s.ip, chaosMirror))
		})
	}
	time.Sleep(700 * time.Millisecond)
	for end := time.Now().Add(20 * time.Second); !c.quiet && begun() == slow; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the program gets no request")
		}
	}
	k.stop = func() {
		_, _ = w.cluster.NodeExec(ctx, "node-2", "touch", flag)
		k.wg.Wait()
		stop()
	}
	return k
}

// judge looks at what the clients were answered. The link was cut at began, for
// d, and open again after outage; from noticed on the target serves itself.
func (k *clients) judge(t *testing.T, c cutting, d, outage time.Duration, began, noticed time.Time) {
	t.Helper()
	if c.quiet {
		return
	}
	local, remote := 0, 0
	for line := range strings.Lines(k.asks) {
		f := strings.Fields(line)
		if len(f) < 3 {
			t.Errorf("a client printed %q", line)
			continue
		}
		ms, _ := strconv.ParseInt(f[0], 10, 64)
		took, _ := strconv.Atoi(f[1])
		at, lasted, answer := time.UnixMilli(ms), time.Duration(took)*time.Millisecond, strings.Join(f[2:], " ")
		when := fmt.Sprintf("a request %v after the cut, which took %v", at.Sub(began).Round(time.Millisecond), lasted)
		switch {
		case strings.HasPrefix(answer, "local /new"):
			local++
		case strings.HasPrefix(answer, "remote /new"):
			remote++
		case strings.HasPrefix(answer, "mirrord: ") && (at.Before(noticed) || c.flickers) && lasted > replyTime-slack:
		default:
			t.Errorf("%s, was answered %q", when, answer)
		}
		if at.After(noticed) && at.Before(began.Add(d)) && !c.flickers && (!strings.HasPrefix(answer, "remote /new") || lasted > servedTime) {
			t.Errorf("%s, was answered %q, want the target's own server, at once", when, answer)
		}
	}
	if local == 0 || noticed.Before(began.Add(d)) && remote == 0 && !c.flickers {
		t.Errorf("%d requests were answered by the program, %d by the target's own server", local, remote)
	}
	waited := k.slowEnd.Sub(began)
	bound := replyTime
	if c.silent {
		bound += silentBound
	}
	switch {
	case c.flickers && k.slow == "local /slow\n 200":
	case outage+slack < replyTime && k.slow != "local /slow\n 200":
		t.Errorf("the request in flight was answered %q, want the program's reply", k.slow)
	case d > replyTime && (!strings.HasSuffix(k.slow, " 502") || waited < replyTime-slack || waited > bound+servedTime):
		t.Errorf("the request in flight was answered %q after %v, want 502 after %v", k.slow, waited, bound)
	}
}

// finish ends the program and looks at what it tells.
func (s *lasting) finish(t *testing.T) {
	t.Helper()
	fmt.Fprintln(s.stdin, "stop")
	if code := s.end(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	out := s.stdout.String()
	for _, want := range []string{"end 200 of 200 intact", "file intact", "done"} {
		if !strings.Contains(out, want) {
			t.Errorf("the program did not say %q:\n%s", want, out)
		}
	}
	allowed := []string{"lookup ok", "lookup temporary", "connect ok", "connect EHOSTUNREACH", "connect temporary", "stat ok", "stat EIO"}
	for line := range strings.Lines(out) {
		what, ok := strings.CutPrefix(strings.TrimSpace(line), "outcome ")
		if !ok {
			continue
		}
		if what, _, _ = cutLast(what, " "); !slices.Contains(allowed, what) {
			t.Errorf("new work ended in %q", what)
		}
	}
}

func cutLast(s, sep string) (before, after string, found bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}
