package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
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
)

var update = flag.Bool("update", false, "write what the configurations mean into testdata")

// workDir is where the files of a pair are.
const workDir = "/w"

// Names of the parts of a pair that are no file of the working directory.
const (
	partWant    = "want"    // what the configuration means
	partError   = "error"   // or why it is wrong
	partEnviron = "environ" // NAME=value lines
	partFlags   = "flags"   // flag=value lines, or a flag alone
	partStdin   = "stdin"
)

// pair is "configuration as written / what it means", one file each.
type pair struct {
	archive *txtar.Archive
	parts   map[string]string
}

func parsePair(t testing.TB, path string) *txtar.Archive {
	t.Helper()
	a, err := txtar.ParseFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func readPair(t *testing.T, path string) pair {
	t.Helper()
	a := parsePair(t, path)
	p := pair{a, map[string]string{}}
	for _, f := range a.Files {
		p.parts[f.Name] = string(f.Data)
	}
	return p
}

func (p pair) sources(t *testing.T) Sources {
	t.Helper()
	s := Sources{
		Flags: map[string]Setting{}, Dir: workDir,
		Read: func(path string) ([]byte, error) {
			if text, ok := p.parts[strings.TrimPrefix(path, workDir+"/")]; ok {
				return []byte(text), nil
			}
			return nil, &fs.PathError{Op: "open", Path: path, Err: fs.ErrNotExist}
		},
		Stdin:        func() ([]byte, error) { return []byte(p.parts[partStdin]), nil },
		RandomKey:    func() string { return "a1b2c" },
		DefaultImage: func() (string, error) { return "registry.example:5000/agent:1.0", nil },
	}
	for line := range strings.Lines(p.parts[partEnviron]) {
		s.Environ = append(s.Environ, strings.TrimSuffix(line, "\n"))
	}
	for line := range strings.Lines(p.parts[partFlags]) {
		name, v, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
		i := slices.IndexFunc(flagTable, func(f Flag) bool { return f.Name == name })
		if i < 0 {
			t.Fatalf("there is no flag %q", name)
		}
		if err := flagTable[i].Set(s.Flags, v); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// meaning is a configuration as JSON, without what it is anyway, and its notes.
func meaning(t *testing.T, s Sources) (text string, failed bool) {
	t.Helper()
	cfg, notes, err := Load(s)
	if err != nil {
		f, ok := errors.AsType[*failure.Error](err)
		if !ok {
			t.Fatalf("%T: %v", err, err)
		}
		if f.Exit != failure.ExitUsage || f.Do == "" {
			t.Errorf("exit code %d, to do: %q", f.Exit, f.Do)
		}
		return fmt.Sprintf("%s: %s\n%s\n", f.Code, f.What, f.Why), true
	}
	usual, _, err := Load(pair{}.sources(t))
	if err != nil {
		t.Fatal(err)
	}
	parts := map[string]any{}
	got, want := reflect.ValueOf(cfg), reflect.ValueOf(usual)
	for i := range got.NumField() {
		if !reflect.DeepEqual(got.Field(i).Interface(), want.Field(i).Interface()) {
			name, _, _ := strings.Cut(got.Type().Field(i).Tag.Get("json"), ",")
			parts[name] = got.Field(i).Interface()
		}
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(parts); err != nil {
		t.Fatal(err)
	}
	for _, n := range notes {
		fmt.Fprintf(&b, "%s: %s\n", n.Level, n.Text)
	}
	return b.String(), false
}

func pairs(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob("testdata/*/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no pairs: %v", err)
	}
	return files
}

func TestPairs(t *testing.T) {
	for _, path := range pairs(t) {
		t.Run(strings.TrimSuffix(strings.TrimPrefix(path, "testdata/"), ".txtar"), func(t *testing.T) {
			p := readPair(t, path)
			got, failed := meaning(t, p.sources(t))
			part := partWant
			if failed {
				part = partError
			}
			if want, ok := p.parts[part]; ok && want == got {
				return
			} else if !*update {
				t.Errorf("it means\n%s\n%s: want\n%s%s", got, part, p.parts[partWant], p.parts[partError])
				return
			}
			p.archive.Files = slices.DeleteFunc(p.archive.Files, func(f txtar.File) bool { return f.Name == partWant || f.Name == partError })
			p.archive.Files = append(p.archive.Files, txtar.File{Name: part, Data: []byte(got)})
			if err := os.WriteFile(path, txtar.Format(p.archive), 0o644); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// TestEveryKeyHasAPair: the table holds no key that no pair writes into a file,
// and no variable that none sets.
func TestEveryKeyHasAPair(t *testing.T) {
	keys, vars := map[string]bool{}, map[string]bool{}
	for _, path := range pairs(t) {
		p := readPair(t, path)
		for name, text := range p.parts {
			format, ok := document.FormatOf(name)
			if !ok || !strings.HasPrefix(name, ".mirrord/") {
				continue
			}
			root, err := document.Parse(format, document.Plain(text))
			if err != nil {
				continue
			}
			d := &decoder{schema: newSchema(), values: map[string]value{}}
			d.section("", root)
			for key := range d.values {
				keys[key] = true
			}
			for _, problem := range d.list {
				keys[problem.key] = true
			}
		}
		for _, kv := range p.sources(t).Environ {
			name, _, _ := strings.Cut(kv, "=")
			vars[name] = true
		}
		for name := range p.sources(t).Flags {
			vars[name] = true
		}
	}
	for _, k := range keyTable {
		if !keys[k.Name] {
			t.Errorf("no pair has the key %s", k.Name)
		}
		if k.Var != "" && !vars[k.Var] {
			t.Errorf("no pair has the variable %s of %s", k.Var, k.Name)
		}
	}
}
