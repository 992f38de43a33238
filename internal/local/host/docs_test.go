package host

import (
	"os"
	"strings"
	"testing"
)

// docs/hosts.md says what the code says.
func TestDocs(t *testing.T) {
	b, err := os.ReadFile("../../../docs/hosts.md")
	if err != nil {
		t.Fatal(err)
	}
	text := string(b)
	for _, p := range Pieces {
		row := ""
		for line := range strings.Lines(text) {
			if strings.HasPrefix(strings.ReplaceAll(line, "`", ""), "| "+p.Name+" | "+p.Why+" |") {
				row = line
			}
		}
		without := p.Without
		if without == "" {
			without = "no session"
		}
		if !strings.Contains(row, without) {
			t.Errorf("no row of %q, %q, %q; got %q", p.Name, p.Why, without, row)
		}
	}
	var args []string
	for _, a := range RunArguments {
		args = append(args, a.Arg)
		if !strings.Contains(text, `"`+a.Arg+`"`) {
			t.Errorf("no run argument %q", a.Arg)
		}
	}
	if command := "docker run " + strings.Join(args, " ") + " IMAGE\n"; !strings.Contains(text, command) {
		t.Errorf("no line %q", command)
	}
	for _, file := range []string{sysctlFile, modulesFile, rulesFile, profileFile, labelArgument} {
		if !strings.Contains(text, "`"+file+"`") {
			t.Errorf("%s is not named", file)
		}
	}
}
