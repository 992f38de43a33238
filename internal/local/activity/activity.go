// Package activity counts what a session carries, and tells those who watch it
// as it happens: connections, HTTP requests, files, lookups, and what the session
// says.
//
// The flows hand it what they do; whoever looks at a session asks it. Counting is
// an addition for each read or write, always. An event is made only while somebody
// watches, and given to sinks that must not wait: a session is never held up by
// who looks at it. It touches nothing of the machine. All methods may be called
// concurrently, and on nil, which counts nothing.
//
// Contents are in no event: of a request there are its method, its path without
// the query, and the status of the answer.
package activity

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/mirrord-go/mirrord/internal/budget"
	"github.com/mirrord-go/mirrord/internal/event"
	"github.com/mirrord-go/mirrord/internal/local/waits"
)

// Kinds of events.
const (
	Connection = "connection"
	Request    = "request"
	File       = "file"
	Lookup     = "lookup"
	Said       = "session" // what the session itself says
	Missed     = "missed"  // the watcher was too slow for some
)

// Kinds are all of them, in the order of the documentation.
func Kinds() []string { return []string{Connection, Request, File, Lookup, Said, Missed} }

// What happened to a connection, or with a file.
const (
	Opened  = "opened"
	Refused = "refused" // or reached nobody
	Closed  = "closed"
	Made    = "made"
	Changed = "changed"
	Removed = "removed"
	Renamed = "renamed"
	Absent  = "missing"
)

// mirror is the Mode of a connection that is a copy.
const mirror = "mirror"

// Event is one thing that happened. What means nothing for its kind is empty.
type Event struct {
	At      time.Time `json:"at"`
	Session string    `json:"session,omitempty"` // set by who reads it
	Kind    string    `json:"kind"`
	Flow    string    `json:"flow,omitempty"` // incoming, outgoing, dns, files
	What    string    `json:"what,omitempty"`
	// Connection ties what happens on one together.
	Connection uint64 `json:"connection,omitempty"`
	Where      string `json:"where,omitempty"`   // remote, local: on which side
	Mode       string `json:"mode,omitempty"`    // steal, mirror: of an incoming connection
	Network    string `json:"network,omitempty"` // tcp, udp, ping, unix, unixpacket
	Client     string `json:"client,omitempty"`  // of an incoming connection: its address
	Port       uint16 `json:"port,omitempty"`    // the same: the target's port
	Address    string `json:"address,omitempty"` // of an outgoing one: where it goes
	Name       string `json:"name,omitempty"`    // the name that this is for; what is looked up
	Method     string `json:"method,omitempty"`
	Path       string `json:"path,omitempty"` // of a request, without the query; of a file
	To         string `json:"to,omitempty"`   // the new path of a file
	Status     int    `json:"status,omitempty"`
	Type       string `json:"type,omitempty"` // of a lookup: A, AAAA, …
	// Answers are the addresses that a lookup gave.
	Answers  []string `json:"answers,omitempty"`
	Sent     int64    `json:"sent,omitempty"`     // bytes that the program has said
	Received int64    `json:"received,omitempty"` // bytes that it was told
	// Millis is how long it took, in milliseconds: until a request's answer began,
	// a connection's life.
	Millis float64 `json:"ms,omitempty"`
	Error  string  `json:"error,omitempty"`
	Level  string  `json:"level,omitempty"` // of what the session says, as Code and Text
	Code   string  `json:"code,omitempty"`
	Text   string  `json:"text,omitempty"`
	// Facts are the same in parts.
	Facts map[string]string `json:"facts,omitempty"`
	// Count is how many events are missed.
	Count int `json:"count,omitempty"`
}

// Counts are what a session has carried since it began.
type Counts struct {
	Incoming Traffic `json:"incoming"` // of the target's clients
	Outgoing Traffic `json:"outgoing"` // of the program
	Lookups  int64   `json:"lookups"`
	Files    Files   `json:"files"` // of the target
	Lost     Loss    `json:"lost"`
	Ports    Ports   `json:"ports"`
}

// Traffic is that of one direction.
type Traffic struct {
	Connections int64 `json:"connections"`
	Open        int64 `json:"open"` // of these, now
	Refused     int64 `json:"refused"`
	Requests    int64 `json:"requests"` // of HTTP/1 in the clear
	Sent        int64 `json:"sent"`     // bytes, by the program
	Received    int64 `json:"received"` // bytes, by the program
}

// Files are those of the target.
type Files struct {
	Opened  int64 `json:"opened"`
	Read    int64 `json:"read"` // bytes
	Written int64 `json:"written"`
	// Waits are how long the program waited for each operation on what is not
	// mounted as a whole from this machine.
	Waits []waits.Histogram `json:"waits,omitempty"`
}

// Loss is what was not mirrored.
type Loss struct {
	Packets int64 `json:"packets"` // that the target's kernel had no room for
	Copies  int64 `json:"copies"`  // of connections, that are not whole or were not made
}

// Ports are what became of what reached the target's ports that the session has:
// each request of HTTP/1 in the clear counts, of anything else each connection.
type Ports struct {
	Mirrored int64 `json:"mirrored"`
	Stolen   int64 `json:"stolen"`
	Passed   int64 `json:"passed_through"` // to the target: the filter does not match
	Returned int64 `json:"handed_back"`    // to the target: no program had it
	Lost     int64 `json:"lost"`           // copies that are not whole, and what nobody got
	Ended    int64 `json:"ended"`          // connections from before, so that their clients come anew
}

// Passed is what the agent has given to the target itself, and connections from
// before that it has ended.
type Passed struct{ Passed, Returned, Refused, Ended int64 }

// traffic counts one direction.
type traffic struct {
	connections, open, refused, requests, sent, received atomic.Int64
}

func (t *traffic) counts() Traffic {
	return Traffic{Connections: t.connections.Load(), Open: t.open.Load(), Refused: t.refused.Load(),
		Requests: t.requests.Load(), Sent: t.sent.Load(), Received: t.received.Load()}
}

// Log is what goes on in one session.
type Log struct {
	heads *budget.Share // of requests and answers that come in pieces
	last  atomic.Uint64 // connection

	incoming, outgoing                    traffic
	mirrored, stolen, missed              atomic.Int64 // as in Ports; copies that reached nobody
	lookups, opened, fileRead, fileWrites atomic.Int64

	fileWaits waits.Table

	watched  atomic.Bool // there are sinks
	mu       sync.Mutex
	sinks    map[uint64]func(Event)
	lastSink uint64
	lost     Loss   // of all agents
	passed   Passed // the same
}

// New makes an empty one. Beginnings of HTTP heads are taken from heads; without
// room requests are not seen.
func New(heads *budget.Share) *Log { return &Log{heads: heads, sinks: map[uint64]func(Event){}} }

// Counts are those of now.
func (l *Log) Counts() Counts {
	if l == nil {
		return Counts{}
	}
	l.mu.Lock()
	lost, passed := l.lost, l.passed
	l.mu.Unlock()
	ports := Ports{Mirrored: l.mirrored.Load(), Stolen: l.stolen.Load(), Passed: passed.Passed, Returned: passed.Returned, Ended: passed.Ended,
		Lost: lost.Copies + l.missed.Load() + passed.Refused}
	return Counts{Ports: ports, Incoming: l.incoming.counts(), Outgoing: l.outgoing.counts(), Lookups: l.lookups.Load(), Lost: lost,
		Files: Files{Opened: l.opened.Load(), Read: l.fileRead.Load(), Written: l.fileWrites.Load(), Waits: l.fileWaits.Histograms()}}
}

// Watch gives events to sink, which must not wait, until stop. It may be called
// by many goroutines at once, and a last time just after stop.
func (l *Log) Watch(sink func(Event)) (stop func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lastSink++
	id := l.lastSink
	l.sinks[id] = sink
	l.watched.Store(true)
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.sinks, id)
		l.watched.Store(len(l.sinks) > 0)
	}
}

// Watched reports whether somebody wants events.
func (l *Log) Watched() bool { return l != nil && l.watched.Load() }

// Tell gives an event to those who watch.
func (l *Log) Tell(e Event) {
	if !l.Watched() {
		return
	}
	e.At = time.Now().UTC()
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, sink := range l.sinks {
		sink(e)
	}
}

// Say tells what the session says; details are what the flows tell themselves.
func (l *Log) Say(e event.Event) {
	if e.Level != event.Detail {
		l.Tell(Event{Kind: Said, Flow: e.Flow, Level: string(e.Level), Code: e.Code, Text: e.Text, Facts: e.Facts})
	}
}

// Lookup counts one; describe makes the event if somebody wants it.
func (l *Log) Lookup(describe func() Event) {
	if l == nil {
		return
	}
	l.lookups.Add(1)
	if l.Watched() {
		e := describe()
		e.Kind, e.Flow = Lookup, "dns"
		l.Tell(e)
	}
}

// File tells of one; describe makes the event if somebody wants it. opened: it
// was opened, and is the target's.
func (l *Log) File(opened bool, describe func() Event) {
	if l == nil {
		return
	}
	if opened {
		l.opened.Add(1)
	}
	if l.Watched() {
		e := describe()
		e.Kind, e.Flow = File, "files"
		l.Tell(e)
	}
}

// FileBytes counts what was read of the target's files, and written to them.
func (l *Log) FileBytes(read, written int) {
	if l == nil {
		return
	}
	l.fileRead.Add(int64(read))
	l.fileWrites.Add(int64(written))
}

// FileWait counts how long the program waited for an operation on a file.
func (l *Log) FileWait(operation string, took time.Duration) {
	if l != nil {
		l.fileWaits.Observe(operation, took)
	}
}

// Agent is what one agent has counted: each counts from nothing, and there are as
// many as there are pods. Its methods may be called on nil.
type Agent struct {
	log *Log

	// of log.mu
	lost   Loss
	passed Passed
}

// Agent is a further one, which has counted nothing yet.
func (l *Log) Agent() *Agent {
	if l == nil {
		return nil
	}
	return &Agent{log: l}
}

// Lost tells what the agent has lost until now.
func (a *Agent) Lost(now Loss) {
	if a == nil {
		return
	}
	a.log.mu.Lock()
	defer a.log.mu.Unlock()
	grow(&a.log.lost.Packets, &a.lost.Packets, now.Packets)
	grow(&a.log.lost.Copies, &a.lost.Copies, now.Copies)
}

// Passed tells what the agent has given to the target until now.
func (a *Agent) Passed(now Passed) {
	if a == nil {
		return
	}
	a.log.mu.Lock()
	defer a.log.mu.Unlock()
	all, own := &a.log.passed, &a.passed
	grow(&all.Passed, &own.Passed, now.Passed)
	grow(&all.Returned, &own.Returned, now.Returned)
	grow(&all.Refused, &own.Refused, now.Refused)
	grow(&all.Ended, &own.Ended, now.Ended)
}

// grow adds to all what now is more than own. It may be less: what an agent is asked
// for comes by another stream than what it tells by itself, and may overtake that.
func grow(all, own *int64, now int64) {
	if now > *own {
		*all += now - *own
		*own = now
	}
}

// Took is the time since began, for Event.Millis: a tenth of a millisecond is as
// exact as anybody needs.
func Took(began time.Time) float64 {
	return float64(time.Since(began).Round(100*time.Microsecond)) / float64(time.Millisecond)
}
