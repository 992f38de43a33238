package journal

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/mirrord-go/mirrord/internal/event"
)

func as(s string) string { return s }

func TestDir(t *testing.T) {
	for _, c := range []struct{ state, home, want string }{
		{"/state", "/home/ana", "/state/mirrord/sessions"},
		{"", "/home/ana", "/home/ana/.local/state/mirrord/sessions"},
		{"relative", "/home/ana", "/home/ana/.local/state/mirrord/sessions"},
		{"", "", ""},
	} {
		got := Dir(func(name string) string { return map[string]string{"XDG_STATE_HOME": c.state, "HOME": c.home}[name] })
		if got != c.want {
			t.Errorf("%q, %q: got %q, want %q", c.state, c.home, got, c.want)
		}
	}
}

func TestJournal(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b")
	j, err := Open(dir, func(s string) string { return strings.ReplaceAll(s, "hunter2", "(hidden)") })
	if err != nil {
		t.Fatal(err)
	}
	j.Note(event.Event{Level: event.Info, Code: "x", Text: "my hunter2", Facts: map[string]string{"a": "hunter2"}})
	j.Close()
	j.Note(event.Event{Text: "too late"})
	files, err := Files(dir)
	if err != nil || len(files) != 1 {
		t.Fatalf("got %q, %v, want one file", files, err)
	}
	b, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	var got line
	if err := json.Unmarshal(b, &got); err != nil || got.Text != "my (hidden)" || got.Facts["a"] != "(hidden)" || got.At.IsZero() {
		t.Errorf("got %s, %v", b, err)
	}
	for path, want := range map[string]os.FileMode{files[0]: 0o600, dir: 0o700} {
		if fi, err := os.Stat(path); err != nil || fi.Mode().Perm() != want {
			t.Errorf("%s: %v, %v, want %v", path, fi.Mode(), err, want)
		}
	}
}

// Old sessions make room, and foreign files stay.
func TestKeepsTheLast(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"20200101T000000.000-1.jsonl", "20200101T000001.000-1.jsonl", "notes.txt"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for i := range keep - 1 {
		if err := os.WriteFile(filepath.Join(dir, "2020020"+string(rune('1'+i))+"T000000.000-1.jsonl"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	j, err := Open(dir, as)
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	files, err := Files(dir)
	if err != nil || len(files) != keep || !strings.Contains(files[0], "20200201") {
		t.Errorf("kept %q, %v", files, err)
	}
	if _, err := os.Stat(filepath.Join(dir, "notes.txt")); err != nil {
		t.Error(err)
	}
}

// Details stop early, so that a warning finds room, and all of it is bounded.
func TestBounded(t *testing.T) {
	dir := t.TempDir()
	j, err := Open(dir, as)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 1000 {
				j.Note(event.Event{Level: event.Detail, Code: "d", Text: strings.Repeat("x", 500)})
			}
		})
	}
	wg.Wait()
	j.Note(event.Event{Level: event.Warning, Code: "late", Text: "still here"})
	for range 1000 {
		j.Note(event.Event{Level: event.Warning, Code: "w", Text: strings.Repeat("x", 500)})
	}
	j.Close()
	files, _ := Files(dir)
	b, err := os.ReadFile(files[0])
	if err != nil || len(b) > maxBytes || len(b) < maxBytes*9/10 {
		t.Errorf("%d bytes, %v, want about %d at most", len(b), err, maxBytes)
	}
	if !bytes.Contains(b, []byte("still here")) || bytes.Count(b, []byte("journal-full")) != 1 {
		t.Error("the late warning, or the word about details, is missing")
	}
	(*Journal)(nil).Note(event.Event{})
	(*Journal)(nil).Close()
}
