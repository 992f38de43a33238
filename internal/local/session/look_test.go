package session

import (
	"testing"
	"testing/synctest"

	"github.com/mirrord-go/mirrord/internal/event"
	"github.com/mirrord-go/mirrord/internal/local/activity"
	"github.com/mirrord-go/mirrord/internal/local/control"
	"github.com/mirrord-go/mirrord/internal/protocol"
)

// TestLostCopies: what the agent could not mirror is counted, and said once.
func TestLostCopies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ours, theirs, err := control.Pair()
		if err != nil {
			t.Fatal(err)
		}
		theirs.Close()
		defer ours.Close()
		s := &supervisor{ctl: ours, activity: activity.New(nil)}
		said := 0
		defer s.activity.Watch(func(e activity.Event) {
			if e.Code == "mirror-lost" && e.Level == string(event.Warning) {
				said++
			}
		})()
		s.lost(&protocol.Lost{Packets: 3})
		s.lost(&protocol.Lost{Packets: 4, Copies: 2})
		if got, want := s.activity.Counts().Lost, (activity.Loss{Packets: 4, Copies: 2}); got != want || said != 1 {
			t.Errorf("got %+v, said %d times, want %+v, once", got, said, want)
		}
	})
}
