package main

import (
	"fmt"
	"net/http/httptest"
	"os"
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
	kubeconfig := filepath.Join(home, "kubeconfig")
	text := fmt.Sprintf(`{"apiVersion": "v1", "kind": "Config", "current-context": "here",
		"clusters": [{"name": "c", "cluster": {"server": %q}}], "users": [{"name": "u", "user": {}}],
		"contexts": [{"name": "here", "context": {"cluster": "c", "user": "u", "namespace": "shop"}}]}`, server.URL)
	if err := os.WriteFile(kubeconfig, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	env := []string{"KUBECONFIG=" + kubeconfig, "NO_COLOR=1"}
	pick := func() *view { return onTerminal(t, home, env, 12, 100, "exec", "-t", "pick", "--", "true") }

	v := pick()
	v.shows("Which target, of namespace shop?", true)
	v.shows("31 of 31; type to narrow", true)
	v.shows("* deployment/web", true)
	v.types("web-000")
	v.shows("10 of 31; ", true)
	v.types("\x1b[B\x1b[B\x1b[B")
	v.shows("* pod/web-0003", true)
	v.types("\r")
	_ = v.cmd.Wait() // this API server knows how to list only
	if all := v.all(); !strings.Contains(all, leaveScreen) || !strings.Contains(after(all, leaveScreen), "web-0003") {
		t.Errorf("what was chosen is not the target: %q", after(all, leaveScreen))
	}

	v = pick()
	v.shows("* deployment/web", true)
	v.types("\x1b")
	_ = v.cmd.Wait()
	if code := v.cmd.ProcessState.ExitCode(); code != 130 || !strings.Contains(v.all(), "no target was chosen") {
		t.Errorf("cancelled: exit code %d, %q", code, after(v.all(), leaveScreen))
	}
}

// leaveScreen is the end of what gives a terminal back.
const leaveScreen = "\x1b[?1049l"

func after(text, mark string) string {
	_, rest, _ := strings.Cut(text, mark)
	return rest
}
