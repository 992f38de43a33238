package session

import (
	"cmp"
	"context"
	"net"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/mirrord-go/mirrord/internal/event"
	"github.com/mirrord-go/mirrord/internal/local/control"
	"github.com/mirrord-go/mirrord/internal/local/kin"
	"github.com/mirrord-go/mirrord/internal/local/roster"
)

// meetAll meets whoever comes to the door, until that is closed.
func (k *keeper) meetAll(ctx context.Context, b *built, door *roster.Host, wg *sync.WaitGroup) {
	for {
		c, err := door.Accept()
		if err != nil {
			return
		}
		wg.Go(func() { k.meet(ctx, b, c) })
	}
}

// meet does what somebody wants who came to the door.
func (k *keeper) meet(ctx context.Context, b *built, c *net.UnixConn) {
	came := time.Now()
	hurry := context.AfterFunc(ctx, func() { c.Close() }) // who says nothing does not hold up the end
	if roster.Greet(c, roster.Greeting{Version: k.s.version, Own: b.box.Own(), Kubeconfig: os.Getenv("KUBECONFIG")}, b.box.Door()) != nil {
		c.Close()
		return
	}
	var word [1]byte
	sock, err := roster.Receive(c, word[:])
	if err != nil {
		c.Close()
		return
	}
	_ = c.SetReadDeadline(time.Now().Add(endTime))
	ctl := control.On(c)
	m, err := ctl.Receive()
	_ = c.SetReadDeadline(time.Time{})
	switch hurry(); {
	case err != nil:
	case m.Start != nil && sock != nil && len(m.Start.Argv) > 0:
		pid, err := roster.Peer(c)
		if err != nil {
			break
		}
		(&guest{k: k, ctl: ctl, start: m.Start, pid: pid, since: came, family: kin.Of(pid)}).serve(ctx, b, sock)
		return
	case m.Ask != nil:
		_ = ctl.Send(control.Message{Status: k.status(b)})
	case m.Stop != nil:
		k.mu.Lock()
		k.stops = append(k.stops, ctl) // closed when all is done
		k.mu.Unlock()
		k.end(event.Info, "the session is stopped, as was asked for with: mirrord session stop")
		ctl = nil
	}
	if sock != nil {
		sock.Close()
	}
	if ctl != nil {
		ctl.Close()
	}
}

// stayThere ends the session when nobody can find it any more.
func (k *keeper) stayThere(ctx context.Context, door *roster.Host) {
	tick := time.NewTicker(thereTime)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if !door.There() {
				k.end(event.Warning, "the session ends: its socket was removed, as when a user logs out")
				return
			}
		case <-ctx.Done():
			return
		}
	}
}

// done tells those who wait for the end. On nil it does nothing.
func (k *keeper) done() {
	if k == nil {
		return
	}
	k.mu.Lock()
	stops := k.stops
	k.stops = nil
	k.mu.Unlock()
	for _, c := range stops {
		c.Close()
	}
}

// status is how the session is now.
func (k *keeper) status(b *built) *control.Status {
	st := k.s.status(b)
	st.ID, st.Kept, st.TTL, st.Commands = k.id, true, int(k.ttl/time.Second), []control.Command{}
	k.mu.Lock()
	defer k.mu.Unlock()
	st.Events = slices.Clone(k.events)
	if !k.until.IsZero() {
		until := k.until.UTC().Truncate(time.Second)
		st.Until = &until
	}
	for g := range k.guests {
		st.Commands = append(st.Commands, control.Command{Argv: g.start.Argv, PID: g.pid, Since: g.since.UTC().Truncate(time.Second), Background: g.background})
	}
	slices.SortFunc(st.Commands, func(a, b control.Command) int { return cmp.Or(a.Since.Compare(b.Since), a.PID-b.PID) })
	return st
}
