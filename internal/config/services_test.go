package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"

	"github.com/mirrord-go/mirrord/internal/config/document"
	"github.com/mirrord-go/mirrord/internal/failure"
	"github.com/mirrord-go/mirrord/internal/rules"
	"github.com/mirrord-go/mirrord/internal/rules/filter"
)

// of is the part of a pair of services that names those that are asked for, and
// the mode: "only shop cart", "mode mirror".
const of = "of"

func (p pair) services(t testing.TB) (only []string, mode string) {
	t.Helper()
	for line := range strings.Lines(p.parts[of]) {
		switch words := strings.Fields(line); words[0] {
		case "only":
			only = words[1:]
		case "mode":
			mode = words[1]
		}
	}
	return only, mode
}

// servicesMean says what a file of services means: for each its configuration as
// a file of its own.
func servicesMean(t *testing.T, p pair) (text string, failed bool) {
	t.Helper()
	only, mode := p.services(t)
	all, err := LoadServices(p.sources(t), only, mode)
	if err != nil {
		f, ok := errors.AsType[*failure.Error](err)
		if !ok || f.Exit != failure.ExitUsage || f.Do == "" {
			t.Fatalf("%T: %v", err, err)
		}
		return fmt.Sprintf("%s: %s\n%s\n", f.Code, f.What, f.Why), true
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "key %s\n", all.Key)
	for _, s := range all.List {
		fmt.Fprintf(&b, "%s %s: %q in %s, mode %s, infer %v, keyed %v, container %v\n", s.Where, s.Name, s.Argv, s.Dir, s.Mode, s.Infer, s.Keyed, s.Container)
		fmt.Fprintf(&b, "%s\n%q\n", s.Document(), s.Environ)
	}
	for _, n := range all.Notes {
		fmt.Fprintf(&b, "%s: %s\n", n.Level, n.Text)
	}
	return b.String(), false
}

func TestServices(t *testing.T) {
	files, err := filepath.Glob("testdata/services/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no files: %v", err)
	}
	for _, path := range files {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txt"), func(t *testing.T) {
			p := readPair(t, path)
			got, failed := servicesMean(t, p)
			part := partWant
			if failed {
				part = partError
			}
			if want, ok := p.parts[part]; ok && want == got {
				return
			} else if !*update {
				t.Fatalf("it means\n%s\n%s: want\n%s%s", got, part, p.parts[partWant], p.parts[partError])
			}
			p.archive.Files = slices.DeleteFunc(p.archive.Files, func(f txtar.File) bool { return f.Name == partWant || f.Name == partError })
			p.archive.Files = append(p.archive.Files, txtar.File{Name: part, Data: []byte(got)})
			if err := os.WriteFile(path, txtar.Format(p.archive), 0o644); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// TestServiceDocument: what exec makes of the document of a service is what was
// checked.
func TestServiceDocument(t *testing.T) {
	files, _ := filepath.Glob("testdata/services/*.txt")
	for _, path := range files {
		p := readPair(t, path)
		only, mode := p.services(t)
		all, err := LoadServices(p.sources(t), only, mode)
		if err != nil {
			continue
		}
		for _, s := range all.List {
			if s.Infer {
				s.SetTarget("deployment/" + s.Name)
			}
			src := p.sources(t)
			src.Environ, src.Dir = s.Environ, s.Dir
			src.Flags = map[string]Setting{configFile: {Value: "/dev/fd/3"}}
			read := src.Read
			src.Read = func(path string) ([]byte, error) {
				if path == "/dev/fd/3" {
					return s.Document(), nil
				}
				return read(path)
			}
			got, notes, err := Load(src)
			if err != nil {
				t.Fatalf("%s, %s: %v\n%s", path, s.Name, err, s.Document())
			}
			if a, b := withoutOrigins(t, got), withoutOrigins(t, s.Config); a != b {
				t.Errorf("%s, %s: got\n%s\nwant\n%s", path, s.Name, a, b)
			}
			for _, n := range notes {
				if strings.Contains(n.Text, "ignored") {
					t.Errorf("%s, %s: said again: %s", path, s.Name, n.Text)
				}
			}
		}
	}
}

// withoutOrigins is a configuration without where it was written.
func withoutOrigins(t *testing.T, c Config) string {
	t.Helper()
	text, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	var v any
	if err := json.Unmarshal(text, &v); err != nil {
		t.Fatal(err)
	}
	var clear func(v any)
	clear = func(v any) {
		switch v := v.(type) {
		case map[string]any:
			for k := range v {
				if strings.EqualFold(k, "origin") {
					delete(v, k)
				}
				clear(v[k])
			}
		case []any:
			for _, i := range v {
				clear(i)
			}
		}
	}
	clear(v)
	text, _ = json.MarshalIndent(v, "", " ")
	return string(text)
}

// TestKeyFilter: a key's requests are its own.
func TestKeyFilter(t *testing.T) {
	header := func(value string) string { return "baggage: " + value }
	for _, c := range []struct {
		key, line string
		want      bool
	}{
		{"ana", KeyHeader("ana"), true},
		{"ana", header("mirrord-session=ana,other=1"), true},
		{"ana", header("other=1, mirrord-session=ana"), true},
		{"ana", header("other=1,mirrord-session=ana;ttl=1,x=y"), true},
		{"ana", header("mirrord-session=ana , x=y"), true},
		{"ana", header("mirrord-session=anabel"), false},
		{"ana", header("mirrord-session=ana-2"), false},
		{"ana", header("x-mirrord-session=ana"), false},
		{"ana", "x-baggage: mirrord-session=ana", false},
		{"a.b", header("mirrord-session=axb"), false},
		{"a+b(", KeyHeader("a+b("), true},
	} {
		m, err := filter.Compile(rules.Filter{Header: &rules.Pattern{Text: keyFilter(c.key)}})
		if err != nil {
			t.Fatal(err)
		}
		name, value, _ := strings.Cut(c.line, ": ")
		got, err := m.Match(filter.Request{Method: "GET", Target: "/", Headers: func(yield func(string, string) bool) { yield(name, value) }})
		if err != nil || got != c.want {
			t.Errorf("key %q, %q: %v, %v, want %v", c.key, c.line, got, err, c.want)
		}
	}
}

// FuzzServices: no file makes it panic, and what is accepted is accepted as a
// configuration.
func FuzzServices(f *testing.F) {
	files, _ := filepath.Glob("testdata/services/*.txt")
	for _, path := range files {
		a := parsePair(f, path)
		for _, part := range a.Files {
			if part.Name == servicesFile {
				f.Add(part.Data)
			}
		}
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		s := Sources{Dir: workDir, RandomKey: func() string { return "ana" }, DefaultImage: func() (string, error) { return "x/y:1", nil },
			Read: func(path string) ([]byte, error) {
				if path == filepath.Join(workDir, servicesFile) {
					return text, nil
				}
				return nil, &fs.PathError{Op: "open", Path: path, Err: fs.ErrNotExist}
			}}
		all, err := LoadServices(s, nil, "")
		if err != nil {
			return
		}
		for _, service := range all.List {
			doc := service.Document()
			src := s
			src.Environ, src.Dir, src.TargetLater = service.Environ, service.Dir, true
			src.Flags = map[string]Setting{configFile: {Value: "/x"}}
			src.Read = func(string) ([]byte, error) { return doc, nil }
			got, _, err := Load(src)
			if err != nil {
				t.Fatalf("%s: %v", doc, err)
			}
			if a, b := withoutOrigins(t, got), withoutOrigins(t, service.Config); a != b {
				t.Errorf("got %s, want %s", a, b)
			}
		}
	})
}

func TestLiteral(t *testing.T) {
	for _, text := range []string{"{{ key }}", "{{{", "{%", "{#x{{", "{{%", "plain"} {
		filled, used, err := document.Fill(string(literal(map[string]any{"a": text})), document.Values{})
		if err != nil || used {
			t.Fatalf("%q: %v, %v", text, err, used)
		}
		root, err := document.Parse(document.JSON, filled)
		if err != nil || root.Value("a").Text != text {
			t.Errorf("%q: %v, %v", text, root, err)
		}
	}
	if !reflect.DeepEqual(literal(map[string]any{"a": map[string]any{}}), []byte(`{"a":{}}`)) {
		t.Error("an empty object is one")
	}
}

// TestServicesSchema: the schema takes the files that work, the documentation's
// too, and refuses others.
func TestServicesSchema(t *testing.T) {
	s := compileSchema(t, ServicesSchema())
	files, _ := filepath.Glob("testdata/services/*.txt")
	for _, path := range files {
		p := readPair(t, path)
		root, err := document.Parse(document.YAML, document.Plain(p.parts[servicesFile]))
		if _, works := p.parts[partWant]; err != nil || p.parts[servicesFile] == "" || p.parts[of] != "" || works == (validate(t, s, root) == nil) {
			continue
		}
		if name := filepath.Base(path); name != "unknown-service.txt" && name != "template.txt" {
			t.Errorf("%s: %v", path, validate(t, s, root))
		}
	}
	page, err := os.ReadFile("../../docs/flows/up.md")
	if err != nil {
		t.Fatal(err)
	}
	_, text, _ := strings.Cut(string(page), "```yaml\n")
	text, _, _ = strings.Cut(text, "```")
	src := pair{parts: map[string]string{servicesFile: text}}.sources(t)
	if all, err := LoadServices(src, nil, ""); err != nil || len(all.List) != 2 {
		t.Errorf("the example of the documentation: %v, %v", all.List, err)
	}
	root, err := document.Parse(document.YAML, document.Plain(text))
	if err != nil || validate(t, s, root) != nil {
		t.Errorf("the example of the documentation: %v, %v", err, validate(t, s, root))
	}
	for _, text := range []string{`{}`, `{"services": {"a": {}}}`, `{"services": {"a": {"run": {"command": "x"}}}}`, `{"services": {"a": {"run": {"command": ["x"]}, "default_mode": "steal"}}}`,
		`{"services": {"a": {"run": {"command": ["x"]}, "target": "shop"}}}`, `{"common": {"x": 1}, "services": {"a": {"run": {"command": ["x"]}}}}`} {
		root, err := document.Parse(document.JSON, document.Plain(text))
		if err != nil || validate(t, s, root) == nil {
			t.Errorf("it takes %s, %v", text, err)
		}
	}
}
