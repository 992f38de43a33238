package explain

import (
	"io/fs"
	"path"
	"strings"
	"testing"

	"github.com/mirrord-go/mirrord/internal/rules"
)

// disk is a machine that has these names; those that end with "/" are
// directories, and so are all above.
type disk map[string]fs.FileMode

func newDisk(names ...string) disk {
	d := disk{}
	for _, n := range names {
		mode := fs.FileMode(0)
		if strings.HasSuffix(n, "/") {
			mode = fs.ModeDir
		}
		d[path.Clean(n)] = mode
		for p := path.Dir(path.Clean(n)); ; p = path.Dir(p) {
			d[p] = fs.ModeDir
			if p == "/" {
				break
			}
		}
	}
	return d
}

func (d disk) Lstat(p string) (fs.FileMode, bool) { mode, ok := d[p]; return mode, ok }

func (d disk) List(dir string) (names []string) {
	for p := range d {
		if p != "/" && path.Dir(p) == dir {
			names = append(names, path.Base(p))
		}
	}
	return names
}

func TestPath(t *testing.T) {
	d := newDisk("/ws/conf/here", "/ws/conf/dir/", "/ws/main.py", "/home/u/.kube/config", "/etc/passwd", "/etc/localtime", "/usr/lib/x", "/data/mine/", "/run/sock")
	d["/lib"], d["/run/sock"] = fs.ModeSymlink, fs.ModeSocket
	f := must[*rules.Files](t)(rules.NewFiles(rules.FilesOptions{ReadOnly: []rules.Pattern{pattern("^/ws/conf/")}, ReadWrite: []rules.Pattern{pattern("^/data/out/")},
		NotFound: []rules.Pattern{pattern(`^/ws/\.env$`)}, Mapping: []rules.FileMapping{{Path: pattern("^/here/"), To: "/data/mine/"}}},
		rules.Places{Home: "/home/u", Own: []string{"/ws"}, Volumes: []string{"/etc/app"}}))
	m := Machine{Plan: f.Plan(d), Lstat: d.Lstat, Served: map[string][]byte{"/etc/nsswitch.conf": nil}}
	for _, c := range []struct {
		path                string
		read, write         string // where
		why, name, here     string // of reading
		shown, how, written string
	}{
		{"/ws/conf/here", "remote", "local", "KEY in FILE:3", "", "a file", Served, "asked of the target", "goes to this machine's file"},
		{"/ws/conf/new", "remote", "local", "KEY in FILE:3", "", "nothing", Served, "asked of the target", "copies the target's content"},
		{"/ws/conf/dir", "remote", "local", "KEY in FILE:3", "", "a directory", Served, "asked of the target", "refused (EROFS)"},
		{"/ws/conf/no/x", "remote", "local", "KEY in FILE:3", "", "nothing", Served, "asked of the target", "this machine has no directory /ws/conf/no"},
		{"/data/out/x", "remote", "remote", "KEY in FILE:3", "", "nothing", Served, "asked of the target", "changed in the target"},
		{"/ws/main.py", "local", "local", "/ws is your own", "", "a file", Served, "served path by path", ""},
		{"/ws/.env", "not found", "not found", "KEY in FILE:3", "", "nothing", Hidden, "do not find it", "cannot be made"},
		{"/usr/lib/x", "local", "local", "/usr is local", "", "a file", Mounted, "/usr is mounted", ""},
		{"/usr", "local", "local", "/usr is local", "", "a directory", Mounted, "it is mounted from this machine", ""},
		{"/home/u/.kube/config", "not found", "not found", "identity", "", "a file", Hidden, "/home/u/.kube is covered", "cannot be made"},
		{"/etc/passwd", "local", "local", "/etc is local", "", "a file", Mounted, "stays the one", ""},
		{"/etc/ld.so.preload", "local", "local", "/etc is local", "", "nothing", Hidden, "none when the session begins", ""},
		{"/lib", "local", "local", "/lib is local", "", "a symbolic link", Served, "this machine's link", ""},
		{"/lib/x", "local", "local", "/lib is local", "", "nothing", Served, "the path that it leads to", ""},
		{"/run/sock", "local", "local", "/run is local", "", "a socket", Mounted, "mounted", ""},
		{"/etc/app/x", "remote", "local", "/etc/app is a volume", "", "nothing", Served, "asked of the target", "no directory /etc/app"},
		{"/here/x", "remote", "local", "KEY in FILE:3", "/data/mine/x", "nothing", Served, "asked of the target", "copies the target's content"},
		{"/etc/nsswitch.conf", "the session", "nowhere", "unless dns is off", "", "nothing", Own, "made by the session", "EROFS"},
	} {
		a := Path(f, m, c.path)
		check(t, a[0], c.read, c.why)
		check(t, a[1], c.write, "")
		name := c.name
		if name == "" {
			name = c.path
		} else if !strings.Contains(a[0].Note, "it is "+name+" there") {
			t.Errorf("%s: noted %q", c.path, a[0].Note)
		}
		got, want := *a[0].File, File{Name: name, Here: c.here, Target: notAsked, Shown: c.shown}
		if got.Name != want.Name || got.Here != want.Here || got.Target != want.Target || got.Shown != want.Shown || !strings.Contains(got.How, c.how) || got.Write != "" {
			t.Errorf("%s: got %+v, want %+v because %q", c.path, got, want, c.how)
		}
		if w := a[1].File.Write; !strings.Contains(w, c.written) || c.written == "" && w != "" || !strings.Contains(a[1].Note, w) {
			t.Errorf("%s: the first write: got %q, want %q", c.path, w, c.written)
		}
	}
}
