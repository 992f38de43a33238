package rules

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/mirrord-go/mirrord/internal/protocol"
)

// Incoming decides about the ports that the program listens on. Make it with
// NewIncoming; its methods may be called concurrently.
type Incoming struct {
	o          IncomingOptions
	targetless bool
	mode       uint8             // 0: none of the target's traffic
	other      uint8             // of ports that HTTP.Ports does not hold; 0: none
	target     map[uint16]uint16 // PortMapping
	publish    map[uint16]uint16 // ListenPorts
	filter     string            // as Subscribe.Filter has it; empty: none
	tls        string            // as Subscribe.TLS has it; empty: nothing is decrypted
}

// modes are the names of what is asked of the agent.
var modes = map[string]uint8{IncomingMirror: protocol.ModeMirror, IncomingSteal: protocol.ModeSteal, IncomingOff: 0}

// NewIncoming makes the rules of a session. targetless: there is no target
// whose traffic could be had. The error names the key that is wrong.
func NewIncoming(o IncomingOptions, targetless bool) (*Incoming, error) {
	i := &Incoming{o: o, targetless: targetless, mode: protocol.ModeMirror}
	if o.Mode != "" {
		mode, ok := modes[o.Mode]
		if !ok {
			return nil, fmt.Errorf("incoming is %q; it can be %s, %s or %s", o.Mode, IncomingMirror, IncomingSteal, IncomingOff)
		}
		i.mode = mode
	}
	var err error
	if i.target, err = portTable("port_mapping", o.PortMapping); err != nil {
		return nil, err
	}
	if i.publish, err = portTable("listen_ports", o.ListenPorts); err != nil {
		return nil, err
	}
	for _, r := range o.DebuggerPorts {
		if r.First == 0 || r.Last < r.First {
			return nil, fmt.Errorf("the debugger's ports %d-%d are no range of ports", r.First, r.Last)
		}
	}
	if o.TLS != nil {
		files := *o.TLS
		files.Always = o.TLSDelivery.Plain
		if i.tls, err = files.Text(); err != nil {
			return nil, fmt.Errorf("tls: %w", err)
		}
	}
	if o.HTTP == nil {
		return i, nil
	}
	if i.filter, err = o.HTTP.Filter.Text(); err != nil {
		return nil, err
	}
	if o.HTTP.OtherPorts != "" {
		if i.other = modes[o.HTTP.OtherPorts]; i.other == 0 {
			return nil, fmt.Errorf("http_filter.other_ports is %q; it can be %s or %s", o.HTTP.OtherPorts, IncomingSteal, IncomingMirror)
		}
	}
	return i, nil
}

// HeldContinues reports whether a port that another session has becomes local
// only, instead of an error of listen(2).
func (i *Incoming) HeldContinues() bool { return i.o.Held == HeldContinue }

// HeldOverrides reports whether a port that is stolen is taken from another
// session that has it.
func (i *Incoming) HeldOverrides() bool { return i.o.Held == HeldOverride }

// portTable reads a table in which every port stands once.
func portTable(key string, pairs []PortPair) (map[uint16]uint16, error) {
	table := map[uint16]uint16{}
	for _, p := range pairs {
		to, twice := table[p.From]
		switch {
		case p.From == 0 || p.To == 0:
			return nil, fmt.Errorf("%s has port 0 in [%d, %d]; ports are 1 to 65535", key, p.From, p.To)
		case twice && to != p.To:
			return nil, fmt.Errorf("%s leads port %d to both %d and %d", key, p.From, to, p.To)
		}
		table[p.From] = p.To
	}
	return table, nil
}

// Listener is a listener of the program's.
type Listener struct {
	Addr    netip.AddrPort // where it listens, with the real port
	AnyPort bool           // the program asked for port 0
	UDP     bool           // it is bound to a UDP port
	// Debugger is the kind of debugger that the port is for; empty: none's.
	Debugger string
}

// Port is what becomes of a listener's port.
type Port struct {
	// Decision is Remote when the target's traffic is asked for, Local when the
	// port is open on the developer's machine only.
	Decision
	Mode   uint8  // protocol.ModeMirror, ModeTee or ModeSteal, of UDP with ModeUDP; 0 for Local
	Target uint16 // the target's port; also set for Local, as the one compared
	Filter string // protocol.Subscribe.Filter; empty: whole connections
	TLS    string // protocol.Subscribe.TLS; empty: what is under TLS stays so
	// BodySize and BodyTime are those of the Filter, as HTTPOptions has them.
	BodySize, BodyTime int
	// Publish is the port of the developer's loopback to open. With Exact it
	// must be that one, else listen fails; without, any will do where it is
	// taken.
	Publish uint16
	Exact   bool
}

// Filter is the filter of requests with the places where it was written; nil:
// there is none.
func (i *Incoming) Filter() *Filter {
	if i.o.HTTP == nil {
		return nil
	}
	return &i.o.HTTP.Filter
}

// Decide says what becomes of a listener's port.
func (i *Incoming) Decide(l Listener) Port {
	p := i.decide(l)
	if i.o.Lossless && p.Mode == protocol.ModeMirror {
		p.Mode = protocol.ModeTee
		p.Why += ", lossless"
	}
	if p.Mode == protocol.ModeSteal && (p.Filter != "" || i.o.TLSDelivery.Plain) {
		p.TLS = i.tls
	}
	return p
}

func (i *Incoming) decide(l Listener) Port {
	number := l.Addr.Port()
	p := Port{Target: number, Publish: number}
	if !l.AnyPort { // the tables are of ports that somebody asked for
		if to, ok := i.publish[number]; ok {
			p.Publish, p.Exact = to, true
		}
		if to, ok := i.target[number]; ok {
			p.Target = to
		}
	}
	if why := i.local(l, p.Target); why != "" {
		p.Decision = Decision{Local, why}
		return p
	}
	p.Mode, p.Filter = i.mode, i.filter
	if h := i.o.HTTP; h != nil && h.Ports != nil && !slices.Contains(h.Ports, p.Target) {
		if p.Mode, p.Filter = i.other, ""; p.Mode == 0 {
			p.Decision = Decision{Local, fmt.Sprintf("http_filter.ports does not have %d", p.Target)}
			return p
		}
		p.Decision = Decision{Remote, fmt.Sprintf("http_filter.other_ports is %s", h.OtherPorts)}
		return p.of(l)
	}
	if p.Filter != "" && l.UDP {
		p.Decision = Decision{Local, "datagrams have no requests that http_filter could match"}
		p.Mode, p.Filter = 0, ""
		return p
	}
	if i.o.HTTP != nil {
		p.BodySize, p.BodyTime = i.o.HTTP.BodySize, i.o.HTTP.BodyTime
	}
	why := "incoming is mirror"
	if p.Mode == protocol.ModeSteal {
		why = "incoming is steal"
	}
	if p.Filter != "" {
		why += ", with a filter"
	}
	p.Decision = Decision{Remote, why}
	return p.of(l)
}

// of is p with the mode of l's network.
func (p Port) of(l Listener) Port {
	if l.UDP {
		p.Mode |= protocol.ModeUDP
	}
	return p
}

// local is why a listener has nothing to do with the target; empty: it has.
func (i *Incoming) local(l Listener, target uint16) string {
	number := l.Addr.Port()
	switch {
	case i.targetless:
		return "no target was named, so nobody sends traffic"
	case i.mode == 0:
		return "incoming is off"
	case l.AnyPort:
		return "the program asked for any free port"
	case slices.ContainsFunc(i.o.DebuggerPorts, func(r PortRange) bool { return r.has(number) }):
		return "it is a debugger's port"
	case l.Debugger != "":
		return "it is a debugger's port (" + l.Debugger + ")"
	case i.o.IgnoreLocalhost && l.Addr.Addr().Unmap().IsLoopback():
		return "ignore_localhost is on and it listens on " + l.Addr.Addr().Unmap().String()
	case slices.Contains(i.o.IgnorePorts, number):
		return fmt.Sprintf("ignore_ports has %d", number)
	case i.o.Ports != nil && !slices.Contains(i.o.Ports, target):
		return fmt.Sprintf("ports does not have %d", target)
	}
	return ""
}
