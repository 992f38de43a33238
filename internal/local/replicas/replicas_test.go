package replicas

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mirrord-go/mirrord/internal/event"
	"github.com/mirrord-go/mirrord/internal/local/attach"
)

func pods(ids ...string) (all []attach.Replica) {
	for _, id := range ids {
		all = append(all, attach.Replica{ID: id, Pod: "web-" + id})
	}
	return all
}

func TestWanted(t *testing.T) {
	for _, c := range []struct {
		name  string
		ready string
		busy  string
		room  int
		begin string
		left  int
	}{
		{"the target alone", "t", "", 9, "", 0},
		{"all others", "a t b", "", 9, "a b", 0},
		{"those that do not yet", "a t b", "a", 9, "b", 0},
		{"as many as there is room for", "a t b c", "", 1, "a", 2},
		{"no room, and nobody waits", "a t", "a", 0, "", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			begin, left := wanted(pods(strings.Fields(c.ready)...), "t", func(id string) bool { return slices.Contains(strings.Fields(c.busy), id) }, c.room)
			var ids []string
			for _, r := range begin {
				ids = append(ids, r.ID)
			}
			if got := strings.Join(ids, " "); got != c.begin || left != c.left {
				t.Errorf("begins %q, %d left, want %q, %d", got, left, c.begin, c.left)
			}
		})
	}
}

// stage is a fleet whose pods are served by nobody.
type stage struct {
	*Fleet
	target string

	mu    sync.Mutex
	said  []string // codes
	turns map[string]int
	ends  map[string]chan error // ends a pod
	lasts chan struct{}         // what a yielded pod still does ends
}

func newStage() *stage {
	s := &stage{target: "t", turns: map[string]int{}, ends: map[string]chan error{}, lasts: make(chan struct{})}
	s.Fleet = New(Options{Target: func() string { return s.target }, Serve: s.serve, Emit: func(e event.Event) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.said = append(s.said, e.Code+" "+e.Facts["pod"])
	}})
	return s
}

func (s *stage) serve(ctx context.Context, r attach.Replica, turn Turn) error {
	s.mu.Lock()
	s.turns[r.ID]++
	end := make(chan error)
	s.ends[r.ID] = end
	s.mu.Unlock()
	turn.Ready()
	select {
	case err := <-end:
		return err
	case <-turn.Taking.Done():
	}
	turn.Left()
	select {
	case <-ctx.Done():
	case <-s.lasts:
	}
	return nil
}

// check compares how often each pod has had its turn, and what was said.
func (s *stage) check(t *testing.T, when string, turns string, said ...string) {
	t.Helper()
	synctest.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	if got := fmt.Sprint(s.turns); got != turns {
		t.Errorf("%s: turns %s, want %s", when, got, turns)
	}
	if !slices.Equal(s.said, said) {
		t.Errorf("%s: said %v, want %v", when, s.said, said)
	}
	s.said = nil
}

func (s *stage) end(id string, err error) {
	s.mu.Lock()
	end := s.ends[id]
	s.mu.Unlock()
	end <- err
}

func TestFleet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage()
		all := pods("t", "a", "b")
		s.Look(pods("t", "a"))
		s.check(t, "at first", "map[a:1]", "replica web-a")
		s.Look(all)
		s.Look(all)
		s.check(t, "one more", "map[a:1 b:1]", "replica web-b")

		s.end("a", nil) // its pod has ended
		synctest.Wait()
		s.Look(pods("t", "b", "c"))
		s.check(t, "one less", "map[a:1 b:1 c:1]", "replica web-c")

		s.end("b", errors.New("refused"))
		s.check(t, "a failure is said", "map[a:1 b:1 c:1]", "replica-failed web-b")
		s.Look(all)
		s.check(t, "one that failed rests", "map[a:2 b:1 c:1]", "replica web-a")
		time.Sleep(restTime)
		s.Look(all)
		s.check(t, "and is tried again", "map[a:2 b:2 c:1]", "replica web-b")
		s.end("b", errors.New("refused"))
		s.check(t, "its failure is said once", "map[a:2 b:2 c:1]")

		s.mu.Lock()
		s.target = "a" // follows to where the fleet is
		s.mu.Unlock()
		s.Yield("a")
		if n := s.Pods(); n != 2 {
			t.Errorf("%d take part when one has yielded but is not done, want 2", n)
		}
		close(s.lasts)
		s.Look(pods("a", "c"))
		s.check(t, "the target's own is left alone", "map[a:2 b:2 c:1]")
		s.Yield("nobody")
		s.Close()
		s.Look(all)
		s.check(t, "after the end", "map[a:2 b:2 c:1]")
	})
}

func TestTooMany(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage()
		var ids []string
		for i := range Most + 3 {
			ids = append(ids, fmt.Sprint(i))
		}
		s.Look(pods(ids...))
		s.Look(pods(ids...))
		synctest.Wait()
		s.mu.Lock()
		n := 0
		for _, code := range s.said {
			if strings.HasPrefix(code, "replicas-many") {
				n++
			}
		}
		s.mu.Unlock()
		if s.Pods() != Most || n != 1 {
			t.Errorf("%d take part and it was said %d times, want %d and once", s.Pods(), n, Most)
		}
		s.Close()
	})
}
