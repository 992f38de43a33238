package incoming

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mirrord-go/mirrord/internal/leak"
	"github.com/mirrord-go/mirrord/internal/link"
	"github.com/mirrord-go/mirrord/internal/protocol"
	"github.com/mirrord-go/mirrord/internal/rules"
)

// nowhere is a machine that lets nobody listen.
func nowhere(string, string) (net.Listener, error) { return nil, syscall.EACCES }

func TestListenReturnsWhenTrafficFlows(t *testing.T) {
	for mode, name := range map[uint8]string{protocol.ModeMirror: "mirror", protocol.ModeSteal: "steal"} {
		t.Run(name, func(t *testing.T) {
			b := setUp(t, mode)
			asked, answer := make(chan struct{}), make(chan struct{})
			b.agent.answer = func(*protocol.Subscribe) *protocol.Answer { close(asked); <-answer; return &protocol.Answer{} }
			port := freePort(t)
			returned := make(chan error, 1)
			go func() {
				returned <- b.Listening(t.Context(), Listener{ID: 1, Addr: netip.MustParseAddrPort(at("0.0.0.0", port))})
			}()
			within(t, "the question", asked)
			if len(returned) > 0 {
				t.Error("listen returned before the agent's answer")
			}
			close(answer)
			if err := within(t, "listen", returned); err != nil {
				t.Fatal(err)
			}
			s := within(t, "a subscription", b.agent.subs)
			if s.Port != port || s.Mode != mode || s.Filter != "" {
				t.Errorf("asked for %+v", *s.Subscribe)
			}
			if s.s.Lane() != link.Interactive {
				t.Error("a question goes as bulk")
			}
			e := b.event("port-open")
			if e.Facts["published"] != at("127.0.0.1", port) || e.Facts["mode"] != name {
				t.Errorf("the event says %v", e.Facts)
			}
			if want := "open here at 127.0.0.1:" + fmt.Sprint(port); !strings.HasSuffix(e.Text, want) {
				t.Errorf("the event says %q, want it to end with %q", e.Text, want)
			}
			b.Closed(1)
			if err := within(t, "the end of the subscription", s.ended); !errors.Is(err, io.EOF) {
				t.Errorf("the subscription ended with %v, want in order", err)
			}
			if reachable(t, port) {
				t.Error("the published port is still open")
			}
			b.wantEvents("port-open", "port-closed")
			b.Closed(1) // not known any more
			b.Closed(77)
			b.wantEvents("port-open", "port-closed")
		})
	}
}

func TestConflictIsEADDRINUSE(t *testing.T) {
	b := setUp(t, protocol.ModeSteal)
	held := &protocol.Answer{Errno: syscall.EADDRINUSE, Cause: protocol.CauseHeld, Text: "port 80 is held by bob@desk"}
	b.agent.answer = func(*protocol.Subscribe) *protocol.Answer { return held }
	port := freePort(t)
	addr := netip.MustParseAddrPort(at("0.0.0.0", port))
	if err := b.Listening(t.Context(), Listener{ID: 1, Addr: addr}); err != syscall.EADDRINUSE {
		t.Errorf("got %v, want EADDRINUSE", err)
	}
	if e := b.event("port-held"); !strings.Contains(e.Text, "held by bob@desk") {
		t.Errorf("the event says %q", e.Text)
	}
	if reachable(t, port) {
		t.Error("the port that failed is still open")
	}
	// The program tries again when bob has gone.
	held = &protocol.Answer{}
	if err := b.Listening(t.Context(), Listener{ID: 2, Addr: addr}); err != nil {
		t.Errorf("the second try: %v", err)
	}
	b.wantEvents("port-held", "port-open")
}

// With on_concurrent_steal: continue the program serves this machine.
func TestConflictThatGoesOn(t *testing.T) {
	b := setUpWith(t, rules.IncomingOptions{Mode: rules.IncomingSteal, Held: rules.HeldContinue})
	b.agent.answer = func(*protocol.Subscribe) *protocol.Answer {
		return &protocol.Answer{Errno: syscall.EADDRINUSE, Cause: protocol.CauseHeld, Text: "port 80 is held by bob@desk since 14:00 UTC, who takes all of it"}
	}
	port := freePort(t)
	if err := b.Listening(t.Context(), Listener{ID: 1, Addr: netip.MustParseAddrPort(at("0.0.0.0", port))}); err != nil {
		t.Errorf("listen fails: %v", err)
	}
	e := b.event("port-held")
	for _, want := range []string{"held by bob@desk since 14:00 UTC", "open on this machine only", "--header 'NAME: VALUE'"} {
		if !strings.Contains(e.Text, want) {
			t.Errorf("the event says %q, want %q in it", e.Text, want)
		}
	}
	b.wantEvents("port-held", "port-open")
	if !reachable(t, port) {
		t.Error("the port is not open here")
	}
}

// A copy that is lossless takes the port, and says so; one that is not would not.
func TestLossless(t *testing.T) {
	b := setUpWith(t, rules.IncomingOptions{Lossless: true})
	refused := &protocol.Answer{}
	b.agent.answer = func(m *protocol.Subscribe) *protocol.Answer {
		if m.Mode != protocol.ModeTee {
			t.Errorf("the agent is asked for mode %d", m.Mode)
		}
		if !m.Replies {
			t.Error("the agent does not know that replies can travel back")
		}
		return refused
	}
	if err := b.Listening(t.Context(), Listener{ID: 1, Addr: netip.MustParseAddrPort(at("0.0.0.0", freePort(t)))}); err != nil {
		t.Fatal(err)
	}
	if e := b.event("port-open"); !strings.Contains(e.Text, "is mirrored, lossless") || e.Facts["mode"] != "mirror" {
		t.Errorf("the event is %+v", e)
	}
	refused = &protocol.Answer{Errno: syscall.EADDRINUSE, Cause: protocol.CauseHeld, Text: "port 80 is held by bob@desk"}
	if err := b.Listening(t.Context(), Listener{ID: 2, Addr: netip.MustParseAddrPort(at("0.0.0.0", freePort(t)))}); err != syscall.EADDRINUSE {
		t.Errorf("got %v, want EADDRINUSE", err)
	}
	if e := b.event("port-held"); !strings.Contains(e.Text, "lossless away") {
		t.Errorf("the event says %q", e.Text)
	}
}

// All who wait for the same answer get it, and nothing stale is left.
func TestConflictOfSeveralListeners(t *testing.T) {
	b := setUp(t, protocol.ModeSteal)
	answer := make(chan *protocol.Answer)
	b.agent.answer = func(*protocol.Subscribe) *protocol.Answer { return <-answer }
	port := freePort(t)
	var wg sync.WaitGroup
	for id := range uint64(4) {
		wg.Go(func() {
			if err := b.Listening(t.Context(), Listener{ID: id, Addr: netip.MustParseAddrPort(at("0.0.0.0", port))}); err != syscall.EADDRINUSE {
				t.Errorf("listener %d: got %v, want EADDRINUSE", id, err)
			}
		})
	}
	within(t, "a question", b.agent.subs)
	refused := &protocol.Answer{Errno: syscall.EADDRINUSE, Cause: protocol.CauseHeld}
	stop := make(chan struct{})
	go func() { // one question, or more if a listener came late
		for {
			select {
			case answer <- refused:
			case <-stop:
				close(answer) // nil: no answer
				return
			}
		}
	}()
	wg.Wait()
	close(stop)
	if n := len(b.Ports.listeners) + len(b.subscriptions.of) + len(b.publications.of); n != 0 {
		t.Errorf("%d listeners and ports are left", n)
	}
}

// Where the agent cannot give the traffic, the program still serves this
// machine, and the developer is told why.
func TestWithoutTheTargetsTraffic(t *testing.T) {
	for _, c := range []struct {
		name   string
		mode   uint8
		answer *protocol.Answer
		link   bool
		want   []string
	}{
		{"denied", protocol.ModeSteal, &protocol.Answer{Errno: syscall.EPERM, Cause: protocol.CauseDenied, Text: "CAP_NET_ADMIN is missing"}, true, []string{"port-not-steal", "port-open"}},
		{"not known", protocol.ModeMirror, &protocol.Answer{Errno: syscall.EINVAL, Cause: protocol.CauseUnsupported}, true, []string{"port-not-mirror", "port-open"}},
		{"no link", protocol.ModeMirror, nil, false, []string{"port-not-mirror", "port-open"}},
		{"off", 0, nil, true, []string{"port-open"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := setUp(t, c.mode)
			b.agent.answer = func(*protocol.Subscribe) *protocol.Answer { return c.answer }
			if !c.link {
				b.far.Close("")
				<-b.near.Done()
			}
			port := freePort(t)
			b.listening(1, at("0.0.0.0", port))
			ln := b.program(Inside, at("127.0.0.1", port))
			client, err := net.Dial("tcp", b.event("port-open").Facts["published"])
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			got, err := ln.Accept()
			if err != nil {
				t.Fatal(err)
			}
			got.Close()
			b.wantEvents(c.want...)
			if c.mode == 0 && len(b.agent.subs) > 0 {
				t.Error("the agent was asked")
			}
		})
	}
}

func TestInterruptedListen(t *testing.T) {
	b := setUp(t, protocol.ModeSteal)
	b.agent.answer = func(*protocol.Subscribe) *protocol.Answer { return nil }
	ctx, cancel := context.WithCancel(t.Context())
	addr := netip.MustParseAddrPort(at("0.0.0.0", freePort(t)))
	returned := make(chan error, 1)
	go func() { returned <- b.Listening(ctx, Listener{ID: 1, Addr: addr}) }()
	s := within(t, "a question", b.agent.subs)
	cancel()
	if err := within(t, "listen", returned); err != syscall.EINTR {
		t.Errorf("got %v, want EINTR", err)
	}
	within(t, "the end of the subscription", s.ended)
	b.agent.answer = yes
	if err := b.Listening(t.Context(), Listener{ID: 2, Addr: addr}); err != nil {
		t.Errorf("the second try: %v", err)
	}
	b.wantEvents("port-open")
}

// Who began the port for others may give up alone, too: the next one asks anew.
func TestInterruptedFirstListener(t *testing.T) {
	b := setUp(t, protocol.ModeSteal)
	var asked atomic.Int32
	b.agent.answer = func(m *protocol.Subscribe) *protocol.Answer {
		if asked.Add(1) == 1 {
			return nil
		}
		return yes(m)
	}
	ctx, cancel := context.WithCancel(t.Context())
	addr := netip.MustParseAddrPort(at("0.0.0.0", freePort(t)))
	first, second := make(chan error, 1), make(chan error, 1)
	go func() { first <- b.Listening(ctx, Listener{ID: 1, Addr: addr}) }()
	within(t, "a question", b.agent.subs)
	go func() { second <- b.Listening(t.Context(), Listener{ID: 2, Addr: addr}) }()
	for joined := false; !joined; time.Sleep(time.Millisecond) {
		b.subscriptions.mu.Lock()
		joined = b.subscriptions.of[portKey{number: addr.Port()}].count == 2
		b.subscriptions.mu.Unlock()
	}
	cancel()
	if err := within(t, "the first listen", first); err != syscall.EINTR {
		t.Errorf("the first got %v, want EINTR", err)
	}
	if err := within(t, "the second listen", second); err != nil {
		t.Errorf("the second got %v", err)
	}
	b.wantEvents("port-open")
}

// One who waits for another's subscription may give up alone.
func TestInterruptedSecondListener(t *testing.T) {
	b := setUp(t, protocol.ModeSteal)
	answer := make(chan *protocol.Answer)
	b.agent.answer = func(*protocol.Subscribe) *protocol.Answer { return <-answer }
	addr := netip.MustParseAddrPort(at("0.0.0.0", freePort(t)))
	first := make(chan error, 1)
	go func() { first <- b.Listening(t.Context(), Listener{ID: 1, Addr: addr}) }()
	s := within(t, "a question", b.agent.subs)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := b.Listening(ctx, Listener{ID: 2, Addr: addr}); err != syscall.EINTR {
		t.Errorf("got %v, want EINTR", err)
	}
	answer <- &protocol.Answer{}
	if err := within(t, "listen", first); err != nil {
		t.Error(err)
	}
	b.Closed(1) // the last one, though two had joined
	within(t, "the end of the subscription", s.ended)
}

func TestSilentAgent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, end := newBench(t, protocol.ModeSteal, nowhere)
		b.agent.answer = func(*protocol.Subscribe) *protocol.Answer { return nil }
		began := time.Now()
		if err := b.Listening(t.Context(), Listener{ID: 1, Addr: netip.MustParseAddrPort("0.0.0.0:80")}); err != nil {
			t.Error(err)
		}
		if got := time.Since(began); got != subscribeTime {
			t.Errorf("listen returned after %v, want %v", got, subscribeTime)
		}
		b.wantEvents("port-not-steal", "port-open")
		end()
	})
}

func TestSeveralListenersOfAPort(t *testing.T) {
	b := setUp(t, protocol.ModeSteal)
	port := freePort(t)
	b.listening(1, at("0.0.0.0", port))
	b.listening(2, at("0.0.0.0", port)) // SO_REUSEPORT
	b.listening(3, at("::", port))
	s := within(t, "a subscription", b.agent.subs)
	b.Closed(1)
	b.Closed(3)
	if !reachable(t, port) {
		t.Error("the port is closed while there is a listener")
	}
	if len(s.ended) > 0 {
		t.Error("the subscription ended while there is a listener")
	}
	b.Closed(2)
	within(t, "the end of the subscription", s.ended)
	if len(b.agent.subs) > 0 {
		t.Error("there was more than one subscription")
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, e := range b.events {
		if e.Code == "port-open" && e.Facts["published"] != at("127.0.0.1", port) {
			t.Errorf("published at %s", e.Facts["published"])
		}
	}
}

// A server that is reloaded finds its port as it was, whatever the order in
// which the end of the old listener and the new one are seen.
func TestListenAnewAtOnce(t *testing.T) {
	b := setUp(t, protocol.ModeSteal)
	port := freePort(t)
	b.listening(0, at("0.0.0.0", port))
	for id := range uint64(50) {
		var wg sync.WaitGroup
		wg.Go(func() { b.Closed(id) })
		b.listening(id+1, at("0.0.0.0", port))
		wg.Wait()
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, e := range b.events {
		if e.Code == "port-open" && e.Facts["published"] != at("127.0.0.1", port) {
			t.Fatalf("published at %s, want the same port each time", e.Facts["published"])
		}
	}
	if !reachable(t, port) {
		t.Error("the port is closed")
	}
}

func TestSubscriptionThatTheAgentEnds(t *testing.T) {
	for name, c := range map[string]struct {
		end  func(*bench, *sub)
		want int
	}{
		"this port":   {func(_ *bench, s *sub) { s.s.CloseWrite() }, 1},
		"by error":    {func(_ *bench, s *sub) { s.s.Reset(syscall.EIO) }, 1},
		"the session": {func(_ *bench, s *sub) { s.s.Reset(syscall.ESHUTDOWN) }, 0},
		"the link":    {func(b *bench, _ *sub) { b.far.Close("") }, 0},
	} {
		t.Run(name, func(t *testing.T) {
			leak.Check(t)
			b, end := newBench(t, protocol.ModeMirror, net.Listen)
			b.listening(1, at("0.0.0.0", freePort(t)))
			s := within(t, "a subscription", b.agent.subs)
			c.end(b, s)
			for range c.want {
				within(t, "an event", b.lost)
			}
			within(t, "the end of the subscription", s.ended)
			end() // waits for whoever follows it
			if len(b.lost) > 0 {
				t.Error("an event port-lost too many")
			}
		})
	}
}

func TestClose(t *testing.T) {
	b := setUp(t, protocol.ModeSteal)
	port, other := freePort(t), freePort(t)
	b.listening(1, at("0.0.0.0", port))
	s := within(t, "a subscription", b.agent.subs)
	ln := b.program(Tunnel, at("10.1.2.3", port))
	agent, done := b.deliver(t.Context(), &protocol.Incoming{Port: port, Mode: protocol.ModeSteal, Peer: netip.MustParseAddrPort("192.0.2.7:999"), Local: netip.MustParseAddrPort(at("10.1.2.3", port))})
	app, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer app.Close()
	within(t, "the program's connection", b.dialed)
	b.agent.answer = func(*protocol.Subscribe) *protocol.Answer { return nil }
	waiting := make(chan error, 1)
	go func() {
		waiting <- b.Listening(t.Context(), Listener{ID: 2, Addr: netip.MustParseAddrPort(at("0.0.0.0", other))})
	}()
	within(t, "a question", b.agent.subs)

	b.Close()
	if err := within(t, "listen", waiting); err != syscall.ESHUTDOWN {
		t.Errorf("the listener that waited gets %v, want ESHUTDOWN", err)
	}
	if err := b.Listening(t.Context(), Listener{ID: 3, Addr: netip.MustParseAddrPort("0.0.0.0:80")}); err != syscall.ESHUTDOWN {
		t.Errorf("a later listener gets %v, want ESHUTDOWN", err)
	}
	within(t, "the end of the subscription", s.ended)
	within(t, "the end of the delivery", done)
	var reset *link.ResetError
	if _, err := agent.Read(make([]byte, 1)); !errors.As(err, &reset) {
		t.Errorf("the client reads %v, want a reset", err)
	}
	if _, err := app.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the program reads %v, want ECONNRESET", err)
	}
	late, _ := b.deliver(t.Context(), &protocol.Incoming{Port: port})
	if _, err := late.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("a later client reads %v, want ECONNREFUSED", err)
	}
	if reachable(t, port) {
		t.Error("the published port is still open")
	}
	b.Closed(1)
	b.Close()
	b.wantEvents("port-open", "delivered")
}
