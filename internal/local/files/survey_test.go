package files

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mirrord-go/mirrord/internal/link"
	"github.com/mirrord-go/mirrord/internal/protocol"
	"github.com/mirrord-go/mirrord/internal/rules"
)

// surveyed is what an honest agent says of the directory p now: its names and
// all contents, as if nothing changed them.
func (tg *target) surveyed(p string) *protocol.Entries {
	all := &protocol.Entries{End: protocol.EndWhole}
	reply, err := tg.reply(&protocol.ReadDir{Path: p})
	if err != nil {
		return all
	}
	for _, e := range reply.(*protocol.Entries).List {
		a, err := tg.reply(&protocol.Stat{Path: path.Join(p, e.Name), Prefetch: prefetch})
		if err != nil {
			continue
		}
		e.Attr = *a.(*protocol.Attr)
		e.Attr.Settled = true
		all.List = append(all.List, e)
	}
	return all
}

// onSurvey answers the surveys of directory p with what say gives, and ends
// others.
func (tg *target) onSurvey(p string, say func(s *link.Stream)) {
	tg.on(func(s *link.Stream, m protocol.Message) bool {
		m1, ok := m.(*protocol.Survey)
		if ok && m1.Path == p && len(m1.Names) == 0 {
			say(s)
		}
		return ok
	})
}

// quiet waits until no survey is under way.
func (v *view) quiet() {
	r := v.Tree.remote
	for {
		r.mu.Lock()
		n, arrived := len(r.surveys), r.arrived
		r.mu.Unlock()
		if n == 0 {
			return
		}
		<-arrived
	}
}

// has reports what the store says of p: "yes", "no", or "" if nobody knows.
func (v *view) knows(p string) string {
	f, ok := v.Tree.remote.answer(p)
	switch {
	case !ok:
		return ""
	case f.attr == nil:
		return "no"
	}
	return "yes"
}

// TestLyingSurvey: what an agent says unasked is about the directory that was
// asked about, and about no other; and there is an end to it.
func TestLyingSurvey(t *testing.T) {
	regular := protocol.Attr{Mode: unix.S_IFREG | 0o644, Nlink: 1, Ino: 9, Size: 3}
	file := func(names ...string) (list []protocol.Entry) {
		for _, n := range names {
			list = append(list, protocol.Entry{Name: n, Attr: regular})
		}
		return list
	}
	data := func(n int, size uint64) []protocol.Entry {
		a := regular
		a.Size, a.HasData, a.Data = size, true, make([]byte, n)
		return []protocol.Entry{{Name: "lie", Attr: a}}
	}
	whole := protocol.EndWhole
	for name, c := range map[string]struct {
		say         []protocol.Message
		lie, absent string // what the store then says of /dir/lie, and of /dir/x
	}{
		"the truth":            {[]protocol.Message{&protocol.Entries{List: file("lie"), End: whole}}, "yes", "no"},
		"a part":               {[]protocol.Message{&protocol.Entries{List: file("lie"), End: protocol.EndPart}}, "yes", ""},
		"no end":               {[]protocol.Message{&protocol.Entries{List: file("lie")}}, "yes", ""},
		"an end that is none":  {[]protocol.Message{&protocol.Entries{List: file("lie"), End: 77}}, "yes", ""},
		"above":                {[]protocol.Message{&protocol.Entries{Dir: "..", List: file("lie"), End: whole}}, "", ""},
		"the directory beside": {[]protocol.Message{&protocol.Entries{Dir: "../other", List: file("lie"), End: whole}}, "", ""},
		"absolute":             {[]protocol.Message{&protocol.Entries{Dir: "/other", List: file("lie"), End: whole}}, "", ""},
		"itself otherwise":     {[]protocol.Message{&protocol.Entries{Dir: ".", List: file("lie"), End: whole}}, "", ""},
		"an empty step":        {[]protocol.Message{&protocol.Entries{Dir: "a//b", List: file("lie"), End: whole}}, "", ""},
		"too deep":             {[]protocol.Message{&protocol.Entries{Dir: strings.Repeat("a/", surveyDepth) + "a", List: file("lie"), End: whole}}, "", ""},
		"names with steps":     {[]protocol.Message{&protocol.Entries{List: file("lie", "../other/lie", "a/b"), End: whole}}, "yes", ""},
		"names that are none":  {[]protocol.Message{&protocol.Entries{List: file("lie", "", ".", "..", "nul\x00", strings.Repeat("x", 256)), End: whole}}, "yes", ""},
		"less than the size":   {[]protocol.Message{&protocol.Entries{List: data(2, 3), End: whole}}, "", ""},
		"more than is asked":   {[]protocol.Message{&protocol.Entries{List: data(prefetch+1, prefetch+1), End: whole}}, "", ""},
		"another answer":       {[]protocol.Message{&protocol.Attr{Mode: regular.Mode}, &protocol.Entries{List: file("lie"), End: whole}}, "", ""},
		"no type":              {[]protocol.Message{&protocol.Entries{List: []protocol.Entry{{Name: "lie"}}, End: whole}}, "", "no"},
		"an answer after a no": {[]protocol.Message{&protocol.Answer{Errno: syscall.EACCES}, &protocol.Entries{List: file("lie"), End: whole}}, "", ""},
		"names after the end":  {[]protocol.Message{&protocol.Entries{End: whole}, &protocol.Entries{List: file("lie"), End: whole}}, "yes", ""},
		"an end after the end": {[]protocol.Message{&protocol.Entries{End: protocol.EndPart}, &protocol.Entries{List: file("lie"), End: whole}}, "yes", ""},
		"one name many times":  {[]protocol.Message{&protocol.Entries{List: file("lie", "lie", "lie"), End: whole}}, "yes", "no"},
	} {
		t.Run(name, func(t *testing.T) {
			v := newView(t, nil)
			v.has(nil, map[string]string{"/dir/": "", "/other/": ""})
			v.target.onSurvey(v.in("/dir"), func(s *link.Stream) {
				for _, m := range c.say {
					s.Send(m)
				}
			})
			_, err := v.Lookup(t.Context(), v.in("/dir"))
			must(t, err)
			v.quiet()
			if got := v.knows(v.in("/dir/lie")); got != c.lie {
				t.Errorf("/dir/lie: %q, want %q", got, c.lie)
			}
			if got := v.knows(v.in("/dir/x")); got != c.absent {
				t.Errorf("/dir/x: %q, want %q", got, c.absent)
			}
			for _, p := range []string{"/other/lie", "/other/x", "/lie", "/x", "/b", "/a/b"} {
				if got := v.knows(v.in(p)); got != "" {
					t.Errorf("%s: %q, though nobody asked", p, got)
				}
			}
		})
	}

	t.Run("without end", func(t *testing.T) {
		v := newView(t, nil)
		v.has(nil, map[string]string{"/dir/": ""})
		var sent atomic.Int64
		v.target.onSurvey(v.in("/dir"), func(s *link.Stream) {
			for i := 0; s.Send(&protocol.Entries{List: file(fmt.Sprint(i)), Dir: fmt.Sprintf("d%d", i%1000)}) == nil; i++ {
				sent.Store(int64(i))
			}
		})
		_, err := v.Lookup(t.Context(), v.in("/dir"))
		must(t, err)
		v.quiet()
		if sent := sent.Load(); sent > 100_000 {
			t.Errorf("%d messages were taken", sent)
		}
	})
}

// TestWrittenWhileSurveyed: what the session changes it sees, also when the
// agent's view from before arrives after it.
func TestWrittenWhileSurveyed(t *testing.T) {
	for name, c := range map[string]struct {
		change func(v *view) error
		check  func(v *view) error
	}{
		"a new file": {func(v *view) error {
			f, err := v.Create(v.t.Context(), v.in("/dir/new"), unix.O_WRONLY, 0o644)
			if err == nil {
				err = f.Close()
			}
			return err
		}, func(v *view) error { _, err := v.Lookup(v.t.Context(), v.in("/dir/new")); return err }},
		"a new directory": {func(v *view) error { return v.Mkdir(v.t.Context(), v.in("/dir/new"), 0o755) },
			func(v *view) error { _, err := v.List(v.t.Context(), v.in("/dir/new")); return err }},
		"a removed file": {func(v *view) error { return v.Unlink(v.t.Context(), v.in("/dir/file")) },
			func(v *view) error { return none(v, "/dir/file") }},
		"a renamed file": {func(v *view) error { return v.Rename(v.t.Context(), v.in("/dir/file"), v.in("/dir/other"), 0) },
			func(v *view) error {
				if got, err := v.content(v.in("/dir/other")); got != "before" {
					return fmt.Errorf("the content is %q, %v", got, err)
				}
				return none(v, "/dir/file")
			}},
		"a renamed directory": {func(v *view) error { return v.Rename(v.t.Context(), v.in("/dir"), v.in("/moved"), 0) },
			func(v *view) error {
				if got, err := v.content(v.in("/moved/file")); got != "before" {
					return fmt.Errorf("the content is %q, %v", got, err)
				}
				return none(v, "/dir/file")
			}},
		"a written file": {func(v *view) error {
			f, err := v.openFile(v.in("/dir/file"), unix.O_WRONLY)
			if err == nil {
				_, err = f.WriteAt(v.t.Context(), []byte("behind"), 0, false)
				err = errors.Join(err, f.Flush(v.t.Context()), f.Close())
			}
			return err
		}, func(v *view) error {
			if got, err := v.content(v.in("/dir/file")); got != "behind" {
				return fmt.Errorf("the content is %q, %v", got, err)
			}
			return nil
		}},
		"a shortened file": {func(v *view) error {
			f, err := v.openFile(v.in("/dir/file"), unix.O_WRONLY|unix.O_TRUNC)
			if err == nil {
				err = f.Close()
			}
			return err
		}, func(v *view) error {
			if got, err := v.content(v.in("/dir/file")); got != "" {
				return fmt.Errorf("the content is %q, %v", got, err)
			}
			return nil
		}},
	} {
		t.Run(name, func(t *testing.T) {
			v := newView(t, func(_ string, o *Options) {
				o.Rules = ruled(t, rules.FilesOptions{Mode: rules.FilesWrite}, rules.Places{})
			})
			v.has(nil, map[string]string{"/dir/file": "before", "/dir/sub/x": "x"})
			seen, changed := make(chan struct{}), make(chan struct{})
			var first sync.Once
			v.target.onSurvey(v.in("/dir"), func(s *link.Stream) {
				first.Do(func() {
					before := v.target.surveyed(v.in("/dir"))
					close(seen)
					<-changed
					s.Send(before)
				})
			})
			_, err := v.Lookup(t.Context(), v.in("/dir"))
			must(t, err)
			<-seen
			must(t, c.change(v))
			close(changed)
			v.quiet()
			if err := c.check(v); err != nil {
				t.Error(err)
			}
			list, err := v.List(t.Context(), v.base)
			must(t, err)
			for _, e := range list {
				if _, err := v.Lookup(t.Context(), v.in("/"+e.Name)); err != nil {
					t.Errorf("%s is listed: %v", e.Name, err)
				}
			}
		})
	}
}

// none is nil if there is nothing at p.
func none(v *view, p string) error {
	if _, err := v.Lookup(v.t.Context(), v.in(p)); !errors.Is(err, syscall.ENOENT) {
		return fmt.Errorf("%s: %v, want ENOENT", p, err)
	}
	return nil
}

// TestChangedInTarget: what changes in the target is seen when its life is over,
// counted from when it was asked for.
func TestChangedInTarget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := newView(t, nil)
		v.has(nil, map[string]string{"/dir/file": "before", "/dir/gone": "x", "/dir/sub/x": "x"})
		const late = DefaultLife / 4
		v.target.onSurvey(v.in("/dir"), func(s *link.Stream) {
			all := v.target.surveyed(v.in("/dir"))
			time.Sleep(late)
			s.Send(all)
		})
		_, err := v.Lookup(t.Context(), v.in("/dir"))
		must(t, err)
		asked := time.Now()
		v.quiet()
		if got, err := v.content(v.in("/dir/file")); got != "before" || err != nil || v.target.count("Stat", v.in("/dir/file"))+v.target.count("Open", "") != 0 {
			t.Errorf("%q, %v; asked %v", got, err, v.target.asked)
		}
		must(t, none(v, "/dir/new"))
		n, err := v.Lookup(t.Context(), v.in("/dir/file"))
		if want := time.Until(asked.Add(DefaultLife)); err != nil || n.Keep != want || n.KeepAttr != want {
			t.Errorf("the kernel may keep it for %v and %v, %v; want %v", n.Keep, n.KeepAttr, err, want)
		}
		write(t, v.remote(v.in("/dir/new")), "new")
		write(t, v.remote(v.in("/dir/file")), "behind")
		must(t, os.Remove(v.remote(v.in("/dir/gone"))))
		time.Sleep(time.Until(asked.Add(DefaultLife)))
		for p, want := range map[string]string{"/dir/new": "new", "/dir/file": "behind"} {
			if got, err := v.content(v.in(p)); got != want || err != nil {
				t.Errorf("%s: %q, %v, want %q", p, got, err, want)
			}
		}
		if err := none(v, "/dir/gone"); err != nil {
			t.Error(err)
		}
	})
}

// TestContentIsProved: after its life a content is right if the file has the
// same times, and these were old when it was read. If they were not, another
// change may have been in the same moment.
func TestContentIsProved(t *testing.T) {
	for name, settled := range map[string]bool{"settled": true, "not settled": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				v := newView(t, nil)
				v.has(nil, map[string]string{"/file": "before"})
				contents := 0
				v.target.on(func(s *link.Stream, m protocol.Message) bool {
					if _, ok := m.(*protocol.Survey); ok {
						return true
					}
					if st, ok := m.(*protocol.Stat); ok && st.Path == v.in("/file") {
						reply, _ := v.target.reply(&protocol.Stat{Path: st.Path, Prefetch: st.Prefetch})
						a := reply.(*protocol.Attr)
						if contents++; contents > 1 {
							a.Data, a.HasData = nil, false
						}
						a.Settled = settled
						s.Send(a)
						return true
					}
					return false
				})
				for range 2 {
					if got, err := v.content(v.in("/file")); got != "before" || err != nil {
						t.Errorf("%q, %v", got, err)
					}
					time.Sleep(2 * DefaultLife)
				}
				if opens, want := v.target.count("Open", ""), map[bool]int{true: 0, false: 1}[settled]; opens != want {
					t.Errorf("the content was asked for %d times more, want %d", opens, want)
				}
				// Whatever is seen to change is asked for.
				must(t, os.WriteFile(v.remote(v.in("/file")), []byte("behind"), 0o644))
				must(t, os.Chtimes(v.remote(v.in("/file")), time.Time{}, time.Unix(1e9, 0)))
				if got, err := v.content(v.in("/file")); got != "behind" || err != nil {
					t.Errorf("after a change: %q, %v", got, err)
				}
			})
		})
	}
}

// TestNothingAhead: where nothing is remembered nothing is asked for ahead, and
// an agent that does not know the question hears it once.
func TestNothingAhead(t *testing.T) {
	for name, c := range map[string]struct {
		life time.Duration
		want int
	}{"off": {0, 0}, "an old agent": {DefaultLife, 1}} {
		t.Run(name, func(t *testing.T) {
			v := newView(t, func(_ string, o *Options) { o.Life = c.life })
			v.has(nil, map[string]string{"/a/b/c": "x", "/a/b/d": "y"})
			v.target.on(func(s *link.Stream, m protocol.Message) bool {
				_, ok := m.(*protocol.Survey)
				if ok {
					s.Reset(syscall.ENOSYS)
				}
				return ok
			})
			for _, p := range []string{"/a", "/a/b", "/a/b/c", "/a/b/d", "/a/none"} {
				v.Lookup(t.Context(), v.in(p))
				v.content(v.in(p))
				v.quiet()
			}
			v.List(t.Context(), v.in("/a/b"))
			if n := v.target.count("Survey", ""); n != c.want {
				t.Errorf("%d surveys, want %d", n, c.want)
			}
		})
	}
}

// TestSurveyThatHangs: nobody waits for a survey longer than a moment, and it
// ends.
func TestSurveyThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := newView(t, nil)
		v.has(nil, map[string]string{"/dir/file": "content", "/dir/sub/x": "x"})
		var mu sync.Mutex
		silent := make(chan struct{})
		v.target.on(func(_ *link.Stream, m protocol.Message) bool {
			mu.Lock()
			defer mu.Unlock()
			if _, ok := m.(*protocol.Survey); ok {
				mu.Unlock()
				<-silent
				mu.Lock()
				return true
			}
			mu.Unlock()
			time.Sleep(roundTrip)
			mu.Lock()
			return false
		})
		ctx := t.Context()
		if took := trips(func() { v.Lookup(ctx, v.in("/dir")) }); took != 1 {
			t.Errorf("the question itself took %.2f round trips", took)
		}
		for name, do := range map[string]func() error{
			"lookup":  func() error { _, err := v.Lookup(ctx, v.in("/dir/file")); return err },
			"nothing": func() error { return none(v, "/dir/none") },
			"list":    func() error { _, err := v.List(ctx, v.in("/dir")); return err },
		} {
			var err error
			if took := trips(func() { err = do() }); took > 1.25 || err != nil {
				t.Errorf("%s: %.2f round trips, %v", name, took, err)
			}
		}
		// A signal is heeded as in any other call.
		v.target.on(func(*link.Stream, protocol.Message) bool { <-silent; return true })
		signalled, signal := context.WithCancel(ctx)
		time.AfterFunc(time.Second, signal)
		start := time.Now()
		if _, err := v.Lookup(signalled, v.in("/dir/else")); errno(err) != syscall.EINTR || time.Since(start) != time.Second+patience {
			t.Errorf("%v after %v, want EINTR", err, time.Since(start))
		}
		time.Sleep(2 * surveyTime)
		v.quiet()
		close(silent)
	})
}

// TestOpenWithoutHandleLosesItsName: what is open is there until it is closed,
// also when its content came before it was opened.
func TestOpenWithoutHandleLosesItsName(t *testing.T) {
	for name, c := range map[string]struct {
		lose  func(v *view) error
		names uint32
	}{
		"removed":           {func(v *view) error { return v.Unlink(v.t.Context(), v.in("/dir/file")) }, 0},
		"replaced":          {func(v *view) error { return v.Rename(v.t.Context(), v.in("/dir/other"), v.in("/dir/file"), 0) }, 0},
		"renamed":           {func(v *view) error { return v.Rename(v.t.Context(), v.in("/dir/file"), v.in("/dir/new"), 0) }, 1},
		"directory renamed": {func(v *view) error { return v.Rename(v.t.Context(), v.in("/dir"), v.in("/new"), 0) }, 1},
		"one of two removed": {func(v *view) error {
			if err := v.Link(v.t.Context(), v.in("/dir/file"), v.in("/dir/second")); err != nil {
				return err
			}
			return v.Unlink(v.t.Context(), v.in("/dir/file"))
		}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			v := newView(t, func(_ string, o *Options) {
				o.Rules = ruled(t, rules.FilesOptions{Mode: rules.FilesWrite}, rules.Places{})
			})
			v.has(nil, map[string]string{"/dir/file": "content", "/dir/other": "other"})
			f, err := v.openFile(v.in("/dir/file"), unix.O_RDONLY)
			must(t, err)
			defer f.Close()
			if f.(*remoteFile).handle != 0 {
				t.Fatal("it has a handle")
			}
			must(t, c.lose(v))
			if a, _, err := f.Stat(t.Context()); a.Nlink != c.names || err != nil {
				t.Errorf("%d names, %v; want %d", a.Nlink, err, c.names)
			}
			if got, err := v.all(f); got != "content" || err != nil {
				t.Errorf("%q, %v", got, err)
			}
		})
	}
}

// FuzzSurvey: whatever comes unasked, every question ends, and nothing is known
// of what is not in the directory.
func FuzzSurvey(f *testing.F) {
	a := protocol.Attr{Mode: unix.S_IFREG | 0o644, Ino: 9, Size: 1, HasData: true, Data: []byte("x"), Settled: true}
	for _, m := range []protocol.Message{
		&protocol.Entries{List: []protocol.Entry{{Name: "x", Attr: a}, {Name: "../y", Attr: a}}, End: protocol.EndWhole},
		&protocol.Entries{Dir: "a/b", List: []protocol.Entry{{Name: "x", Attr: a}}, End: protocol.EndPart},
		&protocol.Entries{Dir: "../other", End: 9}, &protocol.Answer{}, &a,
	} {
		f.Add(protocol.Append(nil, m))
	}
	v := newView(f, nil)
	var reply []byte
	v.target.on(func(s *link.Stream, m protocol.Message) bool {
		switch m := m.(type) {
		case *protocol.Survey:
			if m.Path == v.in("/dir") {
				_, _ = s.Write(reply)
			}
		case *protocol.ReadDir:
		case *protocol.Stat:
			if m.Path == v.in("/dir") {
				_ = s.Send(&protocol.Attr{Mode: unix.S_IFDIR | 0o755, Ino: 2})
				break
			}
			_ = s.Send(&protocol.Answer{Errno: syscall.ENOENT})
		default:
			_ = s.Send(&protocol.Answer{Errno: syscall.ENOENT})
		}
		return true
	})
	f.Fuzz(func(t *testing.T, b []byte) {
		reply = b
		r := v.Tree.remote
		r.forgetAround(v.in("/dir"))
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		_, _ = v.Lookup(ctx, v.in("/dir"))
		v.quiet()
		if n, err := v.Lookup(ctx, v.in("/dir/x")); err == nil {
			if file, err := v.Open(ctx, v.in("/dir/x"), n.Key, unix.O_RDONLY); err == nil {
				_, _ = file.ReadAt(ctx, make([]byte, 100), 0)
				file.Close()
			}
		}
		_, _ = v.List(ctx, v.in("/dir"))
		v.quiet()
		r.mu.Lock()
		defer r.mu.Unlock()
		for p, d := range r.dirs {
			if below := p == v.in("/dir") || strings.HasPrefix(p, v.in("/dir/")); !below && len(d.names) > 0 && p != v.base && p != "/" {
				t.Errorf("%x: %d names in %q", b, len(d.names), p)
			}
			for name := range d.names {
				if !validName(name) {
					t.Errorf("%x: the name %q", b, name)
				}
			}
		}
		if r.thrift.spent < 0 || r.named > maxNamed || ctx.Err() != nil {
			t.Errorf("%x: %d spent, %d kept, %v", b, r.thrift.spent, r.named, ctx.Err())
		}
	})
}

// TestWholeUntilReplaced: a name that was replaced, or that is new, says that a
// directory has changed: that others are not there is known no more. So the
// directory that a volume's ..data leads to since is found.
func TestWholeUntilReplaced(t *testing.T) {
	for name, c := range map[string]struct {
		file string
		ino  uint64
		want bool
	}{"the same": {"..data", 1, true}, "replaced": {"..data", 2, false}, "new": {"..v2", 3, false}} {
		k := newKnown()
		d := k.directory("/vol")
		then := time.Now()
		k.put(d, "..data", &protocol.Attr{Ino: 1, Mode: unix.S_IFLNK}, then, then, nil)
		k.settleNames(d, map[string]bool{"..data": true}, &protocol.Attr{}, then, then, nil)
		later := then.Add(time.Millisecond)
		k.put(d, c.file, &protocol.Attr{Ino: c.ino, Mode: unix.S_IFLNK}, later, later, nil)
		if d.whole != c.want {
			t.Errorf("%s: whole is %v, want %v", name, d.whole, c.want)
		}
	}
}

// TestSoonLooksLast: what comes when it is no longer on its way is not asked
// for.
func TestSoonLooksLast(t *testing.T) {
	r := newRemote(nil, 0, DefaultLife, nil)
	defer r.close()
	came := false
	got, err := soon(t.Context(), r, expected[string]{
		may:   func() bool { came = true; return false },
		found: func() (string, bool) { return "came", came },
		alone: func() { t.Error("asked ahead") },
		ask:   func(context.Context) (string, error) { return "asked", nil },
	})
	if got != "came" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
}
