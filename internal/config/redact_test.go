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
		{HeaderJQ: &rules.Pattern{Text: `. == "authorization: S10" or startswith('S11')`, Origin: "there"}}, {Path: &rules.Pattern{Text: "^/v3/.*(?<=x)(?=y)key=S12$"}},
		{Body: &rules.Body{Kind: rules.BodyText, Matches: &rules.Pattern{Text: "^S13$"}}}, {Body: &rules.Body{Kind: rules.BodyJSON, Query: &rules.Pattern{Text: `$.u[?@.k == 'S\'14']`}, Matches: &rules.Pattern{Text: "S15"}}},
		{Body: &rules.Body{Kind: rules.BodyJQ, Query: &rules.Pattern{Text: `.user.key == "S\"16"`}}},
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
	for _, s := range []string{"S1", "S2", "S3", "S4", "S5", "S6", "S7", "S8", "S9", "S10", "S11", "S12", "S13", `S\'14`, "S15", `S\"16`} {
		if strings.Contains(string(b), s) {
			t.Errorf("%s is in %s", s, b)
		}
		if !slices.ContainsFunc(secrets, func(v string) bool { return strings.Contains(v, s) }) {
			t.Errorf("%s is not in %q", s, secrets)
		}
	}
	for _, s := range []string{"TOKEN", "EMPTY", "KEY", "x-user:", "^authorization:", "X-Key:", "x-not:", "^/api", "^/v2?/x", "^/v3/.*(?", "key=", ". == ", "$.u[?@.k == ", ".user.key == ", "here", "there", "pod/a"} {
		if !strings.Contains(string(b), s) {
			t.Errorf("%s is missing in %s", s, b)
		}
	}
}
