package status

import (
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/mirrord-go/mirrord/internal/failure"
	"github.com/mirrord-go/mirrord/internal/local/activity"
	"github.com/mirrord-go/mirrord/internal/local/control"
	"github.com/mirrord-go/mirrord/internal/local/waits"
)

var update = flag.Bool("update", false, "write the golden files anew")

// noon is when the tests' sessions are looked at, in the time zone of here.
var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.Local)

// golden compares text with a file.
func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil || got != string(want) {
		t.Errorf("%s: %v, got\n%swant\n%s", name, err, got, want)
	}
}

// sessions are one that works, one that has lost its link and is idle, one whose
// target is being replaced, one that is stopped, one of a stranger's names.
func sessions() []*control.Status {
	lost := noon.Add(-3 * time.Second)
	return []*control.Status{
		{ID: "aaaaaa", Version: "1", PID: 100, Target: "deployment/shop", Namespace: "staging", Context: "dev", Hostname: "shop-1", Since: noon.Add(-5 * time.Minute), Mode: "steal where the filter matches",
			Ports: []control.Port{{Port: 8080, Target: 80, Mode: "steal", Filter: "{}", Published: "127.0.0.1:8080"}, {Port: 9229}},
			Counts: activity.Counts{Incoming: activity.Traffic{Connections: 3, Open: 1, Requests: 12, Received: 1_234_567, Sent: 999},
				Outgoing: activity.Traffic{Connections: 1, Refused: 2, Sent: 10, Received: 10_000}, Lookups: 4, Files: activity.Files{Opened: 5, Read: 999_999, Written: 1, Waits: []waits.Histogram{{Operation: "read", Count: 3, Longest: 40.5, Buckets: []waits.Bucket{{Most: 0.05, Count: 2}, {Most: 50, Count: 1}}}, {Operation: "open", Count: 1, Longest: 0.3, Buckets: []waits.Bucket{{Most: 0.5, Count: 1}}}}}},
			Commands: []control.Command{{Argv: []string{"node", "server.js", strings.Repeat("--long ", 20)}, PID: 99, Since: noon.Add(-5 * time.Minute)}}},
		{ID: "bbbbbb", Version: "1", PID: 200, Kept: true, Since: noon.Add(-50 * time.Hour), Mode: "mirror", Lost: &lost, Counts: activity.Counts{Lost: activity.Loss{Packets: 7, Copies: 1}}},
		{ID: "cccccc", Version: "1", PID: 300, Kept: true, Target: "pod/a", Since: noon, Mode: "off", Replacing: true, Commands: []control.Command{{Argv: []string{"a"}, PID: 1, Since: noon}, {Argv: []string{"b"}, PID: 2, Since: noon, Background: true}}},
		Silent("dddddd", 400),
		{ID: "e\x1b[2Je", Version: "1", Target: "pod/\x1b]0;x\a\tx", Namespace: "n\n", Since: noon, Mode: "\u202e", Commands: []control.Command{{Argv: []string{"a\nb\x1b[1m"}, Since: noon}}},
	}
}

func TestTable(t *testing.T) {
	golden(t, "table.txt", strings.Join(Table(sessions(), noon), "\n")+"\n")
}

func TestSession(t *testing.T) {
	var text strings.Builder
	for _, st := range sessions() {
		text.WriteString(strings.Join(Session(st, noon), "\n") + "\n\n")
	}
	golden(t, "session.txt", text.String())
}

// happened are events of all kinds.
func happened() []activity.Event {
	all := []activity.Event{
		{Kind: activity.Request, Flow: "incoming", Method: "GET", Path: "/api/cart", Status: 200, Millis: 12.34, Client: "10.0.0.5:4242", Port: 80, Mode: "steal", Where: "remote"},
		{Kind: activity.Request, Flow: "incoming", Method: "POST", Path: "/api/pay", Status: 502, Millis: 2500, Client: "[fd00::5]:4242", Port: 80, Mode: "mirror", Where: "remote"},
		{Kind: activity.Request, Flow: "outgoing", Method: "DELETE", Path: "/x", Status: 404, Millis: 1, Network: "tcp", Address: "10.0.0.9:80", Name: "stock", Where: "remote"},
		{Kind: activity.Connection, Flow: "incoming", What: activity.Opened, Client: "127.0.0.1:5", Port: 8080, Where: "local"},
		{Kind: activity.Connection, Flow: "incoming", What: activity.Refused, Client: "10.0.0.5:5", Port: 80, Mode: "steal", Where: "remote", Error: "connection refused"},
		{Kind: activity.Connection, Flow: "outgoing", What: activity.Closed, Network: "udp", Address: "10.0.0.9:123", Where: "local", Millis: 300_000, Sent: 48, Received: 2048},
		{Kind: activity.Lookup, Flow: "dns", Name: "db.staging", Type: "A", Where: "remote", Answers: []string{"10.0.0.1", "10.0.0.2"}, Millis: 0.7},
		{Kind: activity.Lookup, Flow: "dns", Name: "nobody", Type: "AAAA", Where: "local", Error: "no such name"},
		{Kind: activity.Lookup, Flow: "dns", Name: "empty", Type: "AAAA", Where: "remote"},
		{Kind: activity.File, Flow: "files", What: activity.Opened, Path: "/etc/app.conf", Where: "remote", Millis: 1.5},
		{Kind: activity.File, Flow: "files", What: activity.Opened, Path: "/tmp/x", Where: "local", Mode: "write", Error: "permission denied"},
		{Kind: activity.File, Flow: "files", What: activity.Renamed, Path: "/a", To: "/b"},
		{Kind: activity.File, Flow: "files", What: activity.Absent, Path: "/no\x1b[2Jthing\n"},
		{Kind: activity.Said, Level: "warning", Code: "link-lost", Text: "the link is lost"},
		{Kind: activity.Said, Level: "info", Code: "port-open", Text: "port 80"},
		{Kind: activity.Missed, Count: 12},
		{Kind: "of a later version", Text: "something"},
	}
	for i := range all {
		all[i].At, all[i].Session = noon, "aaaaaa"
	}
	return all
}

func TestLine(t *testing.T) {
	var text strings.Builder
	for _, e := range happened() {
		text.WriteString(strings.ReplaceAll(Coloured(e), "\x1b[", "<") + "\n")
	}
	golden(t, "lines.txt", text.String())
}

func TestFilter(t *testing.T) {
	for _, c := range []struct {
		filter string
		want   []int // of happened; 15 always is
	}{
		{"", []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}},
		{"request", []int{0, 1, 2, 15}},
		{"Request flow=INCOMING", []int{0, 1, 15}},
		{"kind=request,lookup !status=5xx,404", []int{0, 6, 7, 8, 15}},
		{"status=502", []int{1, 15}},
		{"path=/api", []int{0, 1, 15}},
		{"API !method=post", []int{0, 15}},
		{"session=nobody", []int{15}},
		{"where=local connection", []int{3, 5, 15}},
		{"port=80 !request", []int{4, 15}},
		{"level=warning", []int{13, 15}},
		{"name=d", []int{6, 7, 15}},
		{"what=missing", []int{12, 15}},
	} {
		f, err := ParseFilter(c.filter)
		if err != nil {
			t.Errorf("%q: %v", c.filter, err)
		}
		var got []int
		for i, e := range happened() {
			if f.Match(e) {
				got = append(got, i)
			}
		}
		if g, w := text1(got), text1(c.want); g != w {
			t.Errorf("%q: got %s, want %s", c.filter, g, w)
		}
	}
	var f *failure.Error
	if _, err := ParseFilter("colour=red"); !errors.As(err, &f) || f.Code != "status-filter" || !strings.Contains(f.Why, "path") {
		t.Errorf("an unknown key: got %v", err)
	}
}

func text1(v any) string {
	b, _ := json.Marshal(v)
	return string(b)
}

// TestScreen: what is shown, and what keys do.
func TestScreen(t *testing.T) {
	s := NewScreen(Filter{})
	var text strings.Builder
	show := func(after string) {
		text.WriteString("-- " + after + "\n" + strings.Join(s.Lines(100, 16, noon, false), "\n") + "\n")
	}
	keys := func(all string) {
		for _, k := range all {
			if s.Key(k) {
				t.Fatalf("%q ends the view", all)
			}
		}
		show(strings.Map(func(r rune) rune {
			if r < ' ' {
				return r + '␀'
			}
			return r
		}, all))
	}
	show("nothing")
	for _, st := range sessions() {
		s.Session(st)
	}
	for _, e := range happened() {
		s.Event(e)
	}
	show("all")
	keys("/status=404x\b")
	keys("\r")
	keys("/ colour=red\r")
	keys("\x15looku")
	keys("\r")
	keys(" ")
	s.Event(activity.Event{At: noon, Kind: activity.Lookup, Name: "later"})
	s.Ended("aaaaaa")
	show("paused")
	keys(" ")
	keys("\x1b")
	keys("c")
	golden(t, "screen.txt", text.String())
	for _, k := range []rune{'q', 0x03, 0x04} {
		if !s.Key(k) {
			t.Errorf("key %q does not end the view", k)
		}
	}
	s.Key('/')
	if s.Key('q') || !s.Key(0x03) {
		t.Error("while a filter is typed: q ends the view, or Ctrl-C does not")
	}
}

// TestScreenFits: no line is longer, none more than there is room for, and none
// steers the terminal, however small that is.
func TestScreenFits(t *testing.T) {
	s := NewScreen(Filter{Text: "\x1b[2J"})
	for range 3 * maxKept {
		s.Event(happened()[12])
	}
	if len(s.events) > maxKept {
		t.Errorf("%d events are kept, want %d at most", len(s.events), maxKept)
	}
	for _, st := range sessions() {
		s.Session(st)
	}
	s.filter.terms = nil
	for height := 1; height < 30; height++ {
		for _, width := range []int{1, 7, 80} {
			lines := s.Lines(width, height, noon, false)
			if len(lines) != height {
				t.Errorf("%d lines on %d", len(lines), height)
			}
			for _, l := range lines {
				if n := len([]rune(l)); n > width || strings.ContainsAny(l, "\x1b\n\r\t") {
					t.Errorf("%d characters on %d: %q", n, width, l)
				}
			}
		}
	}
}

func TestBytes(t *testing.T) {
	for n, want := range map[int64]string{0: "0 B", 999: "999 B", 1000: "1.0 kB", 9_949: "9.9 kB", 9_960: "10 kB", 999_499: "999 kB", 999_999: "1.0 MB", 12_345_678: "12 MB", 1 << 62: "4.6 EB"} {
		if got := Bytes(n); got != want {
			t.Errorf("%d: got %q, want %q", n, got, want)
		}
	}
}

func TestKeys(t *testing.T) {
	for sent, want := range map[string]string{"q": "q", "": "", "\x1b": "\x1b", "\x1b[A": "", "\x1b[1;5Cq": "q", "a\x1bOPb": "ab", "\x1b[": "", "\x1bx": "\x1bx", "ü€": "ü€"} {
		if got := string(Keys([]byte(sent))); got != want {
			t.Errorf("%q: got %q, want %q", sent, got, want)
		}
	}
}
