package cli

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mirrord-go/mirrord/internal/debugger/jetbrains"
	"github.com/mirrord-go/mirrord/internal/failure"
)

func TestJetBrains(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	t.Setenv("MIRRORD_PROGRESS_MODE", "off")
	ask := func(args ...string) int { return (&app{version: "test"}).run(append([]string{"ext"}, args...)) }
	words := []string{"jetbrains", "-t", "deployment/shop", "--steal", "--name", "Shop", "--", "node", "--inspect", "server.js"}
	for range 2 { // again: what is its own it replaces
		if code := ask(words...); code != 0 {
			t.Fatalf("exit code %d", code)
		}
	}
	text, err := os.ReadFile(".run/Shop.run.xml")
	if err != nil || !strings.Contains(string(text), "exec --steal -t deployment/shop -- node --inspect server.js") {
		t.Errorf("%v\n%s", err, text)
	}
	if _, err := os.Stat(".run/Shop (debugger).run.xml"); err != nil {
		t.Error(err)
	}

	const own = `<component name="ProjectRunConfigurationManager"><configuration name="Shop" type="NodeJS"></configuration></component>`
	for name, file := range map[string]string{"the command's": "Shop.run.xml", "the debugger's": "Shop (debugger).run.xml"} {
		if err := os.RemoveAll(".run"); err != nil {
			t.Fatal(err)
		}
		if err := os.Mkdir(".run", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(".run", file), []byte(own), 0o644); err != nil {
			t.Fatal(err)
		}
		code := ask(words...)
		if left, _ := os.ReadDir(".run"); code != failure.ExitUsage || len(left) != 1 {
			t.Errorf("%s is somebody's: exit code %d, %d files", name, code, len(left))
		}
	}
	if err := os.WriteFile("file", nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if code := ask("jetbrains", "--dir", "file/x", "--", "npm", "start"); code != failure.ExitFailure {
		t.Errorf("a directory that cannot be made: exit code %d", code)
	}
	made := jetbrains.Make("Shop", []string{"mirrord", "exec", "--"}, []string{"npm", "start"})
	for dir, want := range map[string]string{"file/x": "run-configuration-unwritable", ".run": "run-configuration-there"} {
		if err := os.WriteFile(".run/Shop.run.xml", []byte(own), 0o644); err != nil {
			t.Fatal(err)
		}
		f, ok := errors.AsType[*failure.Error]((&app{}).writeRunConfigurations(dir, made))
		if !ok || f.Code != want {
			t.Errorf("%s: %v, want %s", dir, f, want)
		}
	}
	if code := ask("--target", "x"); code != failure.ExitUsage {
		t.Errorf("what mirrord's own plugins ask: exit code %d", code)
	}
}
