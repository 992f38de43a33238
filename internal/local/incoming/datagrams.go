package incoming

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"github.com/mirrord-go/mirrord/internal/datagram"
	"github.com/mirrord-go/mirrord/internal/link"
	"github.com/mirrord-go/mirrord/internal/local/loopback"
	"github.com/mirrord-go/mirrord/internal/protocol"
	"github.com/mirrord-go/mirrord/internal/udpflow"
)

const (
	// hereIdle is how long datagrams of this machine's are one flow with nothing
	// said, and maxHere how many there are of a port.
	hereIdle = time.Minute
	maxHere  = 256
)

// flow is a client's datagrams to a port of the program.
type flow interface {
	// Next waits for the next one; its error is the end.
	Next() ([]byte, error)
	// Write answers.
	Write([]byte) (int, error)
	Close() error
}

// remoteFlow is that of a client of the target.
type remoteFlow struct{ *link.Stream }

func (f remoteFlow) Next() ([]byte, error) {
	d, err := f.ReceiveDatagram()
	if err != nil {
		return nil, err
	}
	return d.Data, nil
}

func (f remoteFlow) Write(p []byte) (int, error) {
	return len(p), f.Send(&protocol.Datagram{Data: p})
}

// carryDatagrams owns far: it carries datagrams to the program, and back unless
// they are copies, until far ends, or ctx.
func (p *Ports) carryDatagrams(ctx context.Context, far flow, a arrival) {
	defer far.Close()
	near, _, err := p.dial(ctx, a)
	if err != nil {
		if f, ok := far.(remoteFlow); ok {
			_ = f.Reset(syscall.ECONNREFUSED)
		}
		p.notDelivered(a, err)
		return
	}
	call := p.o.Activity.Incoming(a.activity(), !a.target)
	defer call.Close()
	p.tellDelivered(a)
	stop := context.AfterFunc(ctx, func() { far.Close(); near.Close() })
	defer stop()
	var wg sync.WaitGroup
	defer wg.Wait()
	defer near.Close()
	wg.Go(func() {
		buf := datagram.Take()
		defer datagram.Give(buf)
		for {
			n, err := near.Read(buf[:])
			switch {
			case errors.Is(err, syscall.ECONNREFUSED): // the program's socket is gone, for now
			case err != nil:
				far.Close()
				return
			case !a.copied:
				if _, err := far.Write(buf[:n]); err == nil {
					call.Carried(0, int64(n))
				}
			}
		}
	})
	for {
		d, err := far.Next()
		if err != nil {
			return
		}
		if _, err := near.Write(d); err == nil { // else it is lost, as on any way
			call.Carried(int64(len(d)), 0)
		}
	}
}

// answerBy answers on the socket that a client has sent to.
func answerBy(c net.PacketConn) func(from, client netip.AddrPort, b []byte) error {
	return func(_, client netip.AddrPort, b []byte) error {
		_, err := c.WriteTo(b, net.UDPAddrFromAddrPort(client))
		return err
	}
}

// acceptDatagrams delivers what this machine's programs send to c, until that is
// closed.
func (p *Ports) acceptDatagrams(c loopback.Packets, number uint16) {
	local := addrPort(c.LocalAddr())
	flows := udpflow.New(udpflow.Options{Idle: hereIdle, Max: maxHere, Answer: answerBy(c)})
	p.wg.Go(func() {
		for {
			f, err := flows.Accept(p.ctx)
			if err != nil {
				return
			}
			p.wg.Go(func() {
				p.carryDatagrams(p.ctx, f.(*udpflow.Flow), arrival{client: addrPort(f.RemoteAddr()), dialed: local.Addr(), port: number, own: true, udp: true})
			})
		}
	})
	defer flows.Close()
	buf := make([]byte, datagram.Max)
	for {
		n, client, err := c.ReadFrom(buf)
		switch {
		case err == nil:
			flows.Deliver(addrPort(client), local, buf[:n])
		case errors.Is(err, net.ErrClosed):
			return
		}
	}
}
