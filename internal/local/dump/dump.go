// Package dump shows what clients send to ports of the target, in a session
// without a sandbox. It is what mirrord dump does.
//
// The agent's copies are passive: nothing is in the way of the target's traffic, and
// a reader of the dump that is slow loses copies, which is told, and nothing else.
// Only what clients say is copied (docs/flows/incoming.md), so there are no answers
// to be shown.
package dump

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/mirrord-go/mirrord/internal/event"
	"github.com/mirrord-go/mirrord/internal/failure"
	"github.com/mirrord-go/mirrord/internal/link"
	"github.com/mirrord-go/mirrord/internal/local/activity"
	"github.com/mirrord-go/mirrord/internal/local/attach"
	"github.com/mirrord-go/mirrord/internal/local/bare"
	"github.com/mirrord-go/mirrord/internal/local/control"
	"github.com/mirrord-go/mirrord/internal/local/incoming"
	"github.com/mirrord-go/mirrord/internal/protocol"
	"github.com/mirrord-go/mirrord/internal/relay"
	"github.com/mirrord-go/mirrord/internal/rules"
)

// chunk is how many bytes are shown at once at most.
const chunk = 16 << 10

// Kinds of records.
const (
	Ready = "ready"
	Open  = "open"
	Data  = "data"
	Close = "close"
)

// Record is one thing that is shown.
type Record struct {
	At         time.Time `json:"at"`
	Session    string    `json:"session,omitempty"` // of Ready: in the roster
	Kind       string    `json:"kind"`
	Ports      []uint16  `json:"ports,omitempty"`      // of Ready
	Connection uint64    `json:"connection,omitempty"` // from 1
	Port       uint16    `json:"port,omitempty"`       // of the target
	Client     string    `json:"client,omitempty"`
	Server     string    `json:"server,omitempty"` // the address that the client dialed
	// Millis is the time since the connection was opened, in milliseconds.
	Millis float64 `json:"ms,omitempty"`
	Data   []byte  `json:"data,omitempty"`  // in base64
	Bytes  int64   `json:"bytes,omitempty"` // of Close: all of the connection
	Error  string  `json:"error,omitempty"` // of Close: the copy is not whole
}

// Dump is that of one session. It implements bare.Server.
type Dump struct {
	s       *bare.Session
	numbers []uint16
	ports   *incoming.Ports
	last    atomic.Uint64 // connection

	mu   sync.Mutex // of show
	show func(Record) error
	gone func()
}

// New is Options.Begin of a session that dumps the ports of the target's that
// numbers has. show gets one record after the other, and may wait; when it fails,
// gone is called. A port that the agent does not copy is an error.
func New(ctx context.Context, s *bare.Session, numbers []uint16, show func(Record) error, gone func()) (*Dump, error) {
	in, err := rules.NewIncoming(rules.IncomingOptions{Mode: rules.IncomingMirror}, false)
	if err != nil {
		return nil, err
	}
	d := &Dump{s: s, show: show, gone: gone}
	d.numbers = slices.Compact(slices.Sorted(slices.Values(numbers)))
	d.ports = incoming.New(incoming.Options{
		Link: s.Hold.Peer(), Rules: in, Activity: s.Activity, Relayed: s.Relayed, Window: attach.ResumeWindow(s.Config),
		Emit: func(e event.Event) {
			if e.Code != "port-open" { // Ready tells it better
				s.Emit(e)
			}
		},
	})
	for i, n := range d.numbers {
		at := netip.AddrPortFrom(netip.IPv4Unspecified(), n)
		if err := d.ports.Listening(ctx, incoming.Listener{ID: uint64(i + 1), Addr: at}); err != nil {
			d.ports.Close()
			return nil, err
		}
	}
	for _, o := range d.ports.Ports() {
		if o.Mode == "" {
			d.ports.Close()
			return nil, failure.New("dump-refused", fmt.Sprintf("the traffic of the target's port %d cannot be copied", o.Port),
				"mirrord doctor -t TARGET says what the agent may do here", "the line above says why")
		}
	}
	return d, nil
}

// Ready implements bare.Server.
func (d *Dump) Ready(id string) {
	d.put(Record{Kind: Ready, Session: id, Ports: d.numbers})
}

// Renewed implements bare.Server.
func (d *Dump) Renewed(at *attach.Attachment) { d.ports.Renew(at.Link(), nil) }

// Status implements bare.Server.
func (d *Dump) Status(st *control.Status) {
	for _, o := range d.ports.Ports() {
		st.Ports = append(st.Ports, control.Port(o))
	}
	slices.SortFunc(st.Ports, func(a, b control.Port) int { return cmp.Compare(a.Port, b.Port) })
}

// Close implements bare.Server.
func (d *Dump) Close() { d.ports.Close() }

// put shows a record. It waits for its reader: the copies that are lost meanwhile
// are.
func (d *Dump) put(r Record) {
	r.At = time.Now().UTC()
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.show == nil {
		return
	}
	if d.show(r) != nil {
		d.show = nil
		d.gone()
	}
}

// Incoming implements bare.Server: it shows a connection until its end.
func (d *Dump) Incoming(ctx context.Context, s *link.Stream, m *protocol.Incoming) {
	if m.Mode != protocol.ModeMirror {
		_ = s.Reset(syscall.ECONNREFUSED) // nobody asked for that
		return
	}
	stop := context.AfterFunc(ctx, func() { relay.Reset(s, context.Cause(ctx)) })
	defer stop()
	defer s.Close()
	began := time.Now()
	call := d.s.Activity.Incoming(activity.Event{Network: "tcp", Where: rules.Remote.String(), Mode: rules.IncomingMirror, Client: m.Peer.String(), Port: m.Port}, false)
	defer call.Close()
	of := Record{Connection: d.last.Add(1), Port: m.Port, Client: m.Peer.String()}
	opened := of
	opened.Kind, opened.Server = Open, m.Local.String()
	d.put(opened)
	closed := of
	closed.Kind = Close
	buf := make([]byte, chunk)
	for {
		n, err := s.Read(buf)
		if n > 0 {
			call.Carried(0, int64(n))
			data := of
			data.Kind, data.Data, data.Millis = Data, buf[:n], activity.Took(began)
			closed.Bytes += int64(n)
			d.put(data)
		}
		if err == nil {
			continue
		}
		if err != io.EOF && ctx.Err() == nil {
			closed.Error = "the copy ends here: " + reason(err)
		}
		closed.Millis = activity.Took(began)
		d.put(closed)
		return
	}
}

// reason is why a copy has ended before its connection.
func reason(err error) string {
	if e, ok := err.(*link.ResetError); ok && e.Remote && e.Errno == syscall.ECONNRESET {
		return "the connection was reset"
	}
	return err.Error()
}
