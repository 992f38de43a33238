package config

import (
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/mirrord-go/mirrord/internal/rules"
)

func TestRedacted(t *testing.T) {
	header := func(text string) rules.Filter {
		return rules.Filter{Header: &rules.Pattern{Text: text, Origin: "there"}}
	}
	not := header("x-not: S7")
	c := Config{Target: "pod/a", Env: rules.EnvOptions{
		Override: map[string]rules.Pattern{"TOKEN": {Text: "S1", Origin: "here"}, "EMPTY": {}},
		Mapping:  []rules.EnvMapping{{Name: rules.Pattern{Text: "KEY"}, Value: "S2"}},
	}, Incoming: rules.IncomingOptions{HTTP: &rules.HTTPOptions{Filter: rules.Filter{AllOf: []rules.Filter{
		header("x-user: S3"), header("^authorization: bearer S4$"), header(".*S5"), {AnyOf: []rules.Filter{header("(?i)^X-Key:S6"), {Not: &not}}},
		{Path: &rules.Pattern{Text: "^/api"}}, {Path: &rules.Pattern{Text: `^/v2?/x\?token=S8`}}, {Path: &rules.Pattern{Text: `[?]key=S9`}},
	}}}}}
	before, _ := json.Marshal(c)
	r, secrets := c.Redacted()
	if after, _ := json.Marshal(c); !reflect.DeepEqual(before, after) {
		t.Error("the configuration itself has changed")
	}
	b, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{"S1", "S2", "S3", "S4", "S5", "S6", "S7", "S8", "S9"} {
		if strings.Contains(string(b), s) {
			t.Errorf("%s is in %s", s, b)
		}
		if !slices.ContainsFunc(secrets, func(v string) bool { return strings.Contains(v, s) }) {
			t.Errorf("%s is not in %q", s, secrets)
		}
	}
	for _, s := range []string{"TOKEN", "EMPTY", "KEY", "x-user:", "^authorization:", "X-Key:", "x-not:", "^/api", "^/v2?/x", "here", "there", "pod/a"} {
		if !strings.Contains(string(b), s) {
			t.Errorf("%s is missing in %s", s, b)
		}
	}
}
