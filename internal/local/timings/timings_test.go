package timings

import (
	"slices"
	"testing"
	"time"

	"github.com/mirrord-go/mirrord/internal/event"
)

func TestTrace(t *testing.T) {
	began := time.Unix(100, 0)
	after := func(ms float64) time.Time { return began.Add(time.Duration(ms * float64(time.Millisecond))) }
	tr := New(began)
	for _, c := range []struct {
		level event.Level
		code  string
		ms    float64
	}{
		{event.Step, "target", 12.5}, {event.Warning, "agent-older", 13}, {event.Info, "note", 14}, {event.Detail, "environment", 40},
	} {
		if got := tr.Note(event.Event{Level: c.level, Code: c.code, Text: "text of " + c.code}, after(c.ms)); got != nil {
			t.Errorf("%s ends the start: %v", c.code, got)
		}
	}
	if _, ok := tr.End(after(50)); ok {
		t.Error("it has ended before its command has")
	}
	want := []Phase{{"target", "text of target", 12.5, 12.5}, {"environment", "text of environment", 40, 27.5}, {Running, "it runs", 60.25, 20.25}}
	got := tr.Note(event.Event{Level: event.Step, Code: Running, Text: "it runs"}, after(60.25))
	if !slices.Equal(got, want) {
		t.Errorf("the start is %v, want %v", got, want)
	}
	if again := tr.Note(event.Event{Level: event.Step, Code: Running}, after(70)); again != nil {
		t.Errorf("it starts twice: %v", again)
	}
	tr.Note(event.Event{Level: event.Detail, Code: Ended}, after(1000))
	if ms, ok := tr.End(after(1042)); ms != 42 || !ok {
		t.Errorf("the end took %v ms, %v; want 42", ms, ok)
	}
	lines := []string{"     at    took", "   12.5    12.5  text of target", "   40.0    27.5  text of environment", "   60.2    20.2  it runs"}
	if got := Lines(want); !slices.Equal(got, lines) {
		t.Errorf("shown as %q, want %q", got, lines)
	}
}

// Who asked for nothing has a trace that is nil.
func TestNobodyAsked(t *testing.T) {
	var tr *Trace
	if got := tr.Note(event.Event{Level: event.Step, Code: Running}, time.Now()); got != nil {
		t.Error(got)
	}
	if _, ok := tr.End(time.Now()); ok {
		t.Error("it has an end")
	}
}

func TestBounded(t *testing.T) {
	tr := New(time.Now())
	for range 2 * maxPhases {
		tr.Note(event.Event{Level: event.Step, Code: "agent"}, time.Now())
	}
	if got := tr.Note(event.Event{Level: event.Step, Code: Running}, time.Now()); len(got) > maxPhases+1 || len(got) == 0 {
		t.Errorf("%d phases", len(got))
	}
}
