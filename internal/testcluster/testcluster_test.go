package testcluster

import (
	"strings"
	"testing"
)

func TestDiff(t *testing.T) {
	base := Snapshot{"route": {"a", "b", "b"}, "unix": nil}
	for name, test := range map[string]struct {
		later Snapshot
		want  string
	}{
		"alike":             {Snapshot{"route": {"a", "b", "b"}}, ""},
		"a line more":       {Snapshot{"route": {"a", "b", "b", "c"}}, "route: + c"},
		"a line less":       {Snapshot{"route": {"b", "b"}}, "route: - a"},
		"once rather twice": {Snapshot{"route": {"a", "b"}}, "route: - b"},
		"another":           {Snapshot{"route": {"a", "b", "x"}}, "route: + x\nroute: - b"},
		"a new section":     {Snapshot{"route": {"a", "b", "b"}, "nft": {"table"}}, "nft: + table"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := base.Diff(test.later); got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

func TestNamespaceName(t *testing.T) {
	for test, want := range map[string]string{
		"TestSteal":         "steal-",
		"TestSteal/IPv6_on": "steal-ipv6-on-",
		"Test" + strings.Repeat("long", 30) + "é": strings.Repeat("long", 10) + "-",
		"TestÜ": "-",
	} {
		got := namespaceName(test)
		if !strings.HasPrefix(got, want) || len(got) != len(want)+6 {
			t.Errorf("%s: got %q, want %q and six characters", test, got, want)
		}
	}
}

func TestAbstract(t *testing.T) {
	const table = `Num       RefCount Protocol Flags    Type St Inode Path
000000004f3f6f1b: 00000002 00000000 00010000 0001 01 21305 /run/x.sock
00000000a1b2c3d4: 00000002 00000000 00010000 0001 01 21306 @claim 80
00000000a1b2c3d5: 00000003 00000000 00000000 0001 03 21307 @claim 80
00000000a1b2c3d6: 00000003 00000000 00000000 0001 03 21308
`
	if got, want := strings.Join(abstract(table), "|"), "@claim 80"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
