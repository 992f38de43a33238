package rules

import (
	"errors"
	"strings"
	"testing"
)

func texts(list ...string) (all []Pattern) {
	for _, t := range list {
		all = append(all, Pattern{Text: t})
	}
	return all
}

// TestFilesModes holds every row of the order of decision, in every mode.
func TestFilesModes(t *testing.T) {
	at := Places{Home: "/home/ana", Own: []string{"/ws"}, Tools: []string{"/opt/go"}, Volumes: []string{"/etc/app", "/data"}}
	o := FilesOptions{
		NotFound:  texts(`/gone\.`, `^/rw/gone`),
		ReadWrite: texts(`/rw\.`, `^/rw/`, `^/usr/rw/`),
		ReadOnly:  texts(`/ro\.`, `^/rw/ro`, `/both\.`),
		Local:     texts(`/mine\.`, `/both\.`, `^/ro`),
	}
	const l, r, n = Local, Remote, NotFound
	for _, c := range []struct {
		path string
		// What is read and written in the modes local, localwithoverrides, read
		// and write.
		local, overrides, read, write [2]Where
	}{
		// The user's lists, in their order.
		{"/srv/gone.x", [2]Where{l, l}, [2]Where{n, n}, [2]Where{n, n}, [2]Where{n, n}},
		{"/rw/gone", [2]Where{l, l}, [2]Where{n, n}, [2]Where{n, n}, [2]Where{n, n}}, // not_found before read_write
		{"/srv/rw.x", [2]Where{l, l}, [2]Where{r, r}, [2]Where{r, r}, [2]Where{r, r}},
		{"/rw/ro", [2]Where{l, l}, [2]Where{r, r}, [2]Where{r, r}, [2]Where{r, r}}, // read_write before read_only
		{"/srv/ro.x", [2]Where{l, l}, [2]Where{r, l}, [2]Where{r, l}, [2]Where{r, l}},
		{"/srv/both.x", [2]Where{l, l}, [2]Where{r, l}, [2]Where{r, l}, [2]Where{r, l}}, // read_only before local
		{"/srv/mine.x", [2]Where{l, l}, [2]Where{l, l}, [2]Where{l, l}, [2]Where{l, l}},
		{"/SRV/RW.x", [2]Where{l, l}, [2]Where{r, r}, [2]Where{r, r}, [2]Where{r, r}}, // whatever the case
		// Before places and defaults.
		{"/ws/gone.x", [2]Where{l, l}, [2]Where{n, n}, [2]Where{n, n}, [2]Where{n, n}},
		{"/ws/rw.x", [2]Where{l, l}, [2]Where{r, r}, [2]Where{r, r}, [2]Where{r, r}},
		{"/ws/ro.x", [2]Where{l, l}, [2]Where{r, l}, [2]Where{r, l}, [2]Where{r, l}},
		{"/etc/app/mine.x", [2]Where{l, l}, [2]Where{l, l}, [2]Where{l, l}, [2]Where{l, l}},
		{"/home/ana/.kube/mine.x", [2]Where{l, l}, [2]Where{l, l}, [2]Where{l, l}, [2]Where{l, l}},
		{"/srv/rw.py", [2]Where{l, l}, [2]Where{r, r}, [2]Where{r, r}, [2]Where{r, r}},
		// Only what names it in the system's directories, nothing in the kernel's.
		{"/usr/rw/x", [2]Where{l, l}, [2]Where{r, r}, [2]Where{r, r}, [2]Where{r, r}},
		{"/usr/share/rw.x", [2]Where{l, l}, [2]Where{l, l}, [2]Where{l, l}, [2]Where{l, l}},
		{"/opt/go/rw.x", [2]Where{l, l}, [2]Where{l, l}, [2]Where{l, l}, [2]Where{l, l}},
		{"/opt/rw.x", [2]Where{l, l}, [2]Where{r, r}, [2]Where{r, r}, [2]Where{r, r}},
		{"/proc/rw.x", [2]Where{l, l}, [2]Where{l, l}, [2]Where{l, l}, [2]Where{l, l}},
		// Places.
		{"/home/ana/.kube/config", [2]Where{l, l}, [2]Where{n, n}, [2]Where{n, n}, [2]Where{n, n}},
		{"/home/ana/x", [2]Where{l, l}, [2]Where{l, l}, [2]Where{l, l}, [2]Where{l, l}},
		{"/ws/x", [2]Where{l, l}, [2]Where{l, l}, [2]Where{l, l}, [2]Where{l, l}},
		{"/etc/app/x", [2]Where{l, l}, [2]Where{r, l}, [2]Where{r, l}, [2]Where{r, r}},
		{"/data/x", [2]Where{l, l}, [2]Where{r, l}, [2]Where{r, l}, [2]Where{r, r}},
		{"/run/nscd/socket", [2]Where{n, n}, [2]Where{n, n}, [2]Where{n, n}, [2]Where{n, n}},
		// Default lists.
		{"/etc/resolv.conf", [2]Where{r, l}, [2]Where{r, l}, [2]Where{r, l}, [2]Where{r, l}}, // names resolve in the target whatever the mode
		{"/etc/hostname", [2]Where{l, l}, [2]Where{r, l}, [2]Where{r, l}, [2]Where{r, l}},
		{"/etc/ssl/certs/x", [2]Where{l, l}, [2]Where{r, l}, [2]Where{r, l}, [2]Where{r, l}},
		{"/etc/passwd", [2]Where{l, l}, [2]Where{l, l}, [2]Where{l, l}, [2]Where{l, l}},
		{"/usr/bin/x", [2]Where{l, l}, [2]Where{l, l}, [2]Where{l, l}, [2]Where{l, l}},
		{"/srv/x.py", [2]Where{l, l}, [2]Where{l, l}, [2]Where{l, l}, [2]Where{l, l}},
		// The mode.
		{"/srv/x", [2]Where{l, l}, [2]Where{l, l}, [2]Where{r, l}, [2]Where{r, r}},
		{"/", [2]Where{l, l}, [2]Where{l, l}, [2]Where{r, r}, [2]Where{r, r}},
	} {
		for mode, want := range map[string][2]Where{FilesLocal: c.local, FilesLocalWithOverrides: c.overrides, FilesRead: c.read, FilesWrite: c.write, "": c.read} {
			o.Mode = mode
			f := files(t, o, at)
			for op, want := range want {
				got := f.Decide(c.path, Op(op))
				if got.Where != want || got.Why == "" || got.Path != c.path {
					t.Errorf("mode %q, %s, operation %d: %v as %s (%s), want %v", mode, c.path, op, got.Where, got.Path, got.Why, want)
				}
			}
		}
	}
}

func TestFilesSwitches(t *testing.T) {
	at := Places{Home: "/home/ana", Volumes: []string{"/etc/hosts", "/etc/hostname"}}
	for _, c := range []struct {
		name string
		o    FilesOptions
		path string
		want Where
	}{
		{"aws hidden", FilesOptions{}, "/home/ana/.aws/config", NotFound},
		{"aws shown", FilesOptions{ShowAWS: true}, "/home/ana/.aws/config", Local},
		{"dns of the target", FilesOptions{}, "/etc/hosts", Remote},
		{"dns off", FilesOptions{DNSLocal: true}, "/etc/hosts", Local},
		{"dns off, resolv.conf", FilesOptions{DNSLocal: true}, "/etc/resolv.conf", Local},
		{"dns off, nscd", FilesOptions{DNSLocal: true}, "/run/nscd/socket", Local},
		{"dns off, hostname", FilesOptions{DNSLocal: true}, "/etc/hostname", Remote},
		{"hostname off", FilesOptions{HostnameLocal: true}, "/etc/hostname", Local},
		{"dns off, asked for by name", FilesOptions{DNSLocal: true, ReadOnly: texts(`^/etc/hosts$`)}, "/etc/hosts", Remote},
		{"mode local, dns off", FilesOptions{Mode: FilesLocal, DNSLocal: true}, "/etc/hosts", Local},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := files(t, c.o, at).Decide(c.path, Read); got.Where != c.want {
				t.Errorf("%s is %v (%s), want %v", c.path, got.Where, got.Why, c.want)
			}
		})
	}
}

func TestFilesMapping(t *testing.T) {
	at := Places{Home: "/home/ana", Own: []string{"/ws"}, Tools: []string{"/opt/go"}}
	o := FilesOptions{
		Mapping: []FileMapping{
			{Pattern{Text: `^/in/(\w+)\.cfg$`}, "/srv/$1.yaml"},
			{Pattern{Text: `^/in/(?P<rest>.*)`}, "/ws/in/${rest}"},
			{Pattern{Text: `/tenant/`}, "/t/"},
			{Pattern{Text: `^/up$`}, "/a/../../srv/up/"},
			{Pattern{Text: `^/usr/share/x`}, "/srv/x"},
		},
		NotFound: texts(`^/srv/hidden`, `^/in/`),
	}
	f := files(t, o, at)
	for _, c := range []struct {
		path, to string
		want     Where
	}{
		{"/in/one.cfg", "/srv/one.yaml", Remote},
		{"/IN/One.CFG", "/srv/One.yaml", Remote},         // the first that matches, whatever the case
		{"/in/hidden.cfg", "/srv/hidden.yaml", NotFound}, // patterns judge the new name only
		{"/in/two/x", "/ws/in/two/x", Local},
		{"/data/tenant/tenant/x", "/data/t/tenant/x", Remote}, // the first occurrence
		{"/up", "/srv/up", Remote},
		{"/other", "/other", Remote},
		{"/usr/lib/tenant/x", "/usr/lib/tenant/x", Local}, // does not name the directory
		{"/opt/go/tenant/x", "/opt/go/tenant/x", Local},
		{"/usr/share/x/y", "/srv/x/y", Remote},
		{"/proc/tenant/x", "/proc/tenant/x", Local},
	} {
		if got := f.Decide(c.path, Read); got.Where != c.want || got.Path != c.to {
			t.Errorf("%s is %v, %s (%s), want %v, %s", c.path, got.Where, got.Path, got.Why, c.want, c.to)
		}
	}
	if !f.Leads("/usr/share") || !f.Leads("/in") || f.Leads("/usr/share/x") || f.Leads("/") || f.Leads("/srv") || f.Leads("/up") {
		t.Error("Leads")
	}
	o.Mode = FilesLocal
	if got := files(t, o, at).Decide("/in/one.cfg", Read); got.Where != Local || got.Path != "/in/one.cfg" {
		t.Errorf("mode local maps: %+v", got)
	}
}

func TestFilesWhy(t *testing.T) {
	f := files(t, FilesOptions{ReadOnly: []Pattern{{Text: `^/a`, Origin: "feature.fs.read_only in .mirrord/mirrord.json:7"}}, Local: texts("^/b"), NotFound: texts(`\.x$`),
		Mapping: []FileMapping{{Pattern{Text: "^/c", Origin: "feature.fs.mapping in x.json:3"}, "/a"}}}, Places{})
	for p, want := range map[string]string{
		"/a/x":           `feature.fs.read_only in .mirrord/mirrord.json:7: "^/a"`,
		"/b":             `feature.fs.local: "^/b"`,
		"/usr/share/a.x": `/usr is local by default (feature.fs.not_found: "\\.x$" does not hold in /usr: begin it with "^/usr/")`,
		"/c/x":           `it is /a/x by feature.fs.mapping in x.json:3: "^/c"; feature.fs.read_only in .mirrord/mirrord.json:7: "^/a"`,
	} {
		if got := f.Decide(p, Read).Why; got != want {
			t.Errorf("%s: %s, want %s", p, got, want)
		}
	}
}

func TestFilesErrors(t *testing.T) {
	bad := Pattern{Text: "a(b", Origin: "feature.fs.local in x.json:2"}
	for _, o := range []FilesOptions{{Local: []Pattern{bad}}, {NotFound: []Pattern{bad}}, {ReadOnly: []Pattern{bad}}, {ReadWrite: []Pattern{bad}},
		{Mapping: []FileMapping{{bad, "/x"}}}, {Mode: FilesLocal, Local: []Pattern{bad}}} {
		_, err := NewFiles(o, Places{})
		var p *PatternError
		if !errors.As(err, &p) || p.Pattern != bad || strings.Contains(err.Error(), "(?i)") || !strings.Contains(err.Error(), "x.json:2") {
			t.Errorf("%+v: %v", o, err)
		}
	}
	if _, err := NewFiles(FilesOptions{Mode: "readwrite"}, Places{}); err == nil || !strings.Contains(err.Error(), "localwithoverrides") {
		t.Errorf("an unknown mode: %v", err)
	}
}

func TestHeads(t *testing.T) {
	for expr, want := range map[string]string{
		`^/data`: "/data…", `^/data$`: "/data.", `^/data(/|$)`: "/data/… /data.", `^/data/.*`: "/data/…", `^/data/.*x`: "/data/+", `^/data/.+`: "/data/+",
		`/data`: "+", ``: "+", `^`: "…", `^/(usr|lib)/x`: "/usr/x… /lib/x…", `^/[ab]c$`: "/ac. /bc.", `^/[a-z]`: "/+", `^/a|^/b/c`: "/a… /b/c…", `^/a|/b`: "+",
		`^/a/?`: "/a/… /a…", `^/a/?b`: "/a/b… /ab…", `(?m)^/a`: "+", `^?/a`: "+", `\A/a\z`: "/a.", `^/a\b`: "/a+", `(^/a)(b)`: "/ab…", `^/a(.*)$`: "/a+", `^(?:)/a`: "/a…",
		`^(/a|/b)(c|d)(e|f)`: "/ace… /acf… /ade… /adf… /bce… /bcf… /bde… /bdf…", `(a|^/b)`: "+", `^/a{2}`: "/+",
	} {
		var got []string
		for _, h := range heads(expr, true) {
			got = append(got, h.text+map[end]string{endSome: "+", endAny: "…", endExact: "."}[h.end])
		}
		if got := strings.Join(got, " "); got != want {
			t.Errorf("%s: %s, want %s", expr, got, want)
		}
	}
	slow := heads(strings.Repeat("((a|bc)?", 12)+strings.Repeat("(d|ef)?)", 12), true)
	if len(slow) != 1 || slow[0].text != "" {
		t.Errorf("%+v", slow)
	}
	many := heads("^/"+strings.Repeat("(ab|cd)", 10), true)
	if len(many) > maxHeads || many[0].end != endSome {
		t.Errorf("%d heads, %+v", len(many), many[0])
	}
	// What is matched in one case only covers nothing.
	if h := heads(`(?i)(?-i)^/data`, false); h[0].end != endSome {
		t.Errorf("%+v", h)
	}
	if h := heads(`(?i)^/(app|api)/`, false); len(h) != 4 || h[0].end != endAny {
		t.Errorf("%+v", h)
	}
}
