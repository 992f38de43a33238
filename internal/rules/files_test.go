package rules

import (
	"io/fs"
	"path"
	"slices"
	"strings"
	"testing"
)

// files makes rules of patterns that are known to be good.
func files(t testing.TB, o FilesOptions, at Places) *Files {
	t.Helper()
	f, err := NewFiles(o, at)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

var somewhere = Places{
	Home:    "/home/ana",
	Own:     []string{"/ws/shop", "/data/tmp"},
	Tools:   []string{"/opt/go", "/home/ana/.nvm/bin"},
	Volumes: []string{"/etc/app", "/run/secrets/app", "/ws/shop/config", "/tmp", "/home/ana", "/data/tmp/volume", "/proc/odd", "/"},
	Code:    []string{"/srv/tool"},
}

func TestFilesDecide(t *testing.T) {
	someone := files(t, FilesOptions{}, somewhere)
	for _, c := range []struct {
		path        string
		read, write Where
	}{
		{"/", Remote, Remote},
		{"/app/config.yaml", Remote, Local},
		{"/data", Remote, Local},
		{"/var/lib/thing", Remote, Local},
		{"/var/run/secrets/kubernetes.io/serviceaccount/token", Remote, Local},
		{"/usr/bin/python3", Local, Local},
		{"/usrlocal", Remote, Local},
		{"/lib64/ld-linux-x86-64.so.2", Local, Local},
		{"/opt/tool/x", Local, Local},
		{"/opt/go/bin/go", Local, Local},
		{"/run/nscd/socket", NotFound, NotFound},
		{"/home/ana/.aws/credentials", NotFound, NotFound},
		{"/etc/passwd", Local, Local},
		{"/etc/resolv.conf", Remote, Local},
		{"/etc/resolv.conf.d", Local, Local},
		{"/etc/hosts", Remote, Local},
		{"/etc/ssl/certs/ca.pem", Remote, Local},
		{"/etc/ssl/private", Local, Local},
		// Program code, wherever it is, whatever its case.
		{"/app/main.py", Local, Local},
		{"/app/MAIN.PY", Local, Local},
		{"/app/main.pyx", Remote, Local},
		{"/app/libx.so", Local, Local},
		{"/app/libx.so.6", Remote, Local},
		{"/app/node_modules/x/data.bin", Local, Local},
		{"/app/package.json", Local, Local},
		{"/app/a.so/config", Remote, Local},
		{"/app/lib/jvm.cfg", Local, Local},
		// Places.
		{"/ws/shop/main.go", Local, Local},
		{"/ws/other", Remote, Local},
		{"/home/ana/x", Local, Local},
		{"/home/bob/x", Local, Local},
		{"/home/ana/.kube/config", NotFound, NotFound},
		{"/home/ana/.kubeconfig", Local, Local},
		{"/home/ana/.config/gcloud", NotFound, NotFound},
		{"/home/ana/.azure/token", NotFound, NotFound},
		// Volumes are remote for reads, also where code and system files are.
		{"/etc/app/config.yaml", Remote, Local},
		{"/etc/app/init.sh", Remote, Local},
		{"/run/secrets/app/token", Remote, Local},
		{"/run/secrets", Local, Local},
		// The more specific place wins; on a tie the developer's own.
		{"/ws/shop/config/a.yaml", Remote, Local},
		{"/data/tmp/x", Local, Local},
		{"/data/tmp/volume/x", Remote, Local},
		{"/tmp/x", Remote, Local}, // decided by the session: it makes /tmp its own
		{"/proc/odd", Local, Local},
	} {
		if got := someone.Decide(c.path, Read); got.Where != c.read || got.Why == "" {
			t.Errorf("reading %s is %v (%q), want %v", c.path, got.Where, got.Why, c.read)
		}
		if got := someone.Decide(c.path, Write); got.Where != c.write || got.Why == "" {
			t.Errorf("writing %s is %v (%q), want %v", c.path, got.Where, got.Why, c.write)
		}
	}
}

func TestFilesReaches(t *testing.T) {
	someone := files(t, FilesOptions{}, somewhere)
	for _, c := range []struct {
		dir           string
		local, remote bool
	}{
		{"/", true, true},
		{"/etc", false, true},
		{"/etc/ssl", false, true},
		{"/etc/app", false, false},
		{"/run", false, true},
		{"/run/secrets", false, true},
		{"/var", true, false}, // /var/tmp
		{"/ws", true, true},
		{"/ws/shop", false, true},
		{"/srv", true, false}, // code
		{"/usr", false, false},
		{"/data", true, true},
	} {
		if got := someone.Reaches(c.dir, Local); got != c.local {
			t.Errorf("something local below %s: %v, want %v", c.dir, got, c.local)
		}
		if got := someone.Reaches(c.dir, Remote); got != c.remote {
			t.Errorf("something remote below %s: %v, want %v", c.dir, got, c.remote)
		}
	}
	if !someone.HasCode("/srv/tool/lib") || someone.HasCode("/srv") || someone.HasCode("/srv/tools") {
		t.Error("HasCode")
	}
}

// listed is a disk of paths: "/" at the end is a directory, "=" a socket, "@" a
// symbolic link.
type listed []string

func (l listed) Lstat(p string) (fs.FileMode, bool) {
	for _, e := range l {
		if strings.TrimRight(e, "/=@") != p {
			continue
		}
		switch e[len(e)-1] {
		case '/':
			return fs.ModeDir, true
		case '=':
			return fs.ModeSocket, true
		case '@':
			return fs.ModeSymlink, true
		}
		return 0, true
	}
	return 0, false
}

func (l listed) List(dir string) (names []string) {
	for _, e := range l {
		if p := strings.TrimRight(e, "/=@"); path.Dir(p) == dir {
			names = append(names, path.Base(p))
		}
	}
	return names
}

// TestVolumesOfALoader: no volume of the target's chooses what programs here are
// made of, unless the user says so.
func TestVolumesOfALoader(t *testing.T) {
	at := Places{Home: "/home/ana", Volumes: []string{"/usr", "/lib/x86_64-linux-gnu", "/etc/ld.so.preload", "/etc", "/usr/local/bin", "/nix"}}
	f := files(t, FilesOptions{}, at)
	for p, want := range map[string]Where{
		"/lib/x86_64-linux-gnu": Local, "/lib/x86_64-linux-gnu/libc.so.6": Local, "/etc/ld.so.preload": Local, "/etc/ld.so.conf.d/x.conf": Local,
		"/usr/local/bin/x": Local, "/nix/store/x": Local, "/usr/bin/env": Local, "/usr/lib/libssl.so.3": Local,
		"/usr/share/nginx/html/index.html": Remote, "/usr/src/app/data": Remote, "/etc/app.conf": Remote, "/usr/local/etc/x": Remote,
	} {
		if d := f.Decide(p, Read); d.Where != want {
			t.Errorf("%s is %v: %s", p, d.Where, d.Why)
		}
	}
	f = files(t, FilesOptions{ReadOnly: []Pattern{{Text: "^/usr/lib/plugins/"}}}, at)
	if d := f.Decide("/usr/lib/plugins/x", Read); d.Where != Remote {
		t.Errorf("what the user names is %v: %s", d.Where, d.Why)
	}
}

func TestPlan(t *testing.T) {
	d := listed{"/usr/", "/bin@", "/tmp/", "/etc/", "/etc/passwd", "/etc/shadow", "/etc/ssh/", "/etc/ssl/", "/etc/ssl/certs/", "/etc/ssl/private/", "/etc/alternatives/", "/etc/ld.so.cache", "/etc/localtime@", "/home/", "/home/ana/", "/home/ana/.kube/", "/home/ana/.azure/",
		"/run/", "/run/docker.sock=", "/run/user/", "/run/secrets/", "/run/utmp", "/run/nscd/", "/var/tmp/", "/ws/shop/", "/ws/shop/config/", "/ws/shop/src/", "/proc/"}
	for _, c := range []struct {
		name string
		at   Places
		want Plan
	}{
		{"no target", Places{Home: "/home/ana", Own: []string{"/ws/shop"}}, Plan{
			Binds: []string{"/etc/alternatives", "/etc/ssl/private", "/home", "/proc", "/run", "/tmp", "/usr", "/var/tmp", "/ws/shop"},
			Hides: []string{"/home/ana/.azure", "/home/ana/.kube", "/run/nscd"}}},
		{"volumes split a directory", Places{Home: "/home/ana", Own: []string{"/ws/shop"}, Volumes: []string{"/run/secrets/app", "/ws/shop/config"}}, Plan{
			Binds: []string{"/etc/alternatives", "/etc/ssl/private", "/home", "/proc", "/run/docker.sock", "/run/user", "/tmp", "/usr", "/var/tmp", "/ws/shop/src"},
			Hides: []string{"/home/ana/.azure", "/home/ana/.kube"}}}, // /run/nscd is nowhere
		{"a volume over a place that is not one's own", Places{Home: "/home/ana", Volumes: []string{"/tmp", "/usr"}}, Plan{
			Binds: []string{"/etc/alternatives", "/etc/ssl/private", "/home", "/proc", "/run", "/var/tmp"},
			Hides: []string{"/home/ana/.azure", "/home/ana/.kube", "/run/nscd"}}},
		{"a volume over a place of one's own", Places{Home: "/home/ana", Own: []string{"/tmp"}, Volumes: []string{"/tmp"}}, Plan{
			Binds: []string{"/etc/alternatives", "/etc/ssl/private", "/home", "/proc", "/run", "/tmp", "/usr", "/var/tmp"},
			Hides: []string{"/home/ana/.azure", "/home/ana/.kube", "/run/nscd"}}},
		{"working in what is hidden", Places{Home: "/home/ana", Own: []string{"/home/ana/.kube", "/root/bin"}}, Plan{
			Binds:  []string{"/etc/alternatives", "/etc/ssl/private", "/home", "/proc", "/run", "/tmp", "/usr", "/var/tmp"},
			Hides:  []string{"/home/ana/.azure", "/run/nscd"},
			Absent: []string{"/root/bin"}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := files(t, FilesOptions{}, c.at).Plan(d)
			if !slices.Equal(got.Binds, c.want.Binds) {
				t.Errorf("binds\ngot  %q\nwant %q", got.Binds, c.want.Binds)
			}
			if !slices.Equal(got.Hides, c.want.Hides) {
				t.Errorf("hides\ngot  %q\nwant %q", got.Hides, c.want.Hides)
			}
			if !slices.Equal(got.Pins, []string{"/etc/ld.so.cache", "/etc/passwd"}) || !slices.Contains(got.Absent, "/etc/ld.so.preload") {
				t.Errorf("pins %q, absent %q", got.Pins, got.Absent)
			}
			for _, p := range append(c.want.Absent, "/selinux") {
				if !slices.Contains(got.Absent, p) {
					t.Errorf("%s is not among the absent: %q", p, got.Absent)
				}
			}
			if want := []string{"/etc/localtime", "/bin"}; !slices.Equal(got.Links, want) {
				t.Errorf("links %q, want %q", got.Links, want)
			}
		})
	}
}
