package e2e

import (
	"encoding/xml"
	"os"
	"path/filepath"
	"testing"
)

// TestJetBrains runs what a run configuration holds as the IDE does: by the shell, in
// the project's directory.
func TestJetBrains(t *testing.T) {
	made := startCommandOnly(t, []string{w.mirrord, "ext", "jetbrains", "-n", w.namespace, "-t", "pod/app", "--name", "Shop", "--dir", "jetbrains", "--", "sh", "-c", "echo \"colour $COLOR\""})
	if code := made.end(); code != 0 {
		t.Fatalf("exit code %d: %s", code, made.stderr)
	}
	text, err := os.ReadFile(filepath.Join(w.dir, "work", "jetbrains", "Shop.run.xml"))
	if err != nil {
		t.Fatal(err)
	}
	var doc struct {
		Options []struct {
			Name  string `xml:"name,attr"`
			Value string `xml:"value,attr"`
		} `xml:"configuration>option"`
	}
	if err := xml.Unmarshal(text, &doc); err != nil {
		t.Fatal(err)
	}
	option := map[string]string{}
	for _, o := range doc.Options {
		option[o.Name] = o.Value
	}
	run := startCommandOnly(t, []string{option["INTERPRETER_PATH"], "-c", option["SCRIPT_TEXT"]})
	if code := run.end(); code != 0 || run.stdout.String() != "colour blue\n" {
		t.Errorf("exit code %d, stdout %q\n%s", code, run.stdout, run.stderr)
	}
}
