package rules

import (
	"fmt"
	"io/fs"
	"math/rand/v2"
	"path"
	"slices"
	"strings"
	"testing"
)

// TestPlanWithPatterns: what the user's patterns leave of the mounts.
func TestPlanWithPatterns(t *testing.T) {
	d := listed{"/", "/usr/", "/usr/bin/", "/usr/share/", "/usr/share/doc/", "/usr/lib/", "/tmp/", "/tmp/a/", "/tmp/a/b=", "/home/", "/home/ana/", "/home/ana/.kube/", "/home/ana/src/", "/home/ana/.config/", "/home/ana/.config/gcloud/", "/home/ana/.config/app/",
		"/run/", "/run/docker.sock=", "/run/user/", "/run/user/1/", "/run/user/1/bus=", "/ws/shop/", "/ws/shop/src/", "/ws/shop/conf/", "/ws/shop/conf/a/", "/Data/", "/Data/x/", "/srv/", "/opt/", "/opt/go/", "/opt/app/", "/etc/", "/etc/ssh/", "/etc/ssh/d/", "/etc/x/", "/etc/passwd"}
	at := Places{Home: "/home/ana", Own: []string{"/tmp", "/ws/shop"}, Tools: []string{"/opt/go"}}
	for _, c := range []struct {
		name  string
		o     FilesOptions
		at    Places
		binds string
		hides string
	}{
		{"nothing", FilesOptions{}, at, "/etc/x /home /opt /run /tmp /usr /ws/shop", "/home/ana/.config/gcloud /home/ana/.kube"},
		{"an exact file", FilesOptions{ReadOnly: texts(`^/ws/shop/conf/x\.yaml$`)}, at, "/etc/x /home /opt /run /tmp /usr /ws/shop/conf/a /ws/shop/src", "/home/ana/.config/gcloud /home/ana/.kube"},
		{"a directory", FilesOptions{NotFound: texts(`^/ws/shop/conf(/|$)`)}, at, "/etc/x /home /opt /run /tmp /usr /ws/shop/src", "/home/ana/.config/gcloud /home/ana/.kube"},
		{"anywhere", FilesOptions{ReadOnly: texts(`\.yaml$`)}, at, "/opt/go /run/docker.sock /run/user/1/bus /tmp/a/b /usr", ""},
		{"anywhere, places in places", FilesOptions{ReadOnly: texts(`\.yaml$`)}, Places{Own: []string{"/tmp", "/tmp/a", "/home/ana", "/home/ana/src"}}, "/run/docker.sock /run/user/1/bus /tmp/a/b /usr", ""},
		{"in the system, by name", FilesOptions{ReadOnly: texts(`^/usr/share/doc/`)}, at, "/etc/x /home /opt /run /tmp /usr/bin /usr/lib /ws/shop", "/home/ana/.config/gcloud /home/ana/.kube"},
		{"mapping", FilesOptions{Mapping: []FileMapping{{Pattern{Text: "^/ws/shop/conf/a"}, "/x"}}}, at, "/etc/x /home /opt /run /tmp /usr /ws/shop/src", "/home/ana/.config/gcloud /home/ana/.kube"},
		{"all of a directory is local", FilesOptions{Local: texts(`^/data/`)}, at, "/Data/x /etc/x /home /opt /run /tmp /usr /ws/shop", "/home/ana/.config/gcloud /home/ana/.kube"},
		{"all of it and itself", FilesOptions{Local: texts(`^/data(/|$)`)}, at, "/Data /etc/x /home /opt /run /tmp /usr /ws/shop", "/home/ana/.config/gcloud /home/ana/.kube"},
		{"something local in what is hidden", FilesOptions{Local: texts(`^/home/ana/\.kube/x`)}, at,
			"/etc/x /home/ana/.config /home/ana/src /opt /run /tmp /usr /ws/shop", "/home/ana/.config/gcloud"},
		{"all local in what is hidden", FilesOptions{Local: texts(`^/home/ana/\.kube(/|$)`)}, at,
			"/etc/x /home /opt /run /tmp /usr /ws/shop", "/home/ana/.config/gcloud"},
		{"mode local", FilesOptions{Mode: FilesLocal}, at, "/Data /etc/x /home /opt /run /srv /tmp /usr /ws", ""},
		{"mode local, with patterns", FilesOptions{Mode: FilesLocal, ReadOnly: texts("x")}, at, "/Data /etc/x /home /opt /run /srv /tmp /usr /ws", ""},
		{"overrides", FilesOptions{Mode: FilesLocalWithOverrides, ReadOnly: texts("^/srv/")}, Places{Volumes: []string{"/Data/x/y"}}, "/etc/x /home /opt /run /tmp /usr /ws", ""},
		{"mode write", FilesOptions{Mode: FilesWrite}, at, "/etc/x /home /opt /run /tmp /usr /ws/shop", "/home/ana/.config/gcloud /home/ana/.kube"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := files(t, c.o, c.at).Plan(append(d, "/ws/"))
			if b := strings.Join(got.Binds, " "); b != c.binds {
				t.Errorf("binds\ngot  %s\nwant %s", b, c.binds)
			}
			if h := strings.Join(got.Hides, " "); h != c.hides {
				t.Errorf("hides\ngot  %s\nwant %s", h, c.hides)
			}
		})
	}
	big := append(slices.Clone(d), "/ws/shop/many/")
	for i := range maxChildren + 1 {
		big = append(big, fmt.Sprintf("/ws/shop/many/%d/", i))
	}
	got := files(t, FilesOptions{NotFound: texts("^/ws/shop/many/1/x")}, at).Plan(big)
	if slices.ContainsFunc(got.Binds, func(b string) bool { return strings.HasPrefix(b, "/ws/shop/many") }) || !slices.Contains(got.Binds, "/ws/shop/src") {
		t.Errorf("%d binds", len(got.Binds))
	}
}

func (l listed) paths() (all []string) {
	for _, e := range l {
		all = append(all, strings.TrimRight(e, "/=@"))
	}
	return all
}

// TestPlanAgreesWithDecide: whatever is below a bind is local under its own
// name, whatever is below a hide is nowhere.
func TestPlanAgreesWithDecide(t *testing.T) {
	for seed := range uint64(400) {
		agree(t, seed)
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

// FuzzPlan is the same with patterns of the fuzzer's.
func FuzzPlan(f *testing.F) {
	for i, p := range []string{`^/ws/.*\.yaml$`, `(?-i)^/usr/(share|lib)`, `^/home/ana/\.kube`, `[[:^alpha:]]$`, `^/\x{212A}`, `(a|^/ws)`, "^/ws\xff"} {
		f.Add(uint64(i), p, p)
	}
	f.Fuzz(func(t *testing.T, seed uint64, one, two string) { agree(t, seed, one, two) })
}

// agree makes rules and a disk by chance, with the given patterns too.
func agree(t *testing.T, seed uint64, extra ...string) {
	t.Helper()
	r := rand.New(rand.NewPCG(seed, 1))
	pick := func(list ...string) string { return list[r.IntN(len(list))] }
	names := []string{"ws", "usr", "a", "b", "home", "ana", ".kube", "etc", "ssh", "opt", "x.py", "K", "run", "nscd", "data", "ssl", "certs"}
	aPath := func() string {
		p := ""
		for range 1 + r.IntN(4) {
			p += "/" + pick(names...)
		}
		return p
	}
	aPattern := func() Pattern {
		if len(extra) > 0 && r.IntN(2) == 0 {
			return Pattern{Text: pick(extra...)}
		}
		p := aPath()
		p = pick("^", "^", "^", "", "(?-i)^", "(?m)^") + p[:1+r.IntN(len(p))]
		return Pattern{Text: strings.ReplaceAll(p, ".", `\.`) + pick("", "", "$", "(/|$)", "/.*", ".*x", "(a|b)?", "[a-c]", "/?", "|^/opt/b", ".", "s{2}")}
	}
	patterns := func() (list []Pattern) {
		for range r.IntN(3) {
			list = append(list, aPattern())
		}
		return list
	}
	paths := func() (list []string) {
		for range r.IntN(3) {
			list = append(list, aPath())
		}
		return list
	}
	o := FilesOptions{Mode: pick("", FilesRead, FilesWrite, FilesLocal, FilesLocalWithOverrides), DNSLocal: r.IntN(4) == 0,
		ReadWrite: patterns(), ReadOnly: patterns(), Local: patterns(), NotFound: patterns()}
	if r.IntN(3) == 0 {
		o.Mapping = []FileMapping{{aPattern(), aPath()}}
	}
	f, err := NewFiles(o, Places{Home: pick("", "/home/ana", "/ws", "/usr/a"), Own: paths(), Tools: paths(), Volumes: append(paths(), pick("/tmp", "/ws/a", "/home/ana/data", "/usr", "/usr/lib/a", "/etc")), Code: paths()})
	if err != nil {
		return // a pattern of the fuzzer's
	}
	d := listed{}
	have := map[string]bool{}
	for range 60 {
		for p := aPath(); p != "/" && !have[p]; p = path.Dir(p) {
			have[p] = true
			d = append(d, p+pick("/", "/", "/", "/", "/", "=", "@", ""))
		}
	}
	plan := f.Plan(d)
	never := func(p string) bool { // hidden, and not there to be covered
		for h := range f.hidden {
			if _, ok := d.Lstat(h); !ok && within(p, h) {
				return true
			}
		}
		return false
	}
	hidden := func(p string) bool {
		return slices.ContainsFunc(plan.Hides, func(h string) bool { return within(p, h) })
	}
	for _, b := range append(plan.Binds, plan.Pins...) {
		mode, _ := d.Lstat(b)
		for i := range 40 {
			p := b
			if mode&fs.ModeDir != 0 && i > 0 {
				for range 1 + r.IntN(3) {
					p += "/" + pick(append(names, "CERTS", "yaml", "x.yaml", "\xff", "k", "\u212a")...)
				}
			}
			for _, op := range []Op{Read, Write} {
				got := f.Decide(p, op)
				if never(p) {
					continue
				}
				if hidden(p) && got.Where != NotFound || !hidden(p) && (got.Where != Local || got.Path != p) {
					t.Errorf("%q (%d) is below the bind %s, and %v, %s: %s\n%+v\n%+v", p, op, b, got.Where, got.Path, got.Why, o, f.at)
				}
			}
		}
	}
	for _, h := range plan.Hides {
		for _, c := range d.paths() {
			if got := f.Decide(c, Read); within(c, h) && got.Where != NotFound {
				t.Errorf("%s is below the hide %s, and %v: %s", c, h, got.Where, got.Why)
			}
		}
	}
}

// FuzzHeads holds what is known of a pattern to what it matches.
func FuzzHeads(f *testing.F) {
	for _, s := range [][2]string{{`^/data(/|$)`, "/data/x"}, {`(?i)^/K`, "/\u212a"}, {`^/a(b|c)*d?$`, "/abcd"}, {`(?s)^/a.b|x`, "/a\nb"}, {`^^/a`, "/a"}, {`^/a\xff`, "/a\xff"}, {"^/a\uFFFD", "/a\xff"}} {
		f.Add(s[0], s[1])
	}
	f.Fuzz(func(t *testing.T, text, p string) {
		c, err := newPattern("", Pattern{Text: text})
		p = path.Clean("/" + p)
		if err != nil || len(text) > 200 || len(p) > 200 {
			return
		}
		matches := c.holds(p, "")
		for dir := p; ; dir = path.Dir(dir) {
			if matches && !c.reaches(dir) {
				t.Errorf("%q matches %q and does not reach %q: %+v", text, p, dir, c.heads)
			}
			if dir != p && c.covers(dir) && !matches {
				t.Errorf("%q covers %q and does not match %q: %+v", text, dir, p, c.heads)
			}
			if dir == "/" {
				return
			}
		}
	})
}
