package document

import (
	"encoding/json"

	"go.yaml.in/yaml/v4"
)

// ToYAML writes a value as YAML that reads as its JSON form does: the same names,
// in the same order.
func ToYAML(v any) ([]byte, error) {
	text, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	var n yaml.Node
	if err := yaml.Unmarshal(text, &n); err != nil { // JSON is YAML
		return nil, err
	}
	plainStyle(&n)
	return yaml.Marshal(&n)
}

// plainStyle forgets how it was written: what needs quotes gets them again.
func plainStyle(n *yaml.Node) {
	n.Style = 0
	for _, c := range n.Content {
		plainStyle(c)
	}
}
