package e2e

import (
	"encoding/json"
	"fmt"
	"io"
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
	Slow    []struct {
		Path, Do string
		Micros   int64 `json:"waited_us"`
		Trips    int   `json:"round_trips"`
	}
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
	l, b := readLearned(t, file)
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

// readLearned gives the report in file, also as it is written, and removes it.
func readLearned(t *testing.T, file string) (l learned, text []byte) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	os.Remove(file)
	if err := json.Unmarshal(text, &l); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	return l, text
}

// TestLearnSlow: a program waits for a file of the target's while the link stands
// still; the report tells for what, how long, and what could be done.
func TestLearnSlow(t *testing.T) {
	dir := podDir(t)
	path := dir + "/slow"
	inPod(t, "echo there > "+path)
	link, kubeconfig := newRelay(t)
	file := filepath.Join(w.dir, "work", fmt.Sprintf("slow-%d.json", os.Getpid()))
	args := append([]string{"--learn=" + file, "--kubeconfig", kubeconfig}, withFS(t, map[string]any{"mode": "read"})...)
	r := start(t, append(args, "sh", "-c", "echo ready; read go; cat "+path+" & sleep 1; echo waited; wait")...)
	r.waitFor("ready")
	link.set(func() { link.stalls = true })
	if _, err := io.WriteString(r.stdin, "go\n"); err != nil {
		t.Fatal(err)
	}
	r.waitFor("waited")
	link.set(func() { link.stalls = false })
	if code := r.end(); code != 0 || !strings.HasSuffix(r.stdout.String(), "waited\nthere\n") {
		t.Fatalf("exit code %d, stdout %q", code, r.stdout)
	}
	if want := "waited for longest:"; !strings.Contains(r.stderr.String(), want) {
		t.Errorf("%q is not shown:\n%s", want, r.stderr)
	}
	l, b := readLearned(t, file)
	for _, s := range l.Slow { // the name that was being looked up, on the way to the file
		if strings.HasPrefix(path, strings.TrimSuffix(s.Path, "/")) && s.Micros >= 200_000 && s.Trips > 0 && s.Do != "" {
			return
		}
	}
	t.Errorf("nothing on the way to %s is slow: %s", path, b)
}
