// Package record writes what goes on in a session to a file, as lines of JSON,
// for whoever reads them later or elsewhere.
//
// The session begins it before anything else and ends it after everything else.
// Nothing waits for the file: what it has no time for is counted, and told in its
// place. When it takes no more the rest is left out, and that is said once.
package record

import (
	"bytes"
	"fmt"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/mirrord-go/mirrord/internal/event"
	"github.com/mirrord-go/mirrord/internal/local/activity"
	"github.com/mirrord-go/mirrord/internal/local/monitor"
)

const (
	// maxQueue is how many events may wait: those of a watcher are as many.
	maxQueue = 1024
	// flushTime bounds what Close waits for a pipe that nobody reads from.
	flushTime = 2 * time.Second
	// batchSize is how many bytes go into one write, and the line that is more.
	batchSize = 32 << 10
)

// Recorder writes the events of one session.
type Recorder struct {
	id     string
	out    *os.File
	failed func(error)
	stop   func() // of the watch
	queue  chan activity.Event
	over   chan struct{} // closed by Close
	done   chan struct{} // closed when all is written
	missed atomic.Int64
}

// Start writes what log tells to the file fd, which it owns, until Close. failed is
// told, once and by another goroutine, when that is not possible any more.
func Start(id string, fd int, log *activity.Log, failed func(error)) *Recorder {
	// A pipe must not hold up the end; files of other kinds do not care.
	_ = syscall.SetNonblock(fd, true)
	r := &Recorder{id: id, out: os.NewFile(uintptr(fd), "events"), failed: failed,
		queue: make(chan activity.Event, maxQueue), over: make(chan struct{}), done: make(chan struct{})}
	r.stop = log.Watch(r.take)
	go r.write() // waited for by Close
	return r
}

// take is given every event and does not wait.
func (r *Recorder) take(e activity.Event) {
	select {
	case r.queue <- e:
	default:
		r.missed.Add(1)
	}
}

// Close writes the session's end and what waits, for flushTime at most. On nil it does nothing.
func (r *Recorder) Close() {
	if r == nil {
		return
	}
	r.stop()
	_ = r.out.SetWriteDeadline(time.Now().Add(flushTime))
	close(r.over)
	<-r.done
	r.out.Close()
}

// write writes until Close, and then what waits.
func (r *Recorder) write() {
	defer close(r.done)
	var lines bytes.Buffer
	var err error
	for {
		select {
		case e := <-r.queue:
			r.line(&lines, e)
		default: // nothing waits
			if err == nil && lines.Len() > 0 {
				err = r.flush(&lines)
			}
			lines.Reset()
			select {
			case e := <-r.queue:
				r.line(&lines, e)
			case <-r.over:
				if len(r.queue) > 0 {
					continue
				}
				r.line(&lines, activity.Event{At: time.Now().UTC(), Kind: activity.Said, Level: string(event.Info), Code: "session-ended", Text: "the session has ended"})
				if err == nil {
					_ = r.flush(&lines)
				}
				return
			}
		}
		if lines.Len() >= batchSize {
			if err == nil {
				err = r.flush(&lines)
			}
			lines.Reset()
		}
	}
}

// line appends an event, after word of those that were missed before it.
func (r *Recorder) line(to *bytes.Buffer, e activity.Event) {
	if n := r.missed.Swap(0); n > 0 {
		r.put(to, activity.Event{At: time.Now().UTC(), Kind: activity.Missed, Count: int(n)})
	}
	r.put(to, e)
}

func (r *Recorder) put(to *bytes.Buffer, e activity.Event) {
	e.Session = r.id
	_ = monitor.WriteJSON(to, e, "") // a buffer takes all
}

func (r *Recorder) flush(lines *bytes.Buffer) error {
	_, err := r.out.Write(lines.Bytes())
	if err != nil {
		r.failed(fmt.Errorf("write the events: %w", err))
	}
	return err
}
