package e2e

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"
)

// Ordinary files of the target's that somebody there changes, and files that go
// from side to side. The target is a process with a root directory of its own on
// this machine.

// changesSeen looks at files that are changed in many ways, over and over, until
// it sees the change, and tells how often it did not though it asked later than
// allowed after all was changed.
const changesSeen = `
import os, select, sys, time
d, life = "/srv/changing/", float(sys.argv[1])
held = os.open(d + "held", os.O_RDONLY)
looks = {
    "content": (lambda: open(d + "content").read(), "after"),
    "size": (lambda: os.stat(d + "size").st_size, 12),
    "mode": (lambda: os.stat(d + "mode").st_mode & 0o777, 0o700),
    "time": (lambda: os.stat(d + "time").st_mtime_ns, 1000000000123456789),
    "new": (lambda: os.path.exists(d + "new"), True),
    "gone": (lambda: os.path.exists(d + "gone"), False),
    "list": (lambda: sorted(os.listdir(d + "list")), ["added", "sub"]),
    "link": (lambda: os.readlink(d + "link"), "replaced"),
    "through": (lambda: open(d + "link").read(), "another"),
    "replaced": (lambda: open(d + "replaced").read(), "another"),
    "held": (lambda: os.pread(held, 100, 0), b"other"),
    "deep": (lambda: os.path.exists(d + "list/sub/deep"), True),
    "kind": (lambda: os.path.isdir(d + "kind"), True),
    "names": (lambda: os.stat(d + "names").st_nlink, 2),
}
for name, (look, want) in looks.items():
    if look() == want:
        print(name, "is so already")
print("looked", flush=True)
late, left, changed = dict.fromkeys(looks, 0), dict(looks), None
while left:
    if changed is None and select.select([sys.stdin], [], [], 0)[0]:
        sys.stdin.readline()
        changed = time.monotonic()
    for name, (look, want) in list(left.items()):
        asked = time.monotonic()
        if look() == want:
            del left[name]
        elif changed is not None and asked > changed + life:
            late[name] += 1
            if asked > changed + life + 10:
                del left[name]
                print(name, "is never seen")
for name, n in late.items():
    if n:
        print(name, "was old", n, "times")
print("all seen")
`

// TestFilesChangedThere: a change in the target is seen by who asks a second
// later, whatever has changed; with the cache off by who asks after it.
func TestFilesChangedThere(t *testing.T) {
	for _, c := range []struct {
		name  string
		cache any
		life  string
	}{{"as it is", 1, "1"}, {"cache off", "off", "0"}} {
		t.Run(c.name, func(t *testing.T) {
			root := filepath.Join(ownDir(t, "changing-"+c.life), "root")
			dir := filepath.Join(root, "srv/changing")
			do := func(script string) {
				t.Helper()
				if out, err := asUser(t, "sh", "-ec", "cd "+dir+"; "+script); err != nil {
					t.Fatalf("%v: %s", err, out)
				}
			}
			if err := os.MkdirAll(filepath.Join(dir, "list/sub"), 0o755); err != nil {
				t.Fatal(err)
			}
			target := rooted(t, root)
			do("for f in content size mode time gone replaced kind names list/removed; do echo before >$f; done; printf about >held; ln -s content link")
			r := startCommand(t, append(append([]string{w.mirrord, "exec"}, seeing(t, target, map[string]any{"mode": "read", "cache": c.cache})...), "python3", "-uc", changesSeen, c.life), nil)
			r.waitFor("looked")
			do(`printf after >content; echo much longer >size; chmod 700 mode; touch -d '2001-09-09 01:46:40.123456789 UTC' time; : >new; rm gone; : >list/added; rm list/removed; : >list/sub/deep
				ln -s replaced link.new; mv -T link.new link; printf another >replaced.new; mv replaced.new replaced; printf other | dd of=held conv=notrunc status=none; rm kind; mkdir kind; ln names more`)
			if _, err := io.WriteString(r.stdin, "changed\n"); err != nil {
				t.Fatal(err)
			}
			if code := r.end(); code != 0 || r.stdout.String() != "looked\nall seen\n" {
				t.Errorf("exit code %d, %s", code, r.stdout)
			}
		})
	}
}

// TestFilesBetweenTheSides: what has a name on one side gets none on the other,
// by any call, and programs that know this do what they are asked for.
func TestFilesBetweenTheSides(t *testing.T) {
	mine := ownDir(t, "between")
	root := filepath.Join(mine, "root")
	if err := os.MkdirAll(filepath.Join(root, "srv/between/dir"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, "srv/between/theirs"), []byte("theirs"), 0o644); err != nil {
		t.Fatal(err)
	}
	target := rooted(t, root)
	script := fmt.Sprintf(`
import ctypes, errno, os, shutil
libc = ctypes.CDLL(None, use_errno=True)
def tell(what, do):
    try:
        do(); print(what, "done")
    except OSError as e:
        print(what, errno.errorcode[e.errno])
def exchange(a, b):
    if libc.renameat2(-100, a.encode(), -100, b.encode(), 2):
        raise OSError(ctypes.get_errno(), "")
there, here = "/srv/between/", %q
open(here + "mine", "w").write("mine")
for name, (a, b) in {"out": (there + "theirs", here + "new"), "in": (here + "mine", there + "new")}.items():
    tell("rename " + name, lambda: os.rename(a, b))
    tell("link " + name, lambda: os.link(a, b))
    print(os.path.exists(b))
tell("exchange", lambda: exchange(there + "theirs", here + "mine"))
tell("a directory", lambda: os.rename(there + "dir", here + "dir"))
print(open(there + "theirs").read(), open(here + "mine").read())
shutil.move(there + "theirs", here + "moved"); shutil.move(here + "mine", there + "moved")
shutil.copytree(there + ".", here + "tree"); os.symlink(here + "tree", there + "out")
print(open(here + "moved").read(), open(there + "moved").read(), os.path.exists(there + "theirs"), sorted(os.listdir(here + "tree")))
with open(there + "moved", "rb") as f, open(here + "sent", "wb") as g:
    print(os.sendfile(g.fileno(), f.fileno(), 0, 100))
print(open(here + "sent").read())`, mine+"/")
	got := in(t, "", append(seeing(t, target, map[string]any{"mode": "write"}), "python3", "-c", script)...)
	if want := "rename out EXDEV\nlink out EXDEV\nFalse\nrename in EXDEV\nlink in EXDEV\nFalse\nexchange EXDEV\na directory EXDEV\ntheirs mine\ntheirs mine False ['dir', 'moved']\n4\nmine"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if b, err := os.ReadFile(filepath.Join(root, "srv/between/moved")); string(b) != "mine" {
		t.Errorf("the target has %q, %v", b, err)
	}
}
