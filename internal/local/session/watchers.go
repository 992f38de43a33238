package session

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/mirrord-go/mirrord/internal/event"
	"github.com/mirrord-go/mirrord/internal/local/files"
)

// watchTimes are when the sandbox is looked at for programs that watch files of
// the target's, counted from one look to the next; the last one goes on. A look
// costs some milliseconds.
var watchTimes = []time.Duration{time.Second, 4 * time.Second, 25 * time.Second, time.Minute}

// findWatchers says, once, that a program waits for changes of files that it
// will not hear of.
func (s *supervisor) findWatchers(ctx context.Context, b *built) {
	for i := 0; ; i = min(i+1, len(watchTimes)-1) {
		select {
		case <-time.After(watchTimes[i]):
		case <-b.box.Done():
			return
		case <-ctx.Done():
			return
		}
		all, _ := b.box.Watchers() // the next look will tell
		for _, w := range all {
			if slices.ContainsFunc(w.Inodes, files.OfTarget) {
				s.emit(event.Event{Level: event.Warning, Code: "watches-target", Flow: "files",
					Text:  fmt.Sprintf("%s (process %d) watches files of the target by inotify: it hears of its own changes, not of the target's; let it poll instead (for many tools CHOKIDAR_USEPOLLING=1, --poll)", w.Name, w.PID),
					Facts: map[string]string{"pid": fmt.Sprint(w.PID), "program": w.Name}})
				return
			}
		}
	}
}
