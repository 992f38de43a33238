package e2e

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"
)

// TestFilesVolumes: what a pod has mounted, read and refused as in the pod.
func TestFilesVolumes(t *testing.T) {
	filesPod(t)
	const target = "pod/files/container/app"
	mounts := []looked{
		{"ConfigMap", "ls -A /etc/shop; cat /etc/shop/*; readlink /etc/shop/..data; stat -Lc '%A %s' /etc/shop/one"},
		{"Secret", "ls -A /run/secrets/shop; cat /run/secrets/shop/*; cat /var/run/secrets/shop/one; stat -Lc %A /run/secrets/shop/one"},
		{"projected", "cd /srv/projected; cat deep/er/nested secret name; head -c 3 token; find . -printf '%P %y\\n' | grep -v '\\.\\.20' | LC_ALL=C sort"},
		{"service account", "cd /var/run/secrets/kubernetes.io/serviceaccount; ls; head -n 1 ca.crt; cat namespace"},
		{"downward API", "cat /srv/info/labels"},
		{"subPath of a ConfigMap", "cat /srv/single.conf; stat -c '%F %s' /srv/single.conf"},
		{"subPath of a directory", "ls -d /srv/part /scratch/part; stat -c %A /srv/part"},
		{"emptyDir in memory", "stat -c %F /srv/memory; stat -f -c %S /srv/memory"},
	}
	alike(t, seeing(t, target, map[string]any{"mode": "read"}), "/", mounts)
	alike(t, seeing(t, target, map[string]any{"mode": "write", "read_write": []string{"^/etc/(shop|nginx)(/|$)", "^/run/secrets/", "^/srv/"}}), "/", append(mounts,
		looked{"a root that is read only", "for c in 'echo x >/made' 'mkdir /srv/x' 'echo x >>/srv/single.conf' 'rm /srv/single.conf' 'touch /programs' 'chmod 777 /srv'; do sh -c \"$c\" 2>&1 | sed 's/.*: //'; done"},
		looked{"volumes that are read only", "for c in 'echo x >/etc/shop/one' 'rm /etc/shop/one' 'mkdir /etc/shop/x' 'touch /run/secrets/shop/x' 'echo x >/srv/projected/name' 'echo x >/srv/fixed/x' 'rmdir /srv/part'; do sh -c \"$c\" 2>&1 | sed 's/.*: //'; done"},
		looked{"volumes that are not", "for d in /scratch/part /srv/part /srv/memory; do echo $d >$d/file && cat $d/file; done; cat /srv/fixed/file; rm /srv/part/file; ls /scratch/part /srv/fixed; mv /srv/memory/file /scratch/part/moved && cat /srv/fixed/moved; ln /scratch/part/moved /srv/part/linked 2>&1 | sed 's/.*: //'; rm -f /scratch/part/*"},
	))
}

// TestFilesMetadata: all that is said of a file is what the pod's kernel says: the
// real numbers, by every call that tells.
func TestFilesMetadata(t *testing.T) {
	filesPod(t)
	dir := scratch(t, "metadata")
	inContainer(t, "app", "cd "+dir+` && python3 - <<'EOF'
import os, socket
open("full", "wb").write(os.urandom(100_000))
with open("sparse", "wb") as f:
    f.truncate(50 << 20); f.seek(20 << 20); f.write(b"x" * 10_000)
open("empty", "w").close()
os.mkdir("dir"); [os.mkdir("dir/%d" % i) for i in range(5)]
os.link("full", "hard"); os.symlink("full", "link"); os.symlink("nowhere", "broken"); os.mkfifo("fifo")
s = socket.socket(socket.AF_UNIX); s.bind("socket")
os.chmod("empty", 0o4711); os.chmod("dir", 0o1770)
for i, name in enumerate(("full", "sparse", "empty", "dir", "fifo", "socket")):
    os.utime(name, ns=(1_000_000_000_000_000_001 + i, 900_000_000_123_456_789 + i))
EOF
find . -printf '%l' >/dev/null # whoever looks first leaves his time in directories and links`)
	for mode, fs := range map[string]map[string]any{"read": {"mode": "read"}, "write": {"mode": "write"}} {
		t.Run(mode, func(t *testing.T) {
			alike(t, seeing(t, "pod/files/container/app", fs), dir, []looked{
				// Of directories size and blocks are their file system's own affair, and a
				// root of FUSE has its own type.
				{"stat", `for f in full hard sparse empty link broken fifo socket; do stat -c '%n %A %f %h %s %b %B %o %t %T %X %Y %Z %x %y %z %w' $f; done; stat -c '%n %A %f %h %X %Y %Z %x %y %z %w' dir dir/3 .`},
				{"fstat, lstat, fstatat, statx", `python3 - <<'EOF'
import os
d = os.open(".", os.O_RDONLY)
def show(what, s):
    print(what, oct(s.st_mode), s.st_nlink, s.st_size, s.st_blocks, s.st_rdev, s.st_mtime_ns, s.st_ctime_ns)
for f in ("full", "sparse", "empty"):
    fd = os.open(f, os.O_RDONLY)
    show("fstat " + f, os.fstat(fd)); show("stat", os.stat(f)); show("fstatat", os.stat(f, dir_fd=d))
    assert os.fstat(fd).st_ino == os.stat(f).st_ino == [e.inode() for e in os.scandir(".") if e.name == f][0]
    assert os.fstat(fd).st_dev == os.stat(".").st_dev
show("lstat", os.lstat("link")); show("through", os.stat("link"))
assert os.stat("full").st_ino == os.stat("hard").st_ino == os.stat("link").st_ino != os.stat("sparse").st_ino
for e in sorted(os.scandir("."), key=lambda e: e.name):
    print(e.name, e.is_file(follow_symlinks=False), e.is_dir(follow_symlinks=False), e.is_symlink())
EOF`},
				{"access", `for f in full sparse empty dir link broken fifo none; do for x in -r -w -x -e; do test $x $f && printf 'yes ' || printf 'no '; done; echo $f; done`},
				{"readlink", `readlink link broken full; realpath link`},
				{"statfs", `stat -f -c '%s %S %b %c %l' . full; df --output=size,itotal . | tail -n 1`},
				{"devices", `cd /.mirrord/remote 2>/dev/null || cd /; stat -c '%n %F %t %T' dev/null dev/zero dev/full`},
				{"walked", `find . -printf '%P %y %m %n %T@ %l\n' | LC_ALL=C sort; du -k --apparent-size full sparse; du -k full sparse; find . -inum $(stat -c %i full) | wc -l; find . -xdev | wc -l`},
			})
		})
	}
}

// TestFilesContainers: of many containers with different roots it is the chosen
// one's, also that of an image that holds nothing but one static program.
func TestFilesContainers(t *testing.T) {
	filesPod(t)
	inContainer(t, "app", "echo shared >/scratch/shared")
	for _, c := range []struct{ container, want string }{
		{"app", "shared 1 - - -"},
		{"other", "- - other 1 -"},
	} {
		t.Run(c.container, func(t *testing.T) {
			got := in(t, "", append(seeing(t, "pod/files/container/"+c.container, map[string]any{"mode": "write", "read_write": []string{"^/srv"}}), "bash", "-c",
				"for f in /scratch/shared /etc/shop/one /srv/who/am-i /srv/elsewhere/one /srv/bare/one; do echo $(cat $f 2>/dev/null || echo -); done")...)
			if want := strings.ReplaceAll(c.want, " ", "\n"); got != want {
				t.Errorf("got %q, want %q", got, want)
			}
		})
	}
	// No shell, no libraries and no /etc are there, and everything works.
	dir := scratch(t, "bare")
	t.Run("bare", func(t *testing.T) {
		got := in(t, "", append(seeing(t, "pod/files/container/bare", map[string]any{"mode": "write"}), "bash", "-c",
			fmt.Sprintf("cat /scratch/shared /etc/shop/one /srv/who/am-i 2>&1 | sed 's/.*: //'; echo; ls /.mirrord/remote | grep pause; cd %s && mkdir -p a/b && seq 1000 >a/b/numbers && mv a/b/numbers a && sort -rn a/numbers | head -n 1; find . -type f; stat -c '%%a %%s' a/numbers; cp /pause /tmp/pause-$$ && stat -c %%a /pause && rm /tmp/pause-$$; touch /x 2>&1 | sed 's/.*: //'", dir))...)
		if want := "shared\nNo such file or directory\nNo such file or directory\n\npause\n1000\n./a/numbers\n644 3893\n755\nPermission denied"; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
		if got := inContainer(t, "app", "wc -l <"+dir+"/a/numbers"); got != "1000" {
			t.Errorf("the pod has %q", got)
		}
	})
}

// volumeReader reads two keys of each volume all the time, through one "..data"
// and by their names, and tells when they change. By name there is something at
// any time, as in the pod.
const volumeReader = `
import os, sys, time
def pair(volume):
    while True:
        try:
            d = os.open(volume + "/..data", os.O_PATH | os.O_DIRECTORY)
            try:
                return [open(key, opener=lambda p, flags: os.open(p, flags, dir_fd=d)).read() for key in ("one", "two")]
            finally:
                os.close(d)
        except OSError as e:
            print("again", e, flush=True) # it was replaced between the two
volumes, seen = ["/etc/shop", "/run/secrets/shop"], {}
print("begins", flush=True)
while any(seen.get(v) != sys.argv[1] for v in volumes):
    for v in volumes:
        one, two = pair(v)
        if one != two:
            print("MIXED", v, one, two, flush=True)
        if one != seen.get(v):
            print("changed", v, one, "%.3f" % time.time(), flush=True)
            seen[v] = one
    time.sleep(0.005)
    for key in ("one", "two"):
        for v in volumes:
            os.stat(v + "/" + key)
            if open(v + "/" + key).read() not in ("1", sys.argv[1]):
                print("ODD", v, flush=True)
time.sleep(1.2) # what is remembered is so no longer
for v in volumes:
    print("afterwards", v, open(v + "/one").read(), os.path.realpath(v + "/one") == os.path.realpath(v + "/..data/one"), flush=True)
`

// TestFilesUpdates: a ConfigMap or Secret that is updated is seen whole, and as
// soon as the cache's life allows after the pod has it.
func TestFilesUpdates(t *testing.T) {
	filesPod(t)
	const target = "pod/files/container/app"
	remembers := start(t, append(seeing(t, target, map[string]any{"mode": "read"}), "python3", "-uc", volumeReader, "2")...)
	asks := start(t, append(seeing(t, target, map[string]any{"mode": "read", "cache": "off"}), "python3", "-uc", volumeReader, "2")...)
	// One reader is in the pod itself: what it sees is when the kubelet has done it.
	there := make(chan string, 1)
	go func() {
		ctx, cancel := context.WithTimeout(t.Context(), runTime)
		defer cancel()
		out, err := w.cluster.Kubectl(ctx, "-n", w.namespace, "exec", "files", "-c", "app", "--", "python3", "-uc", volumeReader, "2")
		if err != nil {
			out += err.Error()
		}
		there <- out
	}()
	remembers.waitFor("changed /run/secrets/shop 1")
	asks.waitFor("changed /run/secrets/shop 1")
	kubectl(t, "patch", "configmap", "shop", "-p", `{"data": {"one": "2", "two": "2"}}`)
	kubectl(t, "patch", "secret", "shop", "-p", `{"stringData": {"one": "2", "two": "2"}}`)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		for kind, data := range map[string]string{"configmap": "data", "secret": "stringData"} {
			if _, err := w.cluster.Kubectl(ctx, "-n", w.namespace, "patch", kind, "shop", "-p", `{"`+data+`": {"one": "1", "two": "1"}}`); err != nil {
				t.Error(err)
			}
		}
	})
	var pod string
	for pod == "" { // the kubelet looks at once when the pod changes
		kubectl(t, "annotate", "pod", "files", "--overwrite", fmt.Sprintf("synced=%d", time.Now().UnixNano()))
		select {
		case pod = <-there:
		case <-time.After(2 * time.Second):
		}
	}
	changed := func(out, volume string) (at float64) {
		for l := range strings.Lines(out) {
			if _, err := fmt.Sscanf(l, "changed "+volume+" 2 %f", &at); err == nil {
				return at
			}
		}
		t.Errorf("%s has not changed: %s", volume, out)
		return 0
	}
	for _, c := range []struct {
		name  string
		r     *run
		limit float64 // seconds after the pod
	}{{"as it is", remembers, 1}, {"cache off", asks, 0}} {
		if code := c.r.end(); code != 0 || strings.Contains(c.r.stdout.String(), "MIXED") || strings.Contains(c.r.stdout.String(), "ODD") {
			t.Errorf("%s: exit code %d, %s", c.name, code, c.r.stdout)
		}
		for _, want := range []string{"afterwards /etc/shop 2 True", "afterwards /run/secrets/shop 2 True"} {
			if !strings.Contains(c.r.stdout.String(), want) {
				t.Errorf("%s: nobody said %q:\n%s", c.name, want, c.r.stdout)
			}
		}
		for _, v := range []string{"/etc/shop", "/run/secrets/shop"} {
			const round = 0.5 // of the reader, on a busy machine
			if late := changed(c.r.stdout.String(), v) - changed(pod, v); late > c.limit+round {
				t.Errorf("%s: %s changes %.3f s after it does in the pod, want %v", c.name, v, late, c.limit)
			} else {
				t.Logf("%s: %s after %.3f s", c.name, v, late)
			}
		}
	}
}
