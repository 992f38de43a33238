package incoming

import (
	"fmt"
	"net"
	"syscall"

	"github.com/mirrord-go/mirrord/internal/event"
	"github.com/mirrord-go/mirrord/internal/local/loopback"
	"github.com/mirrord-go/mirrord/internal/relay"
)

// publication is a port that is open here.
type publication struct {
	listeners []loopback.Port // none: this machine refuses
	busy      error           // why it is not the number that was wanted; nil: it is
}

// publish opens a port of the program's on this machine's loopback, both
// families: by the wanted number where it is free in both. Where not, exact
// makes that an error, which is told; else it is another number, or none if the
// machine refuses that as well.
func (p *Ports) publish(port portKey, want uint16, exact bool) (pub publication, err error) {
	if p.ctx.Err() != nil {
		return pub, syscall.ESHUTDOWN
	}
	if p.o.Listen == nil {
		return pub, nil
	}
	pub.listeners, pub.busy = p.open(port.udp, want)
	if pub.busy != nil {
		for _, ln := range pub.listeners { // "localhost" must not be two programs
			ln.Close()
		}
		pub.listeners = nil
		if exact {
			p.o.Emit(event.Event{Level: event.Warning, Code: "port-not-free", Flow: "incoming",
				Text:  fmt.Sprintf("%v cannot be opened here as port %d, as listen_ports wants it: %v", port, want, pub.busy),
				Facts: port.facts(map[string]string{"published": fmt.Sprint(want)})})
			return pub, syscall.EADDRINUSE
		}
		all, busy := p.open(port.udp, 0)
		if pub.listeners = all; len(all) == 0 {
			pub.busy = busy
		}
	}
	for _, ln := range pub.listeners {
		p.wg.Go(func() { p.accept(ln, port.number) })
	}
	return pub, nil
}

// open opens a port of this machine's loopback.
func (p *Ports) open(udp bool, number uint16) (all []loopback.Port, err error) {
	if udp {
		conns, err := loopback.ListenPacket(p.o.ListenPacket, number)
		for _, c := range conns {
			all = append(all, c)
		}
		return all, err
	}
	listeners, err := loopback.Listen(p.o.Listen, number)
	for _, ln := range listeners {
		all = append(all, ln)
	}
	return all, err
}

// unpublish says so, except at the end of the session, which says it all.
func (p *Ports) unpublish(port portKey, pub publication) {
	for _, ln := range pub.listeners {
		ln.Close()
	}
	if !port.udp {
		p.lates.set(port.number, false)
	}
	if p.ctx.Err() == nil {
		p.o.Emit(event.Event{Level: event.Detail, Code: "port-closed", Flow: "incoming",
			Text: fmt.Sprintf("%v is closed", port), Facts: port.facts(nil)})
	}
}

// accept delivers what this machine's programs send to ln until that is closed.
func (p *Ports) accept(ln loopback.Port, number uint16) {
	switch ln := ln.(type) {
	case net.Listener:
		relay.Accept(p.ctx, ln, func(c relay.Conn, client, dialed net.Addr) {
			p.wg.Go(func() {
				p.deliver(p.ctx, c, arrival{client: addrPort(client), dialed: addrPort(dialed).Addr(), port: number, own: true})
			})
		})
	case loopback.Packets:
		p.acceptDatagrams(ln, number)
	}
}
