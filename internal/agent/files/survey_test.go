package files

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mirrord-go/mirrord/internal/link"
	"github.com/mirrord-go/mirrord/internal/protocol"
)

// told is what a survey said.
type told struct {
	names    map[string]protocol.Attr // by path from the survey's
	contents map[string]string
	ends     map[string]uint8 // of directories
	bytes    int
	err      error
}

// survey asks m and collects what comes, in whatever parts.
func (c *client) survey(m *protocol.Survey) told {
	c.t.Helper()
	s, err := c.l.Open(c.t.Context(), link.Bulk, m)
	if err != nil {
		c.t.Fatal(err)
	}
	defer s.Close()
	got := told{map[string]protocol.Attr{}, map[string]string{}, map[string]uint8{}, 0, nil}
	for {
		m, err := s.Receive()
		switch m := m.(type) {
		case *protocol.Entries:
			got.bytes += len(protocol.Append(nil, m))
			for _, e := range m.List {
				p := path.Join(m.Dir, e.Name)
				if _, twice := got.names[p]; twice && got.ends[m.Dir] == 0 {
					c.t.Errorf("%q is told twice", p)
				}
				got.names[p] = e.Attr
				if e.Attr.HasData {
					got.contents[p] = string(e.Attr.Data)
				}
			}
			if m.End != 0 {
				if got.ends[m.Dir] != 0 {
					c.t.Errorf("%q ends twice", m.Dir)
				}
				got.ends[m.Dir] = m.End
			}
		case *protocol.Answer:
			got.err = refusal(m)
			return got
		default:
			if !errors.Is(err, io.EOF) {
				c.t.Fatalf("survey: %T, %v", m, err)
			}
			return got
		}
	}
}

// patient lets surveys take their time, whatever else this machine does.
func (c *client) patient() *client {
	c.at.surveyTime, c.at.namesTime, c.at.sayTime = time.Minute, time.Minute, time.Minute
	return c
}

// aged waits until what was made is older than a step of its clock.
func aged() { time.Sleep(step + 100*time.Millisecond) }

func TestSurvey(t *testing.T) {
	root := tempRoot(t)
	at := func(p string) string { return filepath.Join(root, p) }
	write(t, at("app/conf"), "one")
	write(t, at("app/empty"), "")
	write(t, at("app/line\nfeed"), "two")
	write(t, at("app/larger"), strings.Repeat("x", smallContent+1))
	write(t, at("app/a/b/c/d/deep"), "three")
	write(t, at("app/secret/x"), "not yours")
	write(t, at("app/blind/x"), "names only")
	write(t, at("app/mine"), "not yours")
	must(t, os.Symlink("/etc", at("app/link")))
	must(t, os.Symlink("a", at("app/inside")))
	must(t, unix.Mkfifo(at("app/fifo"), 0o666))
	must(t, unix.Mknod(at("app/null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))))
	must(t, os.Mkdir(at("app/none"), 0o755))
	for i := range 300 {
		write(t, at(fmt.Sprintf("app/many/%03d", i)), "m")
	}
	for dir, typ := range map[string]string{"proc": "proc", "tmp": "tmpfs"} {
		must(t, os.Mkdir(at("app/"+dir), 0o755))
		must(t, unix.Mount(typ, at("app/"+dir), typ, 0, ""))
		t.Cleanup(func() { unix.Unmount(at("app/"+dir), unix.MNT_DETACH) })
	}
	write(t, at("app/tmp/on-tmpfs"), "four")
	must(t, os.Chmod(at("app/mine"), 0o600))
	must(t, os.Chmod(at("app/secret"), 0o700))
	must(t, os.Chmod(at("app/blind"), 0o744))
	aged()
	c := serve(t, root, As{UID: 1000, GID: 1000}).patient()

	got := c.survey(&protocol.Survey{Path: "/app", Bytes: 256 << 10, Content: 64 << 10, Depth: 8})
	if got.err != nil {
		t.Fatal(got.err)
	}
	const whole, part = protocol.EndWhole, protocol.EndPart
	for dir, want := range map[string]uint8{"": whole, "a": whole, "a/b": whole, "a/b/c": whole, "a/b/c/d": whole, "none": whole, "many": whole, "tmp": whole,
		"secret": part, "blind": part, "proc": part} {
		if got.ends[dir] != want {
			t.Errorf("directory %q ends with %d, want %d", dir, got.ends[dir], want)
		}
		delete(got.ends, dir)
	}
	if len(got.ends) > 0 {
		t.Errorf("told of %v, too", got.ends)
	}
	for p, want := range map[string]string{"conf": "one", "empty": "", "line\nfeed": "two", "a/b/c/d/deep": "three", "tmp/on-tmpfs": "four"} {
		if s, ok := got.contents[p]; !ok || s != want || !got.names[p].Settled {
			t.Errorf("content of %q: %q, %v, settled %v", p, s, ok, got.names[p].Settled)
		}
	}
	for p, mode := range map[string]uint32{"link": unix.S_IFLNK, "inside": unix.S_IFLNK, "fifo": unix.S_IFIFO, "null": unix.S_IFCHR, "secret": unix.S_IFDIR, "proc": unix.S_IFDIR,
		"larger": unix.S_IFREG, "mine": unix.S_IFREG, "blind/x": 0} {
		a, ok := got.names[p]
		if _, has := got.contents[p]; !ok || has || a.Mode&unix.S_IFMT != mode {
			t.Errorf("%q: %v, mode %o, content %v; want type %o and no content", p, ok, a.Mode, has, mode)
		}
	}
	if got.names["link"].Link != "/etc" {
		t.Errorf("the link leads to %q", got.names["link"].Link)
	}
	for p := range got.names {
		if strings.HasPrefix(p, "link/") || strings.HasPrefix(p, "inside/") || strings.HasPrefix(p, "proc/") || strings.HasPrefix(p, "secret/") {
			t.Errorf("told of %q", p)
		}
	}

	for _, c2 := range []struct {
		name  string
		m     protocol.Survey
		err   error
		names int // of how many; -1: any
		bytes int
	}{
		{"without the names", protocol.Survey{Path: "/app", Bytes: 64 << 10, Depth: 0, Listed: true}, nil, 0, 0},
		{"no depth", protocol.Survey{Path: "/app/a", Bytes: 64 << 10}, nil, 1, 300},
		{"one level", protocol.Survey{Path: "/app/a", Bytes: 64 << 10, Depth: 1}, nil, 2, 500},
		{"no bytes", protocol.Survey{Path: "/app", Depth: 8}, nil, 0, 100},
		{"few bytes", protocol.Survey{Path: "/app", Bytes: 4 << 10, Depth: 8}, nil, -1, 8 << 10},
		{"more bytes and depth than there may be", protocol.Survey{Path: "/app", Bytes: 1 << 31, Content: 1 << 31, Depth: 1 << 31}, nil, -1, protocol.MaxSurvey},
		{"a file", protocol.Survey{Path: "/app/conf", Bytes: 4 << 10}, syscall.ENOTDIR, 0, 0},
		{"a link to a directory", protocol.Survey{Path: "/app/inside", Bytes: 4 << 10}, syscall.ENOTDIR, 0, 0},
		{"nothing", protocol.Survey{Path: "/nothing", Bytes: 4 << 10}, syscall.ENOENT, 0, 0},
		{"relative", protocol.Survey{Path: "app", Bytes: 4 << 10}, syscall.EINVAL, 0, 0},
		{"a process list", protocol.Survey{Path: "/app/proc", Bytes: 4 << 10}, syscall.EOPNOTSUPP, 0, 0},
		{"no permission", protocol.Survey{Path: "/app/secret", Bytes: 4 << 10}, nil, 0, 100},
		{"by name", protocol.Survey{Path: "/app", Names: []string{"conf", "gone", "fifo", "link", "null", "mine", "../app/conf", "a/b/c/d/deep", "..", "", "x\x00"}, Bytes: 4 << 10}, nil, 2, 1 << 10},
		{"by more names than there may be", protocol.Survey{Path: "/app", Names: slices.Repeat([]string{"gone"}, 5000), Bytes: 4 << 10}, nil, 0, 0},
	} {
		got := (&client{t, c.l, c.at}).survey(&c2.m)
		if !errors.Is(got.err, c2.err) || c2.names >= 0 && len(got.names) != c2.names || got.bytes > c2.bytes {
			t.Errorf("%s: %v, %d names, %d bytes; want %v, %d, at most %d", c2.name, got.err, len(got.names), got.bytes, c2.err, c2.names, c2.bytes)
		}
	}
	byName := c.survey(&protocol.Survey{Path: "/app", Names: []string{"larger", "conf"}, Bytes: 64 << 10})
	if byName.contents["conf"] != "one" || len(byName.contents["larger"]) != smallContent+1 {
		t.Errorf("by name: %d contents", len(byName.contents))
	}
}

// TestSurveyLargeDirectory: of a directory that does not fit nothing is told but
// that, and small ones beside it come all the same.
func TestSurveyLargeDirectory(t *testing.T) {
	root := tempRoot(t)
	for i := range 2000 {
		write(t, filepath.Join(root, "big/a-large", fmt.Sprint(i)), "")
	}
	write(t, filepath.Join(root, "big/b/file"), "content")
	aged()
	c := serve(t, root, As{}).patient()
	got := c.survey(&protocol.Survey{Path: "/big", Bytes: 32 << 10, Content: 8 << 10, Depth: 2})
	if got.ends[""] != protocol.EndWhole || got.ends["a-large"] != protocol.EndPart || got.ends["b"] != protocol.EndWhole || got.contents["b/file"] != "content" || len(got.names) != 3 {
		t.Errorf("%d names, ends %v, contents %v", len(got.names), got.ends, got.contents)
	}
	got = c.survey(&protocol.Survey{Path: "/big/a-large", Bytes: 32 << 10, Depth: 2})
	if got.ends[""] != protocol.EndPart || len(got.names) != 0 {
		t.Errorf("the large one: %d names, ends %v", len(got.names), got.ends)
	}
	if got = c.survey(&protocol.Survey{Path: "/big/a-large", Bytes: 1 << 20, Depth: 2}); got.ends[""] != protocol.EndWhole || len(got.names) != 2000 {
		t.Errorf("with room: %d names, ends %v", len(got.names), got.ends)
	}
}

// TestSurveyOfWhatChanges: names that somebody is changing are never told to be
// all that there are, and a content never to be settled.
func TestSurveyOfWhatChanges(t *testing.T) {
	root := tempRoot(t)
	write(t, filepath.Join(root, "dir/file"), "old")
	c := serve(t, root, As{}).patient()
	ask := func() told { return c.survey(&protocol.Survey{Path: "/dir", Bytes: 64 << 10, Content: 8 << 10}) }
	if got := ask(); got.ends[""] != protocol.EndPart || got.names["file"].Settled {
		t.Errorf("made just now: ends %v, settled %v", got.ends, got.names["file"].Settled)
	}
	aged()
	if got := ask(); got.ends[""] != protocol.EndWhole || !got.names["file"].Settled {
		t.Errorf("of old: ends %v, settled %v", got.ends, got.names["file"].Settled)
	}
	// A name that is replaced all the time is always there. Who asks sees it or
	// does not learn that there is no other.
	done := make(chan struct{})
	var wg sync.WaitGroup
	replace := func(i int) {
		tmp := filepath.Join(root, "dir/tmp")
		if os.WriteFile(tmp, []byte(fmt.Sprint(i)), 0o644) != nil || os.Rename(tmp, filepath.Join(root, "dir/file")) != nil {
			t.Error("cannot replace it")
		}
	}
	replace(0) // the old one is gone
	wg.Go(func() {
		for i := 1; ; i++ {
			select {
			case <-done:
				return
			default:
			}
			replace(i)
		}
	})
	for range 100 {
		got := ask()
		if got.ends[""] == protocol.EndWhole {
			t.Errorf("all names, while they change: %v", got.names)
		}
		if a, ok := got.names["file"]; ok && a.HasData && (a.Settled || uint64(len(a.Data)) != a.Size) {
			t.Errorf("%d bytes of %d, settled %v", len(a.Data), a.Size, a.Settled)
		}
	}
	close(done)
	wg.Wait()
	// A listing says the same.
	s, err := c.l.Open(t.Context(), link.Interactive, &protocol.ReadDir{Path: "/dir"})
	must(t, err)
	defer s.Close()
	end := uint8(0)
	for {
		m, err := s.Receive()
		if err != nil {
			break
		}
		end = m.(*protocol.Entries).End
	}
	if end != protocol.EndPart {
		t.Errorf("a listing of what has just changed ends with %d", end)
	}
}

// writes are what was written, each.
type writes [][]byte

func (w *writes) Write(p []byte) (int, error) {
	*w = append(*w, bytes.Clone(p))
	return len(p), nil
}

// TestSurveyOfSmallTree: it is one write, but for what takes the disk its time.
func TestSurveyOfSmallTree(t *testing.T) {
	root := tempRoot(t)
	for i := range 20 {
		write(t, filepath.Join(root, fmt.Sprintf("dir/%d/in/file", i)), "content")
	}
	c := serve(t, root, As{}).patient()
	m := &protocol.Survey{Path: "/dir", Bytes: 64 << 10, Content: 8 << 10, Depth: 4}
	var once writes
	c.at.survey(t.Context(), &once, m)
	c.at.sayTime = 0
	var often writes
	c.at.survey(t.Context(), &often, m)
	if len(once) != 1 || len(often) < 20 || !bytes.Equal(once[0], slices.Concat(often...)) {
		t.Errorf("%d writes at once, %d one by one", len(once), len(often))
	}
}

// TestSurveyTakesNoTime: a survey ends when it has had its time, wherever it is.
func TestSurveyTakesNoTime(t *testing.T) {
	root := tempRoot(t)
	for i := range 300 {
		write(t, filepath.Join(root, "dir", fmt.Sprint(i), "file"), "x")
	}
	c := serve(t, root, As{})
	c.at.surveyTime, c.at.namesTime = time.Nanosecond, time.Nanosecond
	for name, m := range map[string]protocol.Survey{
		"names":    {Path: "/dir", Bytes: 1 << 20, Content: 1 << 19, Depth: 8},
		"contents": {Path: "/dir/7", Names: slices.Repeat([]string{"file"}, 500), Bytes: 1 << 20},
	} {
		if got := c.survey(&m); got.err != nil || len(got.names) != 0 {
			t.Errorf("%s: %v, %d names", name, got.err, len(got.names))
		}
	}
}

// TestSurveysHoldUpNothing: surveys that nobody reads, or that the disk holds
// up, take no thread from questions and no memory beyond their share.
func TestSurveysHoldUpNothing(t *testing.T) {
	root := tempRoot(t)
	for i := range 3000 {
		write(t, filepath.Join(root, "dir", fmt.Sprintf("%0200d", i)), "x")
	}
	c := serve(t, root, As{})
	before := heap()
	for range 200 {
		s, err := c.l.Open(t.Context(), link.Bulk, &protocol.Survey{Path: "/dir", Bytes: 1 << 20, Content: 1 << 19, Depth: 8})
		must(t, err)
		defer s.Close()
	}
	for range 50 {
		began := time.Now()
		get[*protocol.Attr](c, &protocol.Stat{Path: "/dir"})
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("a question took %v", took)
		}
	}
	if used := int64(heap()) - int64(before); used > 96<<20 {
		t.Errorf("%d MiB are in use", used>>20)
	}
}
