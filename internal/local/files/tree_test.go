package files

import (
	"errors"
	"net"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/mirrord-go/mirrord/internal/link"
	"github.com/mirrord-go/mirrord/internal/local/fusefs"
	"github.com/mirrord-go/mirrord/internal/protocol"
	"github.com/mirrord-go/mirrord/internal/rules"
)

// mixed is a view in which everything occurs.
func mixed(t *testing.T) *view {
	v := newView(t, func(base string, o *Options) {
		o.Rules = ruled(t, rules.FilesOptions{}, rules.Places{
			Home:    base + "/home/ana",
			Own:     []string{base + "/ws/shop", base + "/deep/below/own"},
			Volumes: []string{base + "/ws/shop/config", base + "/data", base + "/home/ana/secret"},
			Code:    []string{base + "/tool/bin"},
		})
		o.Plan = rules.Plan{Binds: []string{base + "/ws/shop/src", base + "/home/ana/bin"}, Pins: []string{base + "/pinned"},
			Links: []string{base + "/link"}, Absent: []string{base + "/ws/absent"}}
		for p, content := range map[string]string{"/ws/shop/src/": "", "/home/ana/bin/": "", "/pinned": "pinned", "/link": "-> ws"} {
			write(t, base+p, content)
		}
		o.Served = map[string][]byte{base + "/app/served": []byte("served"), base + "/ws/shop/served": []byte("too")}
	})
	v.has(map[string]string{
		"/ws/shop/main.go": "l", "/ws/shop/config/a.yaml": "local a", "/ws/shop/config/only-local": "l", "/ws/notes": "l",
		"/home/ana/.kube/config": "l", "/home/ana/x": "l", "/app/main.py": "l", "/app/config.yaml": "local", "/app/lib/x.so": "l",
		"/deep/below/own/file": "l", "/deep/here": "l", "/tool/bin/lib/mod.py": "l", "/tool/bin/lib/data.txt": "l", "/tool/other": "l",
		"/remote-file/x.py": "l", "/app/both.py": "l", "/data/code.py": "l",
	}, map[string]string{
		"/ws/shop/main.go": "r", "/ws/shop/config/a.yaml": "remote a", "/ws/shop/config/b.yaml": "r", "/ws/shop/other/": "",
		"/home/ana/secret/token": "r", "/home/ana/x": "r", "/app/config.yaml": "remote", "/app/both.py": "r", "/app/remote.py": "r",
		"/app/lib/": "", "/data/code.py": "r", "/data/sub/x": "r", "/app/link": "-> config.yaml", "/tool/other": "r", "/remote-file": "r",
		"/pinned": "r", "/ws/absent": "r",
	})
	return v
}

// TestLookupAndListAgree: a name is listed if and only if a lookup finds it, and
// is the same then.
func TestLookupAndListAgree(t *testing.T) {
	v := mixed(t)
	seen := 0
	var walk func(p string)
	walk = func(p string) {
		list, err := v.List(t.Context(), p)
		if err != nil {
			t.Errorf("list %s: %v", p, err)
			return
		}
		listed := map[string]fusefs.Node{}
		for _, e := range list {
			if _, twice := listed[e.Name]; twice {
				t.Errorf("%s: %s is listed twice", p, e.Name)
			}
			listed[e.Name] = e.Node
		}
		names := map[string]bool{"never-there": true, "main.py": true}
		for _, dir := range []string{p, v.remote(p)} {
			entries, _ := os.ReadDir(dir)
			for _, e := range entries {
				names[e.Name()] = true
			}
		}
		for n := range listed {
			names[n] = true
		}
		for name := range names {
			c := path.Join(p, name)
			found, err := v.Lookup(t.Context(), c)
			got, ok := listed[name]
			switch {
			case err != nil && !errors.Is(err, syscall.ENOENT):
				t.Errorf("lookup %s: %v", c, err)
			case ok != (err == nil):
				t.Errorf("%s: listed %v, lookup %v", c, ok, err)
			case ok && (got.Key != found.Key || got.Fixed != found.Fixed || got.Attr.Mode != found.Attr.Mode):
				t.Errorf("%s: listed %+v, found %+v", c, got, found)
			case ok:
				seen++
				if got.Attr.Mode&unix.S_IFMT == unix.S_IFDIR {
					walk(c)
				}
			}
		}
	}
	walk(v.base)
	walk(viewDir + v.base)
	if seen < 40 {
		t.Errorf("only %d names were looked at", seen)
	}
	for _, gone := range []string{"/link", "/ws", "/app"} { // again, with some of it hidden or made
		_ = v.Unlink(t.Context(), v.in(gone+"/remote.py"))
	}
	must(t, v.Unlink(t.Context(), v.in("/data/code.py.missing")))
	must(t, v.Mkdir(t.Context(), v.in("/app/lib/made"), 0o755))
	walk(v.base)
}

func TestWhoseIsIt(t *testing.T) {
	v := mixed(t)
	for p, want := range map[string]string{
		"/ws":                        "fixed", // leads to a mount
		"/ws/shop":                   "fixed",
		"/ws/shop/src":               "fixed",
		"/pinned":                    "fixed",
		"/link":                      "fixed",
		"/app/served":                "fixed",
		"/ws/notes":                  "none", // remote by rule, and not there
		"/ws/shop/main.go":           "local",
		"/ws/shop/other":             "none",
		"/ws/shop/config":            "remote", // a volume in a local directory
		"/ws/shop/config/a.yaml":     "remote",
		"/ws/shop/config/b.yaml":     "remote",
		"/ws/shop/config/only-local": "none",
		"/ws/absent":                 "remote",
		"/home/ana/.kube":            "none",
		"/home/ana/.kube/config":     "none",
		"/home/ana/x":                "local",
		"/home/ana/secret":           "remote", // found although the place is local
		"/home/ana/secret/token":     "remote",
		"/app":                       "remote",
		"/app/config.yaml":           "remote",
		"/app/main.py":               "local",
		"/app/both.py":               "local",
		"/app/remote.py":             "none", // code is the developer's
		"/app/lib":                   "remote",
		"/app/lib/x.so":              "local",
		"/deep":                      "local", // the target has none, it leads to one's own
		"/deep/below":                "local",
		"/deep/below/own/file":       "local",
		"/deep/here":                 "none",
		"/tool/bin":                  "local", // code
		"/tool/bin/lib":              "local",
		"/tool/bin/lib/mod.py":       "local",
		"/tool/bin/lib/data.txt":     "none",
		"/tool/other":                "remote",
		"/remote-file":               "remote",
		"/remote-file/x.py":          "local",  // the kernel never asks: that is no directory
		"/data/code.py":              "remote", // a volume, also where code is
	} {
		if got := v.side(v.in(p)); got != want {
			t.Errorf("%s is %s, want %s", p, got, want)
		}
	}
	for p, want := range map[string]string{"/app/config.yaml": "remote", "/ws/shop/config/a.yaml": "remote a", "/app/served": "served",
		"/ws/shop/main.go": "l", "/home/ana/secret/token": "r"} {
		if got, err := v.content(v.in(p)); got != want || err != nil {
			t.Errorf("%s: got %q, %v, want %q", p, got, err, want)
		}
	}
	if to, err := v.Readlink(t.Context(), v.in("/link"), pathKey(v.in("/link"))); to != "ws" || err != nil {
		t.Errorf("a planned link: %q, %v", to, err)
	}
	if n, _ := v.Lookup(t.Context(), viewDir); !n.Fixed {
		t.Error("the view's directory is not fixed")
	}
	root, err := v.List(t.Context(), "/")
	if err != nil || slices.ContainsFunc(root, func(e fusefs.Entry) bool { return e.Name == ".mirrord" }) {
		t.Errorf("the root's listing: %v, %v", root, err)
	}
}

// TestAbsent: what was absent when the session began stays so, as long as
// nobody makes it.
func TestAbsent(t *testing.T) {
	v := newView(t, func(base string, o *Options) {
		o.Rules = ruled(t, rules.FilesOptions{}, rules.Places{Own: []string{base + "/own"}})
		o.Plan = rules.Plan{Absent: []string{base + "/own/none"}}
	})
	v.has(map[string]string{"/own/": ""}, nil)
	n, err := v.Lookup(t.Context(), v.in("/own/none"))
	if errno(err) != syscall.ENOENT || n.Keep != fusefs.Ever {
		t.Errorf("got %v for %v, want ENOENT for ever", err, n.Keep)
	}
	f, err := v.Create(t.Context(), v.in("/own/none"), unix.O_WRONLY, 0o644)
	must(t, err)
	f.Close()
	if got := v.side(v.in("/own/none")); got != "local" {
		t.Errorf("after it was made: %s", got)
	}
}

// TestDirectoryAtTwoPaths: the kernel would move a directory that it finds at a
// second path.
func TestDirectoryAtTwoPaths(t *testing.T) {
	v := newView(t, nil)
	v.has(nil, map[string]string{"/a/file": "r", "/b/": ""})
	must(t, unix.Mount(v.remote(v.in("/a")), v.remote(v.in("/b")), "", unix.MS_BIND, ""))
	defer unix.Unmount(v.remote(v.in("/b")), unix.MNT_DETACH)
	a, err := v.Lookup(t.Context(), v.in("/a"))
	must(t, err)
	b, err := v.Lookup(t.Context(), v.in("/b"))
	must(t, err)
	if a.Attr.Ino != b.Attr.Ino || a.Key == b.Key {
		t.Errorf("inodes %d and %d, keys %x and %x: want the same and different", a.Attr.Ino, b.Attr.Ino, a.Key, b.Key)
	}
	x, _ := v.Lookup(t.Context(), v.in("/a/file"))
	y, _ := v.Lookup(t.Context(), v.in("/b/file"))
	if x.Key != y.Key {
		t.Error("one file with two names is two")
	}
}

// TestCrossingLinks: what a link of the target leads to is the target's.
func TestCrossingLinks(t *testing.T) {
	v := newView(t, func(base string, o *Options) {
		o.Rules = ruled(t, rules.FilesOptions{}, rules.Places{Own: []string{base + "/own", base + "/run"}})
		o.Sockets = []string{base + "/run"}
	})
	b := v.base
	up := strings.Repeat("../", 40)
	v.has(map[string]string{"/own/app-1/file": "local", "/own/only-local": "l", "/run/lock": "l", "/run/dir/": "", "/run/user/auth.json": "l"}, map[string]string{
		"/own/app-1/file": "remote", "/own/cert.pem": "cert", "/own/hash.0": "-> cert.pem", "/run/secrets/token": "t",
		"/current": "-> " + b + "/own/app-1", "/relative": "-> own/app-1/file", "/var/run": "-> ../run",
		"/chain": "-> relative", "/plain": "-> " + b + "/here/there", "/here/there": "r", "/nowhere": "-> " + b + "/own/only-local",
		// What would leave by going through a link, or past the root.
		"/data/x": "r", "/d": "-> " + b + "/data", "/evil": "-> d/../own/app-1/file", "/evilnew": "-> d/../own/new", "/abs": "-> " + b + "/d/../own/app-1/file",
		"/root": "-> /", "/evil2": "-> root" + b + "/own/app-1/file", "/own/evil": "-> ../d/../own/cert.pem", "/fine": "-> d/x", "/turn": "-> here/../data/x",
		"/loop": "-> loop/../x", "/lost": "-> nothing/../own/app-1", "/sockets": "-> run/user/auth.json",
		"/own/back": "-> " + b + "/here", "/own/up": "-> " + up + b[1:] + "/own/cert.pem", "/up": "-> " + up + b[1:] + "/own/cert.pem",
	})
	s, err := net.Listen("unix", filepath.Join(b, "run", "socket"))
	must(t, err)
	defer s.Close()
	view := viewDir + b
	for p, want := range map[string]string{
		b + "/current":       view + "/own/app-1",
		b + "/relative":      view + "/own/app-1/file",
		b + "/var/run":       view + "/run",
		b + "/chain":         "relative", // remote again
		b + "/plain":         b + "/here/there",
		b + "/nowhere":       view + "/own/only-local", // which the target has not
		b + "/up":            view + "/own/cert.pem",
		view + "/own/hash.0": "cert.pem",
		view + "/own/back":   b + "/here", // out of the view
		view + "/own/up":     view + "/own/cert.pem",
		view + "/current":    view + "/own/app-1",
		view + "/var/run":    "../run",
		b + "/evil":          view + "/own/app-1/file",
		b + "/evilnew":       view + "/own/new",
		b + "/abs":           view + "/own/app-1/file",
		b + "/root":          viewDir + "/",
		b + "/evil2":         "root" + b + "/own/app-1/file", // root leads into the view, and the rest is walked there
		view + "/own/evil":   view + "/own/cert.pem",
		b + "/fine":          "d/x",
		b + "/turn":          b + "/data/x",
		b + "/sockets":       view + "/run/user/auth.json",
	} {
		n, err := v.Lookup(t.Context(), p)
		if err != nil {
			t.Errorf("%s: %v", p, err)
			continue
		}
		if got, err := v.Readlink(t.Context(), p, n.Key); got != want || err != nil {
			t.Errorf("%s -> %q, %v, want %q", p, got, err, want)
		}
	}
	for p, want := range map[string]string{"/own/app-1/file": "remote", "/run/secrets/token": "t", "/own/cert.pem": "cert"} {
		if got, err := v.content(view + p); got != want || err != nil {
			t.Errorf("%s in the view: %q, %v, want %q", p, got, err, want)
		}
	}
	for name, want := range map[string]syscall.Errno{"/loop": syscall.ELOOP, "/lost": syscall.ENOENT} {
		n, err := v.Lookup(t.Context(), b+name)
		must(t, err)
		if to, err := v.Readlink(t.Context(), b+name, n.Key); errno(err) != want {
			t.Errorf("%s -> %q, %v, want %v", name, to, err, want)
		}
	}
	if list, err := v.List(t.Context(), view+"/run/user"); err != nil || len(list) != 0 {
		t.Errorf("what is no socket is listed: %v, %v", list, err)
	}
	// A socket that only this machine has is where one expects it, and nothing
	// else is.
	for _, p := range []string{"/run/socket"} {
		n, err := v.Lookup(t.Context(), view+p)
		must(t, err)
		if to, err := v.Readlink(t.Context(), view+p, n.Key); to != b+p || err != nil {
			t.Errorf("%s -> %q, %v, want %q", p, to, err, b+p)
		}
	}
	for _, p := range []string{"/run/lock", "/own/only-local", "/own", "/run/user/auth.json"} {
		if got := v.side(view + p); got == "local" || got == "other" {
			t.Errorf("%s of this machine in the view: %s", p, got)
		}
	}
	// The view is read only.
	if _, err := v.openFile(view+"/own/cert.pem", unix.O_RDWR); errno(err) != syscall.EROFS {
		t.Errorf("writing in the view: %v", err)
	}
	for name, err := range map[string]error{
		"mkdir": v.Mkdir(t.Context(), view+"/x", 0o755), "unlink": v.Unlink(t.Context(), view+"/own/cert.pem"), "rmdir": v.Rmdir(t.Context(), view+"/own"),
		"access": v.Access(t.Context(), view+"/own/cert.pem", unix.W_OK), "symlink": v.Symlink(t.Context(), "x", view+"/y"),
	} {
		if errno(err) != syscall.EROFS {
			t.Errorf("%s in the view: %v, want EROFS", name, err)
		}
	}
	if err := v.Rename(t.Context(), view+"/own/cert.pem", b+"/own/x", 0); errno(err) != syscall.EXDEV {
		t.Errorf("rename out of the view: %v, want EXDEV", err)
	}
	// A link that was replaced is looked up again.
	n, err := v.Lookup(t.Context(), b+"/chain")
	must(t, err)
	if _, err := v.Readlink(t.Context(), b+"/chain", n.Key+2); errno(err) != syscall.ESTALE {
		t.Errorf("another link: %v, want ESTALE", err)
	}
}

// TestReplacedVolume: what the kubelet replaces as a whole is found by its names
// at any time, the old or the new one.
func TestReplacedVolume(t *testing.T) {
	v := newView(t, nil)
	v.has(nil, map[string]string{"/vol/..v1/one": "old", "/vol/..v1/two": "old", "/vol/..v2/one": "new", "/vol/..v2/two": "new", "/vol/x/": "",
		"/vol/..data": "-> ..v1", "/vol/one": "-> ..data/one", "/vol/turn": "-> x/../..data/one"})
	leads := func(p string) (to string, key uint64) {
		t.Helper()
		n, err := v.Lookup(t.Context(), v.in(p))
		must(t, err)
		to, err = v.Readlink(t.Context(), v.in(p), n.Key)
		must(t, err)
		return to, n.Key
	}
	to, one := leads("/vol/one")
	_, turn := leads("/vol/turn")
	_, data := leads("/vol/..data")
	if to != "..data/one" { // it is never asked for again
		t.Errorf("a link through another leads to %q", to)
	}
	old, err := v.Lookup(t.Context(), v.in("/vol/..v1/one"))
	must(t, err)
	if _, err := v.Lookup(t.Context(), v.in("/vol/..v1/missing")); errno(err) != syscall.ENOENT {
		t.Errorf("a name that was never there: %v, want ENOENT", err)
	}
	must(t, os.Symlink("..v2", v.remote(v.in("/vol/..tmp"))))
	must(t, os.Rename(v.remote(v.in("/vol/..tmp")), v.remote(v.in("/vol/..data"))))
	must(t, os.Remove(v.remote(v.in("/vol/..v1/two"))))
	v.Tree.remote.forget(v.in("/vol/..v1/two"))
	if _, err := v.Lookup(t.Context(), v.in("/vol/..v1/two")); errno(err) != syscall.ESTALE {
		t.Errorf("a name in what is being removed: %v, want ESTALE", err)
	}
	must(t, os.RemoveAll(v.remote(v.in("/vol/..v1"))))
	v.Tree.remote.forget(v.in("/vol/..v1"))
	if _, err := v.Lookup(t.Context(), v.in("/vol/..v1")); errno(err) != syscall.ESTALE {
		t.Errorf("what ..data has led to: %v, want ESTALE", err)
	}
	// By what was remembered a path may still go the old way. Then it is walked anew.
	if _, err := v.Lookup(t.Context(), v.in("/vol/..v1/two")); errno(err) != syscall.ESTALE {
		t.Errorf("a name in what was replaced: %v, want ESTALE", err)
	}
	v.Tree.remote.forget(v.in("/vol/..v1/one"))
	if _, err := v.Open(t.Context(), v.in("/vol/..v1/one"), old.Key, unix.O_RDONLY); errno(err) != syscall.ESTALE {
		t.Errorf("opening what was replaced: %v, want ESTALE", err)
	}
	if to, k := leads("/vol/..data"); to != "..v2" || k == data {
		t.Errorf("..data leads to %q, and is another link: %v", to, k != data)
	}
	if _, k := leads("/vol/one"); k != one {
		t.Error("a link that was not replaced is another one")
	}
	if to, k := leads("/vol/turn"); to != v.in("/vol/..v2/one") || k == turn {
		t.Errorf("a link that is walked leads to %q, and is another: %v", to, k != turn)
	}
	for _, p := range []string{"/vol/..v2/missing", "/vol/missing", "/vol/..v0"} {
		if _, err := v.Lookup(t.Context(), v.in(p)); errno(err) != syscall.ENOENT {
			t.Errorf("%s: %v, want ENOENT", p, err)
		}
	}
}

func TestAnchored(t *testing.T) {
	for p, want := range map[string]string{"/a/b": "/a/b", "//a/./b/": "/a/b", "/..": "/", "/../a": "/a", "/a/../../b": "/a/../b", "/a/../b": "/a/../b"} {
		got, climbs := anchored(p)
		if got != want || climbs != (want == "/" || strings.Count(p, "..") > strings.Count(want, "..")) {
			t.Errorf("%s: got %s, %v, want %s", p, got, climbs, want)
		}
	}
}

func TestMixedDirectories(t *testing.T) {
	v := mixed(t)
	for p, want := range map[string]bool{v.base: true, "/": true, v.in("/ws"): true, v.in("/app"): true, v.in("/ws/shop"): true,
		v.in("/home/ana/secret"): false, viewDir + v.base: false} {
		if got := v.Mixed(p); got != want {
			t.Errorf("%s: mixed %v, want %v", p, got, want)
		}
	}
	must(t, v.Unlink(t.Context(), v.in("/home/ana/secret/token")))
	if !v.Mixed(v.in("/home/ana/secret")) {
		t.Error("a directory with a hidden file is not mixed")
	}
}

func TestListErrors(t *testing.T) {
	v := newView(t, func(base string, o *Options) {
		o.Rules = ruled(t, rules.FilesOptions{}, rules.Places{Own: []string{base + "/own"}, Volumes: []string{base + "/own/dir/volume"}})
	})
	// A local directory that leads to a volume, in place of a file of the target's.
	v.has(map[string]string{"/own/dir/x": "l"}, map[string]string{"/own/dir": "a file", "/file": "r"})
	if list, err := v.List(t.Context(), v.in("/own/dir")); err != nil || len(list) != 1 {
		t.Errorf("got %v, %v, want x", list, err)
	}
	for p, want := range map[string]error{"/missing": syscall.ENOENT} {
		if _, err := v.List(t.Context(), v.in(p)); errno(err) != want {
			t.Errorf("%s: got %v, want %v", p, err, want)
		}
	}
	v.target.on(func(s *link.Stream, m protocol.Message) bool {
		if _, ok := m.(*protocol.ReadDir); ok {
			s.Send(&protocol.Answer{Errno: syscall.EACCES})
			return true
		}
		return false
	})
	if _, err := v.List(t.Context(), v.base); errno(err) != syscall.EACCES {
		t.Errorf("got %v, want EACCES", err)
	}
}

func TestAccess(t *testing.T) {
	const owner, group, other = 0o400, 0o040, 0o004
	for _, c := range []struct {
		mode, uid, gid, mask uint32
		want                 error
	}{
		{owner, 1000, 9, unix.R_OK, nil},
		{owner, 2000, 9, unix.R_OK, syscall.EACCES},
		{group | other, 1000, 9, unix.R_OK, syscall.EACCES}, // the owner's bits decide
		{group, 2000, 5, unix.R_OK, nil},
		{other, 2000, 5, unix.R_OK, syscall.EACCES}, // the group's bits decide
		{other, 2000, 9, unix.R_OK, nil},
		{group, 2000, 9, unix.R_OK, nil}, // perhaps by another group
		{0o600, 1000, 9, unix.R_OK | unix.W_OK, nil},
		{0o600, 1000, 9, unix.X_OK, syscall.EACCES},
		{0, 0, 0, unix.R_OK | unix.W_OK, nil}, // root
		{0, 0, 0, unix.X_OK, syscall.EACCES},
		{0o001, 0, 0, unix.X_OK, nil},
		{unix.S_IFDIR, 0, 0, unix.X_OK, nil},
		{0, 2000, 9, unix.F_OK, nil},
	} {
		if got := allowed(&protocol.Attr{Mode: c.mode, UID: 1000, GID: 5}, c.mask, c.uid, c.gid); !errors.Is(got, c.want) {
			t.Errorf("%+v: got %v", c, got)
		}
	}
	v := mixed(t)
	must(t, os.Chmod(v.in("/ws/shop/main.go"), 0o444))
	for _, c := range []struct {
		p    string
		mask uint32
		want error
	}{
		{"/app/config.yaml", unix.R_OK, nil}, {"/app/config.yaml", unix.X_OK, syscall.EACCES}, {"/ws/shop/main.go", unix.X_OK, syscall.EACCES},
		{"/ws", unix.W_OK, nil}, {"/app/served", unix.R_OK, nil}, {"/app/served", unix.W_OK, syscall.EROFS}, {"/missing", unix.F_OK, syscall.ENOENT},
	} {
		if err := v.Access(t.Context(), v.in(c.p), c.mask); errno(err) != c.want {
			t.Errorf("%s, %o: got %v, want %v", c.p, c.mask, err, c.want)
		}
	}
}

func TestStatfs(t *testing.T) {
	v := mixed(t)
	var local unix.Statfs_t
	must(t, unix.Statfs(v.base, &local))
	for p, want := range map[string]uint64{"/app": 42, "/ws/shop/main.go": uint64(local.Type), "/ws": 42, "/home/ana/secret": 42, "/tool/bin": uint64(local.Type)} {
		if want != 42 && v.where(v.in(p)) == rules.Remote {
			want = 42
		}
		if got, err := v.Tree.Statfs(t.Context(), v.in(p)); got.Type != want || err != nil {
			t.Errorf("%s: type %x, %v, want %x", p, got.Type, err, want)
		}
	}
	if got, err := v.Tree.Statfs(t.Context(), viewDir+v.base); got.Type != 42 || err != nil {
		t.Errorf("view: %+v, %v", got, err)
	}
}

// TestKeys: a key tells side, file and, for links, time.
func TestKeys(t *testing.T) {
	keys := map[uint64]string{}
	for _, s := range []side{sideLocal, sideRemote, sideView} {
		for _, a := range []protocol.Attr{{Mode: unix.S_IFREG, Ino: 5, Dev: 1}, {Mode: unix.S_IFREG, Ino: 6, Dev: 1}, {Mode: unix.S_IFREG, Ino: 5, Dev: 1 << 33},
			{Mode: unix.S_IFLNK, Ino: 5, Dev: 1, Mtime: 7}, {Mode: unix.S_IFLNK, Ino: 5, Dev: 1, Mtime: 8}} {
			k := attrKey(s, "/p", &a)
			if sideOf(k) != s {
				t.Errorf("key %x is of side %d, want %d", k, sideOf(k), s)
			}
			if was, ok := keys[k]; ok {
				t.Errorf("%s and %+v have the same key", was, a)
			}
			keys[k] = a.Link
			if k != attrKey(s, "/q", &a) {
				t.Error("the key of a file depends on its path")
			}
		}
	}
	for ino := range uint64(1 << 16) { // an agent may choose any number
		if k := attrKey(sideView, "/", &protocol.Attr{Mode: unix.S_IFREG, Ino: ino << 48, Dev: ^ino}); k == ^uint64(0) {
			t.Fatal("a reserved number")
		}
	}
}

// TestFIFOIsTold: whoever looks a FIFO of the target's up is told once what it
// cannot do; who makes one knows.
func TestFIFOIsTold(t *testing.T) {
	v := newView(t, func(base string, o *Options) {
		o.Rules = ruled(t, rules.FilesOptions{Mode: rules.FilesWrite}, rules.Places{})
	})
	v.has(nil, map[string]string{"/file": ""})
	must(t, unix.Mkfifo(v.remote(v.in("/pipe")), 0o600))
	must(t, v.Mknod(t.Context(), v.in("/own"), unix.S_IFIFO|0o600, 0))
	for range 2 {
		for _, p := range []string{"/pipe", "/own", "/file"} {
			_, err := v.Lookup(t.Context(), v.in(p))
			must(t, err)
		}
	}
	if n := v.codes("fifo"); n != 1 {
		t.Errorf("%d events, want 1", n)
	}
}
