package record

import (
	"os"
	"syscall"
	"time"

	"github.com/mirrord-go/mirrord/internal/event"
	"github.com/mirrord-go/mirrord/internal/local/activity"
)

// Recorder writes the events of one session.
type Recorder struct {
	id    string
	out   *os.File
	lines *Lines
	stop  func() // of the watch
}

// Start writes what log tells to the file fd, which it owns, until Close. failed is
// told, once and by another goroutine, when that is not possible any more.
func Start(id string, fd int, log *activity.Log, failed func(error)) *Recorder {
	// A pipe must not hold up the end; files of other kinds do not care.
	_ = syscall.SetNonblock(fd, true)
	r := &Recorder{id: id, out: os.NewFile(uintptr(fd), "events")}
	r.lines = NewLines(id, r.out, failed)
	r.stop = log.Watch(func(e activity.Event) { r.lines.Put(r.own(e)) })
	return r
}

// own says whose an event is.
func (r *Recorder) own(e activity.Event) activity.Event {
	e.Session = r.id
	return e
}

// Close writes what waits and the session's end, for flushTime at most. On nil it does nothing.
func (r *Recorder) Close() {
	if r == nil {
		return
	}
	r.stop()
	r.lines.Close(r.own(activity.Event{At: time.Now().UTC(), Kind: activity.Said, Level: string(event.Info), Code: "session-ended", Text: "the session has ended"}))
	r.out.Close()
}
