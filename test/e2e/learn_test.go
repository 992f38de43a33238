package e2e

import (
	"context"
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
		Config json.RawMessage
		Paths  []string
	} `json:"proposals"`
}

// TestLearn: a program reads a remote path, two that one side lacks, and writes
// where it may not; the report tells each, and each of its proposals, used alone,
// changes what the program gets.
func TestLearn(t *testing.T) {
	name := fmt.Sprintf("learn-%d", os.Getpid())
	conf, mine, dir := "/etc/"+name+".conf", "/"+name, podDir(t)
	inPod(t, "echo there > "+conf)
	t.Cleanup(func() {
		_, _ = w.cluster.Kubectl(context.Background(), "-n", w.namespace, "exec", "app", "-c", "app", "--", "rm", "-f", conf)
	})
	here(t, mine, map[string]string{"x": "here\n"})
	program := fmt.Sprintf("cat /data/hello.txt; cat %s 2>/dev/null; cat %s/x 2>/dev/null; { echo new > %s/out; } 2>/dev/null && echo written; true", conf, mine, dir)
	file := filepath.Join(w.dir, "work", name+".json")
	r := start(t, "--learn="+file, "-t", "pod/app", "sh", "-c", program)
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
				config := filepath.Join(w.dir, "work", name+"-"+want+".json")
				if err := os.WriteFile(config, p.Config, 0o644); err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { os.Remove(config) })
				if got := in(t, "pod/app", "-f", config, "sh", "-c", program); got != "from-pod\n"+want {
					t.Errorf("with %s: got %q, want %q as well", p.Config, got, want)
				}
				return
			}
			t.Errorf("nothing is proposed for %s:\n%s", path, b)
		})
	}
}
