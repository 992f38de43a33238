package e2e

import (
	"cmp"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Sessions of several developers on one port of one pod.

const sharedPort = "8021"

// share starts a session on the port whose program answers with who. It has to be
// stopped by the test.
func share(t *testing.T, who string, args ...string) *run {
	t.Helper()
	argv := append([]string{w.mirrord, "exec", "--verbose", "-n", w.namespace, "-t", "pod/app"}, args...)
	return startCommandOnly(t, append(argv, "env", "WHO="+who, "python3", "../bin/web.py", sharedPort))
}

// visitor asks the pod from another one's network.
type visitor struct {
	t      *testing.T
	client int // a process of that pod
	url    string

	patience int // of each request, in seconds; 0: 10
}

// shell gives a command that runs a script there.
func (v *visitor) shell(script string) *exec.Cmd {
	return exec.Command("nsenter", "-t", strconv.Itoa(v.client), "--net", "bash", "-c", script)
}

// ask is the command of one request of user's.
func (v *visitor) ask(user string) string {
	return fmt.Sprintf("curl -sS --max-time %d -H 'X-User: %s' %s", cmp.Or(v.patience, 10), user, v.url)
}

// answered asks as user until who answers.
func (v *visitor) answered(user, who string, limit time.Duration) {
	v.t.Helper()
	var got string
	if !comesTo(limit, func() bool {
		out, _ := v.shell(v.ask(user)).CombinedOutput()
		got = string(out)
		return strings.HasPrefix(got, who+" ")
	}) {
		v.t.Fatalf("a request of %s is answered %q, want by %s", user, got, who)
	}
}

// asking asks as user on a new connection each time, until it is stopped, which
// gives how many were answered by whom; "failed" is one who did not answer.
func (v *visitor) asking(user string) (stop func() map[string]int) {
	v.t.Helper()
	enough := filepath.Join(v.t.TempDir(), "enough")
	cmd := v.shell(fmt.Sprintf("until test -e %s; do %s 2>&1 || echo failed; done", enough, v.ask(user)))
	out := newOutput()
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		v.t.Fatal(err)
	}
	stop = sync.OnceValue(func() map[string]int {
		_ = os.WriteFile(enough, nil, 0o644)
		_ = cmd.Wait()
		count := map[string]int{}
		for line := range strings.Lines(out.String()) {
			who, _, _ := strings.Cut(strings.TrimSpace(line), " ")
			count[who]++
		}
		return count
	})
	v.t.Cleanup(func() { stop() })
	if !out.waitFor("peer=", runTime) {
		v.t.Fatal("nobody answers")
	}
	return stop
}

func TestSessionsShareAPort(t *testing.T) {
	t.Cleanup(func() { nothingLeft(t) })
	v := newVisitor(t)
	url := v.url
	ana := share(t, "ana", "--steal", "--header", "x-user: ana")
	ana.waitFor("listening")
	bob := share(t, "bob", "--steal", "--header", "x-user: bob")
	bob.waitFor("listening")

	// One connection of a client, and each of its requests goes where it belongs.
	from := podIP(t, "tools")
	got := curl(t, "-H", "X-User: ana", url+"1", "--next", "-sS", "-H", "X-User: bob", url+"2", "--next", "-sS", url+"3", "--next", "-sS", "-H", "X-User: ana",
		"-w", "connections: %{num_connects}\n", url+"4")
	if want := fmt.Sprintf("ana /1 peer=%[1]s\nbob /2 peer=%[1]s\nremote /3 peer=%[1]s\nana /4 peer=%[1]s\nconnections: 0", from); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}

	for name, c := range map[string]struct {
		args []string
		want string
	}{
		"the same filter": {[]string{"--steal", "--header", "x-user: bob"}, "with the same filter"},
		"the whole port":  {[]string{"--steal"}, "it cannot be taken whole"},
	} {
		r := share(t, "eve", c.args...)
		if code := r.end(); code == 0 || !strings.Contains(r.stderr.String(), c.want) || !strings.Contains(r.stderr.String(), "@") || !strings.Contains(r.stderr.String(), " UTC") {
			t.Errorf("%s: exit code %d, stderr:\n%s", name, code, r.stderr)
		}
	}
	goesOn := share(t, "eve", filtered(t, `{"mode": "steal", "on_concurrent_steal": "continue"}`)...)
	goesOn.waitFor("listening")
	if !goesOn.stderr.waitFor("open on this machine only", runTime) { // it comes by another way than what the program says
		t.Errorf("with continue it is said:\n%s", goesOn.stderr)
	}
	v.answered("eve", "remote", 5*time.Second)
	goesOn.stop()

	// The end of the session that has the port is nobody's loss.
	stop := v.asking("bob")
	ana.stop()
	v.answered("bob", "bob", 5*time.Second)
	count := stop()
	if count["failed"] > 0 || count["curl:"] > 0 || count["bob"] == 0 {
		t.Errorf("while the other session ended bob's requests were answered by %v", count)
	}
	t.Logf("at the end of the other session bob's requests were answered by %v", count)
	v.answered("ana", "remote", 5*time.Second)

	// Nor is the end of its agent, which nobody sees coming.
	ana = share(t, "ana", "--steal", "--header", "x-user: ana")
	ana.waitFor("listening")
	v.answered("ana", "ana", 5*time.Second)
	h := &hunted{run: bob}
	h.awaitAgent()
	stop = v.asking("ana")
	if err := syscall.Kill(h.agent, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	bob.end()
	v.answered("bob", "remote", 5*time.Second)
	v.answered("ana", "ana", 5*time.Second)
	count = stop()
	if count["failed"] > 1 || count["ana"] == 0 { // that one the agent held
		t.Errorf("when the other agent was killed ana's requests were answered by %v", count)
	}
	t.Logf("when the other agent was killed ana's requests were answered by %v", count)

	// Nor is kill -9 of the command.
	bob = share(t, "bob", "--steal", "--header", "x-user: bob")
	bob.waitFor("listening")
	ana.signal(syscall.SIGKILL)
	ana.end()
	v.answered("ana", "remote", 20*time.Second)
	v.answered("bob", "bob", 20*time.Second)
	bob.stop()
	v.answered("bob", "remote", 5*time.Second)
}
