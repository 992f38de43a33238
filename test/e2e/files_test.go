package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Whose files a program reads and writes, by mode, list and mapping.

// withFS gives arguments for a session with feature.fs as given.
func withFS(t testing.TB, fs map[string]any) []string {
	t.Helper()
	b, err := json.Marshal(map[string]any{"feature": map[string]any{"fs": fs}})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(w.dir, "work", fmt.Sprintf("%s-%d.json", strings.ReplaceAll(t.Name(), "/", "-"), time.Now().UnixNano()))
	if err := os.WriteFile(file, b, 0o644); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Remove(file) })
	return []string{"-f", file, "-t", "pod/app"}
}

// script runs a shell script in a session with feature.fs as given.
func script(t testing.TB, fs map[string]any, text string) string {
	t.Helper()
	return in(t, "", append(withFS(t, fs), "sh", "-c", text)...)
}

// inPod runs a shell script in the container app of the pod app.
func inPod(t testing.TB, text string) string {
	t.Helper()
	return kubectl(t, "exec", "app", "-c", "app", "--", "sh", "-c", text)
}

// here makes a directory of this test's that no default rule knows, with files
// in it that the user may write.
func here(t testing.TB, dir string, files map[string]string) {
	t.Helper()
	make := func(p string, do func() error) {
		if err := do(); err != nil {
			t.Fatalf("%s: %v", p, err)
		}
		if err := os.Chown(p, user, user); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		if strings.Count(dir, "/") > 1 {
			os.RemoveAll(dir)
			return
		}
		for name := range files { // others have theirs beside them
			os.Remove(filepath.Join(dir, name))
		}
		os.Remove(dir)
	})
	make(dir, func() error { return os.MkdirAll(dir, 0o755) })
	for name, content := range files {
		p := filepath.Join(dir, name)
		make(filepath.Dir(p), func() error { return os.MkdirAll(filepath.Dir(p), 0o755) })
		make(p, func() error { return os.WriteFile(p, []byte(content), 0o644) })
	}
}

// podDir makes a directory in the pod's volume for this test.
func podDir(t testing.TB) string {
	t.Helper()
	dir := "/data/" + strings.ToLower(strings.ReplaceAll(t.Name(), "/", "-"))
	inPod(t, "mkdir -p "+dir)
	t.Cleanup(func() { // the test's context is over
		if _, err := w.cluster.Kubectl(context.Background(), "-n", w.namespace, "exec", "app", "-c", "app", "--", "rm", "-rf", dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func TestFilesModes(t *testing.T) {
	here(t, "/data", map[string]string{"hello.txt": "local\n"})
	here(t, "/etc/app", map[string]string{"config.yaml": "local\n"})
	for mode, want := range map[string]string{
		"local":              "local\nlocal",
		"localwithoverrides": "colour: blue\nfrom-pod", // the target's volumes
		"read":               "colour: blue\nfrom-pod",
		"write":              "colour: blue\nfrom-pod",
	} {
		t.Run(mode, func(t *testing.T) {
			got := script(t, map[string]any{"mode": mode}, "cat /etc/app/config.yaml /data/hello.txt; cat /etc/resolv.conf")
			if !strings.HasPrefix(got, want) {
				t.Errorf("got %q, want %q", got, want)
			}
			// Names resolve as in the pod whatever the mode of files.
			if pods := inPod(t, "cat /etc/resolv.conf"); !strings.HasSuffix(got, pods) {
				t.Errorf("resolv.conf is not the pod's: %q", got)
			}
		})
	}
}

func TestFilesWrittenInModeRead(t *testing.T) {
	dir := podDir(t)
	here(t, dir, map[string]string{"own": "local\n"})
	inPod(t, "echo pod >"+dir+"/own; echo pod >"+dir+"/other")
	got := script(t, map[string]any{"mode": "read"}, fmt.Sprintf("cd %s; cat own; echo more >>other; cat other; ls", dir))
	if want := "pod\npod\nmore\nother\nown"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := inPod(t, "cat "+dir+"/other"); got != "pod" {
		t.Errorf("the pod's file is %q now", got)
	}
}

func TestFilesWrittenInThePod(t *testing.T) {
	dir := podDir(t)
	got := script(t, map[string]any{"mode": "write"}, "cd "+dir+`
		echo one >new; echo two >>new; cat new
		mkdir sub; mv new sub/moved; ln -s sub/moved link; cat link
		ln sub/moved hard; chmod 600 hard; stat -c %a sub/moved
		echo gone >gone; rm gone
		touch -d 2001-02-03T04:05:06Z sub/moved; stat -c %Y hard
		truncate -s 3 hard; cat sub/moved; echo
		rmdir sub 2>&1 | grep -c 'not empty'
		ls`)
	if want := "one\ntwo\none\ntwo\n600\n981173106\none\n1\nhard\nlink\nsub"; got != want {
		t.Errorf("the session saw %q, want %q", got, want)
	}
	got = inPod(t, "cd "+dir+"; ls; ls sub; cat sub/moved; echo; stat -c '%a %u %h' hard; readlink link")
	if want := "hard\nlink\nsub\nmoved\none\n600 1234 2\nsub/moved"; got != want {
		t.Errorf("the pod has %q, want %q", got, want)
	}
	if _, err := os.Lstat(dir); err == nil {
		t.Errorf("%s was made on this machine", dir)
	}
}

// What the pod's kernel refuses its user it refuses the session.
func TestFilesWrittenAsThePodsUser(t *testing.T) {
	text := `for c in 'echo x >/made' 'mkdir /srv/made' 'rm /srv/none' 'echo x >>/etc/app/config.yaml' 'touch /run/secrets/app/x' 'chmod 777 /programs' 'rmdir /data'; do sh -c "$c" 2>&1 | sed 's/.*: //'; done`
	want := inPod(t, text)
	if got := script(t, map[string]any{"mode": "write", "read_write": []string{"^/etc/app/", "^/run/secrets/"}}, text); got != want || !strings.Contains(want, "Permission denied") {
		t.Errorf("got %q, in the pod it is %q", got, want)
	}
}

// A container's root may do what it may, and no more.
func TestFilesWrittenAsThePodsRoot(t *testing.T) {
	side := func(text string) string { return kubectl(t, "exec", "app", "-c", "side", "--", "sh", "-c", text) }
	side(`mkdir /srv/other; echo one >/srv/other/file; chown -R 1234:1234 /srv/other; chmod 700 /srv/other; chmod 400 /srv/other/file`)
	args := withFS(t, map[string]any{"mode": "write"})
	got := in(t, "", append(args[:2], "-t", "pod/app/container/side", "sh", "-c", "cd /srv/other; echo two >>file; chmod 600 file; cat file; mv file moved; touch new; ls")...)
	if want := "one\ntwo\nmoved\nnew"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := side("cd /srv/other; stat -c '%n %u %a' *; rm -r /srv/other"); got != "moved 1234 600\nnew 0 644" {
		t.Errorf("the pod has %q", got)
	}
}

func TestFilesOfRealPrograms(t *testing.T) {
	dir := podDir(t)
	got := in(t, "", append(withFS(t, map[string]any{"mode": "write"}), "python3", "-c", `
import os, sqlite3, sys
d = sys.argv[1]
db = sqlite3.connect(d + "/t.db")
db.execute("create table t(a)")
db.executemany("insert into t values (?)", [(i,) for i in range(1000)])
db.commit()
print(db.execute("select count(*), sum(a) from t").fetchone(), db.execute("pragma integrity_check").fetchone())
with open(d + "/big", "wb") as f:
    for i in range(64): f.write(bytes([i]) * 100000)
    f.flush(); os.fsync(f.fileno())
    print(os.fstat(f.fileno()).st_size, open(d + "/big", "rb").read()[6300000:6300002])
`, dir)...)
	if want := "(1000, 499500) ('ok',)\n6400000 b'??'"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := inPod(t, `cd `+dir+`; python3 -c 'import sqlite3; print(sqlite3.connect("t.db").execute("select sum(a) from t").fetchone()[0])'; stat -c %s big`); got != "499500\n6400000" {
		t.Errorf("the pod has %q", got)
	}
}

func TestFilesLists(t *testing.T) {
	dir := podDir(t)
	for mode, want := range map[string]struct{ seen, pod, local string }{
		// rw, ro, mine, gone, other: what the session reads, then who has "changed".
		"read":               {"pod pod local - pod", "changed pod pod pod pod", "local changed changed local changed"},
		"write":              {"pod pod local - pod", "changed pod pod pod changed", "local changed changed local local"},
		"localwithoverrides": {"pod pod local - pod", "changed pod pod pod pod", "local changed changed local changed"},
	} {
		t.Run(mode, func(t *testing.T) {
			here(t, dir, map[string]string{"rw": "local\n", "ro": "local\n", "mine": "local\n", "gone": "local\n", "other": "local\n"})
			inPod(t, "mkdir -p "+dir+"; cd "+dir+"; for f in rw ro mine gone other; do echo pod >$f; done")
			fs := map[string]any{"mode": mode, "read_write": []string{"^" + dir + "/rw"}, "read_only": []string{"^" + dir + "/RO$"}, "local": []string{"/mine$"}, "not_found": []string{"/gone$"}}
			each := "for f in rw ro mine gone other; do %s; done | tr '\\n' ' '"
			got := script(t, fs, "cd "+dir+"; "+fmt.Sprintf(each, "cat $f 2>/dev/null || echo -")+"; echo; ls | tr '\\n' ' '; for f in rw ro mine gone other; do echo changed 2>/dev/null >$f; done; ls | wc -l")
			if w := want.seen + " \nmine other ro rw 4"; got != w {
				t.Errorf("the session saw %q, want %q", got, w)
			}
			if got := inPod(t, "cd "+dir+"; "+fmt.Sprintf(each, "cat $f")); got != want.pod {
				t.Errorf("the pod has %q, want %q", got, want.pod)
			}
			var local []string
			for _, f := range []string{"rw", "ro", "mine", "gone", "other"} {
				b, _ := os.ReadFile(filepath.Join(dir, f))
				local = append(local, strings.TrimSpace(string(b)))
			}
			if got := strings.Join(local, " "); got != want.local {
				t.Errorf("this machine has %q, want %q", got, want.local)
			}
		})
	}
}

// A pattern in the working directory: what is mounted otherwise is served then,
// and everything else of it works as before.
func TestFilesListsWhereOneWorks(t *testing.T) {
	work := filepath.Join(w.dir, "work", "project")
	here(t, work, map[string]string{"main.py": "print(open('/data/hello.txt').read(), end='')\n", "app.env": "secret\n", "src/x.c": "int main(void) { return 0; }\n"})
	args := append(withFS(t, map[string]any{"not_found": []string{`\.env$`}, "read_only": []string{`/hello\.txt$`}}), "sh", "-c",
		"cd "+work+`; cat app.env 2>&1 | grep -c 'No such'; python3 main.py; gcc -o x src/x.c && ./x && echo compiled; git init -q . && git add main.py && git status --short main.py; ls`)
	if got, want := in(t, "", args...), "1\nfrom-pod\ncompiled\nA  main.py\nmain.py\nsrc\nx"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if _, err := os.Stat(filepath.Join(work, "x")); err != nil {
		t.Error("what was compiled is not on this machine")
	}
}

func TestFilesMapping(t *testing.T) {
	here(t, "/data", map[string]string{"mine.txt": "local\n"})
	fs := map[string]any{"mapping": map[string]string{`^/config/(?P<file>.+)\.yml$`: "/etc/app/${file}.yaml", `^/inputs(/|$)`: "/data$1"}, "local": []string{`^/data/mine`}}
	got := script(t, fs, "cat /config/config.yml /inputs/hello.txt /inputs/mine.txt; ls /inputs | grep -c -e hello -e mine; ls / | grep inputs")
	if want := "colour: blue\nfrom-pod\nlocal\n2\ninputs"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestWatcherIsTold: a program that waits for changes of the target's files is
// told once that it will not hear of them; one that watches its own is not.
func TestWatcherIsTold(t *testing.T) {
	const watch = `
import ctypes, sys
libc = ctypes.CDLL(None)
fd = libc.inotify_init1(0)
assert libc.inotify_add_watch(fd, sys.argv[1].encode(), 0xfff) > 0
print("watching", flush=True)
sys.stdin.readline()`
	const told = "watches files of the target by inotify"
	for dir, want := range map[string]bool{"/data": true, ".": false} {
		r := start(t, "-t", "pod/app", "python3", "-c", watch, dir)
		r.waitFor("watching")
		if got := r.stderr.waitFor(told, 3*time.Second); got != want {
			t.Errorf("%s: told %v, want %v", dir, got, want)
		}
		r.end()
		if n := strings.Count(r.stderr.String(), told); n > 1 {
			t.Errorf("%s: told %d times", dir, n)
		}
	}
}
