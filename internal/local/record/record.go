// Package record writes what goes on in a session to a file, as lines of JSON,
// for whoever reads them later or elsewhere.
//
// A session begins it before anything else and ends it after everything else.
// Nothing waits for the file: what it has no time for is counted, and told in its
// place. When it takes no more the rest is left out, and that is said once.
package record

import (
	"bytes"
	"fmt"
	"os"
	"sync/atomic"
	"time"

	"github.com/mirrord-go/mirrord/internal/local/activity"
	"github.com/mirrord-go/mirrord/internal/local/monitor"
)

const (
	// maxQueue is how many values may wait: those of a watcher are as many.
	maxQueue = 1024
	// flushTime bounds what Close waits for a pipe that nobody reads from.
	flushTime = 2 * time.Second
	// batchSize is how many bytes go into one write, and the line that is more.
	batchSize = 32 << 10
)

// Lines writes values to a file, each as a line of JSON. Nobody waits for the file.
// Put may be called concurrently, and Put and Close on nil, which writes nothing.
type Lines struct {
	session string // of the word of what was missed
	out     *os.File
	failed  func(error)
	queue   chan any
	over    chan struct{} // closed by Close
	done    chan struct{} // closed when all is written
	last    []any         // set before over is closed
	missed  atomic.Int64
}

// NewLines begins to write to out, which stays the caller's. failed is told, once
// and by another goroutine, when that is not possible any more.
func NewLines(session string, out *os.File, failed func(error)) *Lines {
	l := &Lines{session: session, out: out, failed: failed, queue: make(chan any, maxQueue), over: make(chan struct{}), done: make(chan struct{})}
	go l.write() // ends with Close
	return l
}

// Put has v written soon; where too much waits already it is counted instead.
func (l *Lines) Put(v any) {
	if l == nil {
		return
	}
	select {
	case l.queue <- v:
	default:
		l.missed.Add(1)
	}
}

// Close writes what waits and then last, for flushTime at most.
func (l *Lines) Close(last ...any) {
	if l == nil {
		return
	}
	bounded := l.out.SetWriteDeadline(time.Now().Add(flushTime)) == nil
	l.last = last
	close(l.over)
	if bounded {
		<-l.done
		return
	}
	select {
	case <-l.done:
	case <-time.After(flushTime): // the reader is stopped
	}
}

// write writes until Close, and then what waits.
func (l *Lines) write() {
	defer close(l.done)
	var lines bytes.Buffer
	var err error
	for {
		select {
		case v := <-l.queue:
			l.line(&lines, v)
		default: // nothing waits
			err = l.flush(&lines, err)
			select {
			case v := <-l.queue:
				l.line(&lines, v)
			case <-l.over:
				if len(l.queue) > 0 {
					continue
				}
				for _, v := range l.last {
					l.line(&lines, v)
				}
				_ = l.flush(&lines, err)
				return
			}
		}
		if lines.Len() >= batchSize {
			err = l.flush(&lines, err)
		}
	}
}

// line appends a value, after word of those that were missed before it.
func (l *Lines) line(to *bytes.Buffer, v any) {
	if n := l.missed.Swap(0); n > 0 {
		_ = monitor.WriteJSON(to, activity.Event{At: time.Now().UTC(), Session: l.session, Kind: activity.Missed, Count: int(n)}, "") // a buffer takes all
	}
	_ = monitor.WriteJSON(to, v, "")
}

// flush writes the lines, unless that has failed before.
func (l *Lines) flush(lines *bytes.Buffer, before error) error {
	defer lines.Reset()
	if before != nil || lines.Len() == 0 {
		return before
	}
	_, err := l.out.Write(lines.Bytes())
	if err != nil {
		l.failed(fmt.Errorf("write the events: %w", err))
	}
	return err
}
