package cli

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mirrord-go/mirrord/internal/config/document"
	"github.com/mirrord-go/mirrord/internal/failure"
)

// debugConfig runs the command on a launch.json and gives what it prints.
func debugConfig(t *testing.T, dir, launchJSON string, args ...string) (stdout string, code int) {
	t.Helper()
	file := filepath.Join(dir, ".vscode", "launch.json")
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(launchJSON), 0o644); err != nil {
		t.Fatal(err)
	}
	out, err := os.Create(filepath.Join(dir, "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	real := os.Stdout
	os.Stdout = out
	code = (&app{version: "test"}).run(append(append([]string{"debug-config"}, args...), file, "Shop"))
	os.Stdout = real
	text, err := os.ReadFile(out.Name())
	if err != nil {
		t.Fatal(err)
	}
	return string(text), code
}

// printed reads a value that was printed.
func printed(t *testing.T, text string) *document.Node {
	t.Helper()
	n, err := document.Parse(document.JSONC, document.Plain(text))
	if err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	return n
}

func TestDebugConfig(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("XDG_STATE_HOME", filepath.Join(dir, "state"))
	t.Setenv("MIRRORD_PROGRESS_MODE", "off")
	if err := os.MkdirAll(filepath.Join(dir, ".mirrord"), 0o755); err != nil {
		t.Fatal(err)
	}
	own := filepath.Join(dir, ".mirrord", "mirrord.json")
	if err := os.WriteFile(own, []byte(`{"target": "pod/shop"}`), 0o644); err != nil {
		t.Fatal(err)
	}
	const launchJSON = `{"configurations": [{"name": "Shop", "type": "cppdbg", "request": "launch", "program": "app", "miDebuggerPath": "${workspaceFolder}/gdb",}]}`
	asJSON, _ := debugConfig(t, dir, launchJSON, "--json", "-t", "pod/x", "-n", "test", "--steal", "--no-remote-dns=false", "-c=false")
	shim := printed(t, asJSON).Value("configuration").Value("miDebuggerPath").Text
	text, err := os.ReadFile(shim)
	if err != nil {
		t.Fatal(err)
	}
	st, err := os.Stat(shim)
	if err != nil {
		t.Fatal(err)
	}
	folder, err := os.Stat(filepath.Dir(shim))
	if err != nil {
		t.Fatal(err)
	}
	if st.Mode().Perm() != 0o700 || folder.Mode().Perm() != 0o700 || !strings.HasPrefix(shim, filepath.Join(dir, "state", "mirrord", "shims")+"/gdb-") {
		t.Errorf("%s has mode %v, its directory %v", shim, st.Mode(), folder.Mode())
	}
	if want := " exec --accept-invalid-certificates=false --steal -t pod/x -n test -f " + own + " -- " + dir + "/gdb \"$@\"\n"; !strings.HasSuffix(string(text), want) {
		t.Errorf("the shim is\n%swant at its end\n%s", text, want)
	}
	plain, _ := debugConfig(t, dir, launchJSON, "-t", "pod/x", "-n", "test", "--steal", "-c=false")
	if got := printed(t, plain).Value("miDebuggerPath").Text; got != shim {
		t.Errorf("the second time the shim is %s, not %s", got, shim)
	}
	if files, _ := os.ReadDir(filepath.Dir(shim)); len(files) != 1 {
		t.Errorf("there are %d files beside the shim", len(files)-1)
	}
}

func TestDebugConfigPrintsWhatBelongsToIt(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("XDG_STATE_HOME", filepath.Join(dir, "state"))
	t.Setenv("MIRRORD_PROGRESS_MODE", "off")
	text, code := debugConfig(t, dir, `{"configurations": [{"name": "Shop", "type": "go", "request": "launch", "program": "."}]}`)
	if code != 0 || !strings.Contains(text, "// for .vscode/tasks.json, in the list \"tasks\":\n{") || !strings.Contains(text, "// for .vscode/settings.json:\n{") {
		t.Errorf("code %d, stdout\n%s", code, text)
	}
}

func TestDebugConfigFails(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("XDG_STATE_HOME", filepath.Join(dir, "state"))
	t.Setenv("MIRRORD_PROGRESS_MODE", "off")
	if _, code := debugConfig(t, dir, `{"configurations": [{"name": "Shop", "type": "coreclr"}]}`); code != failure.ExitUsage {
		t.Errorf("an unknown type: exit code %d", code)
	}
	_, err := (&app{}).debugConfig(nil, nil, "", filepath.Join(dir, "none.json"), "Shop")
	if f, ok := errors.AsType[*failure.Error](err); !ok || f.Code != "launch-unreadable" {
		t.Errorf("a file that is not there: %v", err)
	}
	t.Setenv("XDG_STATE_HOME", "")
	t.Setenv("HOME", "")
	if _, code := debugConfig(t, dir, `{"configurations": [{"name": "Shop", "type": "go", "request": "launch", "program": "."}]}`); code != failure.ExitFailure {
		t.Errorf("no place for scripts: exit code %d", code)
	}
}

// What an editor has in its hands comes on stdin, and joins the session that it has
// started.
func TestDebugConfigOfAnEditor(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("XDG_STATE_HOME", filepath.Join(dir, "state"))
	t.Setenv("MIRRORD_PROGRESS_MODE", "off")
	ask := func(args ...string) (string, int) {
		t.Helper()
		in, err := os.CreateTemp(dir, "in")
		if err != nil {
			t.Fatal(err)
		}
		defer in.Close()
		if _, err := in.WriteAt([]byte(`{"configurations": [{"name": "Shop", "type": "node", "program": "a.js", "mirrord": {"target": "pod/other"}}]}`), 0); err != nil {
			t.Fatal(err)
		}
		out, err := os.CreateTemp(dir, "out")
		if err != nil {
			t.Fatal(err)
		}
		defer out.Close()
		stdin, stdout := os.Stdin, os.Stdout
		os.Stdin, os.Stdout = in, out
		code := (&app{version: "test"}).run(append([]string{"debug-config", "--json", "--session", "k3vq7a"}, args...))
		os.Stdin, os.Stdout = stdin, stdout
		text, err := os.ReadFile(out.Name())
		if err != nil {
			t.Fatal(err)
		}
		return string(text), code
	}
	text, code := ask("-", "Shop")
	if code != 0 || !strings.Contains(strings.Join(strings.Fields(text), ""), `"exec","--session","k3vq7a","--","node"`) || strings.Contains(text, "pod/other") {
		t.Errorf("code %d, stdout\n%s", code, text)
	}
	if _, code := ask("-t", "pod/x", "-", "Shop"); code != failure.ExitUsage {
		t.Errorf("a flag that says something about the session: exit code %d", code)
	}
}
