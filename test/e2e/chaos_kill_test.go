package e2e

import (
	"context"
	"flag"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

var updateMatrix = flag.Bool("update", false, "write the kill matrix into docs/reliability.md")

// TestChaosKill kills each part of a session in each phase. Without
// MIRRORD_CHAOS=whole each part is killed once, but nothing of the cluster
// itself, which others may be using, and nobody whose work the cluster does then.
func TestChaosKill(t *testing.T) {
	documented(t)
	p := newPrey(t)
	seen := map[string]bool{}
	for _, k := range matrix() {
		for ph := range phases {
			if k.want[ph].none() {
				continue
			}
			if !whole() && (seen[k.name] || k.slow || k.window > 0 || ph != idle) {
				continue
			}
			seen[k.name] = true
			t.Run(fmt.Sprintf("%s/%s", k, ph), func(t *testing.T) {
				prey := p
				if k.fresh {
					prey = newPrey(t)
				}
				kill(t, prey, k, ph)
			})
		}
	}
}

// lateness is for what was on its way to the agent when something was struck, and
// for the clocks of a busy machine.
const lateness = 250 * time.Millisecond

// kill is one cell.
func kill(t *testing.T, p *prey, k killed, ph phase) {
	want := k.want[ph]
	startTime := 20 * time.Second
	if k.slow {
		startTime = time.Minute
	}
	var a *asker
	if ph == starting {
		if a = askAll(t, p); !a.seen("remote", time.Now(), 10*time.Second) {
			t.Fatal("the target answers nobody")
		}
	}
	var args []string
	if k.window > 0 {
		args = []string{"--agent-resume-window", strconv.Itoa(int(k.window.Seconds()))}
	}
	h := hunt(t, p, startTime, ph == idle || ph == loaded, ph == loaded, args...)
	a = reach(t, h, k, ph, a)
	if k.first != nil {
		k.first(t, h)
	}

	struck := time.Now()
	var victim int
	switch {
	case k.pid != nil:
		victim = *k.pid(h)
		if err := syscall.Kill(victim, k.sig); err != nil && ph != stopping {
			t.Fatalf("%s is not there: %v", k, err)
		}
	default:
		k.act(t, h)
	}
	done := time.Now() // the cluster takes its time for an order
	if a == nil {
		a = askAll(t, p)
	}

	if want.ends == 0 {
		goesOn(t, h, k, ph, a, struck)
	}
	limit := want.ends
	if limit == 0 {
		limit = 2 * goneTime
	}
	select {
	case <-h.done:
	case <-time.After(time.Until(done.Add(limit)) + 300*time.Millisecond):
		if want.ends > 0 {
			t.Errorf("it has not ended within %v", limit)
		}
		select {
		case <-h.done:
		case <-time.After(runTime):
			t.Fatal("it hangs")
		}
	}
	ended := time.Now()
	t.Logf("ended %v after the kill", time.Since(struck).Round(10*time.Millisecond))
	verdict(t, h, want)
	if k.pid != nil && victim != h.cmd.Process.Pid && ours(victim) { // a stopped one that nobody needs any more
		_ = syscall.Kill(victim, syscall.SIGCONT)
	}

	switch {
	case want.kin:
		livesOn(t, h, victim, a, ph)
		h.release()
	case want.strays:
		strays(t, h)
		h.release()
		h.treeGone() // they hang on nothing that is gone
	case want.codes[0] != 130 || want.held: // nobody of the session's lives on
		h.treeGone()
	default: // whom the command has left lives on, as without mirrord
		h.release()
	}
	clean := want.clean
	if clean == 0 {
		clean = goneTime
	}
	if k.slow {
		clean = collectTime
	}
	nothingOf(t, h, clean)
	bound := struck.Add(want.back + lateness) // from here on everything is the target's
	if k.pid == nil && !k.prompt {
		bound = ended.Add(want.back + lateness)
	}
	undisturbed(t, h, k, ph, a, struck, done, bound)
	if k.doomed {
		unheld(t, p, clean)
	} else {
		unchanged(t, p, clean)
	}
	if k.slow {
		revive(t)
	}
}

// reach brings the session into the phase. The client is nil where it is idle;
// where it starts, it has been there before.
func reach(t *testing.T, h *hunted, k killed, ph phase, a *asker) *asker {
	t.Helper()
	if ph == starting {
		h.ordered()
		if k.name == "agent" || k.name == "agent's pod" {
			h.awaitAgent()
		}
		return a
	}
	h.ready()
	a = askAll(t, h.prey)
	if !a.seen("local", time.Now(), 10*time.Second) {
		t.Fatal("the program gets nothing")
	}
	if ph == idle {
		a.answers()
		return nil
	}
	if ph == stopping {
		h.ctrlC()
		if k.name != "user process" && k.name != "shell" {
			for end := time.Now().Add(5 * time.Second); alive(h.program); time.Sleep(time.Millisecond) {
				if time.Now().After(end) {
					t.Fatal("the program does not end")
				}
			}
		}
	}
	return a
}

// livesOn checks that those whom the command has left live, and serve.
func livesOn(t *testing.T, h *hunted, victim int, a *asker, ph phase) {
	t.Helper()
	if !alive(h.grandchild) {
		t.Error("the grandchild does not live any more")
	}
	if h.program == victim {
		return
	}
	if !alive(h.program) {
		t.Error("the program does not live any more")
	}
	if ph == loaded && !a.seen("local", time.Now(), 10*time.Second) {
		t.Error("the program does not serve any more")
	}
}

// strays checks that of the command's processes it alone has ended.
func strays(t *testing.T, h *hunted) {
	t.Helper()
	gone(t, h.shell)
	if h.grandchild > 0 && (!alive(h.grandchild) || !alive(h.program)) { // else they end by themselves
		t.Errorf("of what the command started there is only: %v", h.kin())
	}
}

// alive tells processes from zombies.
func alive(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, rest, _ := strings.Cut(string(b), ") ")
	return !strings.HasPrefix(rest, "Z") && !strings.HasPrefix(rest, "X")
}

// goesOn checks a session that does not end by itself, and ends it.
func goesOn(t *testing.T, h *hunted, k killed, ph phase, a *asker, struck time.Time) {
	t.Helper()
	want := k.want[ph]
	if len(want.says) > 0 && !h.stderr.waitFor(want.says[0], 10*time.Second) {
		t.Errorf("nobody said %q:\n%s", want.says[0], h.stderr)
	}
	if want.back > 0 && !a.seen("remote", struck, want.back+time.Second) {
		t.Errorf("the target has not got its port back after %v", want.back)
	}
	if want.held {
		h.ctrlC()
		return
	}
	if k.sig == syscall.SIGSTOP {
		time.Sleep(time.Second) // long enough to do harm
		if ph == stopping && k.name == "front" {
			h.helperGone(t)
		}
		_ = syscall.Kill(*k.pid(h), syscall.SIGCONT)
	}
	if ph == stopping {
		return
	}
	if ph == starting {
		h.ready()
	}
	select {
	case <-h.done:
		t.Fatalf("the session has ended:\n%s", h.stderr)
	default:
	}
	if !a.seen("local", time.Now(), 45*time.Second) {
		t.Errorf("the program gets nothing any more")
	}
	if strings.Contains(h.stdout.String(), "load:") && !k.fresh { // what went through the target went with it
		t.Errorf("the program was disturbed:\n%s", h.stdout)
	}
	h.ctrlC()
	if h.grandchild > 0 { // it would keep the session
		_ = syscall.Kill(h.grandchild, syscall.SIGKILL)
	}
}

// helperGone waits until the supervisor has done all without the front.
func (h *hunted) helperGone(t *testing.T) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); alive(h.supervisor); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Error("the supervisor waits for a front that is stopped")
			return
		}
	}
}

// verdict checks how the session ended, and what was said.
func verdict(t *testing.T, h *hunted, want outcome) {
	t.Helper()
	code := shellCode(h.cmd.ProcessState)
	failures := strings.Count(h.stderr.String(), ", see docs/errors.md)")
	if want.may != "" && strings.Contains(h.stderr.String(), "("+want.may+",") && code == 1 && failures == 1 {
		return
	}
	if !slices.Contains(want.codes, code) {
		t.Errorf("exit code %d, want one of %v", code, want.codes)
	}
	for _, text := range want.says {
		if n := strings.Count(h.stderr.String(), text); n != 1 {
			t.Errorf("%q was said %d times", text, n)
		}
	}
	expected := 0
	if slices.Equal(want.codes, []int{1}) {
		expected = 1
	}
	if failures != expected {
		t.Errorf("%d failures were told, want %d", failures, expected)
	}
	if t.Failed() {
		t.Logf("stderr:\n%s", h.stderr)
	}
}

// shellCode is what a shell calls the exit code: 128+n when signal n ended it.
// A front that has done its work dies by the signal that comes then.
func shellCode(s *os.ProcessState) int {
	if ws := s.Sys().(syscall.WaitStatus); ws.Signaled() {
		return 128 + int(ws.Signal())
	}
	return s.ExitCode()
}

// undisturbed checks what others noticed: the target serves its port itself from
// the bound on, and what failed before that was at the local side. A target that
// was hurt itself serves nobody from when it was struck, and again when that was
// done; one that is doomed never.
func undisturbed(t *testing.T, h *hunted, k killed, ph phase, a *asker, struck, done, bound time.Time) {
	t.Helper()
	want := k.want[ph]
	if !k.doomed && !a.seen("remote", time.Now(), 5*time.Second) {
		t.Error("the target does not serve its port")
	}
	onTheWay := func(q asked) bool { return q.end.After(struck) && q.begin.Before(bound) }
	switch {
	case ph == starting && (want.ends > 0 || want.held): // nobody was ever served here
		onTheWay = func(asked) bool { return false }
	case want.kin: // the session ends later
		bound = time.Now()
		onTheWay = func(q asked) bool { return q.end.After(struck) }
	case want.ends == 0 && want.back == 0:
		bound = time.Now()
		onTheWay = func(q asked) bool { return q.end.After(h.pressed) }
	case want.back == 0:
		bound = time.Now()
	}
	if k.name == "user process" { // the session lives: whatever the program was not given is the target's
		onTheWay = func(asked) bool { return false }
	}
	down := func(q asked) bool {
		return k.fresh && q.end.After(struck) && (k.doomed || q.begin.Before(done))
	}
	got := held(t, h)
	var bad []string
	for _, q := range a.answers() {
		if q.answer != "open" && !down(q) && (q.begin.After(bound) && q.answer != "remote" || q.failed() && !q.of(got) && !onTheWay(q)) {
			bad = append(bad, q.String())
		}
	}
	if len(bad) > 0 {
		t.Errorf("struck at %s; clients noticed, of which the program had got none:\n%s", struck.Format("05.000"), strings.Join(bad[:min(len(bad), 20)], "\n"))
	}
}

// revive waits until the node of the targets starts pods again, and nobody takes
// it for lost any more because of what it could not tell meanwhile.
func revive(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	name := fmt.Sprintf("again-%d", time.Now().UnixNano())
	for {
		err := w.cluster.Apply(ctx, w.namespace, fmt.Sprintf(`{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": %q},
			"spec": {"nodeName": "node-2", "terminationGracePeriodSeconds": 0, "containers": [{"name": "a", "image": "debian:1", "command": ["sleep", "1000"]}]}}`, name))
		if err == nil {
			err = w.cluster.WaitReady(ctx, w.namespace, "pod/"+name)
		}
		if err == nil || ctx.Err() != nil {
			if err != nil {
				t.Error(err)
			}
			break
		}
		time.Sleep(200 * time.Millisecond)
	}
	_, _ = w.cluster.Kubectl(ctx, "delete", "pod", name, "-n", w.namespace, "--wait=false", "--grace-period=0", "--force")
	for started := time.Now(); !renewed(ctx, started); {
		if ctx.Err() != nil {
			t.Fatal("the node's lease is not renewed")
		}
		time.Sleep(200 * time.Millisecond)
	}
	if err := w.cluster.WaitReady(ctx, w.namespace, "node/node-2"); err != nil {
		t.Error(err)
	}
}

// renewed reports whether the node of the targets has said since then that it is
// well.
func renewed(ctx context.Context, since time.Time) bool {
	out, _ := w.cluster.Kubectl(ctx, "get", "lease", "node-2", "-n", "kube-node-lease", "-o", "jsonpath={.spec.renewTime}")
	last, err := time.Parse(time.RFC3339Nano, strings.TrimSpace(out))
	return err == nil && last.After(since)
}
