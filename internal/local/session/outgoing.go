package session

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/mirrord-go/mirrord/internal/event"
	"github.com/mirrord-go/mirrord/internal/local/dns"
	"github.com/mirrord-go/mirrord/internal/local/kin"
	"github.com/mirrord-go/mirrord/internal/local/netstack"
	"github.com/mirrord-go/mirrord/internal/local/outgoing"
	"github.com/mirrord-go/mirrord/internal/protocol"
	"github.com/mirrord-go/mirrord/internal/rules"
)

// outgoing begins to read the files that say how names resolve, and gives a
// function that waits for them and makes what answers the program's traffic.
// b waits for the reading, which ends with ctx.
func (s *supervisor) outgoing(ctx context.Context, b *built) func() (netstack.Handler, error) {
	var conf, hosts string
	var known bool
	var read sync.WaitGroup
	if !s.cfg.DNS.Local {
		read.Add(2)
		b.wg.Go(func() { defer read.Done(); conf, known = s.targetFile(ctx, "/etc/resolv.conf") })
		b.wg.Go(func() { defer read.Done(); hosts, _ = s.targetFile(ctx, "/etc/hosts") })
	}
	return func() (netstack.Handler, error) {
		read.Wait()
		o := dns.Options{Hosts: dns.ParseHosts(hosts), Here: dns.Machine(), Emit: s.emit, Activity: s.activity}
		switch {
		case s.cfg.DNS.Local:
			o.Conf, o.Hosts = dns.Remembered(dns.MachineConf), dns.MachineHosts() // the program sees the file as it is now: a VPN changes it
		case known:
			c := dns.ParseConf(conf)
			o.Conf = func() dns.Conf { return c }
		}
		return s.handler(b, o)
	}
}

// handler makes what answers the program's traffic, and its unix sockets.
func (s *supervisor) handler(b *built, o dns.Options) (h netstack.Handler, err error) {
	var search []string
	if o.Conf != nil {
		search = o.Conf().Search
	}
	if o.Rules, err = rules.NewDNS(s.cfg.DNS, search); err != nil {
		return h, err
	}
	names := dns.New(o)
	family := kin.Of(s.start.Front)
	out := &outgoing.Router{
		Link: s.peer, Translate: s.translate, Names: names.Of, Resolve: names.Resolve, Emit: s.emit, Activity: s.activity, Relayed: s.memory.relayed, Connections: s.memory.outgoing,
		Debugger: s.debuggers.waits, LostSince: func(t time.Time) bool { return s.hold.Now().LostSince(t) },
		Lookups: func() bool { return slices.Contains(s.hold.Now().Pod().Features, protocol.FeatureLookups) },
		Here: func(at netip.AddrPort) (outgoing.Listener, bool) {
			if s.kept != nil {
				return s.kept.listener(at)
			}
			l, ok := family.Listener(at)
			return outgoing.Listener(l), ok
		},
	}
	if out.Rules, err = rules.NewOutgoing(s.cfg.Outgoing); err != nil {
		return h, err
	}
	b.unix = unixHooks(out)
	return netstack.Handler{
		TCP: func(ctx context.Context, f *netstack.TCPFlow) {
			to, ok := names.Server(s.translate(f.Dst()))
			if !ok {
				out.TCP(ctx, f)
				return
			}
			names.TCP(ctx, f, func(ctx context.Context, f dns.TCPFlow, d rules.Decision) { out.CarryTCP(ctx, f, to, d) })
		},
		UDP: func(ctx context.Context, f *netstack.UDPFlow) {
			to, ok := names.Server(s.translate(f.Dst()))
			if !ok {
				out.UDP(ctx, f)
				return
			}
			names.UDP(ctx, f, func(ctx context.Context, f dns.UDPFlow, d rules.Decision) { out.CarryLookups(ctx, f, to, d) })
		},
		Echo: func(ctx context.Context, f *netstack.EchoFlow) { out.Ping(ctx, f) },
		Stray: func(p netstack.Stray) {
			p.Dst = s.translate(p.Dst)
			out.Stray(outgoing.Stray(p))
		},
	}, nil
}

// targetFile gives the beginning of a file of the target's; ok is false if it
// cannot be read.
func (s *supervisor) targetFile(ctx context.Context, path string) (text string, ok bool) {
	if text, ok = dns.TargetFile(ctx, s.peer, path); ok {
		return text, true
	}
	s.emit(event.Event{Level: event.Detail, Code: "names-file", Flow: "dns",
		Text: path + " of the target cannot be read: rules by name know less", Facts: map[string]string{"path": path}})
	return "", false
}

// maxKinds bounds what is told of sockets: a program may have many names.
const maxKinds = 100

// notCarried says once for each program and kind of socket that a session does
// not carry it. What it gives is called by one goroutine.
func (s *supervisor) notCarried() func(kind string, pid int) {
	told := map[string]bool{}
	return func(kind string, pid int) {
		b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
		program := strings.TrimSpace(string(b))
		if told[kind+program] || len(told) >= maxKinds {
			return
		}
		told[kind+program] = true
		text := fmt.Sprintf("asks for a socket of kind %s: a session carries TCP, UDP and ping", kind)
		switch {
		case kind == "raw ICMP":
			text += ", and ping by such a socket only for who has CAP_NET_RAW; all have datagram sockets for it"
		case strings.HasSuffix(kind, "_MARK"), strings.HasSuffix(kind, "_TRANSPARENT"):
			text = fmt.Sprintf("asks for %s: that holds in the sandbox only, what a session carries leaves the target without", kind)
		}
		s.emit(event.Event{Level: event.Info, Code: "socket-kind", Flow: "outgoing", Facts: map[string]string{"kind": kind, "program": program, "pid": fmt.Sprint(pid)},
			Text: fmt.Sprintf("%s (process %d) %s", program, pid, text)})
	}
}
