package forward

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"syscall"
	"time"

	"github.com/mirrord-go/mirrord/internal/event"
	"github.com/mirrord-go/mirrord/internal/failure"
	"github.com/mirrord-go/mirrord/internal/link"
	"github.com/mirrord-go/mirrord/internal/local/attach"
	"github.com/mirrord-go/mirrord/internal/local/bare"
	"github.com/mirrord-go/mirrord/internal/local/control"
	"github.com/mirrord-go/mirrord/internal/local/incoming"
	"github.com/mirrord-go/mirrord/internal/protocol"
	"github.com/mirrord-go/mirrord/internal/rules"
)

// A port of the target's is a listener of the flow's on 127.0.0.1 with that very
// number, so that the rules are asked about the target's port; Dial leads to the
// port of this machine instead.

// Rules are those of a configuration for ports that -R names: who names a port
// means it, so nothing counts that picks ports; mode and filter do. The error says
// which of them nothing would come for.
func Rules(o rules.IncomingOptions, targetless bool, rs []Remote) (rules.IncomingOptions, error) {
	o = rules.IncomingOptions{Mode: o.Mode, HTTP: o.HTTP, LostReply: o.LostReply, Lossless: o.Lossless, Held: o.Held, TLS: o.TLS, TLSDelivery: o.TLSDelivery}
	if len(rs) == 0 {
		o.Mode = rules.IncomingOff
		return o, nil
	}
	if targetless {
		return o, failure.Usage("forward-no-target", fmt.Sprintf("-R %s needs a target", rs[0].Text), "name one: mirrord port-forward -t deployment/NAME -R "+rs[0].Text,
			"it brings a port of the target's here")
	}
	in, err := rules.NewIncoming(o, false)
	if err != nil {
		return o, err
	}
	for _, r := range rs {
		if p := in.Decide(listenerOf(r).rule()); p.Where != rules.Remote {
			return o, failure.Usage("forward-rules", fmt.Sprintf("nothing would come for -R %s", r.Text), "change feature.network.incoming, or take --steal", "%s", p.Why)
		}
	}
	return o, nil
}

// listened is a Remote as the flow knows it.
type listened incoming.Listener

func listenerOf(r Remote) listened {
	return listened{ID: uint64(r.Port), Addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), r.Port)}
}

func (l listened) rule() rules.Listener { return rules.Listener{Addr: l.Addr} }

// openPorts asks the agent for the target's ports.
func openPorts(ctx context.Context, s *bare.Session, rs []Remote) (*incoming.Ports, error) {
	in, err := s.Config.IncomingRules()
	if err != nil {
		return nil, err
	}
	delivery, err := incoming.NewDelivery(s.Config.Incoming.TLSDelivery)
	if err != nil {
		return nil, err
	}
	d := &dialer{s: s, local: map[uint16]uint16{}, told: map[uint16]*told{}}
	for _, r := range rs {
		d.local[r.Port], d.told[r.Port] = r.Local, &told{}
	}
	p := incoming.New(incoming.Options{
		Link: s.Hold.Peer(), Rules: in, Probes: s.Hold.First().Agent().Probes(), Dial: d.dial, Activity: s.Activity, Relayed: s.Relayed,
		Window: attach.ResumeWindow(s.Config), Delivery: delivery,
		Emit: func(e event.Event) {
			if e.Code != "port-open" { // Ready tells it better
				s.Emit(e)
			}
		},
	})
	for _, r := range rs {
		if err := p.Listening(ctx, incoming.Listener(listenerOf(r))); err != nil && !errors.Is(err, syscall.EADDRINUSE) {
			p.Close()
			return nil, err
		}
	}
	given := map[uint16]bool{}
	for _, o := range p.Ports() {
		given[o.Port] = o.Mode != ""
	}
	for _, r := range rs {
		if !given[r.Port] {
			p.Close()
			return nil, failure.New("forward-refused", fmt.Sprintf("the target's port %d cannot be had for -R %s", r.Port, r.Text),
				"look who has it: mirrord status; with a filter of headers several share a port", "the line above says why")
		}
	}
	return p, nil
}

// dialer connects what comes to this machine's ports.
type dialer struct {
	s     *bare.Session
	local map[uint16]uint16 // by the target's port
	told  map[uint16]*told
}

func (d *dialer) dial(ctx context.Context, a incoming.Attempt) (net.Conn, error) {
	port := a.Dst.Port()
	var first error
	for _, host := range []string{"127.0.0.1", "::1"} { // a server of localhost listens on either
		at := net.JoinHostPort(host, strconv.Itoa(int(d.local[port])))
		c, err := new(net.Dialer).DialContext(ctx, "tcp", at)
		if err == nil {
			return c, nil
		}
		if first == nil {
			first = err
		}
	}
	text := fmt.Sprintf("a connection to the target's port %d reaches nobody here: %v", port, first)
	if more, now := d.told[port].again(text, time.Now()); now {
		if more > 0 {
			text += fmt.Sprintf(" (and %d times more before)", more)
		}
		d.s.Emit(event.Event{Level: event.Warning, Code: "forward-failed", Flow: "incoming", Text: text, Facts: map[string]string{"port": fmt.Sprint(port)}})
	}
	return nil, first
}

// Incoming implements bare.Server.
func (f *Forwards) Incoming(ctx context.Context, s *link.Stream, m *protocol.Incoming) {
	if f.ports == nil {
		_ = s.Reset(syscall.ECONNREFUSED) // nothing was asked for
		return
	}
	f.ports.Serve(ctx, s, m)
}

// remotesNow are the ports of the target that come here.
func (f *Forwards) remotesNow() []control.Port {
	all := []control.Port{}
	if f.ports == nil {
		return all
	}
	for _, o := range f.ports.Ports() {
		for _, r := range f.remotes {
			if r.Port == o.Port {
				all = append(all, control.Port{Port: r.Local, Target: o.Target, Mode: o.Mode, Filter: o.Filter})
			}
		}
	}
	return all
}
