package launch

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"

	"github.com/mirrord-go/mirrord/internal/failure"
)

var update = flag.Bool("update", false, "write what becomes of the configurations into testdata")

// options are those of an ordinary user's.
func options() Options {
	variables := map[string]string{"workspaceFolder": "/src/shop", "userHome": "/home/ana"}
	return Options{
		Mirrord: "mirrord", Args: []string{"-t", "deployment/shop"}, Storage: "/state/shims",
		Resolve: func(name string) (string, bool) { v, ok := variables[name]; return v, ok },
		Look: func(name string) string {
			if name == "dlv" {
				return "/home/ana/go/bin/dlv"
			}
			return "/usr/bin/" + name
		},
	}
}

// show makes a text of what Rewrite gives for a configuration.
func show(t *testing.T, content string) string {
	t.Helper()
	const file = ".vscode/launch.json"
	failed := func(err error) string {
		f, ok := errors.AsType[*failure.Error](err)
		if !ok || f.Exit != failure.ExitUsage || f.Do == "" {
			t.Fatalf("the error is %#v", err)
		}
		return fmt.Sprintf("%s: %s\n%s\nto do: %s\n", f.Code, f.What, f.Why, f.Do)
	}
	root, err := Parse(file, content)
	if err != nil {
		return failed(err)
	}
	c, err := Find(file, root, "Shop")
	if err != nil {
		return failed(err)
	}
	before, _ := json.Marshal(c)
	r, err := Rewrite(file, c, options())
	if after, _ := json.Marshal(c); !bytes.Equal(before, after) {
		t.Errorf("the configuration was changed: %s", after)
	}
	if err != nil {
		return failed(err)
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(r); err != nil {
		t.Fatal(err)
	}
	for _, f := range r.Files {
		fmt.Fprintf(&b, "%s: %s\n%s", f.Path, f.CopyOf, f.Content)
	}
	return b.String()
}

// TestGolden: each file of testdata has a launch.json with a configuration
// called Shop, and what becomes of it.
func TestGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no files: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			a, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := show(t, string(a.Files[0].Data))
			switch {
			case len(a.Files) > 1 && string(a.Files[1].Data) == got:
			case *update:
				a.Files = append(a.Files[:1], txtar.File{Name: "want", Data: []byte(got)})
				if err := os.WriteFile(file, txtar.Format(a), 0o644); err != nil {
					t.Fatal(err)
				}
			default:
				t.Errorf("got\n%s\nwhich is not what is in %s", got, file)
			}
		})
	}
}

// TestShimRuns: a shim is a program that runs the real one with the very same
// arguments, in a session or by itself.
func TestShimRuns(t *testing.T) {
	dir := t.TempDir()
	mirrord := filepath.Join(dir, "mir'rord")
	for name, says := range map[string]string{mirrord: "session", filepath.Join(dir, "my dlv"): "real"} {
		script := "#!/bin/sh\necho " + says + "\nprintf '<%s>' \"$@\"\n"
		if err := os.WriteFile(name, []byte(script), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	root, err := Parse("launch.json", `{"configurations": [{"name": "Shop", "type": "go", "request": "launch", "mode": "exec", "program": "x", "dlvToolPath": "`+dir+`/my dlv"}]}`)
	if err != nil {
		t.Fatal(err)
	}
	o := options()
	o.Mirrord, o.Args = mirrord, []string{"-t", "pod/a b"}
	r, err := Rewrite("launch.json", root.Value("configurations").Items[0], o)
	if err != nil {
		t.Fatal(err)
	}
	shim := filepath.Join(dir, "shim")
	if err := os.WriteFile(shim, []byte(r.Files[0].Content), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"dap", "a b", "$HOME"}, "session\n<exec><-t><pod/a b><--><" + dir + "/my dlv><dap><a b><$HOME>"},
		{[]string{"version"}, "real\n<version>"},
		{nil, "session\n<exec><-t><pod/a b><--><" + dir + "/my dlv>"},
	} {
		if got, err := exec.Command(shim, c.args...).CombinedOutput(); err != nil || string(got) != c.want {
			t.Errorf("%q: got %s, %v; want %s", c.args, got, err, c.want)
		}
	}
}

// FuzzRewrite: no launch.json makes it fail in another way than by an error for
// a person.
func FuzzRewrite(f *testing.F) {
	files, _ := filepath.Glob("testdata/*.txtar")
	for _, file := range files {
		if a, err := txtar.ParseFile(file); err == nil {
			f.Add(string(a.Files[0].Data))
		}
	}
	f.Fuzz(func(t *testing.T, content string) {
		root, err := Parse("launch.json", content)
		if err != nil {
			return
		}
		for _, name := range Names(root) {
			c, err := Find("launch.json", root, name)
			if err != nil {
				t.Fatalf("%q is not found: %v", name, err)
			}
			_, err = Rewrite("launch.json", c, options())
			if _, ok := errors.AsType[*failure.Error](err); err != nil && !ok {
				t.Errorf("the error is %v", err)
			}
		}
	})
}

// TestSession: what joins a session takes none of the flags that make one.
func TestSession(t *testing.T) {
	for content, want := range map[string]string{
		`{"type": "node", "mirrord": {"target": "pod/other"}}`: `{"type":"node","name":"Shop","runtimeExecutable":"mirrord","runtimeArgs":["exec","--session","k3vq7a","--","node"]}`,
		`{"type": "node-terminal", "command": "npm start"}`:    `{"type":"node-terminal","command":"mirrord exec --session k3vq7a -- npm start","name":"Shop"}`,
	} {
		root, err := Parse("launch.json", content)
		if err != nil {
			t.Fatal(err)
		}
		root.Set("name", "Shop")
		o := options()
		o.Session = "k3vq7a"
		r, err := Rewrite("launch.json", root, o)
		if err != nil {
			t.Fatal(err)
		}
		if got, _ := json.Marshal(r.Configuration); string(got) != want {
			t.Errorf("%s becomes\n%s\nwant\n%s", content, got, want)
		}
	}
}
