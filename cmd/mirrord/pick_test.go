package main

import (
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
)

// TestPick: where the configuration wants it, the target is chosen on the
// terminal.
func TestPick(t *testing.T) {
	server := httptest.NewServer(crowd(30))
	defer server.Close()
	home := t.TempDir()
	kubeconfig := kubeconfigOf(t, home, server.URL)
	env := []string{"KUBECONFIG=" + kubeconfig, "NO_COLOR=1"}
	pick := func(args ...string) *view { return onTerminal(t, home, env, 12, 100, args...) }

	v := pick("exec", "-t", "pick", "--", "true")
	v.shows("Which target, of namespace shop?", true)
	v.shows("31 of 31; type to narrow", true)
	v.shows("* deployment/web", true)
	v.types("web-000")
	v.shows("10 of 31; ", true)
	v.types("\x1b[B\x1b[B\x1b[B")
	v.shows("* pod/web-0003", true)
	v.types("\r")
	_ = v.wait() // this API server knows how to list only
	if all := v.all(); !strings.Contains(all, leaveScreen) || !strings.Contains(after(all, leaveScreen), "web-0003") {
		t.Errorf("what was chosen is not the target: %q", after(all, leaveScreen))
	}

	// So do the commands that look at a session's target, or that write down what
	// one needs.
	for _, c := range []struct {
		args []string
		says string // of what was chosen
	}{
		{[]string{"rbac", "-t", "pick"}, "resources: [deployments]"},
		{[]string{"doctor", "-t", "pick"}, "deployment/web"},
		{[]string{"explain", "path", "/data/x", "-t", "pick"}, "deployment/web"},
		{[]string{"explain", "request", "GET /", "-t", "pick"}, "deployment/web"},
		{[]string{"diagnose", "-t", "pick", "-o", filepath.Join(home, "a.tar.gz")}, "doctor.json"},
	} {
		v := pick(c.args...)
		v.shows("* deployment/web", true)
		v.types("\r")
		_ = v.wait()
		if all := v.all(); !strings.Contains(after(all, leaveScreen), c.says) {
			t.Errorf("%s: what was chosen is not the target: %q", strings.Join(c.args, " "), after(all, leaveScreen))
		}
		v = pick(c.args...)
		v.shows("* deployment/web", true)
		v.types("\x1b")
		_ = v.wait()
		if code := v.cmd.ProcessState.ExitCode(); code != 130 && c.args[0] != "diagnose" || !strings.Contains(v.all(), "no target was chosen") {
			t.Errorf("%s, cancelled: exit code %d, %q", strings.Join(c.args, " "), code, after(v.all(), leaveScreen))
		}
	}
	// What does not depend on the target does not ask.
	c := mirrordCommand(home, "explain", "env", "COLOR", "-t", "pick")
	c.Env = append(c.Env, env...)
	if out, err := c.CombinedOutput(); err != nil || !strings.Contains(string(out), "variable COLOR: ") {
		t.Errorf("explain env: %v, %s", err, out)
	}

	v = pick("exec", "-t", "pick", "--", "true")
	v.shows("* deployment/web", true)
	v.types("\x1b")
	_ = v.wait()
	if code := v.cmd.ProcessState.ExitCode(); code != 130 || !strings.Contains(v.all(), "no target was chosen") || !strings.Contains(v.all(), "pick-cancelled") {
		t.Errorf("cancelled: exit code %d, %q", code, after(v.all(), leaveScreen))
	}
	nobody := httptest.NewServer(crowd(0))
	defer nobody.Close()
	env[0] = "KUBECONFIG=" + kubeconfigOf(t, home, nobody.URL)
	v = pick("exec", "-t", "pick", "--", "true")
	_ = v.wait()
	if !strings.Contains(v.all(), "namespace shop has nothing with a ready pod") || !strings.Contains(v.all(), "pick-nothing") {
		t.Errorf("of nothing: %q", v.all())
	}
}

// leaveScreen is the end of what gives a terminal back.
const leaveScreen = "\x1b[?1049l"

func after(text, mark string) string {
	_, rest, _ := strings.Cut(text, mark)
	return rest
}
