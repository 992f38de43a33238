package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
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
	// sudden: the supervisor, which is stopped, knows of the loss when it is over.
	sudden bool
	// patient: what others have under way waits for the whole window.
	patient bool
	// only is how long it is cut, if not as the others.
	only time.Duration
	// hurts: the cluster needs time to be itself again.
	hurts bool
	// relayed: the session goes through the relay.
	relayed bool
	// cut cuts for d and returns when the way is open again; began is when that was.
	cut func(t *testing.T, r *relay, d time.Duration) (began time.Time)
}

var cuttings = []cutting{
	{name: "connection closed", short: true, relayed: true, cut: closeAll},
	{name: "connection closed, replies wait for it", relayed: true, quiet: true, patient: true, only: replyTime + 5*time.Second, cut: closeAll},
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
			id, args, _ := strings.Cut(p, " ")
			if strings.Contains(args, "-upgraded") { // a client elsewhere
				continue
			}
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

// closeAll closes what goes through the relay, and what comes meanwhile.
func closeAll(_ *testing.T, r *relay, d time.Duration) (began time.Time) {
	began = time.Now()
	r.set(func() { r.closes = true })
	time.Sleep(d)
	r.set(func() { r.closes = false })
	return began
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
		if c.only > 0 {
			durations = []time.Duration{c.only}
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
	said := len(s.stdout.String())
	began := c.cut(t, s.relay, d)
	open := time.Now()
	noticed := began.Add(closedBound + slack)
	if c.silent {
		noticed = began.Add(silentBound + slack)
	}
	if took := s.check(t); !c.harmless && took > backBound+slack {
		t.Errorf("everything went on %v after the cut, want less than %v", took, backBound)
	}
	clients.stop()
	if clients.err != nil {
		t.Error(clients.err)
	}
	s.judge(t, s.stdout.String()[said:], c, d, open.Sub(began))
	s.upgraded.judge(t, c, d, open.Sub(began), began)
	s.stealsAgain(t)

	clients.judge(t, c, d, open.Sub(began), began, noticed)
	if sum, ok := strings.CutPrefix(strings.TrimSpace(clients.post), "remote "); !c.quiet && (!ok || !s.stdout.waitFor("posted /mirrored "+sum, 10*time.Second)) {
		t.Errorf("the target got %q, the copy is another:\n%s", clients.post, s.stdout)
	}
	lost, back = strings.Count(s.stderr.String(), "the link to the agent is lost")-lost, strings.Count(s.stderr.String(), "the link to the agent is back")-back
	switch {
	case c.harmless && lost+back > 0:
		t.Errorf("the link was lost %d times, want never", lost)
	case c.harmless:
	case back != lost || lost > 1 && !c.flickers || lost == 0 && d >= 10*time.Second:
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
