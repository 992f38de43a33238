package document

import (
	"encoding/json"
	"reflect"
	"testing"

	"go.yaml.in/yaml/v4"
)

func TestToYAML(t *testing.T) {
	v := map[string]any{"b": []any{"true", "1", "a: b", "", "\x1b[31m", "line\nbreak"}, "a": map[string]any{"n": nil, "yes": true, "f": 1.5}, "empty": []any{}}
	text, err := ToYAML(v)
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := yaml.Unmarshal(text, &got); err != nil || !reflect.DeepEqual(got, v) {
		t.Errorf("%v: read back as %v:\n%s", err, got, text)
	}
	type ordered struct {
		Z int      `json:"z"`
		A []string `json:"a"`
	}
	text, err = ToYAML(ordered{1, []string{"x"}})
	if want := "z: 1\na:\n- x\n"; err != nil || string(text) != want && string(text) != "z: 1\na:\n    - x\n" {
		t.Errorf("%v: got\n%s, want\n%s", err, text, want)
	}
	if _, err := ToYAML(json.RawMessage("{")); err == nil {
		t.Error("it takes what is no JSON")
	}
}
