// Package control holds the words that the front and the supervisor of a
// session exchange, and carries them over a pair of connected unix sockets. Over
// the socket of a session that is kept (package roster) come the same words from
// the fronts of commands that join, and a few from those who look after it.
//
// The front is the process that the user started, the parent of the command;
// the supervisor serves the session from a session of its own. The end of the
// stream tells each that the other is gone.
package control

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/mirrord-go/mirrord/internal/event"
	"github.com/mirrord-go/mirrord/internal/failure"
	"github.com/mirrord-go/mirrord/internal/local/activity"
	"github.com/mirrord-go/mirrord/internal/local/container"
)

// Message is one line of JSON on the socket; exactly one field is set.
type Message struct {
	// From the front.
	Start  *Start  `json:"start,omitempty"`  // first
	Exited *Exited `json:"exited,omitempty"` // the command has ended
	// From others, first and last.
	Ask *Ask `json:"ask,omitempty"` // how a session is
	// Watch is Ask, with what happens from then on, and how the session is every
	// BeatTime, until one end closes.
	Watch *Watch `json:"watch,omitempty"`
	Stop  *Stop  `json:"stop,omitempty"` // a session that is kept is to end; the end of the stream says that it has
	// From the supervisor.
	Event    *event.Event    `json:"event,omitempty"`
	Owned    json.RawMessage `json:"owned,omitempty"`    // what the front must remove in the cluster if the supervisor dies
	Running  *Running        `json:"running,omitempty"`  // the command runs
	Failed   *failure.Error  `json:"failed,omitempty"`   // the session could not start, or ended before the command
	Released *Released       `json:"released,omitempty"` // the answer to Exited: the front may end
	Beat     *Beat           `json:"beat,omitempty"`     // every BeatTime: the supervisor lives
	Learned  json.RawMessage `json:"learned,omitempty"`  // the report of Start.Learn, whose lists are bounded
	Status   *Status         `json:"status,omitempty"`   // the answer to Ask
	Activity *activity.Event `json:"activity,omitempty"` // of a Watch
}

// Start says what to run. Of a command that joins a session, only Argv, Env and
// Dir count.
type Start struct {
	Argv    []string        `json:"argv"` // empty: nothing, the session is kept for commands that join it
	Env     []string        `json:"env"`  // of the caller
	Dir     string          `json:"dir"`
	Front   int             `json:"front"` // its process id, the command's parent
	UID     int             `json:"uid"`
	GID     int             `json:"gid"`
	Options json.RawMessage `json:"options"` // of the command line, resolved
	// Container says that the command is that of an engine of containers.
	Container *container.Run `json:"container,omitempty"`
	// Learn asks for a report of files at the end; LearnFile is where it is
	// written to as well, absolute, empty for nowhere.
	Learn     bool   `json:"learn,omitempty"`
	LearnFile string `json:"learn_file,omitempty"`
	// Events: what happens is written to a descriptor of the supervisor's.
	Events bool `json:"events,omitempty"`
	// Profiles is the secret of who may see the supervisor's and the agent's
	// profiles, on a port of this machine; empty: nobody.
	Profiles string `json:"profiles,omitempty"`
	// Whole: what the command leaves in the background ends with it.
	Whole bool `json:"whole,omitempty"`
}

// Exited is how the command ended: its code in the manner of a shell.
type Exited struct {
	Code int `json:"code"`
}

// Running tells that the command has been started, or the session that is kept.
type Running struct {
	Session string `json:"session,omitempty"` // the id of one that is kept
}

// Ask asks for a Status.
type Ask struct{}

// Watch asks for what happens.
type Watch struct{}

// Stop asks for the end of the session.
type Stop struct{}

// Status is how a session is. It holds no secret but what stands in
// the arguments of commands, which every program of the user's sees anyway.
type Status struct {
	ID        string     `json:"id"`
	Silent    bool       `json:"silent,omitempty"` // it did not answer: but for ID and PID, nothing is known
	Version   string     `json:"version"`
	PID       int        `json:"pid"` // of its supervisor
	Target    string     `json:"target,omitempty"`
	Namespace string     `json:"namespace,omitempty"`
	Context   string     `json:"context,omitempty"`
	Key       string     `json:"key,omitempty"`      // that its user gave it
	Hostname  string     `json:"hostname"`           // of the target
	Replicas  int        `json:"replicas,omitempty"` // pods whose traffic comes, beside the target's
	Since     time.Time  `json:"since"`
	Kept      bool       `json:"kept"`            // for commands that join it; else it is that of one command
	Kind      string     `json:"kind,omitempty"`  // port-forward, dump: it has no sandbox, and ends when it is asked to; empty: it has one
	TTL       int        `json:"ttl"`             // seconds that it is kept without a command; 0: until it is stopped
	Until     *time.Time `json:"until,omitempty"` // when it ends if no command joins
	Lost      *time.Time `json:"lost,omitempty"`  // since when there is no link to the agent
	// Replacing: the target has ended, and what takes its place is looked for.
	Replacing bool            `json:"replacing,omitempty"`
	Mode      string          `json:"mode"` // of incoming traffic, in words
	Ports     []Port          `json:"ports"`
	Forwards  []Forward       `json:"forwards,omitempty"` // ports of this machine that lead into the cluster
	Counts    activity.Counts `json:"counts"`
	Commands  []Command       `json:"commands"`
	Events    []Happened      `json:"events"` // the last ones
}

// Port is one that a program of the session listens on, or that the session hands
// on to one.
type Port struct {
	Network   string `json:"network,omitempty"` // tcp, udp
	Port      uint16 `json:"port"`
	Target    uint16 `json:"target,omitempty"` // of the target, whose traffic comes
	Mode      string `json:"mode,omitempty"`   // steal, mirror; empty: no traffic of the target's
	Filter    string `json:"filter,omitempty"`
	Published string `json:"published,omitempty"` // where it is open on this machine
}

// Forward is a port of this machine that leads into the cluster.
type Forward struct {
	Listen []string `json:"listen"` // addresses of this machine
	To     string   `json:"to"`     // HOST:PORT, as the target sees it
}

// Command is one that has joined a session, or what it is for.
type Command struct {
	Argv       []string  `json:"argv"`
	PID        int       `json:"pid"` // of its front
	Since      time.Time `json:"since"`
	Background bool      `json:"background,omitempty"` // it has ended, and left processes
}

// Happened is an event and its time.
type Happened struct {
	At time.Time `json:"at"`
	event.Event
}

// Released tells the front to end.
type Released struct{}

// Beat tells that the supervisor is neither stopped nor stuck.
type Beat struct{}

// BeatTime is the time between two Beats: a fraction of what a person takes for
// a hang.
const BeatTime = time.Second

// Conn is one end. Send may be called concurrently, Receive may not.
type Conn struct {
	c      *net.UnixConn
	dec    *json.Decoder
	writer sync.WaitGroup

	mu     sync.Mutex
	more   *sync.Cond // queue, closed or err have changed
	queue  []Message
	due    bool        // the queue is to be written; else it holds details, which can wait
	later  *time.Timer // makes it due; nil: there is nothing, or it is due
	missed int         // Activities, dropped since the last that was queued
	closed bool
	err    error // of writing; what comes later is dropped
}

const (
	// maxEvents is how many events may wait for a reader. A front that is
	// stopped, or whose terminal takes nothing, must not hold up the traffic of
	// the program; what it misses are lines. Of a Watch, that is counted and told.
	// Other messages are few and always kept.
	maxEvents = 1024
	// maxDetails and detailTime are how many details may wait for each other, and
	// how long: there is one for every connection and lookup of the program, and a
	// line by itself wakes the front each time.
	maxDetails = maxEvents / 4
	detailTime = 100 * time.Millisecond
	// batchSize is how many bytes go into one write, and the message that is more.
	batchSize = 32 << 10
	// flushTime is how long Close tries to send what is queued.
	flushTime = 2 * time.Second
)

// Open makes an end of a descriptor, which it takes over.
func Open(f *os.File) (*Conn, error) {
	defer f.Close()
	nc, err := net.FileConn(f)
	if err != nil {
		return nil, fmt.Errorf("open the control socket: %w", err)
	}
	u, ok := nc.(*net.UnixConn)
	if !ok {
		nc.Close()
		return nil, fmt.Errorf("open the control socket: it is a %T", nc)
	}
	return On(u), nil
}

// On makes an end of a connection, which it takes over.
func On(u *net.UnixConn) *Conn {
	c := &Conn{c: u, dec: json.NewDecoder(u)}
	c.more = sync.NewCond(&c.mu)
	c.writer.Go(c.write) // Close waits for it
	return c
}

// Send queues m and does not wait. It fails when the other end is known to be
// gone, or after Close.
func (c *Conn) Send(m Message) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.err != nil:
		return c.err
	case c.closed:
		return net.ErrClosed
	case m.Event != nil && len(c.queue) >= maxEvents, m.Beat != nil && len(c.queue) > 0, m.Status != nil && len(c.queue) >= maxEvents:
		return nil
	case m.Activity != nil && len(c.queue) >= maxEvents:
		c.missed++
		return nil
	case c.missed > 0 && len(c.queue) < maxEvents:
		c.queue = append(c.queue, Message{Activity: &activity.Event{At: time.Now().UTC(), Kind: activity.Missed, Count: c.missed}})
		c.missed = 0
	}
	c.queue = append(c.queue, m)
	switch {
	case c.due:
	case m.Event == nil || m.Event.Level != event.Detail || len(c.queue) >= maxDetails:
		c.hurry()
	case c.later == nil:
		c.later = time.AfterFunc(detailTime, func() {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.hurry()
		})
	}
	return nil
}

// hurry makes the queue due. mu is held.
func (c *Conn) hurry() {
	c.due = true
	if c.later != nil {
		c.later.Stop()
		c.later = nil
	}
	c.more.Broadcast()
}

// write is the goroutine that writes the queue.
func (c *Conn) write() {
	var batch bytes.Buffer
	enc := json.NewEncoder(&batch)
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.err == nil {
		switch {
		case len(c.queue) == 0 && c.closed:
			return
		case len(c.queue) == 0:
			c.due = false
			fallthrough
		case !c.due:
			c.more.Wait()
			continue
		}
		m := c.queue[0]
		c.queue = c.queue[1:]
		last := len(c.queue) == 0
		c.mu.Unlock()
		err := enc.Encode(m)
		if err == nil && (last || batch.Len() >= batchSize) {
			_, err = c.c.Write(batch.Bytes())
			if batch.Reset(); batch.Cap() > 2*batchSize {
				batch = bytes.Buffer{}
			}
		}
		c.mu.Lock()
		c.err = err
	}
}

// Receive waits for the next message; io.EOF means that the other end is gone.
func (c *Conn) Receive() (Message, error) {
	var m Message
	err := c.dec.Decode(&m)
	if err != nil && (errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET)) {
		err = io.EOF
	}
	return m, err
}

// Close sends what is queued, for a short time, and ends both directions.
func (c *Conn) Close() error { return c.CloseWithin(flushTime) }

// CloseWithin is Close with another limit.
func (c *Conn) CloseWithin(limit time.Duration) error {
	c.mu.Lock()
	c.closed = true
	c.hurry()
	c.mu.Unlock()
	_ = c.c.SetWriteDeadline(time.Now().Add(limit))
	c.writer.Wait()
	return c.c.Close()
}
