package config

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"testing"

	"github.com/mirrord-go/mirrord/internal/failure"
	"github.com/mirrord-go/mirrord/internal/rules"
)

// loadText loads a JSON file.
func loadText(text string, environ []string, flags map[string]Setting) (Config, error) {
	cfg, _, err := Load(Sources{
		Flags: flags, Environ: environ, Dir: workDir,
		Read: func(path string) ([]byte, error) {
			if path == workDir+"/.mirrord/mirrord.json" {
				return []byte(text), nil
			}
			return nil, fs.ErrNotExist
		},
		RandomKey:    func() string { return "a1b2c" },
		DefaultImage: func() (string, error) { return "registry.example/agent:1", nil },
	})
	return cfg, err
}

// nest writes {"a": {"b": value}}.
func nest(name, value string) string {
	parts := strings.Split(name, ".")
	for _, p := range slices.Backward(parts) {
		value = fmt.Sprintf("{%q: %s}", p, value)
	}
	return value
}

// Every key refuses a value of another type, and says where it stands.
func TestWrongTypes(t *testing.T) {
	for _, k := range keyTable {
		wrong := `{"odd": 1}`
		switch {
		case k.Type == Open, k.Name == "target.path":
			continue
		case k.Type == Pairs, k.Type == PathMap, k.Type == Expressions, k.Type == Quantities, k.Type == Negated, k.Type == BodyMatch, k.Name == "agent.image":
			wrong = "[1]"
		}
		_, err := loadText(nest(k.Name, wrong), nil, nil)
		f, ok := errors.AsType[*failure.Error](err)
		if !ok || f.Code != "config-invalid" || !strings.Contains(f.Why, ".mirrord/mirrord.json:1:") || !strings.Contains(f.Why, k.Name+": found ") {
			t.Errorf("%s: %v", k.Name, err)
		}
		if k.Type == Open || k.Var == "" {
			continue
		}
		// A variable of these types cannot be wrong by its form.
		if slices.Contains([]Type{Text, Path, Expression, Condition, Names, Texts}, k.Type) {
			continue
		}
		bad := "("
		_, err = loadText("{}", []string{k.Var + "=" + bad}, nil)
		if err == nil || !strings.Contains(err.Error(), k.Var+": "+k.Name) {
			t.Errorf("%s=%s: %v", k.Var, bad, err)
		}
	}
}

// The flag beats the variable, and the variable the file, for every key.
func TestPrecedence(t *testing.T) {
	for _, k := range keyTable {
		if k.Var == "" || k.Name == "agent.image.registry" || k.Name == "agent.image.tag" {
			continue
		}
		// three different values, in the file's form and the variable's
		values := [3]string{"a", "b", "c"}
		quote := `"%s"`
		switch k.Type {
		case Number, Ports:
			values, quote = [3]string{"11", "12", "13"}, "%s"
		case Bool:
			values, quote = [3]string{"true", "false", "true"}, "%s"
		case Choice:
			copy(values[:], slices.Repeat(k.Choices(), 2))
		}
		file := func(i int) string { return fmt.Sprintf(nest(k.Name, quote), values[i]) }
		if k.Name == "target.path" {
			file = func(i int) string { return nest(k.Name, `"pod/`+values[i]+`"`) }
		}
		set := newSettings([]string{k.Var + "=" + values[1]}, nil)
		from := func(text string, s settings) string {
			d := loaded(t, text, s)
			return d.values[k.Name].from.name
		}
		if got := from(file(0), newSettings(nil, nil)); got != "file" {
			t.Errorf("%s in a file is from %q", k.Name, got)
		}
		if got := from(file(0), set); got != k.Var {
			t.Errorf("%s in a file and in %s is from %q", k.Name, k.Var, got)
		}
		set.flags = map[string]Setting{k.Var: {values[2], "flag"}}
		if got := from(file(0), set); got != "--flag" {
			t.Errorf("%s in all three is from %q", k.Name, got)
		}
		set.flags = map[string]Setting{k.Var: {"", "flag"}}
		if got := from(file(0), set); got != "file" {
			t.Errorf("%s with an empty flag is from %q", k.Name, got)
		}
	}
}

func TestCopyNames(t *testing.T) {
	filter := func(side string, entries ...string) rules.AddressFilter {
		f := rules.AddressFilter{Side: side}
		for _, e := range entries {
			f.Entries = append(f.Entries, rules.Pattern{Text: e})
		}
		return f
	}
	for _, c := range []struct {
		name           string
		out, dns, want rules.AddressFilter
		opposite       []string
	}{
		{"nothing", filter(""), filter(""), filter(""), nil},
		{"no names", filter("local", "10.0.0.0/8", ":80", "tcp://", "[::1]:80", "::1"), filter(""), filter(""), nil},
		{"local makes a filter", filter("local", "tcp://db:5432", "udp://:53", "*.corp"), filter(""), filter("local", "db", "*.corp"), nil},
		{"local adds", filter("local", "db", "api"), filter("local", "api:80"), filter("local", "api:80", "db"), nil},
		{"once", filter("local", "db:1", "db:2"), filter(""), filter("local", "db"), nil},
		{"remote makes none", filter("remote", "db"), filter(""), filter(""), nil},
		{"remote adds", filter("remote", "db"), filter("remote", "api"), filter("remote", "api", "db"), nil},
		{"the other side stays", filter("local", "db", "x"), filter("remote", "db"), filter("remote", "db"), []string{"db"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := len(c.dns.Entries)
			got, opposite := copyNames(c.out, c.dns)
			if got.Side != c.want.Side || !slices.Equal(got.Entries, c.want.Entries) || !slices.Equal(opposite, c.opposite) {
				t.Errorf("got %v and %q, want %v and %q", got, opposite, c.want, c.opposite)
			}
			if len(c.dns.Entries) != before {
				t.Error("the filter that was given has changed")
			}
		})
	}
}

func TestNearest(t *testing.T) {
	names := []string{"incoming", "outgoing", "dns", "ipv6"}
	for written, want := range map[string]string{"incomming": "incoming", "Incoming": "incoming", "outgoin": "outgoing", "nds": "dns", "ip_v6": "ipv6", "steal": "", "x": ""} {
		if got := Nearest(written, names); got != want {
			t.Errorf("nearest to %q is %q, want %q", written, got, want)
		}
	}
}
