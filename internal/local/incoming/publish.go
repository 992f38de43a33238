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
	listeners []net.Listener // none: this machine refuses
	busy      error          // why it is not the number that was wanted; nil: it is
}

// publish opens a port of the program's on this machine's loopback, both
// families: by the wanted number where it is free in both. Where not, exact
// makes that an error, which is told; else it is another number, or none if the
// machine refuses that as well.
func (p *Ports) publish(number, want uint16, exact bool) (pub publication, err error) {
	if p.ctx.Err() != nil {
		return pub, syscall.ESHUTDOWN
	}
	if p.o.Listen == nil {
		return pub, nil
	}
	pub.listeners, pub.busy = loopback.Listen(p.o.Listen, want)
	if pub.busy != nil {
		for _, ln := range pub.listeners { // "localhost" must not be two programs
			ln.Close()
		}
		pub.listeners = nil
		if exact {
			p.o.Emit(event.Event{Level: event.Warning, Code: "port-not-free", Flow: "incoming",
				Text:  fmt.Sprintf("port %d cannot be opened here as port %d, as listen_ports wants it: %v", number, want, pub.busy),
				Facts: map[string]string{"port": fmt.Sprint(number), "published": fmt.Sprint(want)}})
			return pub, syscall.EADDRINUSE
		}
		all, busy := loopback.Listen(p.o.Listen, 0)
		if pub.listeners = all; len(all) == 0 {
			pub.busy = busy
		}
	}
	for _, ln := range pub.listeners {
		p.wg.Go(func() { p.accept(ln, number) })
	}
	return pub, nil
}

// unpublish says so, except at the end of the session, which says it all.
func (p *Ports) unpublish(number uint16, pub publication) {
	for _, ln := range pub.listeners {
		ln.Close()
	}
	if p.ctx.Err() == nil {
		p.o.Emit(event.Event{Level: event.Detail, Code: "port-closed", Flow: "incoming",
			Text: fmt.Sprintf("port %d is closed", number), Facts: map[string]string{"port": fmt.Sprint(number)}})
	}
}

// accept delivers the connections of this machine's programs until ln is
// closed.
func (p *Ports) accept(ln net.Listener, number uint16) {
	relay.Accept(p.ctx, ln, func(c relay.Conn, client, dialed net.Addr) {
		p.wg.Go(func() {
			p.deliver(p.ctx, c, arrival{client: addrPort(client), dialed: addrPort(dialed).Addr(), port: number, own: true})
		})
	})
}
