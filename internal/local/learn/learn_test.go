package learn

import (
	"context"
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/mirrord-go/mirrord/internal/config"
	"github.com/mirrord-go/mirrord/internal/rules"
)

// done counts n calls about p in l.
func done(l *Log, p string, what deed, err error, count func(s *seen)) {
	_, c := l.begin(context.Background())
	c.end(p, what, err, count)
}

func found(s *seen)  { s.lookups++; s.target = true }
func missed(s *seen) { s.lookups++; s.missed++ }

// has gives what a machine has; what is not in it is not there.
func has(m map[string]Kind) func([]string) []Kind {
	return func(paths []string) []Kind {
		kinds := make([]Kind, len(paths))
		for i, p := range paths {
			kinds[i] = Nothing
			if k, ok := m[p]; ok {
				kinds[i] = k
			}
		}
		return kinds
	}
}

func report(t *testing.T, l *Log, o Options) *Report {
	t.Helper()
	if o.Here == nil {
		o.Here = has(nil)
	}
	if o.Target == nil {
		o.Target = has(nil)
	}
	r, err := l.Report(o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// configured reads a proposal as the configuration of a session in mode.
func configured(t *testing.T, p Proposal) rules.FilesOptions {
	t.Helper()
	cfg, notes, err := config.Load(config.Sources{Environ: []string{"HOME=/home/u"}, Dir: "/w", RandomKey: func() string { return "k" },
		Flags: map[string]config.Setting{"MIRRORD_CONFIG_FILE": {Value: "-", Flag: "config-file"}, "MIRRORD_IMPERSONATED_TARGET": {Value: "pod/x", Flag: "target"}},
		Stdin: func() ([]byte, error) { return p.Config, nil }})
	if err != nil || len(notes) > 0 {
		t.Fatalf("%s is no configuration: %v %v", p.Config, err, notes)
	}
	return cfg.FilesRules()
}

// TestProposals: what is proposed is a configuration, and changes the decision
// for what it is proposed for.
func TestProposals(t *testing.T) {
	const hostile = "/data/a.b[c]{{d}}\n\xff(e|f)$ \u202e^\\"
	places := rules.Places{Home: "/home/u", Own: []string{"/ws"}, Tools: []string{"/usr/share/tool"}, Volumes: []string{"/vol"}}
	for _, c := range []struct {
		name string
		mode string
		log  func(l *Log)
		here map[string]Kind
		far  map[string]Kind
		path string   // the one that the proposal is for
		op   rules.Op // and what for
		want rules.Where
		text string // the pattern; empty: any
	}{
		{"missing here", "", func(l *Log) { done(l, "/etc/shop/a.yaml", reading, syscall.ENOENT, missed) }, nil, map[string]Kind{"/etc/shop/a.yaml": File},
			"/etc/shop/a.yaml", rules.Read, rules.Remote, `^/etc/shop/a\.yaml$`},
		{"a directory missing here", "", func(l *Log) { done(l, "/etc/shop", reading, syscall.ENOENT, missed) }, nil, map[string]Kind{"/etc/shop": Other},
			"/etc/shop/below", rules.Read, rules.Remote, `^/etc/shop(/|$)`},
		{"missing in a guarded directory", "", func(l *Log) { done(l, "/usr/share/tool/x", reading, syscall.ENOENT, missed) }, nil, map[string]Kind{"/usr/share/tool/x": File},
			"/usr/share/tool/x", rules.Read, rules.Remote, ""},
		{"missing in the target", "", func(l *Log) { done(l, "/data/x", reading, syscall.ENOENT, missed) }, map[string]Kind{"/data/x": File}, nil,
			"/data/x", rules.Read, rules.Local, `^/data/x$`},
		{"below the root", "", func(l *Log) { done(l, "/data", reading, syscall.ENOENT, missed) }, map[string]Kind{"/data": Other}, nil,
			"/data/any", rules.Read, rules.Local, `^/data(/|$)`},
		{"a hostile name", "", func(l *Log) { done(l, hostile, reading, syscall.ENOENT, missed) }, map[string]Kind{hostile: File}, nil,
			hostile, rules.Read, rules.Local, ""},
		{"mode local ignores lists", "local", func(l *Log) { done(l, "/data/x", reading, syscall.ENOENT, missed) }, nil, map[string]Kind{"/data/x": File},
			"/data/x", rules.Read, rules.Remote, ""},
		{"refused by the mode", "", func(l *Log) { done(l, "/data/out/x", writing, syscall.EROFS, nil) }, nil, nil,
			"/data/out/x", rules.Write, rules.Remote, `^/data/out(/|$)`},
		{"refused by the mode, in the root", "", func(l *Log) { done(l, "/newfile", writing, syscall.EROFS, nil) }, map[string]Kind{"/": Other}, nil,
			"/newfile", rules.Write, rules.Remote, `^/newfile$`},
		{"refused here", "", func(l *Log) { done(l, "/etc/x1", writing, syscall.EACCES, nil) }, map[string]Kind{"/etc/x1": File}, nil,
			"/etc/x1", rules.Write, rules.Remote, `^/etc/x1$`},
		{"moved between the sides", "", func(l *Log) { done(l, "/data/x", moving, syscall.EXDEV, nil) }, nil, nil,
			"/data/x", rules.Write, rules.Remote, `^/data(/|$)`},
		{"a volume that is read only", "write", func(l *Log) { done(l, "/vol/x", writing, syscall.EROFS, nil) }, nil, nil,
			"/vol/x", rules.Write, rules.Local, `^/vol(/|$)`},
		{"not for the target's user", "", func(l *Log) { done(l, "/data/secret", reading, syscall.EACCES, nil) }, map[string]Kind{"/data/secret": File}, nil,
			"/data/secret", rules.Read, rules.Local, `^/data/secret$`},
		{"slow", "", func(l *Log) {
			for i := range 9 {
				done(l, fmt.Sprintf("/data/many/%d", i), reading, nil, func(s *seen) { found(s); s.trips++; s.waited += slowTime })
			}
		}, map[string]Kind{"/data/many": Other}, nil, "/data/many/3", rules.Read, rules.Local, `^/data/many(/|$)`},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := NewLog()
			c.log(l)
			o := Options{Rules: rules.FilesOptions{Mode: c.mode}, Places: places, View: "/.mirrord/remote", Here: has(c.here), Target: has(c.far)}
			r := report(t, l, o)
			if len(r.Propose) != 1 {
				t.Fatalf("proposed %d, want 1: %+v", len(r.Propose), r)
			}
			p := r.Propose[0]
			if c.text != "" {
				var b strings.Builder
				enc := json.NewEncoder(&b)
				enc.SetEscapeHTML(false)
				if err := enc.Encode(c.text); err != nil || !strings.Contains(string(p.Config), strings.TrimSpace(b.String())) {
					t.Errorf("got %s, want the pattern %s", p.Config, c.text)
				}
			}
			before, err := rules.NewFiles(o.Rules, places)
			if err != nil {
				t.Fatal(err)
			}
			with := configured(t, p)
			if with.Mode == "" {
				with.Mode = c.mode
			}
			after, err := rules.NewFiles(with, places)
			if err != nil {
				t.Fatal(err)
			}
			if was, is := before.Decide(c.path, c.op), after.Decide(c.path, c.op); was.Where == c.want || is.Where != c.want {
				t.Errorf("%s makes %q %v (%s), it was %v, want %v", p.Config, c.path, is.Where, is.Why, was.Where, c.want)
			}
		})
	}
}

// What would change nothing is not proposed.
func TestNotProposed(t *testing.T) {
	pattern := func(text string) []rules.Pattern { return []rules.Pattern{{Text: text, Origin: "in FILE:3"}} }
	for _, c := range []struct {
		name  string
		rules rules.FilesOptions
		log   func(l *Log)
		here  map[string]Kind
		far   map[string]Kind
		says  string
	}{
		{"on no side", rules.FilesOptions{}, func(l *Log) { done(l, "/etc/no", reading, syscall.ENOENT, missed) }, nil, nil, "missing on both sides"},
		{"hidden on purpose", rules.FilesOptions{NotFound: pattern("^/data/x")}, func(l *Log) { done(l, "/data/x", reading, syscall.ENOENT, missed) },
			map[string]Kind{"/data/x": File}, nil, "hidden on purpose (in FILE:3"},
		{"a list of the user's is in front", rules.FilesOptions{ReadOnly: pattern("^/data/")}, func(l *Log) { done(l, "/data/x", reading, syscall.ENOENT, missed) },
			map[string]Kind{"/data/x": File}, nil, "not in the target; this machine has one (in FILE:3"},
		{"the kernel's own", rules.FilesOptions{}, func(l *Log) { done(l, "/proc/x", reading, syscall.ENOENT, missed) }, nil, map[string]Kind{"/proc/x": File}, "/proc is the kernel's"},
		{"made afterwards", rules.FilesOptions{}, func(l *Log) {
			done(l, "/data/x", reading, syscall.ENOENT, missed)
			done(l, "/data/x", writing, nil, func(s *seen) { s.made = true })
		}, map[string]Kind{"/data/x": File}, nil, ""},
		{"in the view", rules.FilesOptions{}, func(l *Log) { done(l, "/.mirrord/remote/x", writing, syscall.EROFS, nil) }, nil, nil, "read only"},
		{"the link was lost", rules.FilesOptions{}, func(l *Log) { done(l, "/data/x", reading, syscall.EIO, nil) }, nil, nil, "EIO, 1 time: the target could not be asked"},
		{"slow, and not here", rules.FilesOptions{}, func(l *Log) {
			done(l, "/data/x", reading, nil, func(s *seen) { found(s); s.trips++; s.waited += slowTime })
		}, nil, nil, "this machine has no /data/x"},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := NewLog()
			c.log(l)
			r := report(t, l, Options{Rules: c.rules, View: "/.mirrord/remote", Here: has(c.here), Target: has(c.far)})
			if len(r.Propose) > 0 {
				t.Errorf("proposed %s", r.Propose[0].Config)
			}
			if all := strings.Join(r.Lines(), "\n"); !strings.Contains(all, c.says) {
				t.Errorf("got\n%s\nwant %q", all, c.says)
			}
		})
	}
}

func TestMapped(t *testing.T) {
	l := NewLog()
	done(l, "/conf/x", reading, syscall.ENOENT, missed)
	o := rules.FilesOptions{Mapping: []rules.FileMapping{{Path: rules.Pattern{Text: "^/conf/"}, To: "/data/"}}}
	r := report(t, l, Options{Rules: o, Here: has(map[string]Kind{"/data/x": File})})
	if len(r.Propose) != 1 || string(r.Propose[0].Config) != `{"feature":{"fs":{"local":["^/data/x$"]}}}` || r.Propose[0].Paths[0] != "/conf/x" {
		t.Errorf("got %+v, want the pattern for the name that lists judge", r.Propose)
	}
}

func TestGroups(t *testing.T) {
	l := NewLog()
	for i := range 100 {
		done(l, fmt.Sprintf("/data/many/%d", i), reading, nil, func(s *seen) { found(s); s.opens++; s.bytes += 10; s.trips++; s.waited += time.Millisecond })
	}
	done(l, "/data", reading, nil, found)
	done(l, "/data/many", reading, nil, found)
	done(l, "/srv/one", reading, nil, found)
	r := report(t, l, Options{})
	if len(r.From) != 2 || r.From[0].Path != "/data/many/" || r.From[0].Paths != 100 || r.From[0].Bytes != 1000 || r.From[0].Trips != 100 || r.From[1].Path != "/srv/one" {
		t.Errorf("got %+v, want the directory in one line, and one file", r.From)
	}
	if r.Remote.Paths != 103 || r.Remote.Opens != 100 || r.Remote.Micros < 100_000 {
		t.Errorf("in all %+v", r.Remote)
	}
	if head := r.Head(); !strings.HasPrefix(head, "files: 103 paths came from the target") {
		t.Errorf("the head is %q", head)
	}
}

// Names of one directory share a pattern.
func TestSharedPattern(t *testing.T) {
	l, far := NewLog(), map[string]Kind{}
	for i := range maxNames + 1 {
		p := fmt.Sprintf("/etc/shop/%d.conf", i)
		far[p] = File
		done(l, p, reading, syscall.ENOENT, missed)
	}
	r := report(t, l, Options{Target: has(far)})
	if len(r.Propose) != 2 || !strings.Contains(string(r.Propose[0].Config), `^/etc/shop/(0\\.conf|1\\.conf|`) {
		t.Errorf("got %d proposals, the first %s", len(r.Propose), r.Propose[0].Config)
	}
}

// The number of paths is bounded; what comes later counts for its directory.
func TestBounded(t *testing.T) {
	l := NewLog()
	for i := range maxPaths + 100 {
		done(l, fmt.Sprintf("/data/%d/x", i), reading, syscall.ENOENT, missed)
	}
	long := "/" + strings.Repeat("d/", 2000)
	for i := range 1000 {
		done(l, fmt.Sprintf("%s%d", long, i), reading, syscall.EACCES, found)
	}
	if len(l.paths) > maxPaths+1 || l.text > maxText+1 {
		t.Errorf("%d paths of %d bytes are remembered, want at most %d of %d", len(l.paths), l.text, maxPaths, maxText)
	}
	r := report(t, l, Options{})
	if r.Folded != 1100 && r.Folded != 1101 || r.Nowhere.Paths > maxPaths || r.Nowhere.Unasked != r.Nowhere.Paths-maxAsked {
		t.Errorf("folded %d, missing %+v", r.Folded, r.Nowhere)
	}
	if all := strings.Join(r.Lines(), "\n"); !strings.Contains(all, "calls are counted for their directories only") {
		t.Errorf("it is not said:\n%s", all)
	}
	text, err := r.JSON()
	if err != nil || len(text) > 1<<20 {
		t.Errorf("a report of %d bytes, %v", len(text), err)
	}
}

// A report of hostile names is text, and read back as it was.
func TestReportIsText(t *testing.T) {
	l := NewLog()
	for _, p := range []string{"/data/\xff", "/data/\x1b[2J", "/data/a\nb"} {
		done(l, p, reading, nil, found)
		done(l, p, writing, syscall.EROFS, nil)
		done(l, p+"no", reading, syscall.ENOENT, missed)
	}
	text, err := report(t, l, Options{}).JSON()
	if err != nil || !utf8.Valid(text) {
		t.Fatalf("%v in %q", err, text)
	}
	var back Report
	if err := json.Unmarshal(text, &back); err != nil || len(back.From) != 3 || len(back.Refused) != 3 {
		t.Errorf("read back as %+v, %v", back, err)
	}
}

// What is mounted as a whole is said not to be seen, in one line.
func TestUnseen(t *testing.T) {
	r := report(t, NewLog(), Options{Plan: rules.Plan{Binds: []string{"/a", "/b", "/c", "/d", "/e", "/f", "/g"}}})
	lines := r.Lines()
	if text, err := r.JSON(); err != nil || strings.Contains(string(text), "null") {
		t.Errorf("an empty list is none: %s, %v", text, err)
	}
	if len(lines) != 1 || !strings.HasPrefix(lines[0], "not seen: what programs did in 7 directories") || strings.Contains(lines[0], "/g") {
		t.Errorf("got %q", lines)
	}
}

// FuzzPattern: whatever a path is, the pattern is text without control
// characters, and matches it and nothing beside it.
func FuzzPattern(f *testing.F) {
	for _, s := range []string{"a", "a.b", "(a|b)*", "\xff\xfe", "a\nb", "{{ key }}", "Ünï", " x ", "\u202e", "$", "ſK"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, name string) {
		if name == "" || strings.ContainsAny(name, "/\x00") || name == "." || name == ".." {
			return
		}
		p := "/data/" + name
		text := patternFor(group{dir: "/data"}, []string{p})
		re, err := regexp.Compile("(?i)" + text)
		if err != nil || !utf8.ValidString(text) || !re.MatchString(p) || re.MatchString(p+"x") || re.MatchString(p+"/x") || re.MatchString("/x"+p) {
			t.Errorf("%q becomes %q: %v", p, text, err)
		}
		if strings.ContainsFunc(text, func(r rune) bool { return r < ' ' }) || strings.Contains(text, "{{") {
			t.Errorf("%q becomes %q", p, text)
		}
	})
}
