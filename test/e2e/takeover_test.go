package e2e

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

const overriding = `{"mode": "steal", "on_concurrent_steal": "override"}`

// newVisitor asks the port that sessions share.
func newVisitor(t *testing.T) *visitor {
	t.Helper()
	v := &visitor{t: t, url: fmt.Sprintf("http://%s:%s/", podIP(t, "app"), sharedPort)}
	var err error
	if v.client, err = w.cluster.PodProcess(t.Context(), w.namespace, "tools"); err != nil {
		t.Fatal(err)
	}
	return v
}

// told waits until a session is told something.
func told(t *testing.T, r *run, text string) {
	t.Helper()
	if !r.stderr.waitFor(text, runTime) {
		t.Fatalf("it is not told %q:\n%s", text, r.stderr)
	}
}

// changes does something while user asks, by which who answers changes, and checks
// that nobody's request was lost.
func (v *visitor) changes(user, from, to string, do func()) {
	v.t.Helper()
	v.answered(user, from, 10*time.Second)
	stop := v.asking(user)
	do()
	v.answered(user, to, 10*time.Second)
	count := stop()
	if count["failed"] > 0 || count["curl:"] > 0 || count[from] == 0 || count[to] == 0 {
		v.t.Errorf("while %s took it over from %s the requests were answered by %v", to, from, count)
	}
	v.t.Logf("while %s took it over from %s the requests were answered by %v", to, from, count)
}

// A session that overrides takes what it cannot share, who had it is told and goes on,
// and no client notices.
func TestSessionsTakeOver(t *testing.T) {
	t.Cleanup(func() { nothingLeft(t) })
	v := newVisitor(t)
	begin := func(who string, args ...string) *run {
		r := share(t, who, args...)
		r.waitFor("listening")
		return r
	}
	const toldOf = "has been taken over by "
	var bob, eve, dan *run

	ana := begin("ana", "--steal")
	v.changes("eve", "ana", "bob", func() { bob = begin("bob", filtered(t, overriding)...) })
	told(t, ana, toldOf)
	told(t, ana, "restart the server that listens")

	v.changes("eve", "bob", "eve", func() { eve = begin("eve", append(filtered(t, overriding), "--header", "x-user: eve")...) })
	told(t, bob, toldOf)
	v.answered("dan", "remote", 5*time.Second)

	v.changes("eve", "eve", "dan", func() { dan = begin("dan", append(filtered(t, overriding), "--header", "x-user: eve")...) })
	told(t, eve, toldOf)
	for name, r := range map[string]*run{"ana": ana, "bob": bob, "eve": eve} {
		select {
		case <-r.done:
			t.Errorf("the session of %s has ended", name)
		default:
		}
		if n := strings.Count(r.stderr.String(), toldOf); n != 1 {
			t.Errorf("%s is told %d times", name, n)
		}
	}
	fresh := begin("fresh", "--steal", "--header", "x-user: fresh") // there is room for others
	v.answered("fresh", "fresh", 5*time.Second)

	// It does not come back by itself.
	dan.stop()
	v.answered("eve", "remote", 5*time.Second)
	v.answered("fresh", "fresh", 5*time.Second)
	for _, r := range []*run{fresh, eve, bob, ana} {
		r.stop()
	}
	v.answered("fresh", "remote", 5*time.Second)
}

// Who takes a port over has it in every pod.
func TestTakeOverEverywhere(t *testing.T) {
	spread(t)
	pods := spreadPods(t)
	begin := func(args ...string) *run {
		argv := append([]string{w.mirrord, "exec", "--verbose", "-n", w.namespace}, args...)
		argv = append(argv, "-t", "deployment/spread", "python3", "../bin/web.py", chaosPort)
		return startCommandOnly(t, argv)
	}
	ana := begin("--steal")
	told(t, ana, "comes here, too")
	bob := begin(filtered(t, overriding)...)
	told(t, bob, "comes here, too")
	told(t, ana, "has been taken over by ")
	served(t, "local", pods)
	ana.stop()
	served(t, "local", pods)
	if strings.Contains(bob.stderr.String(), "has been taken over by ") || strings.Contains(bob.stderr.String(), "does not come here") {
		t.Errorf("who took it over is told:\n%s", bob.stderr)
	}
	bob.stop()
	served(t, "remote", pods)
	nothingIn(t, w.namespace)
}

// programOf finds the process that answers as who.
func programOf(t *testing.T, who string) int {
	t.Helper()
	var found []string
	for _, p := range programs("WHO=" + who) {
		if strings.Contains(p, "web.py\\x00"+sharedPort) {
			found = append(found, p)
		}
	}
	if len(found) != 1 {
		t.Fatalf("what answers as %s: %v", who, found)
	}
	number, _, _ := strings.Cut(found[0], " ")
	pid, _ := strconv.Atoi(number)
	return pid
}

// A request that two filters match, and that the first session's program does not
// take, goes to the other session, and to the target only if that does not take it
// either.
func TestRequestGoesToTheNextSession(t *testing.T) {
	t.Cleanup(func() { nothingLeft(t) })
	v := newVisitor(t)
	both := func(who string) *run {
		r := share(t, who, filtered(t, `{"mode": "steal", "accept_timeout": 1, "http_filter": {"header_filter": "^x-user: (`+who+`|both)$"}}`)...)
		r.waitFor("listening")
		return r
	}
	ana, bob := both("ana"), both("bob")
	v.answered("both", "ana", 5*time.Second)
	told(t, bob, "some requests that your filter matches go to another session")
	for _, who := range []string{"ana", "bob"} {
		pid := programOf(t, who)
		if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = syscall.Kill(pid, syscall.SIGCONT) })
		next := map[string]string{"ana": "bob", "bob": "remote"}[who]
		for range 3 { // the first waits, and those after it do not
			out, _ := v.shell(v.ask("both")).CombinedOutput()
			if !strings.HasPrefix(string(out), next+" ") {
				status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
				t.Errorf("while %s is stopped a request is answered %q, want by %s; its process:\n%.200s", who, out, next, status)
			}
		}
	}
	for _, who := range []string{"bob", "ana"} {
		if err := syscall.Kill(programOf(t, who), syscall.SIGCONT); err != nil {
			t.Fatal(err)
		}
		v.answered("both", who, 10*time.Second)
	}
	ana.stop()
	v.answered("both", "bob", 5*time.Second)
	bob.stop()
}

// An agent that is stopped keeps nobody else's requests, whether it has the port or
// gets requests from the one that has, and takes part again when it goes on.
func TestSharingWithAStoppedAgent(t *testing.T) {
	t.Cleanup(func() { nothingLeft(t) })
	v := newVisitor(t)
	v.patience = 3
	ana := share(t, "ana", "--steal", "--header", "x-user: ana")
	ana.waitFor("listening")
	bob := share(t, "bob", "--steal", "--header", "x-user: bob")
	bob.waitFor("listening")
	v.answered("bob", "bob", 5*time.Second)
	stopped := func(r *run) (goOn func()) {
		t.Helper()
		h := &hunted{run: r}
		h.awaitAgent()
		if err := syscall.Kill(h.agent, syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		goOn = func() { _ = syscall.Kill(h.agent, syscall.SIGCONT) }
		t.Cleanup(goOn)
		return goOn
	}
	goOn := stopped(bob) // which ana's gives its requests
	v.answered("bob", "remote", 10*time.Second)
	v.answered("ana", "ana", 5*time.Second)
	told(t, ana, "the agent of another session, ")
	goOn()
	v.answered("bob", "bob", 20*time.Second)

	goOn = stopped(ana) // which has the port
	v.answered("nobody", "remote", 10*time.Second)
	v.answered("bob", "remote", 5*time.Second)
	told(t, bob, "which has the port and gives this one its requests")
	goOn()
	v.answered("ana", "ana", 20*time.Second)
	v.answered("bob", "bob", 5*time.Second)
	ana.stop()
	bob.stop()
}
