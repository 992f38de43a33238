package record

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/mirrord-go/mirrord/internal/leak"
	"github.com/mirrord-go/mirrord/internal/local/activity"
)

func TestMain(m *testing.M) { os.Exit(leak.Main(m)) }

// open gives a descriptor that Start owns.
func open(t *testing.T, name string, flags int) int {
	t.Helper()
	fd, err := syscall.Open(name, flags|syscall.O_CLOEXEC, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	return fd
}

func read(t *testing.T, r io.Reader) (events []activity.Event) {
	t.Helper()
	for lines := bufio.NewScanner(r); lines.Scan(); {
		var e activity.Event
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			t.Fatalf("%s: %v", lines.Text(), err)
		}
		events = append(events, e)
	}
	return events
}

func TestRecord(t *testing.T) {
	name := filepath.Join(t.TempDir(), "events")
	log := activity.New(nil)
	r := Start("k3vq7a", open(t, name, syscall.O_CREAT|syscall.O_WRONLY), log, func(err error) { t.Error(err) })
	log.Tell(activity.Event{Kind: activity.Lookup, Name: "db\u009b"})
	log.Tell(activity.Event{Kind: activity.File, Path: "/etc/x"})
	r.Close()
	log.Tell(activity.Event{Kind: activity.File, Path: "/late"})
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	events := read(t, strings.NewReader(string(text)))
	if len(events) != 3 || events[0].Name != "db\u009b" || events[1].Path != "/etc/x" || events[2].Code != "session-ended" || events[0].At.IsZero() {
		t.Errorf("got %+v", events)
	}
	for _, e := range events {
		if e.Session != "k3vq7a" {
			t.Errorf("of session %q", e.Session)
		}
	}
	if strings.Contains(string(text), "\u009b") {
		t.Error("a control character stands as it is")
	}
}

// pipe makes one with a name, and opens its end that is read.
func pipe(t *testing.T) (name string, reader *os.File) {
	t.Helper()
	name = filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(name, 0o600); err != nil {
		t.Fatal(err)
	}
	reader, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { reader.Close() })
	return name, reader
}

// TestSlow: nobody waits for a pipe that is full, and what is left out is told.
func TestSlow(t *testing.T) {
	name, reader := pipe(t)
	log := activity.New(nil)
	r := Start("x", open(t, name, syscall.O_WRONLY), log, func(error) {})
	const all = 20 * maxQueue
	for i := range all {
		log.Tell(activity.Event{Kind: activity.File, Path: fmt.Sprint(i)})
	}
	got := make(chan []activity.Event)
	go func() {
		var events []activity.Event
		for lines := bufio.NewScanner(reader); lines.Scan(); {
			var e activity.Event
			_ = json.Unmarshal(lines.Bytes(), &e)
			if events = append(events, e); e.Code == "session-ended" {
				break
			}
		}
		got <- events
	}()
	r.Close()
	files, missed := 0, 0
	for _, e := range <-got {
		switch e.Kind {
		case activity.File:
			files++
		case activity.Missed:
			missed += e.Count
		}
	}
	if files+missed != all || missed == 0 {
		t.Errorf("%d events and %d missed, of %d", files, missed, all)
	}
}

// TestStuck: a pipe that nobody reads from does not hold up the end.
func TestStuck(t *testing.T) {
	name, _ := pipe(t)
	log := activity.New(nil)
	failed := make(chan error, 1)
	r := Start("x", open(t, name, syscall.O_WRONLY), log, func(err error) { failed <- err })
	for range 2 * maxQueue {
		log.Tell(activity.Event{Kind: activity.File, Path: strings.Repeat("x", 200)})
	}
	began := time.Now()
	r.Close()
	if took := time.Since(began); took > 5*flushTime {
		t.Errorf("the end took %v", took)
	}
	select {
	case <-failed:
	default:
		t.Error("nothing was said")
	}
}

func TestFull(t *testing.T) {
	log := activity.New(nil)
	failed := make(chan error, 8)
	r := Start("x", open(t, "/dev/full", syscall.O_WRONLY), log, func(err error) { failed <- err })
	for range 3 {
		log.Tell(activity.Event{Kind: activity.File})
		time.Sleep(time.Millisecond)
	}
	r.Close()
	if len(failed) != 1 {
		t.Errorf("said %d times", len(failed))
	}
}

// TestLines: what waits is written, and then what is last; nil writes nothing.
func TestLines(t *testing.T) {
	var none *Lines
	none.Put(1)
	none.Close()
	out, err := os.OpenFile(filepath.Join(t.TempDir(), "lines"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	l := NewLines("", out, func(err error) { t.Error(err) })
	l.Put(1)
	l.Close("last")
	l.Put("late")
	if b, err := os.ReadFile(out.Name()); err != nil || string(b) != "1\n\"last\"\n" {
		t.Errorf("written is %q, %v", b, err)
	}
}
