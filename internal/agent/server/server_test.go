package server

import (
	"bufio"
	"context"
	"crypto/ed25519"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/mirrord-go/mirrord/internal/agent/target"
	"github.com/mirrord-go/mirrord/internal/leak"
	"github.com/mirrord-go/mirrord/internal/link"
	"github.com/mirrord-go/mirrord/internal/link/resume"
	"github.com/mirrord-go/mirrord/internal/link/seal"
	"github.com/mirrord-go/mirrord/internal/protocol"
)

func TestMain(m *testing.M) { os.Exit(leak.Main(m)) }

// agent is a running Run.
type agent struct {
	stop    func() // as SIGTERM does
	t       *testing.T
	address string
	key     ed25519.PublicKey // the agent's own
	session ed25519.PrivateKey
	done    chan error
}

func start(t *testing.T, find func() (*target.Target, error)) *agent {
	t.Helper()
	return startWith(t, Options{Target: find})
}

// startWith is start with some options; the rest is added.
func startWith(t *testing.T, o Options) *agent {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	key, err := seal.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	client, err := seal.ParsePublicKey(seal.PublicKey(key))
	if err != nil {
		t.Fatal(err)
	}
	out, in := io.Pipe()
	a := &agent{t: t, address: ln.Addr().String(), session: key, done: make(chan error, 1)}
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		o.Version, o.ClientKey, o.Session, o.Listener, o.Announce, o.Log = "1", client, "s", ln, in, slog.New(slog.DiscardHandler)
		a.done <- Run(ctx, o)
		close(a.done)
	}()
	a.stop = cancel
	t.Cleanup(func() { cancel(); <-a.done })
	line, err := bufio.NewReader(out).ReadBytes('\n')
	if err != nil {
		t.Fatal(err)
	}
	said, ok := protocol.ParseAnnouncement(line)
	if !ok {
		t.Fatalf("announcement %q", line)
	}
	if said.Port != ln.Addr().(*net.TCPAddr).Port || said.Software != "1" || said.Messages != protocol.Spoken() || said.Link != seal.Version {
		t.Errorf("announcement is %q", line)
	}
	if a.key, err = seal.ParsePublicKey(said.Key); err != nil {
		t.Fatal(err)
	}
	return a
}

// connect makes a sealed pipe as the owner of key, who expects the agent to be
// the owner of expects.
func (a *agent) connect(ctx context.Context, key ed25519.PrivateKey, expects ed25519.PublicKey) (io.ReadWriteCloser, error) {
	c, err := net.Dial("tcp", a.address)
	if err != nil {
		return nil, err
	}
	sealed, err := seal.Client(ctx, c, key, expects)
	if err != nil {
		c.Close()
		return nil, err
	}
	return sealed, nil
}

// join is a session: a link, greeted.
func (a *agent) join() (*link.Conn, *link.Stream, protocol.Message) {
	a.t.Helper()
	pipe, err := resume.Dial(a.t.Context(), func(ctx context.Context) (io.ReadWriteCloser, error) {
		return a.connect(ctx, a.session, a.key)
	}, resume.Options{})
	if err != nil {
		a.t.Fatal(err)
	}
	l := link.New(pipe, link.Local, link.Options{})
	a.t.Cleanup(func() { l.Close("test") })
	s, err := l.Open(a.t.Context(), link.Interactive, &protocol.Hello{Min: protocol.MinVersion, Max: protocol.Version, Session: "s", User: "ana@laptop"})
	if err != nil {
		a.t.Fatal(err)
	}
	m, err := s.Receive()
	if err != nil {
		a.t.Fatal(err)
	}
	return l, s, m
}

func TestSession(t *testing.T) {
	a := start(t, target.Self)
	l, control, m := a.join()
	w, ok := m.(*protocol.Welcome)
	if !ok {
		t.Fatalf("greeted with %T %v", m, m)
	}
	hostname, _ := os.Hostname()
	if w.Hostname != hostname || !w.Targetless || w.UID != uint32(os.Getuid()) || w.Version != protocol.Version {
		t.Errorf("welcome is %+v", w)
	}

	m, err := l.Call(t.Context(), &protocol.EnvRequest{})
	if env, ok := m.(*protocol.Env); err != nil || !ok || !slices.Contains(env.Vars, "PATH="+os.Getenv("PATH")) {
		t.Errorf("environment: %T, %v", m, err)
	}

	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte("content"), 0o644); err != nil {
		t.Fatal(err)
	}
	m, err = l.Call(t.Context(), &protocol.Stat{Path: file, Prefetch: 100})
	if attr, ok := m.(*protocol.Attr); err != nil || !ok || string(attr.Data) != "content" {
		t.Errorf("file: %v, %v", m, err)
	}

	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	s, err := l.Open(t.Context(), link.Bulk, &protocol.Dial{Network: protocol.NetworkTCP, Addr: netip.MustParseAddrPort(ln.Addr().String())})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	m, err = s.Receive()
	if answer, ok := m.(*protocol.Answer); err != nil || !ok || answer.Err() != nil {
		t.Fatalf("dial: %v, %v", m, err)
	}
	c, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := s.Write([]byte("ping")); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 4)
	if _, err := io.ReadFull(c, got); err != nil || string(got) != "ping" {
		t.Errorf("got %q, %v", got, err)
	}

	// The goodbye ends the agent at once and without an error.
	_ = control.Send(&protocol.Bye{Code: "done"})
	control.Close()
	_ = l.Close("done")
	select {
	case err := <-a.done:
		if err != nil {
			t.Errorf("the agent ended with %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("the agent goes on after the goodbye")
	}
}

// A stranger gets nothing, and does not disturb the session.
func TestStrangers(t *testing.T) {
	a := start(t, target.Self)
	stranger, err := seal.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	other, err := seal.ParsePublicKey(seal.PublicKey(stranger))
	if err != nil {
		t.Fatal(err)
	}
	pipe, err := a.connect(t.Context(), stranger, a.key)
	if err == nil { // the client's half of the handshake may end before the agent's refusal arrives
		_, err = pipe.Read(make([]byte, 1))
		pipe.Close()
	}
	if !errors.Is(err, seal.ErrRefused) {
		t.Errorf("a stranger: %v, want %v", err, seal.ErrRefused)
	}
	if _, err := a.connect(t.Context(), a.session, other); !errors.Is(err, seal.ErrWrongKey) {
		t.Errorf("an agent with another key than announced: %v, want %v", err, seal.ErrWrongKey)
	}
	c, err := net.Dial("tcp", a.address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(handshakeTime + 5*time.Second))
	if _, err := c.Write([]byte("GET / HTTP/1.1\r\nHost: x\r\nUser-Agent: somebody who looks around in the pod and knows no better\r\n\r\n")); err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(c); err == nil && len(b) > 512 {
		t.Errorf("a stranger was told %q", b)
	}
	if _, _, m := a.join(); m.Kind() != protocol.KindWelcome {
		t.Errorf("the session itself is answered %T", m)
	}
}

func TestNoTarget(t *testing.T) {
	a := start(t, func() (*target.Target, error) { return nil, errors.New("no such container") })
	l, _, m := a.join()
	if answer, ok := m.(*protocol.Answer); !ok || answer.Cause != protocol.CauseTarget || answer.Text != "no such container" {
		t.Errorf("greeted with %T %v", m, m)
	}
	m, err := l.Call(t.Context(), &protocol.EnvRequest{})
	if answer, ok := m.(*protocol.Answer); err != nil || !ok || answer.Err() == nil {
		t.Errorf("environment of no target: %v, %v", m, err)
	}
}

// The end of the target ends the session, and says so, last of all what it has
// counted.
func TestTargetEnds(t *testing.T) {
	cmd, pid := child(t)
	a := start(t, func() (*target.Target, error) { return target.Open(pid) })
	_, control, m := a.join()
	if m.Kind() != protocol.KindWelcome {
		t.Fatalf("greeted with %T %v", m, m)
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	counted := false
	for {
		m, err := control.Receive()
		if err != nil {
			t.Fatalf("no goodbye: %v", err)
		}
		if bye, ok := m.(*protocol.Bye); ok {
			if bye.Code != "target-ended" || !counted {
				t.Errorf("goodbye is %+v, the counts before it: %v", bye, counted)
			}
			break
		}
		_, counted = m.(*protocol.Counts)
	}
	if err := <-a.done; !errors.Is(err, errTargetEnded) {
		t.Errorf("the agent ended with %v", err)
	}
}

// Who is told to end says so.
func TestToldToEnd(t *testing.T) {
	a := start(t, target.Self)
	_, control, _ := a.join()
	a.stop()
	for {
		m, err := control.Receive()
		if err != nil {
			t.Fatalf("no goodbye: %v", err)
		}
		if bye, ok := m.(*protocol.Bye); ok {
			if bye.Code != "agent-told" {
				t.Errorf("goodbye is %+v", bye)
			}
			break
		}
	}
	if err := <-a.done; !errors.Is(err, errTold) {
		t.Errorf("the agent ended with %v", err)
	}
}

// child is a process to be a target.
func child(t *testing.T) (*exec.Cmd, int) {
	t.Helper()
	cmd := exec.Command("sleep", "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	return cmd, cmd.Process.Pid
}
