package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// learned is the part of a report that the test reads.
type learned struct {
	Remote  struct{ Paths, Opens int }
	From    []struct{ Path string } `json:"remote_paths"`
	Missing []struct{ Path, Asked, Has string }
	Refused []struct{ Path, What, Error string }
	Propose []struct {
		Config struct {
			Feature struct{ FS map[string][]string }
		}
		Paths []string
	} `json:"proposals"`
}

// TestLearn: a program reads a remote path, two that one side lacks, and writes
// where it may not; the report tells each, and each of its proposals, used alone,
// changes what the program gets.
func TestLearn(t *testing.T) {
	name := fmt.Sprintf("learn-%d", os.Getpid())
	mine, dir := "/"+name, podDir(t)
	conf := dir + "/conf"
	inPod(t, "echo there > "+conf)
	local := "^" + conf + "$" // by which it is this machine's
	here(t, mine, map[string]string{"x": "here\n"})
	program := fmt.Sprintf("cat /data/hello.txt; cat %s 2>/dev/null; cat %s/x 2>/dev/null; { echo new > %s/out; } 2>/dev/null && echo written; true", conf, mine, dir)
	file := filepath.Join(w.dir, "work", name+".json")
	r := start(t, append([]string{"--learn=" + file}, append(withFS(t, map[string]any{"local": []string{local}}), "sh", "-c", program)...)...)
	if code := r.end(); code != 0 || strings.TrimSpace(r.stdout.String()) != "from-pod" {
		t.Fatalf("exit code %d, stdout %q", code, r.stdout)
	}
	for _, want := range []string{"came from the target", "local by rule and not here; the target has one", "not in the target; this machine has one", "EROFS", "not seen: "} {
		if !strings.Contains(r.stderr.String(), want) {
			t.Errorf("%q is not shown:\n%s", want, r.stderr)
		}
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	os.Remove(file)
	var l learned
	if err := json.Unmarshal(b, &l); err != nil {
		t.Fatalf("%v in %s", err, b)
	}
	if l.Remote.Opens == 0 || !slices.ContainsFunc(l.From, func(g struct{ Path string }) bool { return strings.HasPrefix(g.Path, "/data/") }) {
		t.Errorf("what came from the target is %+v, %+v", l.Remote, l.From)
	}
	for path, want := range map[string]string{conf: "there", mine: "here", dir + "/out": "written"} {
		t.Run(want, func(t *testing.T) {
			for _, p := range l.Propose {
				if !slices.Contains(p.Paths, path) {
					continue
				}
				fs := map[string]any{}
				for key, list := range p.Config.Feature.FS {
					fs[key] = list
				}
				fs["local"] = append([]string{local}, p.Config.Feature.FS["local"]...)
				// A list for a directory is one for what else is in it.
				if got := script(t, fs, program); !strings.HasPrefix(got, "from-pod\n") || !strings.Contains(got, "\n"+want) {
					t.Errorf("with %v: got %q, want %q as well", fs, got, want)
				}
				return
			}
			t.Errorf("nothing is proposed for %s:\n%s", path, b)
		})
	}
}
