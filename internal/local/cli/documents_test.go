package cli

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/mirrord-go/mirrord/internal/testdocs"
)

// TestDocumentedCommands: what the documents' prose calls a command of mirrord is
// one, and has the flags that stand there.
func TestDocumentedCommands(t *testing.T) {
	names, err := testdocs.Files("../../..")
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for _, name := range names {
		text, err := os.ReadFile("../../../" + name)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile("`(?:bin/|sudo )?mirrord ([a-z][^`]*)`").FindAllStringSubmatch(string(text), -1) {
			seen++
			if f := notHere(strings.Fields(m[1])); f == nil && m[1] != "container" { // its keys are there before it
				if problem := unknown(strings.Fields(m[1])); problem != "" {
					t.Errorf("%s: mirrord %s: %s", name, m[1], problem)
				}
			}
		}
	}
	if seen < 100 {
		t.Errorf("found only %d", seen)
	}
}

// unknown says what the program does not know of a command line.
func unknown(words []string) string {
	root := (&app{version: "test"}).root()
	root.InitDefaultCompletionCmd("completion")
	if words[0] == "completions" { // an alias
		words[0] = "completion"
	}
	c, rest, err := root.Find(words)
	if err != nil {
		return err.Error()
	}
	if c == root || c.HasSubCommands() && c.Name() != "completion" && len(rest) > 0 && !strings.HasPrefix(rest[0], "-") && strings.ToLower(rest[0]) == rest[0] && !strings.ContainsAny(rest[0], "…[") {
		return "no such command"
	}
	for _, word := range rest {
		word = strings.Trim(word, "[]")
		if word == "--" || slices.Contains([]string{"COMMAND", "…"}, word) {
			return ""
		}
		if long, ok := strings.CutPrefix(word, "--"); ok {
			long, _, _ = strings.Cut(long, "=")
			if c.Flags().Lookup(long) == nil && long != "help" {
				return "it has no flag --" + long
			}
		}
	}
	return ""
}

// TestElsewhere: a command of mirrord is one here, or says what to do instead.
func TestElsewhere(t *testing.T) {
	root := (&app{version: "test"}).root()
	root.InitDefaultCompletionCmd("completion")
	here := func(words ...string) bool {
		c, rest, err := root.Find(words)
		return err == nil && c != root && len(rest) == 0
	}
	for _, name := range strings.Fields("exec container dump port-forward up ls verify-config diagnose completion fix ui wizard session sessions kill chaos newsletter teams operator ci preview " +
		"db-branches queues qs subscribe vpn ext container-ext extract intproxy extproxy cleanup-guardian") {
		if here(name) == (notHere([]string{name, "x"}) != nil) {
			t.Errorf("%s is both here and elsewhere, or neither", name)
		}
	}
	for name, e := range commandsElsewhere {
		if here(strings.Fields(name)...) {
			t.Errorf("%s is here", name)
		}
		if e.why == "" || e.do == "" {
			t.Errorf("%s: why is it not here, and what is to be typed instead?", name)
		}
	}
}
