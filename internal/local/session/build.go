package session

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"

	"github.com/mirrord-go/mirrord/internal/event"
	"github.com/mirrord-go/mirrord/internal/link"
	"github.com/mirrord-go/mirrord/internal/local/attach"
	"github.com/mirrord-go/mirrord/internal/local/files"
	"github.com/mirrord-go/mirrord/internal/local/fusefs"
	"github.com/mirrord-go/mirrord/internal/local/ids"
	"github.com/mirrord-go/mirrord/internal/local/incoming"
	"github.com/mirrord-go/mirrord/internal/local/netstack"
	"github.com/mirrord-go/mirrord/internal/local/replicas"
	"github.com/mirrord-go/mirrord/internal/local/sandbox"
	"github.com/mirrord-go/mirrord/internal/local/sandbox/handoff"
	"github.com/mirrord-go/mirrord/internal/protocol"
	"github.com/mirrord-go/mirrord/internal/rules"
	"github.com/mirrord-go/mirrord/internal/shell"
)

// built is what serves the sandbox of a session.
type built struct {
	box   *sandbox.Box
	stack *netstack.Stack
	ports *incoming.Ports
	tree  *files.Tree
	fuse  *fusefs.Server
	fleet *replicas.Fleet
	unix  *sandbox.Unix // nil: unix sockets are all this machine's

	ctx    context.Context // what serves the sandbox ends with it
	helper chan error      // gets the end of the sandbox's helper; capacity 1
	cancel context.CancelFunc
	wg     sync.WaitGroup

	subscribed chan struct{} // closed when the first port of the target is given
}

// build makes the sandbox ready: after it, only Go is missing.
func (s *supervisor) build(ctx context.Context) (_ *built, err error) {
	var env []string
	if s.kept != nil {
		s.kept.vars, err = s.variables(ctx)
	} else if s.start.Container != nil {
		s.container, err = s.contained(ctx)
	} else {
		env, err = s.environment(ctx)
	}
	if err != nil {
		return nil, err
	}
	in, err := s.cfg.IncomingRules()
	if err != nil {
		return nil, err
	}
	b := &built{helper: make(chan error, 1), subscribed: make(chan struct{})}
	ctx, b.cancel = context.WithCancel(ctx)
	b.ctx = ctx
	defer func() {
		if err != nil {
			s.fail(ctx, err)
			b.close()
		}
	}()

	pod := s.hold.First().Pod()
	spec := handoff.Spec{
		Argv: s.start.Argv, Env: env, Dir: s.start.Dir,
		Hostname: s.hostname(), Addrs: s.addrs(pod), NoIPv6: s.cfg.IPv6Off, SYNRetries: pod.SYNRetries, SYNLinear: pod.SYNLinear, FUSE: true, MaxRead: fusefs.MaxRead,
		Connects: len(s.cfg.Outgoing.UnixStreams) > 0,
	}
	traffic := s.outgoing(ctx, b)
	if err := s.openTree(b, &spec); err != nil {
		return nil, err
	}
	if s.start.Container != nil {
		spec.Argv, spec.Env = s.container.argv, s.container.env
	}
	b.box, err = sandbox.Attach(ctx, s.init, spec, sandbox.Options{OnFUSE: func(fd *os.File, known ids.Known) error {
		b.fuse, err = fusefs.Serve(fd, s.watchFiles(s.learn.watch(b.tree)), known, s.activity.FileWait)
		return err
	}})
	if err != nil {
		return nil, sandbox.Explain(err)
	}
	s.emit(event.Event{Level: event.Detail, Code: "sandbox-made", Text: "the sandbox has its network and its files"})
	out, err := traffic()
	if err != nil {
		return nil, err
	}
	s.emit(event.Event{Level: event.Detail, Code: "resolver-read", Flow: "dns", Text: "the target's resolver is known"})
	device, address := b.box.Device()
	b.stack, err = netstack.New(device, address, out, s.memory.ofStack())
	if err != nil {
		return nil, fmt.Errorf("start the network stack: %w", err)
	}
	b.ports = incoming.New(incoming.Options{
		Link: s.peer, Rules: in, Probes: s.hold.First().Agent().Probes(), Host: s.host(b.box), Emit: s.emit, Activity: s.activity, Existing: s.cfg.Incoming.Subscribed(), RemoteOutgoing: !s.cfg.Outgoing.TCPLocal, Relayed: s.memory.relayed, Listen: net.Listen, ListenPacket: net.ListenPacket, Window: attach.ResumeWindow(&s.cfg),
		Dial: func(ctx context.Context, a incoming.Attempt) (net.Conn, error) {
			if a.Way == incoming.Inside {
				return b.box.DialLocal(ctx, "tcp", a.Src, a.Dst)
			}
			return b.stack.Dial(ctx, a.Src, a.Dst)
		},
		DialUDP: func(ctx context.Context, a incoming.Attempt) (net.Conn, error) {
			if a.Way == incoming.Inside {
				return b.box.DialLocal(ctx, "udp", a.Src, a.Dst)
			}
			return b.stack.DialUDP(a.Src, a.Dst)
		},
		Try:        s.try,
		Subscribed: sync.OnceFunc(func() { close(b.subscribed) }),
		Follow:     func(from, to netip.AddrPort) incoming.Peer { return b.box.Follow(from, to) },
		Accept:     s.cfg.Incoming.AcceptTime(), Queues: b.box, Delivery: s.delivery,
	})
	b.fleet = s.newFleet(b)
	watch := b.box.Watch
	if s.kept != nil {
		watch = b.box.Hold
	}
	b.wg.Go(func() {
		err := watch(ctx, sandbox.Hooks{
			Listen: func(ctx context.Context, l sandbox.Listener) error {
				return b.ports.Listening(ctx, incoming.Listener{ID: l.ID, Addr: l.Addr, AnyPort: l.AnyPort, Debugger: s.debuggers.listener(l.PID, l.Addr.Port())})
			},
			BindUDP: func(ctx context.Context, l sandbox.Listener) error {
				if l.AnyPort { // a client's
					return nil
				}
				return b.ports.Listening(ctx, incoming.Listener{ID: l.ID, Addr: l.Addr, UDP: true, Debugger: s.debuggers.listener(l.PID, l.Addr.Port())})
			},
			Closed: b.ports.Closed,
			Unix:   b.unix,
			Socket: s.notCarried(),
		})
		if err != nil && ctx.Err() == nil {
			s.emit(event.Event{Level: event.Warning, Code: "no-watch", Flow: "incoming", Text: fmt.Sprintf("new listeners are not noticed any more: %v", err)})
		}
	})
	b.wg.Go(func() {
		if err := b.box.Keep(ctx, s.helperStopped); err != nil {
			b.helper <- err
		}
	})
	b.wg.Go(func() { s.acceptStreams(ctx, ctx, b, &b.wg, s.hold.First()) })
	if s.cfg.FilesRules().Mode != rules.FilesLocal {
		b.wg.Go(func() { s.findWatchers(ctx, b) })
	}
	return b, nil
}

func (s *supervisor) helperStopped() {
	s.emit(event.Event{Level: event.Warning, Code: "helper-stopped", Text: "the process that guards the sandbox was stopped; it has been continued"})
}

// acceptStreams hands an agent's streams to their flow until its link ends, or
// accepting. wg is for what carries them, which ends with ctx.
func (s *supervisor) acceptStreams(ctx, accepting context.Context, b *built, wg *sync.WaitGroup, at *attach.Attachment) {
	at.Incoming(accepting, func(stream *link.Stream, in *protocol.Incoming) {
		in.Local = s.toSandbox(at.Pod(), in.Local)
		wg.Go(func() { b.ports.Serve(ctx, stream, in) })
	})
}

// close ends everything in the opposite order of build.
func (b *built) close() {
	b.cancel()
	if b.ports != nil {
		b.ports.Close()
	}
	if b.box != nil {
		b.box.Close()
	}
	b.wg.Wait()
	if b.stack != nil {
		b.stack.Close()
	}
	if b.fuse != nil {
		_ = b.fuse.Close() // too late only for a process that cannot be killed; the end of this one aborts the mount
	}
	if b.tree != nil {
		b.tree.Close()
	}
}

// host is what the sandbox's addresses are.
func (s *supervisor) host(b *sandbox.Box) (h incoming.Host) {
	h.Localhost4, h.Localhost6 = b.Localhost()
	h.Pod4, h.Pod6 = s.podAddrs(s.hold.First().Pod())
	return h
}

// try gives a command that sends a request with the header that the filter wants
// to a port of the target, from a session of its own that has nothing but the
// cluster's network; "" if there is none.
func (s *supervisor) try(port uint16) string {
	h := s.cfg.Incoming.HTTP
	v4, v6 := s.podAddrs(s.hold.First().Pod())
	at := v4
	if !at.IsValid() {
		at = v6
	}
	if h == nil || h.Filter.Line() == "" || s.cfg.Namespace == "" || !at.IsValid() {
		return ""
	}
	argv := []string{"mirrord", "exec", "-n", s.cfg.Namespace}
	if s.cfg.Context != "" {
		argv = append(argv, "--context", s.cfg.Context)
	}
	return shell.Line(append(argv, "curl", "-H", h.Filter.Line(), "http://"+netip.AddrPortFrom(at, port).String()+"/")...)
}

// addrs are a pod's addresses of the families that the session has.
func (s *supervisor) addrs(pod *protocol.Welcome) []netip.Prefix {
	return slices.DeleteFunc(slices.Clone(pod.Addrs), func(p netip.Prefix) bool { return s.cfg.IPv6Off && p.Addr().Is6() })
}

// podAddrs gives a pod's first address of each family.
func (s *supervisor) podAddrs(pod *protocol.Welcome) (v4, v6 netip.Addr) {
	for _, p := range s.addrs(pod) {
		switch a := p.Addr(); {
		case a.Is4() && !v4.IsValid():
			v4 = a
		case a.Is6() && !v6.IsValid():
			v6 = a
		}
	}
	return v4, v6
}

// hostname is what the sandbox is called.
func (s *supervisor) hostname() string {
	if s.cfg.HostnameLocal {
		if name, err := os.Hostname(); err == nil {
			return name
		}
	}
	return s.hold.First().Pod().Hostname
}

// translate gives the addresses that the sandbox's rules use their meaning in
// the target.
func (s *supervisor) translate(a netip.AddrPort) netip.AddrPort {
	v4, v6 := s.podAddrs(s.hold.Now().Pod())
	switch a.Addr() {
	case handoff.Localhost4:
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), a.Port())
	case handoff.Localhost6:
		return netip.AddrPortFrom(netip.IPv6Loopback(), a.Port())
	case handoff.Self4:
		return netip.AddrPortFrom(v4, a.Port())
	case handoff.Self6:
		return netip.AddrPortFrom(v6, a.Port())
	}
	return a
}

// toSandbox gives an address of a pod that has replaced the first the one that
// the sandbox has instead.
func (s *supervisor) toSandbox(pod *protocol.Welcome, a netip.AddrPort) netip.AddrPort {
	v4, v6 := s.podAddrs(pod)
	own4, own6 := s.podAddrs(s.hold.First().Pod())
	switch ip := a.Addr().Unmap(); {
	case ip == v4 && own4.IsValid():
		return netip.AddrPortFrom(own4, a.Port())
	case ip == v6 && own6.IsValid():
		return netip.AddrPortFrom(own6, a.Port())
	}
	return a
}
