package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// upFile writes a file of services, with the tests' namespace for NAMESPACE.
func upFile(t testing.TB, text string) string {
	t.Helper()
	name := filepath.Join(w.dir, "work", "mirrord-up-test.yaml")
	if err := os.WriteFile(name, []byte(strings.ReplaceAll(text, "NAMESPACE", w.namespace)), 0o644); err != nil {
		t.Fatal(err)
	}
	return name
}

// threeServices are one that takes requests of the key, one that gets copies of
// them, and one without a target; the first one's target is found by its name.
const threeServices = `
services:
  app:
    target: {namespace: NAMESPACE}
    run: {command: [python3, ../bin/server.py, 8001]}
  copies:
    target: {path: pod/probed, namespace: NAMESPACE}
    default_mode: mirror
    run: {command: [python3, ../bin/server.py, 8001]}
  asker:
    target: none
    run: {command: [sh, -c, 'getent hosts dbmaster.NAMESPACE.svc.cluster.local; setsid sleep 1000 & echo $! >left; echo asked; exec sleep 1000']}
`

// startUp starts the services and waits until the first two listen and the third
// has asked.
func startUp(t testing.TB, args ...string) *run {
	t.Helper()
	os.Remove(filepath.Join(w.dir, "work", "left"))
	r := startCommand(t, append([]string{w.mirrord, "up", "-f", upFile(t, threeServices), "--key", "ana"}, args...), nil)
	for _, text := range []string{"app    | listening\n", "copies | listening\n", "asker  | asked\n"} {
		r.waitFor(text)
	}
	if !r.stderr.waitFor("all 3 services run; requests like this one come here: curl -H 'baggage: mirrord-session=ana' URL", runTime) {
		t.Fatalf("not all run: %s", r.stderr)
	}
	return r
}

func TestUp(t *testing.T) {
	r := startUp(t)
	app, probed := fmt.Sprintf("http://%s:8001", podIP(t, "app")), fmt.Sprintf("http://%s:8001", podIP(t, "probed"))
	ana := []string{"-H", "baggage: other=1,mirrord-session=ana"}
	if got := curl(t, append(ana, app+"/mine")...); !strings.HasPrefix(got, "local python /mine") {
		t.Errorf("a request of the key: %q", got)
	}
	for _, args := range [][]string{{app + "/others"}, {"-H", "baggage: mirrord-session=anabel", app + "/anabel"}} {
		if got := curl(t, args...); !strings.HasPrefix(got, "remote /") {
			t.Errorf("a request of somebody else: %q", got)
		}
	}
	if got := curl(t, append(ana, probed+"/copied")...); !strings.HasPrefix(got, "remote /copied") {
		t.Errorf("a request that is copied: %q", got)
	}
	r.waitFor("copies | got /copied from")
	if got := r.stdout.String(); strings.Contains(got, "others") || strings.Contains(got, "anabel") || !strings.Contains(got, "app    | got /mine from") {
		t.Errorf("came here: %s", got)
	}
	left := leftBy(t)
	r.signal(syscall.SIGINT)
	if code := r.wait(); code != 130 {
		t.Errorf("exit code %d after SIGINT", code)
	}
	gone(t, left)
	nothingLeft(t)
	if got := curl(t, append(ana, app+"/after")...); !strings.HasPrefix(got, "remote /after") {
		t.Errorf("afterwards: %q", got)
	}
}

// leftBy is the process that the third service leaves in the background.
func leftBy(t testing.TB) (pid int) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(w.dir, "work", "left"))
	if _, scanErr := fmt.Sscan(string(text), &pid); err != nil || scanErr != nil {
		t.Fatalf("%q: %v, %v", text, err, scanErr)
	}
	return pid
}

// TestUpKilled: nothing survives the process that the user started.
func TestUpKilled(t *testing.T) {
	r := startUp(t)
	left := leftBy(t)
	r.signal(syscall.SIGKILL)
	r.wait()
	gone(t, left)
	nothingLeft(t)
	vanish(t)
	if got := curl(t, "-H", "baggage: mirrord-session=ana", fmt.Sprintf("http://%s:8001/after", podIP(t, "app"))); !strings.HasPrefix(got, "remote /after") {
		t.Errorf("afterwards: %q", got)
	}
}

// TestUpFails: one that cannot start ends all and is named.
func TestUpFails(t *testing.T) {
	file := upFile(t, `
services:
  good: {target: {path: pod/app, namespace: NAMESPACE}, run: {command: [sleep, 1000]}}
  bad: {target: {path: pod/ap, namespace: NAMESPACE}, run: {command: [sleep, 1000]}}
`)
	r := startCommand(t, []string{w.mirrord, "up", "-f", file}, nil)
	if code := r.wait(); code != 1 {
		t.Errorf("exit code %d", code)
	}
	for _, text := range []string{"bad  | mirrord: ", "(target-not-found, see docs/errors.md)", "bad has ended with code 1; the others are told to end"} {
		if !strings.Contains(r.stderr.String(), text) {
			t.Errorf("not said: %s", text)
		}
	}
	file = upFile(t, "services: {nobody: {target: {namespace: NAMESPACE}, run: {command: [sleep, 1000]}}}\n")
	r = startCommand(t, []string{w.mirrord, "up", "-f", file}, nil)
	if code := r.wait(); code != 2 || !strings.Contains(r.stderr.String(), "nobody: nothing in namespace "+w.namespace+" is called nobody") {
		t.Errorf("exit code %d, %s", code, r.stderr)
	}
}

// TestUpTerminal: Ctrl-C ends all.
func TestUpTerminal(t *testing.T) {
	file := upFile(t, threeServices)
	x := newTerminal(t)
	x.types(w.mirrord + " up -k ana -f " + file + "; echo co\"\"de $?\n")
	x.waitFor("all 3 services run")
	x.waitFor("asked")
	x.types(ctrlC)
	x.waitFor("code 130")
	x.exits()
}
