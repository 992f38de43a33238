package incoming

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/mirrord-go/mirrord/internal/protocol"
	"github.com/mirrord-go/mirrord/internal/testnet"
)

const asks = "GET /local/a HTTP/1.1\r\nHost: a\r\n\r\n"

// lossless is a port that is passed on and copied.
func lossless(filter string) protocol.Subscribe {
	return protocol.Subscribe{Port: 80, Mode: protocol.ModeTee, Filter: filter}
}

// opens gives a's next connection.
func opens(t *testing.T, a *actor) net.Conn {
	t.Helper()
	return within(t, "a connection to "+a.name, a.opened)
}

// The original answers, and local hears the same; what local says goes nowhere.
func TestTee(t *testing.T) {
	for name, c := range map[string]struct{ filter, local string }{
		"whole":    {"", "GET /other/b HTTP/1.1\r\nHost: a\r\n\r\n" + asks},
		"filtered": {localFilter, asks},
	} {
		t.Run(name, func(t *testing.T) {
			st := setStage(t, stageOptions{subscribe: lossless(c.filter)})
			client := st.client()
			br := bufio.NewReader(client)
			ask(t, client, "GET /other/b HTTP/1.1\r\nHost: a\r\n\r\n")
			if got := answer(t, br, "GET"); !strings.HasPrefix(got, "200 original GET /other/b") {
				t.Errorf("got %q", got)
			}
			ask(t, client, asks)
			if got := answer(t, br, "GET"); !strings.HasPrefix(got, "200 original GET /local/a") {
				t.Errorf("got %q", got)
			}
			client.CloseWrite()
			ends(t, br)
			heard(t, st.local, c.local)
			heard(t, st.orig, "GET /other/b HTTP/1.1\r\nHost: a\r\n\r\n"+asks)
			if got := st.hub.Counts(); got != (protocol.Counts{}) {
				t.Errorf("counted %+v", got)
			}
		})
	}
}

// Local is told of it as of any copy.
func TestTeedIsACopy(t *testing.T) {
	server, orig := testnet.Pair(t)
	st := setUpWith(t, Options{Original: func(context.Context, netip.AddrPort, netip.AddrPort) (net.Conn, error) { return orig, nil }})
	st.subscribed(&protocol.Subscribe{Port: 80, Mode: protocol.ModeTee})
	c, client := newStolen(t)
	st.steal.conns <- c
	defer client.Close()
	defer server.Close()
	if _, m := st.arrived(); m.Mode != protocol.ModeMirror || m.Port != 80 {
		t.Errorf("got %+v, want a copy", m)
	}
}

// A local that takes nothing costs the copy, which is counted, and nothing else;
// the next request is copied again.
func TestTeeNeverWaits(t *testing.T) {
	stuck := make(chan struct{})
	st := setStage(t, stageOptions{subscribe: lossless(""), local: func(c net.Conn) {
		<-stuck
		_, _ = io.Copy(io.Discard, c)
	}})
	defer close(stuck)
	client := st.client()
	br := bufio.NewReader(client)
	const size = 8 << 20
	go func() {
		_, _ = io.WriteString(client, "POST /local/b HTTP/1.1\r\nHost: a\r\nContent-Length: 8388608\r\n\r\n")
		_, _ = io.CopyN(client, zeros{}, size)
	}()
	if got := answer(t, br, "POST"); !strings.HasPrefix(got, "200 original POST /local/b 8388608") {
		t.Errorf("got %q", got)
	}
	opens(t, st.local)
	if got := st.hub.Counts().Copies; got != 1 {
		t.Errorf("%d copies are counted as lost, want 1", got)
	}
	ask(t, client, asks)
	if got := answer(t, br, "GET"); !strings.HasPrefix(got, "200 original GET /local/a") {
		t.Errorf("got %q", got)
	}
	opens(t, st.local)
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// A local that closes between two requests gets the next one.
func TestTeeBeginsAgain(t *testing.T) {
	st := setStage(t, stageOptions{subscribe: lossless(""), local: func(c net.Conn) {
		_, _ = c.Read(make([]byte, 1000))
		c.(*recorded).Conn.(interface{ Reset(syscall.Errno) error }).Reset(syscall.ECONNRESET)
	}})
	client := st.client()
	br := bufio.NewReader(client)
	for range 3 {
		for again := true; again; {
			ask(t, client, asks)
			answer(t, br, "GET")
			select {
			case <-st.local.opened:
				again = false
			case <-time.After(20 * time.Millisecond): // it was asked before the end was known, and is lost with that copy
			}
		}
	}
	if got := st.hub.Counts().Copies; got != 0 {
		t.Errorf("%d copies are counted as lost", got)
	}
}

// While the link is lost the port stays, and copies wait.
func TestTeeOfALostLink(t *testing.T) {
	st := setStage(t, stageOptions{subscribe: lossless(localFilter)})
	within(t, "the port", st.steal.did)
	st.hub.Suspend(true)
	client := st.client()
	br := bufio.NewReader(client)
	ask(t, client, asks)
	answer(t, br, "GET")
	heard(t, st.local, asks)
	select {
	case did := <-st.steal.did:
		t.Errorf("the source was told %q", did)
	default:
	}
	st.hub.Suspend(false)
}

// The end of a session costs nobody a request that he sends on a connection which
// is there.
func TestEndSparesTeed(t *testing.T) {
	st := setStage(t, stageOptions{subscribe: lossless("")})
	client := st.client()
	br := bufio.NewReader(client)
	ask(t, client, asks)
	answer(t, br, "GET")
	heard(t, st.local, asks)
	copied := within(t, "a copy", st.local.opened).(*recorded)
	st.end()
	within(t, "the end of the copy", copied.done)
	ask(t, client, closing)
	if got := answer(t, br, "GET"); !strings.HasPrefix(got, "200 original GET /other") {
		t.Errorf("got %q", got)
	}
	ends(t, br)
	client.Close()
	within(t, "the end of the hub", st.ended)
	heard(t, st.local, asks)
}

// What the original does not take is nobody's.
func TestTeeWithoutAnOriginal(t *testing.T) {
	st := setStage(t, stageOptions{subscribe: lossless(""), refused: true})
	client := st.client()
	if _, err := io.ReadAll(client); err == nil {
		t.Error("the client gets an orderly end, want a reset")
	}
	select {
	case <-st.local.opened:
		t.Error("local has got a copy")
	default:
	}
}

// A port that is copied by the stealing path is held whole.
func TestTeeHoldsThePort(t *testing.T) {
	tee := lossless(localFilter)
	for name, c := range map[string]struct{ ana, bob *protocol.Subscribe }{
		"a filter beside copies": {&tee, below("/bob")}, "copies beside copies": {&tee, &tee}, "copies beside a filter": {below("/ana"), &tee},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t)
			ana, bob := n.session("ana", 1, nil), n.session("bob", 2, nil)
			ana.subscribed(c.ana)
			if _, a := subscribe(t, bob.near, c.bob); a.Errno != syscall.EADDRINUSE || !strings.Contains(a.Text, "held by ana") {
				t.Errorf("bob is answered %+v", a)
			}
		})
	}
}

func TestTeeWithoutTheMeans(t *testing.T) {
	b := setUp(t) // no original
	if _, a := subscribe(t, b.near, &protocol.Subscribe{Port: 80, Mode: protocol.ModeTee}); a.Errno != syscall.EOPNOTSUPP || a.Cause != protocol.CauseUnsupported {
		t.Errorf("got %+v", a)
	}
}
