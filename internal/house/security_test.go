package house

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// printers are the only files of the developer's side that may write to the
// user's terminal: what they print of others goes through monitor.Clean.
var printers = []string{"cli/", "demo/"}

var printing = regexp.MustCompile(`\bos\.(Stdout|Stderr)\b|\bfmt\.Print`)

// rawJSON writes what a terminal obeys as it is: monitor.WriteJSON does not.
var rawJSON = regexp.MustCompile(`\bNewEncoder\(os\.Std`)

// TestPrinting: one place shows what strangers wrote.
func TestPrinting(t *testing.T) {
	root := "../local"
	err := filepath.WalkDir(root, func(file string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(file, ".go") || strings.HasSuffix(file, "_test.go") {
			return err
		}
		rel, err := filepath.Rel(root, file)
		if b, err := os.ReadFile(file); err == nil && rawJSON.Match(b) {
			t.Errorf("%s writes JSON as it is: use monitor.WriteJSON", file)
		}
		if err != nil || slices.ContainsFunc(printers, func(p string) bool { return strings.HasPrefix(rel, p) }) {
			return err
		}
		b, err := os.ReadFile(file)
		if m := printing.Find(b); m != nil {
			t.Errorf("%s has %s: emit an event, which is shown by monitor", file, m)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestSecurityNamesTests: docs/security.md promises nothing that no test of the
// name it gives holds, and names every fuzz target.
func TestSecurityNamesTests(t *testing.T) {
	doc, err := os.ReadFile("../../docs/security.md")
	if err != nil {
		t.Fatal(err)
	}
	there := map[string]bool{}
	declared := regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)[A-Za-z0-9]+)\(`)
	for _, root := range []string{"../../internal", "../../test", "../../cmd"} {
		err := filepath.WalkDir(root, func(file string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || !strings.HasSuffix(file, "_test.go") {
				return err
			}
			b, err := os.ReadFile(file)
			for _, m := range declared.FindAllSubmatch(b, -1) {
				there[string(m[1])] = true
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	named := map[string]bool{}
	for _, name := range regexp.MustCompile("`((?:Test|Fuzz)[A-Za-z0-9]+)`").FindAllSubmatch(doc, -1) {
		named[string(name[1])] = true
		if !there[string(name[1])] {
			t.Errorf("docs/security.md names %s, which is no test", name[1])
		}
	}
	for name := range there {
		if strings.HasPrefix(name, "Fuzz") && !named[name] {
			t.Errorf("docs/security.md does not name %s", name)
		}
	}
}
