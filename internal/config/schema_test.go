package config

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/mirrord-go/mirrord/internal/config/document"
)

func compileSchema(t *testing.T, schema map[string]any) *jsonschema.Schema {
	t.Helper()
	text, err := json.Marshal(schema)
	if err != nil {
		t.Fatal(err)
	}
	root, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("mirrord.json", root); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile("mirrord.json")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// validate says what the schema has against a document.
func validate(t *testing.T, s *jsonschema.Schema, root *document.Node) error {
	t.Helper()
	text, err := json.Marshal(plain(root))
	if err != nil {
		t.Fatal(err)
	}
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	return s.Validate(v)
}

// The schema takes every configuration that works, those of the documentation
// too.
func TestSchemaTakes(t *testing.T) {
	s := compileSchema(t, Schema())
	seen := 0
	take := func(t *testing.T, format document.Format, text string) {
		root, err := document.Parse(format, document.Plain(text))
		if err != nil || root.Kind != document.Map { // it works with its templates only, or is empty
			return
		}
		seen++
		if err := validate(t, s, root); err != nil {
			t.Error(err)
		}
	}
	for _, path := range pairs(t) {
		t.Run(path, func(t *testing.T) {
			p := readPair(t, path)
			if _, works := p.parts[partWant]; !works {
				return
			}
			for name, text := range p.parts {
				if format, ok := document.FormatOf(name); ok && strings.HasPrefix(name, ".mirrord/") {
					take(t, format, text)
				}
			}
		})
	}
	if seen < 100 {
		t.Errorf("only %d configurations were looked at", seen)
	}
	page, err := os.ReadFile(docsFile)
	if err != nil {
		t.Fatal(err)
	}
	for i, e := range regexp.MustCompile("(?s)```(json|yaml)\n(.*?)```").FindAllStringSubmatch(string(page), -1) {
		t.Run(fmt.Sprint("documentation/", i), func(t *testing.T) {
			format := document.JSON
			if e[1] == "yaml" {
				format = document.YAML
			}
			take(t, format, e[2])
		})
	}
}

// The schema refuses values of another type, keys that there are not, and what
// stands in place of a section and means nothing.
func TestSchemaRefuses(t *testing.T) {
	s := compileSchema(t, Schema())
	refuse := func(text string) {
		t.Helper()
		root, err := document.Parse(document.JSON, document.Plain(text))
		if err != nil {
			t.Fatal(err)
		}
		if err := validate(t, s, root); err == nil {
			t.Errorf("it takes %s", text)
		}
	}
	for _, k := range keyTable {
		wrong := `{"odd": 1}`
		switch k.Type {
		case Open:
			continue
		case Pairs, PathMap, Expressions, Quantities:
			wrong = "[1]"
		}
		refuse(nest(k.Name, wrong))
		refuse(nest(k.Name+"x", "1"))
	}
	for _, text := range []string{
		`{"agent": true}`, `{"feature": "off"}`, `{"feature": {"fs": "reed"}}`, `{"target": "shop"}`, `{"target": {"pod": "a/b"}}`, `{"target": {"path": 1}}`,
		`{"target": {"namespace": "x", "pod": "y"}}`, `{"agent": {"image": {"name": "x"}}}`, `{"agent": {"resume_window": 4000}}`,
		`{"feature": {"network": {"incoming": {"ports": [0]}}}}`, `{"feature": {"network": {"incoming": {"http_filter": {"any_of": [{"header": "a", "path": "b"}]}}}}}`,
		`{"agent": {"resources": {"limits": {"memory": "1 Gi"}}}}`, `{"agent": {"tolerations": [{"effect": "NoRun"}]}}`,
	} {
		refuse(text)
	}
}

// Every key is described, where editors look for it, with an example: one that the
// schema takes, and that is a configuration that works.
func TestSchemaDescribes(t *testing.T) {
	s := compileSchema(t, Schema())
	for _, k := range keyTable {
		if e := k.Example(); e != nil {
			text, err := json.Marshal(e)
			if err != nil {
				t.Fatal(err)
			}
			whole := nest(k.Name, string(text))
			if section, ok := strings.CutSuffix(k.Name, ".localhost_profile"); ok { // which stands beside its type
				whole = nest(section, `{"type": "Localhost", "localhost_profile": `+string(text)+"}")
			}
			switch tls := "feature.network.incoming.tls"; {
			case k.Name == tls+".client_ca", k.Name == tls+".client_certificate", k.Name == tls+".client_key":
				whole = nest(tls, `{"certificate": "/a", "client_ca": "/etc/tls/ca.crt", "client_certificate": "/etc/tls/client.crt", "client_key": "/etc/tls/client.key"}`)
			case k.Name == tls+".key":
				whole = nest(tls, `{"certificate": "/a", "key": `+string(text)+"}")
			}
			root, err := document.Parse(document.JSON, document.Plain(whole))
			if err != nil {
				t.Fatal(err)
			}
			if err := validate(t, s, root); err != nil {
				t.Errorf("the example of %s: %v", k.Name, err)
			}
			p := pair{parts: map[string]string{".mirrord/mirrord.json": whole, ".env": ""}}.sources(t)
			p.TargetLater = true
			if _, _, err := Load(p); err != nil {
				t.Errorf("the example of %s: %v", k.Name, err)
			}
		} else if k.Type != Open { // of which only mirrord's documentation knows the form
			t.Errorf("%s has no example", k.Name)
		}
		if k.Name == "target.path" || k.Name == "target.namespace" {
			continue // in a form of their own
		}
		var at any = Schema()
		for part := range strings.SplitSeq(k.Name, ".") {
			m := at.(object)
			if forms, ok := m["anyOf"].([]any); ok {
				for _, f := range forms { // of the forms that is the object
					if f.(object)["properties"] != nil {
						m = f.(object)
					}
				}
			}
			properties, _ := m["properties"].(object)
			if at = properties[part]; at == nil {
				t.Fatalf("%s: nothing at %q", k.Name, part)
			}
		}
		if text, _ := at.(object)["description"].(string); !strings.Contains(text, strings.ReplaceAll(k.About, "`", "")) {
			t.Errorf("%s is described as %q", k.Name, text)
		}
		if shown := at.(object)["examples"]; k.Example() != nil && !reflect.DeepEqual(shown, []any{k.Example()}) {
			t.Errorf("%s has the examples %v", k.Name, shown)
		}
	}
}
