package outgoing

import (
	"context"
	"errors"
	"fmt"
	"syscall"

	"github.com/mirrord-go/mirrord/internal/event"
	"github.com/mirrord-go/mirrord/internal/link"
	"github.com/mirrord-go/mirrord/internal/local/activity"
	"github.com/mirrord-go/mirrord/internal/protocol"
	"github.com/mirrord-go/mirrord/internal/relay"
	"github.com/mirrord-go/mirrord/internal/rules"
	"github.com/mirrord-go/mirrord/internal/unixsock"
)

// UnixCost is what a connection to a unix socket is counted as, in bytes, besides
// its stream: two stacks of 4 KiB, the buffers of relay, and what is known of it.
const UnixCost = 12 << 10

// RemoteUnix reports whether a unix socket is the target's; name is as for
// rules.Outgoing.DecideUnix.
func (r *Router) RemoteUnix(name string) bool { return r.Rules.DecideUnix(name).Where == rules.Remote }

// UnixFar is a connection to a unix socket of the target's.
type UnixFar struct {
	r      *Router
	name   string
	packet bool
	s      *link.Stream
	call   *activity.Call
}

// DialUnix connects to a unix socket of the target's, of SOCK_STREAM or, with
// packet, SOCK_SEQPACKET; with wait it waits for a busy server. The errno of the
// error is what connect(2) must return.
func (r *Router) DialUnix(ctx context.Context, name string, packet, wait bool) (*UnixFar, error) {
	f := &UnixFar{r: r, name: name, packet: packet}
	err := f.dial(ctx, wait)
	f.report(err)
	if err != nil {
		return nil, Errno(err)
	}
	f.call = r.Activity.Outgoing(f.activity())
	return f, nil
}

func (f *UnixFar) dial(ctx context.Context, wait bool) (err error) {
	if !f.r.Connections.Take(UnixCost) {
		return fmt.Errorf("there is no memory for another connection: %w", syscall.EAGAIN)
	}
	defer func() {
		if err != nil {
			f.r.Connections.Give(UnixCost)
		}
	}()
	ctx, cancel := context.WithTimeout(ctx, dialTime)
	defer cancel()
	m := &protocol.Dial{Network: protocol.NetworkUnix, Name: f.name, Wait: wait}
	if f.packet {
		m.Network = protocol.NetworkUnixPacket
	}
	if f.s, err = f.r.Link.Open(ctx, link.Bulk, m); err != nil {
		return err
	}
	if err = answered(ctx, f.s); err != nil {
		f.s.Close()
	}
	return err
}

// Carry owns near, the program's end, and returns when the connection has ended,
// or ctx.
func (f *UnixFar) Carry(ctx context.Context, near *unixsock.Conn) {
	defer f.r.Connections.Give(UnixCost)
	defer f.call.Close()
	near.Packets, near.Dropped = f.r.Relayed, f.dropped
	if f.packet {
		_ = relay.JoinPackets(ctx, near, link.Packets{Stream: f.s})
		return
	}
	n, _ := relay.Join(ctx, f.r.Relayed, near, f.s)
	f.call.Carried(n.AtoB, n.BtoA)
}

// Drop ends a connection that nobody waits for any more.
func (f *UnixFar) Drop() {
	defer f.call.Close()
	relay.Reset(f.s, syscall.ECONNRESET)
	f.r.Connections.Give(UnixCost)
}

func (f *UnixFar) facts() map[string]string {
	network := "unix"
	if f.packet {
		network = "unixpacket"
	}
	return map[string]string{"address": unixsock.Name(f.name), "network": network}
}

// activity is what is told of it.
func (f *UnixFar) activity() activity.Event {
	facts := f.facts()
	return activity.Event{Network: facts["network"], Where: rules.Remote.String(), Address: facts["address"]}
}

// report emits the one event of a dial; err is why it failed.
func (f *UnixFar) report(err error) {
	d := f.r.Rules.DecideUnix(f.name)
	what := "connected"
	if err != nil {
		what = "refused"
	}
	e := event.Event{Level: event.Detail, Code: "outgoing-" + what, Flow: "outgoing", Facts: f.facts()}
	e.Facts["where"], e.Facts["why"] = d.Where.String(), d.Why
	e.Text = fmt.Sprintf("%s %s: %v, %s", e.Facts["network"], e.Facts["address"], d.Where, what)
	if err != nil {
		e.Text += fmt.Sprintf(": %v", err)
		e.Facts["errno"] = fmt.Sprint(int(Errno(err)))
	}
	f.r.Emit(e)
	if err != nil {
		a := f.activity()
		a.Error = err.Error()
		f.r.Activity.NotConnected(a)
	}
	var answer *protocol.AnswerError
	if errors.As(err, &answer) && answer.Answer.Cause == protocol.CauseUnsupported && f.r.told.once("unix unsupported") {
		f.r.Emit(event.Event{Level: event.Warning, Code: "agent-lacks", Flow: "outgoing", Facts: f.facts(),
			Text: "the agent is older than this mirrord and connects to no unix sockets: update the agent's image"})
	}
}

// dropped says once that what the program sends along does not arrive.
func (f *UnixFar) dropped() {
	if f.r.told.once("unix descriptors") {
		f.r.Emit(event.Event{Level: event.Warning, Code: "unix-descriptors", Flow: "outgoing", Facts: f.facts(),
			Text: fmt.Sprintf("the program has sent descriptors to %s, which cannot be carried to another machine: the server in the target does not get them", unixsock.Name(f.name))})
	}
}

// UnixDatagram says once that a socket of SOCK_DGRAM goes to this machine though
// a pattern has its name.
func (r *Router) UnixDatagram(name string) {
	if r.told.once("unix datagram") {
		r.Emit(event.Event{Level: event.Warning, Code: "unix-datagram", Flow: "outgoing", Facts: map[string]string{"address": unixsock.Name(name), "network": "unixgram"},
			Text: fmt.Sprintf("%s is this machine's for sockets of datagrams, though %s matches: only streams and sequenced packets go to the target", unixsock.Name(name), r.Rules.DecideUnix(name).Why)})
	}
}

// UnixRing says once that a program has an io_uring, by which it may connect
// unseen.
func (r *Router) UnixRing(pid int) {
	if r.told.once("unix ring") {
		r.Emit(event.Event{Level: event.Info, Code: "unix-io-uring", Flow: "outgoing", Facts: map[string]string{"pid": fmt.Sprint(pid)},
			Text: fmt.Sprintf("process %d uses io_uring: unix sockets that it connects by it are this machine's, whatever outgoing.unix_streams says", pid)})
	}
}
