package config

import (
	"errors"
	"io/fs"
	"strings"
	"testing"

	"github.com/mirrord-go/mirrord/internal/config/document"
	"github.com/mirrord-go/mirrord/internal/failure"
)

// loaded reads a JSON text and the variables, without what contradicts itself.
func loaded(t *testing.T, text string, s settings) *decoder {
	t.Helper()
	root, err := document.Parse(document.JSON, document.Plain(text))
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	d := &decoder{schema: newSchema(), values: map[string]value{}, file: origin{name: "file", file: true}}
	d.section("", root)
	d.overlay(s)
	return d
}

// FuzzLoad: whatever stands in a file, in any of the formats, Load gives a
// configuration or a failure that says what is wrong.
func FuzzLoad(f *testing.F) {
	for _, path := range []string{"forms/short", "forms/yaml", "forms/toml", "errors/types", "errors/filter-conditions", "errors/ports", "keys/outgoing.filter.local"} {
		for _, part := range readPairOf(f, "testdata/"+path+".txtar") {
			f.Add(part)
		}
	}
	f.Add("target: {pod: a, container: 1}\nfeature: {network: {incoming: {port_mapping: [[1, 2, 3], [], x]}}}")
	f.Fuzz(func(t *testing.T, text string) {
		for _, name := range []string{"c.json", "c.yaml", "c.toml"} {
			_, _, err := Load(Sources{
				Dir: workDir, Flags: map[string]Setting{configFile: {name, "config-file"}},
				Read: func(path string) ([]byte, error) {
					if strings.HasSuffix(path, name) {
						return []byte(text), nil
					}
					return nil, fs.ErrNotExist
				},
				RandomKey:    func() string { return "k" },
				DefaultImage: func() (string, error) { return "r/a:1", nil },
			})
			if err == nil {
				continue
			}
			if e, ok := errors.AsType[*failure.Error](err); !ok || e.Why == "" || e.Exit != failure.ExitUsage {
				t.Errorf("%q as %s: %v", text, name, err)
			}
		}
	})
}

// readPairOf gives the files of a pair that are configurations.
func readPairOf(f *testing.F, path string) []string {
	f.Helper()
	var texts []string
	for _, part := range parsePair(f, path).Files {
		if _, ok := document.FormatOf(part.Name); ok && strings.HasPrefix(part.Name, ".mirrord/") {
			texts = append(texts, string(part.Data))
		}
	}
	return texts
}
