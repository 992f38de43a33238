package e2e

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// Real programs at work on the target's files; see programs/files. What they say
// is compared with what the same ones say on a disk.

// onFiles are the programs that are run; inImage are those whose programs the
// pod's image has as well.
var (
	onFiles = []string{"git.sh", "sqlite.py", "import.sh", "tar.sh", "rsync.sh", "java.sh", "make.sh", "postgres.sh", "tools.sh"}
	inImage = []string{"sqlite.py", "tar.sh", "tools.sh"}
)

// sections takes apart what programs/files/run.sh prints.
func sections(out string) map[string]string {
	all := map[string]string{}
	for part := range strings.SplitSeq("\n"+out, "\n=== ") {
		name, text, _ := strings.Cut(part, "\n")
		all[name] = strings.TrimRight(text, "\n")
	}
	return all
}

// differ says where two texts differ.
func differ(t *testing.T, got, want string) {
	t.Helper()
	gots, wants := strings.Split(strings.TrimSpace(got), "\n"), strings.Split(strings.TrimSpace(want), "\n")
	for i, n := 0, 0; i < max(len(gots), len(wants)) && n < 10; i++ {
		if line(gots, i) != line(wants, i) {
			t.Errorf("line %d: got %q, want %q", i+1, line(gots, i), line(wants, i))
			n++
		}
	}
}

func TestFilesPrograms(t *testing.T) {
	filesPod(t)
	there, disk, mine := scratch(t, "programs"), ownDir(t, "disk-programs"), ownDir(t, "mine-programs")
	scripts := filepath.Join(w.dir, "bin", "files")
	if out, err := exec.Command("sh", "-c", fmt.Sprintf("cp -r programs/files %[1]s && cp %[1]s/../Jar.class %[1]s", scripts)).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	args := seeing(t, "pod/files/container/app", map[string]any{"mode": "write", "read_write": []string{"^/scratch(/|$)"}})
	r := start(t, append(args, "bash", "-c", fmt.Sprintf("cp -r %[1]s %[2]s/scripts && bash %[2]s/scripts/run.sh %[2]s/all %[3]s %[4]s; echo '=== contents.sh'; bash %[1]s/contents.sh %[2]s/all",
		scripts, there, mine, strings.Join(onFiles, " ")))...)
	out, err := asUser(t, append([]string{"bash", filepath.Join(scripts, "run.sh"), filepath.Join(disk, "all"), filepath.Join(disk, "mine")}, onFiles...)...)
	if err != nil {
		t.Fatal(err)
	}
	want := sections(out)
	if code := r.end(); code != 0 {
		t.Fatalf("exit code %d, stderr:\n%s", code, r.stderr)
	}
	got := sections(r.stdout.String())
	for _, name := range onFiles {
		t.Run("through a session/"+name, func(t *testing.T) { differ(t, got[name], want[name]) })
	}
	inPod := sections(inContainer(t, "app", fmt.Sprintf("bash %[1]s/scripts/run.sh %[1]s/pod %[1]s/pods %[2]s", there, strings.Join(inImage, " "))))
	for _, name := range inImage {
		t.Run("in the pod itself/"+name, func(t *testing.T) { differ(t, got[name], inPod[name]) })
	}
	t.Run("what the pod has of it", func(t *testing.T) {
		differ(t, got["contents.sh"], inContainer(t, "app", fmt.Sprintf("TZ=UTC bash %[1]s/scripts/contents.sh %[1]s/all", there)))
	})
	t.Run("read only", func(t *testing.T) {
		look := func(shared, mine string) []string {
			return []string{"bash", filepath.Join(scripts, "look.sh"), shared, mine}
		}
		want, err := asUser(t, look(filepath.Join(disk, "all"), ownDir(t, "disk-look"))...)
		if err != nil {
			t.Fatal(err)
		}
		args := seeing(t, "pod/files/container/app", map[string]any{"read_only": []string{"^/scratch(/|$)"}})
		got := in(t, "", append(args, look(there+"/all", ownDir(t, "mine-look"))...)...)
		differ(t, got, want)
	})
}

// TestFilesNginx: the pod's nginx with the pod's configuration and pages, run
// here, answers as it does there.
func TestFilesNginx(t *testing.T) {
	filesPod(t)
	inContainer(t, "app", `mkdir -p /scratch/www && cd /scratch/www && echo '<h1>pages of the pod</h1>' >index.html && echo '{}' >x.json && seq 200000 >large && cp /usr/sbin/nginx /scratch/nginx`)
	serve := func(prefix string) string {
		return fmt.Sprintf(`mkdir -p %[1]s; /scratch/nginx -p %[1]s -e %[1]s/error -c /etc/nginx/nginx.conf -g 'daemon off;' & pid=$!
			for i in $(seq 200); do curl -s -o /dev/null localhost:8047/ && break; sleep 0.05; done
			for p in / /hello /x.json /missing; do curl -s -w '%%{http_code} %%{content_type} %%{size_download}\n' http://127.0.0.1:8047$p; done
			curl -s http://127.0.0.1:8047/large | sha256sum
			curl -s -r 1000-1010 -w '%%{http_code}\n' http://127.0.0.1:8047/large
			kill $pid; wait $pid; echo "exit code $?"; cat %[1]s/error | grep -v No.such || true`, prefix)
	}
	want := inContainer(t, "app", serve("/scratch/prefix/"))
	if !strings.Contains(want, "pages of the pod") || !strings.Contains(want, "configured by the pod") || !strings.Contains(want, "exit code 0") {
		t.Fatalf("in the pod itself: %q", want)
	}
	differ(t, in(t, "", append(seeing(t, "pod/files/container/app", map[string]any{"mode": "read"}), "bash", "-c", serve(ownDir(t, "nginx")+"/"))...), want)
}

// TestFilesGrow: what is added to a file in the pod is seen by who follows it.
func TestFilesGrow(t *testing.T) {
	filesPod(t)
	dir := scratch(t, "grow")
	inContainer(t, "app", "echo line 0 >"+dir+"/log; : >"+dir+"/empty")
	r := start(t, append(seeing(t, "pod/files/container/app", map[string]any{"mode": "read"}), "bash", "-c",
		fmt.Sprintf("trap 'kill $(jobs -p)' TERM; tail -s 0.2 -n +1 -F %[1]s/log & tail -s 0.2 -f %[1]s/empty & python3 -u -c 'import time; f = open(\"%[1]s/log\")\nwhile True: [print(\"python \" + l, end=\"\") for l in f]; time.sleep(0.1)' & wait", dir))...)
	r.waitFor("line 0")
	inContainer(t, "app", fmt.Sprintf("cd %s; for i in 1 2 3 4 5; do echo line $i >>log; echo new $i >>empty; sleep 0.2; done", dir))
	told := time.Now()
	for _, text := range []string{"\nline 5\n", "new 5\n", "python line 5\n"} {
		r.waitFor(text)
	}
	inContainer(t, "app", fmt.Sprintf("cd %s; mv log log.1; echo another >log", dir))
	r.waitFor("another\n")
	if took := time.Since(told); took > 5*time.Second {
		t.Errorf("the last was seen after %v", took)
	}
	for prefix, want := range map[string][]string{"line ": {"0", "1", "2", "3", "4", "5"}, "new ": {"1", "2", "3", "4", "5"}, "python line ": {"0", "1", "2", "3", "4", "5"}} {
		var got []string
		for l := range strings.Lines(r.stdout.String()) {
			if rest, ok := strings.CutPrefix(l, prefix); ok {
				got = append(got, strings.TrimSpace(rest))
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("%q: got %v, want %v", prefix, got, want)
		}
	}
	r.stop()
}
