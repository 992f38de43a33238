package incoming

import (
	"errors"
	"fmt"
	"net"
	"syscall"
	"time"

	"github.com/mirrord-go/mirrord/internal/relay"
)

// publishPause is how long a listener rests after accept(2) has failed: it
// does when this process has no descriptor left, and nothing tells when there
// is one again.
const publishPause = 100 * time.Millisecond

// publish opens the port on this machine's loopback, both families: the same
// number where it is free in both, another where not, none if the machine
// refuses that as well. busy is why it is not the same number.
func (p *Ports) publish(number uint16) (all []net.Listener, busy error) {
	all, busy = p.listen(number)
	if busy != nil {
		for _, ln := range all { // "localhost" must not be two programs
			ln.Close()
		}
		var err error
		if all, err = p.listen(0); len(all) == 0 {
			return nil, err
		}
	}
	for _, ln := range all {
		p.wg.Go(func() { p.accept(ln, number) })
	}
	return all, busy
}

// listen opens a number, or a free one for 0, in both families. A family that
// this machine has not is left out. The error is of the first listener, or says
// that the number is somebody else's in one of the families.
func (p *Ports) listen(number uint16) (all []net.Listener, err error) {
	for _, host := range []string{"127.0.0.1", "::1"} {
		want := number
		if want == 0 && len(all) > 0 { // the second family follows the first's number
			want = addrPort(all[0].Addr()).Port()
		}
		ln, lerr := p.o.Listen("tcp", net.JoinHostPort(host, fmt.Sprint(want)))
		switch {
		case lerr == nil:
			all = append(all, ln)
		case number == 0 && len(all) > 0: // one family of a free number will do
		case errors.Is(lerr, syscall.EADDRINUSE), errors.Is(lerr, syscall.EACCES), err == nil && len(all) == 0:
			err = lerr
		}
	}
	if len(all) > 0 && !errors.Is(err, syscall.EADDRINUSE) && !errors.Is(err, syscall.EACCES) {
		err = nil // only a family is missing
	}
	return all, err
}

// accept delivers the connections of this machine's programs until ln is
// closed.
func (p *Ports) accept(ln net.Listener, number uint16) {
	for {
		c, err := ln.Accept()
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil:
			select {
			case <-time.After(publishPause):
			case <-p.ctx.Done():
			}
			continue
		}
		conn, ok := c.(relay.Conn)
		if !ok {
			c.Close()
			continue
		}
		p.wg.Go(func() {
			p.deliver(p.ctx, conn, arrival{client: addrPort(c.RemoteAddr()), dialed: addrPort(c.LocalAddr()).Addr(), port: number})
		})
	}
}
