package control

import (
	"io"
	"reflect"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mirrord-go/mirrord/internal/event"
	"github.com/mirrord-go/mirrord/internal/local/activity"
)

func TestBothWays(t *testing.T) {
	front, f, err := Pair()
	if err != nil {
		t.Fatal(err)
	}
	defer front.Close()
	supervisor, err := Open(f)
	if err != nil {
		t.Fatal(err)
	}
	big := make([]string, 20000) // environments are larger than a socket's buffer
	for i := range big {
		big[i] = "SOME_VARIABLE=with a value of some length"
	}
	start := Message{Start: &Start{Argv: []string{"a", "b"}, Env: big, Dir: "/x", UID: 7, GID: 8, Options: []byte(`{"target":"pod/x"}`)}}
	go func() {
		if err := front.Send(start); err != nil {
			t.Error(err)
		}
	}()
	got, err := supervisor.Receive()
	if err != nil || !reflect.DeepEqual(got, start) {
		t.Fatalf("got %+v, %v, want the message sent", got.Start != nil, err)
	}
	want := Message{Event: &event.Event{Level: event.Info, Code: "x", Text: "line\nbreak"}}
	if err := supervisor.Send(want); err != nil {
		t.Fatal(err)
	}
	if got, err := front.Receive(); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
	supervisor.Close()
	if _, err := front.Receive(); err != io.EOF {
		t.Errorf("after the other end closed: %v, want io.EOF", err)
	}
}

// TestBeats: what waits for its reader is a sign of life enough.
func TestBeats(t *testing.T) {
	c := &Conn{}
	c.more = sync.NewCond(&c.mu)
	for range 3 {
		if err := c.Send(Message{Beat: &Beat{}}); err != nil {
			t.Fatal(err)
		}
	}
	if got := len(c.queue); got != 1 {
		t.Errorf("%d beats wait for their reader, want 1", got)
	}
}

// Details wait for each other, for a moment, and for nothing else; nothing
// overtakes them.
func TestDetailsWait(t *testing.T) {
	detail := Message{Event: &event.Event{Level: event.Detail, Code: "detail"}}
	info := Message{Event: &event.Event{Level: event.Info, Code: "info"}}
	for name, c := range map[string]struct {
		send  []Message
		wait  time.Duration
		wants bool // that the queue is written
	}{
		"a detail":             {send: []Message{detail}},
		"some details":         {send: []Message{detail, detail}, wait: detailTime / 2},
		"after the time":       {send: []Message{detail, detail}, wait: detailTime, wants: true},
		"something else":       {send: []Message{info}, wants: true},
		"something else after": {send: []Message{detail, info}, wants: true},
		"many":                 {send: slices.Repeat([]Message{detail}, maxDetails), wants: true},
		"a beat without wait":  {send: []Message{{Beat: &Beat{}}}, wants: true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				conn := &Conn{}
				conn.more = sync.NewCond(&conn.mu)
				for _, m := range c.send {
					_ = conn.Send(m)
				}
				time.Sleep(c.wait)
				synctest.Wait()
				conn.mu.Lock()
				defer conn.mu.Unlock()
				if conn.due != c.wants {
					t.Errorf("due: %v, want %v", conn.due, c.wants)
				}
				conn.hurry() // stops the timer
			})
		})
	}
	t.Run("order", func(t *testing.T) {
		front, f, err := Pair()
		if err != nil {
			t.Fatal(err)
		}
		defer front.Close()
		supervisor, err := Open(f)
		if err != nil {
			t.Fatal(err)
		}
		sent := []Message{detail, detail, info, detail}
		for _, m := range sent {
			_ = supervisor.Send(m)
		}
		supervisor.Close() // what waits still is sent
		for i, want := range sent {
			if got, err := front.Receive(); err != nil || !reflect.DeepEqual(got, want) {
				t.Fatalf("message %d: got %+v, %v, want %+v", i, got, err, want)
			}
		}
	})
}

// TestMissed: who watches and does not keep up is told how much is missing, and
// never waited for.
func TestMissed(t *testing.T) {
	c := &Conn{}
	c.more = sync.NewCond(&c.mu)
	for range maxEvents + 5 {
		if err := c.Send(Message{Activity: &activity.Event{Kind: activity.Lookup}}); err != nil {
			t.Fatal(err)
		}
	}
	_ = c.Send(Message{Status: &Status{}})
	if got := len(c.queue); got != maxEvents {
		t.Errorf("%d messages wait, want %d", got, maxEvents)
	}
	c.queue = c.queue[:10]
	_ = c.Send(Message{Activity: &activity.Event{Kind: activity.File}})
	got := c.queue[10:]
	if len(got) != 2 || got[0].Activity.Kind != activity.Missed || got[0].Activity.Count != 5 || got[1].Activity.Kind != activity.File {
		t.Errorf("then there came %+v", got)
	}
	_ = c.Send(Message{Activity: &activity.Event{Kind: activity.File}})
	if len(c.queue) != 13 {
		t.Error("what is missing is told twice")
	}
}
