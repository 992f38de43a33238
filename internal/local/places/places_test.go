package places

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/mirrord-go/mirrord/internal/rules"
)

// lay makes files (directories end with a slash) below a new directory whose
// path has no symbolic links.
func lay(t *testing.T, names ...string) string {
	t.Helper()
	root, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range names {
		p := filepath.Join(root, n)
		if n[len(n)-1] == '/' {
			err = os.MkdirAll(p, 0o755)
		} else if err = os.MkdirAll(filepath.Dir(p), 0o755); err == nil {
			err = os.WriteFile(p, nil, 0o755)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func TestPlaces(t *testing.T) {
	root := lay(t, "home/", "repo/.git/", "repo/service/", "venv/bin/python", "venv/pyvenv.cfg", "tools/bin/x", "alone/bin/run", "scripts/main.py", "data/file.txt", "jdk/", "src/")
	at := func(n string) string { return filepath.Join(root, n) }
	if err := os.Symlink(at("home"), at("link")); err != nil {
		t.Fatal(err)
	}
	places := Of(
		[]string{"python", at("scripts/main.py"), at("data/file.txt"), "--flag"},
		[]string{"HOME=" + at("link"), "PATH=" + at("venv/bin") + ":" + at("tools/bin") + "::/:/usr/bin", "JAVA_HOME=" + at("jdk"), "PYTHONPATH=" + at("src"), "TMPDIR=", "VIRTUAL_ENV=relative"},
		at("repo/service"))
	if places.Home != at("home") {
		t.Errorf("home is %s, want what it leads to", places.Home)
	}
	for _, want := range []string{"repo/service", "repo", "src", "link"} {
		if !slices.Contains(places.Own, at(want)) {
			t.Errorf("%s is not own: %q", want, places.Own)
		}
	}
	for _, want := range []string{"venv", "tools/bin", "jdk"} {
		if !slices.Contains(places.Tools, at(want)) {
			t.Errorf("%s is no tool: %q", want, places.Tools)
		}
	}
	for _, own := range slices.Concat(places.Own, places.Tools) {
		if !filepath.IsAbs(own) || own == "/" {
			t.Errorf("%q must not be own", own)
		}
	}
	r, err := rules.NewFiles(rules.FilesOptions{}, places)
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]rules.Where{
		at("repo/x"): rules.Local, at("venv/lib/data"): rules.Local, at("home/.bashrc"): rules.Local, at("home/.kube/config"): rules.NotFound,
		"/tmp/x": rules.Local, "/var/tmp/x": rules.Local,
	} {
		if got := r.Decide(path, rules.Read); got.Where != want {
			t.Errorf("%s is %v (%s), want %v", path, got.Where, got.Why, want)
		}
	}
}

// A script outside of all places brings the code beside it, a file of data
// does not.
func TestCodeOfTheCommandLine(t *testing.T) {
	r := Of([]string{"/no/such/python", "/srv/tool/main.py"}, nil, "/")
	if len(r.Code) != 0 {
		t.Errorf("a script that is not here has code: %q", r.Code)
	}
	// The system's own script is there on every machine with Python's library.
	root := lay(t, "main.py")
	r = Of([]string{"python3", filepath.Join(root, "main.py"), filepath.Join(root, "data.txt")}, nil, "/")
	if !slices.Equal(r.Code, []string{root}) {
		t.Errorf("code is %q, want %q", r.Code, root)
	}
}

func TestInstallation(t *testing.T) {
	root := lay(t, "go/bin/", "go/pkg/", "plain/bin/", "venv/bin/", "venv/pyvenv.cfg", "other/")
	for in, want := range map[string]string{"go/bin": "go", "plain/bin": "plain/bin", "venv/bin": "venv", "other": "other"} {
		if got := installation(filepath.Join(root, in)); got != filepath.Join(root, want) {
			t.Errorf("installation of %s is %s, want %s", in, got, want)
		}
	}
	if got := installation("/bin"); got != "/bin" {
		t.Errorf("installation of /bin is %s: the whole machine", got)
	}
}

// Names resolve as in the target, also for the C library, unless dns is off.
func TestServed(t *testing.T) {
	if _, ok := Served(rules.FilesOptions{})["/etc/nsswitch.conf"]; !ok {
		t.Error("/etc/nsswitch.conf is not served")
	}
	if got := Served(rules.FilesOptions{DNSLocal: true}); len(got) > 0 {
		t.Errorf("with dns off %q is served", got)
	}
}
