package testdocs

import (
	"os"
	"path"
	"reflect"
	"regexp"
	"strings"
	"testing"
)

func TestCommands(t *testing.T) {
	for name, c := range map[string]struct {
		text string
		want []Command
	}{
		"indented": {"Text:\n\n    mirrord ls   # what there is\n    sudo mirrord doctor --fix\n\nMore.", []Command{
			{Line: 3, Text: "mirrord ls"}, {Line: 4, Text: "sudo mirrord doctor --fix"}}},
		"indented, and no command":  {"Text:\n\n    mirrord: the session has ended\n    {\"a\": 1}\n", nil},
		"continued line of a list":  {"- a thing\n    mirrord ls\n", nil},
		"blank lines within":        {"\n    make build\n\n    make test\n", []Command{{Line: 2, Text: "make build"}, {Line: 4, Text: "make test"}}},
		"variables":                 {"\n    A=1 mirrord ls\n    B=$(mirrord ls | jq .)\n", []Command{{Line: 2, Text: "A=1 mirrord ls"}, {Line: 3, Text: "B=$(mirrord ls | jq .)"}}},
		"prompts":                   {"\n    $ mirrord ls\n    TARGET  READY\n    mirrord is printed\n    $ foo\n", []Command{{Line: 2, Text: "mirrord ls", Output: []string{"TARGET  READY", "mirrord is printed"}}, {Line: 5, Text: "foo"}}},
		"a shell's fence":           {"```sh\n# first\nfoo --bar\n\nmirrord ls # x\n```\n", []Command{{Line: 3, Text: "foo --bar"}, {Line: 5, Text: "mirrord ls"}}},
		"console":                   {"```console\n$ foo\nbar\n```\n    mirrord x\n", []Command{{Line: 2, Text: "foo", Output: []string{"bar"}}}},
		"data":                      {"```json\nmirrord ls\n```\n", nil},
		"a fence of nothing":        {"```\nfoo\nmirrord ls\n```\n", []Command{{Line: 3, Text: "mirrord ls"}}},
		"continued":                 {"```sh\nmirrord exec \\\n  -t pod/x # y\n```\n", []Command{{Line: 2, Text: "mirrord exec -t pod/x"}}},
		"a mark that is no comment": {"\n    curl http://x/#y\n", []Command{{Line: 2, Text: "curl http://x/#y"}}},
	} {
		for i := range c.want {
			c.want[i].File = "x.md"
		}
		if got := Commands("x.md", c.text); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: got %q, want %q", name, got, c.want)
		}
	}
}

// TestEveryCommandIsRun: each command line of the documents has a row, and each
// row is one of theirs, once; what nobody runs has a reason.
func TestEveryCommandIsRun(t *testing.T) {
	all, err := All("../..")
	if err != nil {
		t.Fatal(err)
	}
	rows, shown := map[string]bool{}, map[string]bool{}
	for _, r := range table {
		if rows[r.Text] {
			t.Errorf("%s: two rows", r.Text)
		}
		rows[r.Text] = true
		if needs := r.By == Nobody || r.By == Script || r.By == Target; needs != (r.Note != "") {
			t.Errorf("%s: a note is for those that nobody runs, scripts and make, and they need one", r.Text)
		}
	}
	for _, c := range all {
		shown[c.Text] = true
		if !rows[c.Text] {
			t.Errorf("%s: it has no row in internal/testdocs/table.go, which says who runs it", c)
		}
	}
	for _, r := range table {
		if !shown[r.Text] {
			t.Errorf("no document shows: %s", r.Text)
		}
	}
	if len(all) < 80 {
		t.Errorf("found only %d command lines", len(all))
	}
}

func TestShape(t *testing.T) {
	a := Shape("mirrord: target pod/shop-7d4b9, container app  at 14:02:11.480 from 10.0.3.7:51002 after 12.3 ms, 1.2 MB, k3vq7a", "k3vq7a")
	b := Shape("mirrord: target pod/shop-6c8d5-xx2k, container app at 09:10:11.000 from 10.244.1.7:2 after 3 ms, 30 kB, abcdef", "abcdef")
	if a != b || strings.Contains(a, "7") {
		t.Errorf("got %q and %q", a, b)
	}
}

// TestLinks: each link of a document to another leads to a file and a heading
// that are there.
func TestLinks(t *testing.T) {
	texts := map[string]string{}
	names, err := Files("../..")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		text, err := os.ReadFile("../../" + name)
		if err != nil {
			t.Fatal(err)
		}
		texts[name] = string(text)
	}
	for name, text := range texts {
		for _, m := range regexp.MustCompile(`\]\(([^)\s]+)\)`).FindAllStringSubmatch(text, -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			file, heading, _ := strings.Cut(m[1], "#")
			to := name
			if file != "" {
				to = path.Join(path.Dir(name), file)
			}
			if _, err := os.Stat("../../" + to); err != nil {
				t.Errorf("%s: %s leads nowhere", name, m[1])
			} else if heading != "" && texts[to] != "" && !headings(texts[to])[heading] {
				t.Errorf("%s: %s leads to no heading", name, m[1])
			}
		}
	}
}

// headings are the anchors of a document, as GitHub makes them.
func headings(text string) map[string]bool {
	all := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^#+ (.*)$`).FindAllStringSubmatch(text, -1) {
		name := regexp.MustCompile(`[^\p{L}\p{N}_ -]`).ReplaceAllString(strings.ToLower(m[1]), "")
		all[strings.ReplaceAll(name, " ", "-")] = true
	}
	return all
}
