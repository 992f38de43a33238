package forward

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"

	"github.com/mirrord-go/mirrord/internal/failure"
	"github.com/mirrord-go/mirrord/internal/local/loopback"
)

// Opened is a Local with its listeners.
type Opened struct {
	Local
	listeners []net.Listener
}

// At are the addresses where it is open.
func (o *Opened) At() (all []string) {
	for _, ln := range o.listeners {
		all = append(all, ln.Addr().String())
	}
	return all
}

// Open opens the local ends, before anything is started elsewhere; open is
// net.Listen in the product. Who connects waits until they are served. An error
// leaves none open.
func Open(open func(network, address string) (net.Listener, error), ls []Local) ([]*Opened, error) {
	var all []*Opened
	for _, l := range ls {
		o := &Opened{Local: l}
		var err error
		if l.Listen.IsValid() {
			var ln net.Listener
			if ln, err = open("tcp", netip.AddrPortFrom(l.Listen, l.Port).String()); err == nil {
				o.listeners = append(o.listeners, ln)
			}
		} else {
			o.listeners, err = loopback.Listen(open, l.Port)
		}
		all = append(all, o)
		if err != nil {
			Close(all)
			return nil, notOpened(l, err)
		}
	}
	return all, nil
}

// Close closes listeners that nobody serves.
func Close(all []*Opened) {
	for _, o := range all {
		for _, ln := range o.listeners {
			ln.Close()
		}
	}
}

func notOpened(l Local, err error) error {
	f := &failure.Error{Code: "forward-port", What: fmt.Sprintf("port %d of this machine cannot be opened for -L %s", l.Port, l.Text), Why: err.Error(), Cause: err,
		Do: fmt.Sprintf("take a free port: -L 0:%s", l.To())}
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		f.Do = fmt.Sprintf("see whose it is: ss -ltnp 'sport = :%d'; or %s", l.Port, f.Do)
	case errors.Is(err, syscall.EACCES):
		f.Do = "ports below 1024 are for root: take another one, for example -L " + fmt.Sprintf("%d:%s", 8000+int(l.Port), l.To())
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		f.Do = "name an address of this machine (ip -br address), or none: 127.0.0.1 and [::1]"
	}
	return f
}
