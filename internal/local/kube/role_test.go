package kube

import (
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"
)

// TestManifest: the role of each kind of session, as a person gets it.
func TestManifest(t *testing.T) {
	group := []Subject{{Kind: "Group", Name: "shop:developers"}}
	for _, c := range []struct {
		golden   string
		uses     Uses
		subjects []Subject
	}{
		{"targetless", Uses{Namespace: "shop"}, nil},
		{"pod", Uses{Target: "pod/web-1", Namespace: "shop"}, group},
		{"deployment", Uses{Target: "deployment/web/container/app", Namespace: "shop"}, []Subject{{Kind: "User", Name: "ana@example.org"}, {Kind: "ServiceAccount", Name: "runner", Namespace: "ci"}}},
		{"cronjob", Uses{Target: "cronjob/nightly", Namespace: "shop"}, nil},
		{"rollout", Uses{Target: "rollout/web", Namespace: "shop"}, nil},
		{"label", Uses{Target: "label/app=web", Namespace: "shop"}, nil},
		{"in-pod", Uses{Target: "deployment/web", Namespace: "shop", InPod: true}, group},
		{"two-namespaces", Uses{Target: "pod/web-1", Namespace: "shop", AgentNamespace: "agents"}, group},
	} {
		t.Run(c.golden, func(t *testing.T) {
			roles := Roles(c.uses.Needs())
			got, err := Manifest(FormYAML, "mirrord", roles, c.subjects)
			if err != nil {
				t.Fatal(err)
			}
			file := "testdata/role-" + c.golden + ".yaml"
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("the role is not that of %s (see what changed with -update):\n%s", file, got)
			}
			text, err := Manifest(FormJSON, "mirrord", roles, c.subjects)
			if err != nil {
				t.Fatal(err)
			}
			var objects struct {
				Items []struct {
					Kind  string
					Rules []Rule
				}
			}
			if err := json.Unmarshal([]byte(text), &objects); err != nil {
				t.Fatal(err)
			}
			verbs := 0
			for _, o := range objects.Items {
				for _, r := range o.Rules {
					verbs += len(r.Verbs)
				}
			}
			needs := slices.DeleteFunc(c.uses.Needs(), func(p Permission) bool { return p.Namespace == "" })
			if verbs != len(needs) || strings.Count(got, "\nkind: ") != len(objects.Items) {
				t.Errorf("as JSON %d verbs in %d objects, want %d:\n%s", verbs, len(objects.Items), len(needs), text)
			}
		})
	}
}

func TestParseServiceAccount(t *testing.T) {
	for text, want := range map[string]Subject{
		"ci:runner": {"ServiceAccount", "runner", "ci"}, "runner": {"ServiceAccount", "runner", "shop"}, "ci:": {}, ":x": {}, "": {},
	} {
		got, err := ParseServiceAccount(text, "shop")
		if got != want || (err == nil) != (want.Name != "") {
			t.Errorf("%q is %+v, %v; want %+v", text, got, err, want)
		}
	}
}

func TestQuoted(t *testing.T) {
	for text, want := range map[string]string{"shop": "shop", "a-b": "a-b", "-": `"-"`, "1": `"1"`, "true": `"true"`, "": `""`, "a: b": `"a: b"`, "x\ny": `"x\ny"`} {
		if got := quoted(text); got != want {
			t.Errorf("%q becomes %s, want %s", text, got, want)
		}
	}
}
