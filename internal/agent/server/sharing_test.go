package server

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/mirrord-go/mirrord/internal/agent/target"
	"github.com/mirrord-go/mirrord/internal/leak"
	"github.com/mirrord-go/mirrord/internal/link"
	"github.com/mirrord-go/mirrord/internal/protocol"
	"github.com/mirrord-go/mirrord/internal/testnet"
)

// beside is a target with a server at port 80, and asks that as a user.
func beside(t *testing.T) (pid int, ask func(user string) string) {
	t.Helper()
	pid = testnet.Process(t, syscall.CLONE_NEWNET, nil, "ip link set lo up")
	in, err := target.Open(pid)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.Close() })
	var ln net.Listener
	if err := in.Do(func() (err error) { ln, err = net.Listen("tcp", "127.0.0.1:80"); return err }); err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "target") })}
	served := make(chan struct{})
	go func() { defer close(served); _ = srv.Serve(ln) }()
	t.Cleanup(func() { srv.Close(); <-served })
	return pid, func(user string) string {
		var c net.Conn
		if err := in.Do(func() (err error) { c, err = net.DialTimeout("tcp", "127.0.0.1:80", time.Second); return err }); err != nil {
			return err.Error()
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(15 * time.Second))
		fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: a\r\nX-User: %s\r\nConnection: close\r\n\r\n", user)
		r, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			return err.Error()
		}
		b, _ := io.ReadAll(r.Body)
		return string(b)
	}
}

// Two agents beside one target, whose sessions take the requests of their own: each
// gets them, however often the port changes hands, and the rest is the target's.
func TestSessionsShareAPort(t *testing.T) {
	leak.Check(t)
	pid, ask := beside(t)
	ana, _ := sharer(t, pid, "ana")
	bob, bobs := sharer(t, pid, "bob")
	want(t, ana, "ana", "")
	want(t, bob, "ana", "with the same filter")
	want(t, bob, "", "cannot be taken whole")
	want(t, bob, "bob", "")
	for user, by := range map[string]string{"ana": "ana", "bob": "bob", "eve": "target"} {
		if got := ask(user); got != by {
			t.Errorf("%s is answered %q, want by %s", user, got, by)
		}
	}
	ana.Close("")
	for end := time.Now().Add(10 * time.Second); ask("bob") != "bob"; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("bob has nothing after the end of ana's session")
		}
	}
	if got := ask("ana"); got != "target" {
		t.Errorf("after the end of her session ana is answered %q", got)
	}
	bobs.stop()
	<-bobs.done
	if got := ask("bob"); got != "target" {
		t.Errorf("after the end of his session bob is answered %q", got)
	}
}

// A session takes over what another one has, and back, and nobody's request is lost.
func TestSessionsTakeOver(t *testing.T) {
	leak.Check(t)
	pid, ask := beside(t)
	ana, _ := sharer(t, pid, "ana")
	bob, _ := sharer(t, pid, "bob")
	want(t, ana, "", "")
	over, asked := make(chan struct{}), make(chan map[string]int, 1)
	go func() {
		count := map[string]int{}
		defer func() { asked <- count }()
		for {
			select {
			case <-over:
				return
			default:
				count[ask("bob")]++
			}
		}
	}()
	for range 10 {
		takes(t, bob, "")    // the whole port
		takes(t, ana, "bob") // by a filter, which bob's agent looks at
		takes(t, bob, "bob") // the same
		takes(t, ana, "")
	}
	close(over)
	count := <-asked
	t.Logf("requests were answered by %v", count)
	for by := range count {
		if by != "ana" && by != "bob" && by != "target" {
			t.Errorf("a request was answered %q", by)
		}
	}
	if got := ask("bob"); got != "ana" {
		t.Errorf("in the end a request is answered by %q", got)
	}
}

// takes is want for a session that takes over.
func takes(t *testing.T, l *link.Conn, user string) {
	t.Helper()
	wish(t, l, user, true, "")
}

// sharer is a session whose local process answers with its name.
func sharer(t *testing.T, pid int, name string) (*link.Conn, *agent) {
	t.Helper()
	a := start(t, func() (*target.Target, error) { return target.Open(pid) })
	l, _, _ := a.join()
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			s, _, err := l.Accept(t.Context())
			if err != nil {
				return
			}
			_, _ = s.Read(make([]byte, 4<<10))
			fmt.Fprintf(s, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s", len(name), name)
			_ = s.CloseWrite()
			_, _ = io.Copy(io.Discard, s)
			s.Close()
		}
	}()
	t.Cleanup(func() { l.Close(""); <-done })
	return l, a
}

// want subscribes to the requests of user, or to the whole port, and checks what is
// said; empty: yes.
func want(t *testing.T, l *link.Conn, user, says string) {
	t.Helper()
	wish(t, l, user, false, says)
}

func wish(t *testing.T, l *link.Conn, user string, override bool, says string) {
	t.Helper()
	m := &protocol.Subscribe{Port: 80, Mode: protocol.ModeSteal, Override: override}
	if user != "" {
		m.Filter = fmt.Sprintf(`{"header":{"text":"^x-user: %s$"}}`, user)
	}
	s, err := l.Open(t.Context(), link.Interactive, m)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	_ = s.SetReadDeadline(time.Now().Add(15 * time.Second))
	got, err := s.Receive()
	if err != nil {
		t.Fatal(err)
	}
	_ = s.SetReadDeadline(time.Time{})
	a := got.(*protocol.Answer)
	held := a.Cause == protocol.CauseHeld && strings.Contains(a.Text, "port 80 is held by ana@laptop since ") && strings.Contains(a.Text, says)
	if (says == "") != (a.Err() == nil) || says != "" && !held {
		t.Errorf("%s's wish is answered %+v, want %q", user, a, says)
	}
}
