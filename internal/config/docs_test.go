package config

import (
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
)

const docsFile = "../../docs/configuration.md"

// marked is a table of docs/configuration.md that is made from the tables here:
// of the keys of a status whose name has a prefix, or of the flags.
var marked = regexp.MustCompile(`(?s)<!-- (keys|flags): ?([a-z]*) ?([a-z_.0-9]*) -->\n.*?<!-- end -->`)

// TestDocs: the page has every key and every flag once, as the tables have them.
func TestDocs(t *testing.T) {
	text, err := os.ReadFile(docsFile)
	if err != nil {
		t.Fatal(err)
	}
	page := string(text)
	prefixes := map[string][]string{} // by status
	for _, m := range marked.FindAllStringSubmatch(page, -1) {
		prefixes[m[2]] = append(prefixes[m[2]], m[3])
	}
	seen := map[string]bool{}
	got := marked.ReplaceAllStringFunc(page, func(block string) string {
		m := marked.FindStringSubmatch(block)
		head, _, _ := strings.Cut(block, "\n")
		var b strings.Builder
		if m[1] == "flags" {
			b.WriteString("| flag | variable | |\n|---|---|---|\n")
			for _, f := range flagTable {
				b.WriteString(flagRow(f))
			}
		} else {
			b.WriteString("| key | takes | default | variable, flag | meaning |\n|---|---|---|---|---|\n")
			if last := map[string]string{"needless": "why", "instead": "what happens here"}[m[2]]; last != "" {
				b.Reset()
				fmt.Fprintf(&b, "| key | takes | %s |\n|---|---|---|\n", last)
			}
			for i := range keyTable {
				k := &keyTable[i]
				if statusName(k.Status) == m[2] && longest(prefixes[m[2]], k.Name) == m[3] && strings.HasPrefix(k.Name, m[3]) {
					seen[k.Name] = true
					b.WriteString(keyRow(k))
				}
			}
		}
		return head + "\n" + b.String() + "<!-- end -->"
	})
	for _, k := range keyTable {
		if !seen[k.Name] {
			t.Errorf("docs/configuration.md has no table for %s", k.Name)
		}
	}
	if got == page {
		return
	}
	if !*update {
		t.Fatal("docs/configuration.md is older than the tables: go test ./internal/config -update")
	}
	if err := os.WriteFile(docsFile, []byte(got), 0o644); err != nil {
		t.Fatal(err)
	}
}

// Every example of the page is a configuration that works.
func TestDocsExamples(t *testing.T) {
	text, err := os.ReadFile(docsFile)
	if err != nil {
		t.Fatal(err)
	}
	examples := regexp.MustCompile("(?s)```(json|yaml)\n(.*?)```").FindAllStringSubmatch(string(text), -1)
	if len(examples) < 10 {
		t.Errorf("found %d examples", len(examples))
	}
	for _, e := range examples {
		s := pair{parts: map[string]string{".mirrord/mirrord." + e[1]: e[2], ".env": ""}}.sources(t)
		s.Flags["MIRRORD_IMPERSONATED_TARGET"] = Setting{"pod/x", "target"}
		if _, _, err := Load(s); err != nil {
			t.Errorf("%s\n%v", e[2], err)
		}
	}
}

func statusName(s Status) string {
	return []string{"works", "operator", "needless", "later", "instead"}[s]
}

// longest gives the longest of the prefixes that name has.
func longest(prefixes []string, name string) string {
	best := ""
	for _, p := range prefixes {
		if strings.HasPrefix(name, p) && len(p) > len(best) {
			best = p
		}
	}
	return best
}

func keyRow(k *Key) string {
	takes := k.Type.String()
	switch k.Type {
	case Choice:
		takes = "`" + strings.Join(k.Choices(), "`, `") + "`"
	case Number:
		if k.Max() != maxNumber {
			takes = fmt.Sprintf("number up to %d", k.Max())
		}
	}
	if e, ok := examples[k.Name]; ok && k.Status != Needless { // of other types the values are there
		var b strings.Builder
		enc := json.NewEncoder(&b)
		enc.SetEscapeHTML(false)
		if err := enc.Encode(e); err != nil {
			panic(err)
		}
		takes += ": `" + strings.TrimSpace(b.String()) + "`"
	}
	if k.Status == Needless || k.Status == Instead {
		return fmt.Sprintf("| `%s` | %s | %s |\n", k.Name, takes, k.About)
	}
	var ways []string
	if k.Var != "" {
		ways = append(ways, "`"+k.Var+"`")
	}
	for _, f := range flagTable {
		sets := strings.Join(f.Sets, " ")
		if k.Var != "" && !f.Hidden && (f.Var == k.Var || strings.Contains(sets, k.Var+"=")) {
			ways = append(ways, flagName(f))
		}
	}
	return fmt.Sprintf("| `%s` | %s | %s | %s | %s |\n", k.Name, takes, k.Default, strings.Join(ways, ", "), strings.ReplaceAll(k.About, "|", `\|`))
}

func flagName(f Flag) string {
	if f.Short != "" {
		return fmt.Sprintf("`-%s`, `--%s`", f.Short, f.Name)
	}
	return "`--" + f.Name + "`"
}

func flagRow(f Flag) string {
	variable := f.Var
	if variable == "" {
		variable = strings.Join(f.Sets, "`, `")
	}
	return fmt.Sprintf("| %s | `%s` | %s |\n", flagName(f), variable, strings.ReplaceAll(f.About, "|", `\|`))
}
