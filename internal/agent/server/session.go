package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/netip"
	"os"
	"runtime"
	"sync"
	"syscall"
	"time"

	"github.com/mirrord-go/mirrord/internal/agent/capture"
	"github.com/mirrord-go/mirrord/internal/agent/claims"
	agentenv "github.com/mirrord-go/mirrord/internal/agent/env"
	"github.com/mirrord-go/mirrord/internal/agent/files"
	"github.com/mirrord-go/mirrord/internal/agent/incoming"
	"github.com/mirrord-go/mirrord/internal/agent/outgoing"
	"github.com/mirrord-go/mirrord/internal/agent/target"
	"github.com/mirrord-go/mirrord/internal/agent/tlsport"
	"github.com/mirrord-go/mirrord/internal/link"
	"github.com/mirrord-go/mirrord/internal/link/resume"
	"github.com/mirrord-go/mirrord/internal/protocol"
	"github.com/mirrord-go/mirrord/internal/rules/sharing"
	"github.com/mirrord-go/mirrord/internal/unixsock"
)

// session is one link being served.
type session struct {
	o         Options
	t         *target.Target // nil: see targetErr
	targetErr error
	lacks     Lacks

	link   *link.Conn
	hub    *incoming.Hub
	files  *files.Server // nil: this agent may not
	taps   *lazySource   // where copies of connections come from; nil without a target
	stolen *lazySource   // where datagrams come from
	copied *lazySource   // where copies of them do
	memory *memory
	states chan resume.State // the newest of the pipe; capacity 1

	mu    sync.Mutex
	hello *link.Stream // the control stream, once greeted
	user  string       // who the session belongs to, once greeted
	began time.Time    // then

	crowded sync.Once // target.ErrPorts was told
	dropped sync.Once // that descriptors are not carried was told
}

// serve owns pipe and returns when the link, the target or ctx has ended.
func (s *session) serve(ctx context.Context, pipe io.ReadWriteCloser) error {
	ctx, cancel := context.WithCancelCause(ctx)
	s.link = link.New(pipe, link.Agent, link.Options{Memory: s.memory.ofLink()})
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel(nil)
	if s.t != nil {
		redirects, taps := s.sources()
		stolen, copied := s.datagramSources()
		sources, missing := map[uint8]incoming.Source{protocol.ModeSteal: redirects, protocol.ModeMirror: taps,
			protocol.ModeSteal | protocol.ModeUDP: stolen, protocol.ModeMirror | protocol.ModeUDP: copied}, map[uint8]string{}
		lacks := map[uint8]string{}
		maps.Copy(lacks, s.lacks.Modes)
		if s.t.HostNetwork() {
			lacks[protocol.ModeSteal] = "the target uses the network of its node: stealing its ports would take the node's"
		}
		for mode, why := range lacks {
			for _, m := range []uint8{mode, mode | protocol.ModeUDP} {
				delete(sources, m)
				missing[m] = why
			}
		}
		before := s.existing()
		defer before.close()
		var read tlsport.ReadFile
		if s.files != nil {
			read = s.files.Content
		}
		s.hub = incoming.New(incoming.Options{Link: s.link, ReadFile: read, Sources: sources, Missing: missing, Original: redirects.DialOriginal, Notice: s.notice, Memory: s.memory.ofIncoming(),
			Existing: before, Session: s.who, Join: func(port uint16) (net.Conn, error) { return claims.Join(s.t, port) },
			Copy: func(client, dialed netip.AddrPort) incoming.Copy {
				return capture.NewConn(client, dialed, s.memory.copies)
			}})
		wg.Go(func() { s.hub.Run(ctx) })
		wg.Go(func() { s.follow(ctx) })
		s.taps, s.stolen, s.copied = taps, stolen, copied
		wg.Go(func() { s.tellLost(ctx) })
		wg.Go(func() { s.tellCounts(ctx, redirects.lazySource) })
		// Whatever hangs afterwards, the target has its ports back.
		for _, src := range []io.Closer{taps, copied, stolen, redirects} {
			defer src.Close()
		}
		defer s.hub.GiveBack() // at once, so that those who share a port have it again
	}
	stop := context.AfterFunc(ctx, func() { s.bye(context.Cause(ctx)) })
	defer stop()
	for {
		stream, m, err := s.link.Accept(ctx)
		if err != nil {
			cause := context.Cause(ctx)
			cancel(err)
			if cause != nil {
				return cause
			}
			return s.ended(err)
		}
		wg.Go(func() { s.answer(ctx, stream, m) })
	}
}

// note keeps the newest state of the pipe for follow.
func (s *session) note(state resume.State, _ error) {
	for {
		select {
		case s.states <- state:
			return
		default:
		}
		select {
		case <-s.states: // nobody has looked; it is old now
		default:
		}
	}
}

// follow gives the target its ports back while the link is lost: nobody would
// answer what was stolen. What was stolen before, and waits for an answer, gets
// one here when it has waited long enough.
func (s *session) follow(ctx context.Context) {
	late := time.NewTimer(s.o.LostReply)
	late.Stop()
	defer late.Stop()
	for {
		select {
		case state := <-s.states:
			s.hub.Suspend(state != resume.Back)
			late.Stop()
			if state == resume.Lost && s.o.LostReply > 0 {
				late.Reset(s.o.LostReply)
			}
		case <-late.C:
			s.hub.Abandon()
		case <-ctx.Done():
			return
		}
	}
}

// ended tells an orderly end, which is none of an error, from a loss.
func (s *session) ended(err error) error {
	var closed *link.ClosedError
	if errors.As(err, &closed) && closed.Remote && closed.Cause == nil {
		return nil
	}
	return err
}

// who is whose session this is, and since when.
func (s *session) who() sharing.Session {
	s.mu.Lock()
	defer s.mu.Unlock()
	return sharing.Session{Holder: s.user, Began: s.began}
}

// notice tells local something worth showing to the developer.
func (s *session) notice(code, text string) {
	s.mu.Lock()
	control := s.hello
	s.mu.Unlock()
	if control != nil {
		_ = control.Send(&protocol.Notice{Code: code, Text: text})
	}
}

// lossTime is how often the agent looks whether copies have been lost, in which
// nobody waits for the answer.
const lossTime = time.Second

// tellCounts tells local what becomes of what reaches stolen ports, until ctx
// ends: an agent that is replaced cannot be asked any more.
func (s *session) tellCounts(ctx context.Context, redirects *lazySource) {
	select {
	case <-redirects.ready:
	case <-s.stolen.ready:
	case <-ctx.Done():
		return
	}
	tellGrowth(ctx, s, s.counts)
}

// counts are those of now.
func (s *session) counts() protocol.Counts {
	c, l := s.hub.Counts(), s.lost()
	c.Packets, c.Copies = l.Packets, l.Copies
	c.Refused += s.stolen.lost()
	return c
}

// lost is what could not be copied.
func (s *session) lost() protocol.Lost {
	l := protocol.Lost{Packets: s.copied.lost(), Copies: s.hub.Counts().Copies}
	if tap, ok := s.taps.opened().(interface{ Stats() capture.Stats }); ok {
		st := tap.Stats()
		l.Packets += uint64(st.Dropped)
		l.Copies += uint64(st.Incomplete + st.Slow + st.Refused)
	}
	return l
}

// tellLost tells local what is lost of the copies, until ctx ends.
func (s *session) tellLost(ctx context.Context) {
	select {
	case <-s.taps.ready:
	case <-s.copied.ready:
	case <-ctx.Done():
		return
	}
	tellGrowth(ctx, s, s.lost)
}

// tellGrowth tells local what look gives whenever that is new, until ctx ends.
func tellGrowth[T comparable, M interface {
	*T
	protocol.Message
}](ctx context.Context, s *session, look func() T) {
	tick := time.NewTicker(lossTime)
	defer tick.Stop()
	var told T
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		now := look()
		s.mu.Lock()
		control := s.hello
		s.mu.Unlock()
		if now != told && control != nil && control.Send(M(&now)) == nil {
			told = now
		}
	}
}

// bye tells local why the agent ends.
func (s *session) bye(cause error) {
	s.mu.Lock()
	control := s.hello
	s.mu.Unlock()
	for code, known := range map[string]error{"target-ended": errTargetEnded, "agent-told": errTold} {
		if control != nil && errors.Is(cause, known) {
			if s.hub != nil { // nobody can ask any more
				counts := s.counts()
				_ = control.Send(&counts)
			}
			_ = control.Send(&protocol.Bye{Code: code, Text: cause.Error()})
		}
	}
	_ = s.link.Close(cause.Error())
}

// answer owns stream.
func (s *session) answer(ctx context.Context, stream *link.Stream, m protocol.Message) {
	if hello, ok := m.(*protocol.Hello); ok {
		s.greet(stream, hello)
		return
	}
	if s.t == nil {
		_ = stream.Send(&protocol.Answer{Errno: syscall.EIO, Cause: protocol.CauseTarget, Text: s.targetErr.Error()})
		stream.Close()
		return
	}
	switch m := m.(type) {
	case *protocol.EnvRequest:
		_ = agentenv.Serve(ctx, stream, s.memory.calls, s.t.Environ)
	case *protocol.Dial:
		s.outgoing().Serve(ctx, stream, m)
	case *protocol.Lookup:
		s.outgoing().Lookup(ctx, stream, m)
	case *protocol.CountsRequest:
		counts := s.counts()
		_ = stream.Send(&counts)
		stream.Close()
	case *protocol.Profile:
		serveProfile(ctx, stream, m)
	case *protocol.Subscribe:
		s.hub.Subscribe(ctx, stream, m)
	default:
		if s.files != nil && s.files.Serve(ctx, stream, m) {
			return
		}
		_ = stream.Send(&protocol.Answer{Errno: syscall.ENOSYS, Cause: protocol.CauseUnsupported,
			Text: fmt.Sprintf("the agent (%s) does not know requests of kind %d", s.o.Version, m.Kind())})
		stream.Close()
	}
}

// outgoing is what answers dials.
func (s *session) outgoing() *outgoing.Server {
	o := s.memory.ofOutgoing(s.dial)
	if s.t.Personates() {
		o.Unix = func(ctx context.Context, typ int, name string, wait bool) (*unixsock.Conn, error) {
			if claims.Is(name) { // other agents would take the program for this one
				return nil, fmt.Errorf("%s is for agents: %w", unixsock.Name(name), syscall.ECONNREFUSED)
			}
			return s.t.DialUnix(ctx, typ, name, wait)
		}
		o.Dropped = func(name string) {
			s.dropped.Do(func() {
				s.notice("unix-descriptors", fmt.Sprintf("the server at %s has sent descriptors, which cannot be carried to another machine: the program does not get them", unixsock.Name(name)))
			})
		}
	}
	return o
}

// dial is the target's, and tells once that it has no more ports for us.
func (s *session) dial(ctx context.Context, network string, a netip.AddrPort) (net.Conn, error) {
	c, err := s.t.Dial(ctx, network, a)
	if errors.Is(err, target.ErrPorts) {
		s.crowded.Do(func() {
			s.notice("outgoing-ports", fmt.Sprintf("connections to %v fail with EADDRNOTAVAIL: %v; what was closed less than a minute ago counts", a, target.ErrPorts))
		})
	}
	return c, err
}

// greet answers Hello and keeps the control stream open until local ends it.
func (s *session) greet(stream *link.Stream, hello *protocol.Hello) {
	defer stream.Close()
	software := fmt.Sprintf("mirrord-agent %s %s/%s", s.o.Version, runtime.GOOS, runtime.GOARCH)
	spoken := protocol.Spoken()
	version, older := spoken.Common(protocol.Versions{Min: hello.Min, Max: hello.Max})
	switch {
	case version == 0:
		update := "update mirrord"
		if older {
			update = "update the agent's image"
		}
		_ = stream.Send(&protocol.Answer{Errno: syscall.EPROTONOSUPPORT, Cause: protocol.CauseVersion,
			Text: fmt.Sprintf("%s speaks protocol %v, %s speaks %v: %s", software, spoken, hello.Software, protocol.Versions{Min: hello.Min, Max: hello.Max}, update)})
		return
	case s.t == nil:
		_ = stream.Send(&protocol.Answer{Errno: syscall.ESRCH, Cause: protocol.CauseTarget, Text: s.targetErr.Error()})
		return
	}
	s.mu.Lock()
	s.user, s.began = hello.User, time.Now()
	s.mu.Unlock()
	w, err := welcome(s.t, s.features())
	if err != nil {
		_ = stream.Send(&protocol.Answer{Errno: syscall.EIO, Cause: protocol.CauseTarget, Text: err.Error()})
		return
	}
	w.Version, w.Software = version, software
	s.mu.Lock() // so that a goodbye comes after the welcome, and comes
	err = stream.Send(w)
	s.hello = stream
	s.mu.Unlock()
	if err != nil {
		return
	}
	for _, text := range s.lacks.Else {
		s.notice("agent-lacks", text)
	}
	_, _ = io.Copy(io.Discard, stream) // until local closes it, or bye the link
}

// features are what this agent can do for the target.
func (s *session) features() []string {
	all := []string{protocol.FeatureMirror, protocol.FeatureHTTPFilter, protocol.FeatureHostFilter, protocol.FeatureClientFilter, protocol.FeatureSNIFilter, protocol.FeatureBodyFilter, protocol.FeatureLookups, protocol.FeatureCounts, protocol.FeatureUDP}
	if s.files != nil {
		all = append(all, protocol.FeatureFiles)
	}
	if !s.t.HostNetwork() {
		all = append(all, protocol.FeatureSteal, protocol.FeatureTee)
		if s.files != nil {
			all = append(all, protocol.FeatureTLS)
		}
	}
	if s.t.Personates() {
		all = append(all, protocol.FeatureUnix)
	}
	return all
}

// welcome describes t.
func welcome(t *target.Target, features []string) (*protocol.Welcome, error) {
	addrs, err := t.Addrs()
	if err != nil {
		return nil, fmt.Errorf("read the target's addresses: %w", err)
	}
	hostname, err := t.Hostname()
	if err != nil {
		return nil, fmt.Errorf("read the target's hostname: %w", err)
	}
	mounts, err := t.Mounts()
	if err != nil {
		return nil, fmt.Errorf("read the target's mounts: %w", err)
	}
	w := &protocol.Welcome{Hostname: hostname, Addrs: addrs, Mounts: mounts, UID: t.UID, GID: t.GID, Targetless: t.Targetless(), Features: features}
	w.SYNRetries, w.SYNLinear = t.SYNRetries()
	w.Dir, _ = os.Readlink(fmt.Sprintf("/proc/%d/cwd", t.PID)) // for information only
	return w, nil
}
