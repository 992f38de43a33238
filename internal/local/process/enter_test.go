package process

import (
	"slices"
	"strings"
	"testing"
)

func TestCommand(t *testing.T) {
	full := tools{nsenter: "nsenter", setpriv: "setpriv"}
	death := " setpriv --pdeathsig KILL --"
	for name, c := range map[string]struct {
		in   inside
		euid int
		tool tools
		want string
	}{
		"network only": {inside{net: true}, 0, full, "-n --"},
		"own container": {inside{user: true, net: true, uids: []idMap{{0, 1000, 1}}}, 1000, full,
			"-n -U --preserve-credentials --" + death},
		"rootless, many ids": {inside{user: true, net: true, uids: []idMap{{0, 1000, 1}, {1, 100000, 65536}}}, 1000, full,
			"-n -U --preserve-credentials --" + death},
		"root enters others": {inside{user: true, net: true, uids: []idMap{{0, 100000, 65536}}, setgroups: true}, 0, full,
			"-n -U --" + death},
		"the same without setgroups": {inside{user: true, net: true, uids: []idMap{{0, 1000, 1}}}, 0, full,
			"-n -U --preserve-credentials --setuid 0 --" + death},
		"network shared": {inside{user: true, uids: []idMap{{0, 1000, 1}}}, 1000, full, "-U --preserve-credentials --" + death},
		"nobody is root": {inside{user: true, net: true, uids: []idMap{{1000, 1000, 1}}}, 1000, full,
			"-n -U --preserve-credentials --" + death},
		"the same, newer nsenter": {inside{user: true, net: true, uids: []idMap{{1000, 1000, 1}}}, 1000,
			tools{nsenter: "nsenter", keepCaps: true}, "-n -U --preserve-credentials --keep-caps --"},
		"no setpriv": {inside{user: true, uids: []idMap{{0, 0, 1}}}, 0, tools{nsenter: "nsenter"}, "-U --preserve-credentials --"},
	} {
		got := strings.Join(c.in.command(42, c.euid, c.tool), " ")
		if want := "nsenter -t 42 " + c.want; got != want {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
}

func TestParseStat(t *testing.T) {
	for text, want := range map[string]struct {
		name  string
		state byte
	}{
		"1 (init) S 0 1": {"init", 'S'}, "7 (a) b) (c) Z 1": {"a) b) (c", 'Z'}, "": {}, "1 (x": {}, "1 ) S (": {}, "1 (x) ": {},
	} {
		name, state, err := parseStat(text)
		if name != want.name || state != want.state || (err == nil) != (want.state != 0) {
			t.Errorf("%q: got %q, %q, %v, want %q, %q", text, name, state, err, want.name, want.state)
		}
	}
}

func TestParseIDMap(t *testing.T) {
	for text, want := range map[string][]idMap{
		"": nil, "         0       1000          1\n": {{0, 1000, 1}},
		"0 1000 1\n1 100000 65536\n": {{0, 1000, 1}, {1, 100000, 65536}},
		"0 0 4294967295\n":           {{0, 0, 4294967295}},
	} {
		if got, err := parseIDMap(text); err != nil || !slices.Equal(got, want) {
			t.Errorf("%q: got %v, %v, want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"0 1000\n", "0 x 1\n", "0 -1 1\n", "1 2 3 4\n", "\n"} {
		if got, err := parseIDMap(text); err == nil {
			t.Errorf("%q: got %v, want an error", text, got)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("1 (init) S 0")
	f.Add("0 1000 1\n")
	f.Fuzz(func(t *testing.T, text string) {
		if name, _, err := parseStat(text); err == nil && !strings.Contains(text, "("+name+") ") {
			t.Errorf("%q: name %q", text, name)
		}
		if list, err := parseIDMap(text); err == nil && len(list) > strings.Count(text, "\n")+1 {
			t.Errorf("%q: %d lines", text, len(list))
		}
	})
}
