package server

import (
	"compress/gzip"
	"errors"
	"io"
	"syscall"
	"testing"
	"time"

	"github.com/mirrord-go/mirrord/internal/agent/target"
	"github.com/mirrord-go/mirrord/internal/link"
	"github.com/mirrord-go/mirrord/internal/protocol"
)

func TestProfile(t *testing.T) {
	a := start(t, target.Self)
	l, _, _ := a.join()
	ask := func(m *protocol.Profile) (*link.Stream, error) {
		t.Helper()
		s, err := l.Open(t.Context(), link.Interactive, m)
		if err != nil {
			t.Fatal(err)
		}
		said, err := s.Receive()
		answer, ok := said.(*protocol.Answer)
		if err != nil || !ok {
			t.Fatalf("answered with %T, %v", said, err)
		}
		return s, answer.Err()
	}
	for _, kind := range []string{"heap", "allocs", "goroutine"} {
		s, err := ask(&protocol.Profile{Name: kind})
		if err != nil {
			t.Fatalf("%s: %v", kind, err)
		}
		z, err := gzip.NewReader(s)
		if err != nil {
			t.Fatalf("%s: %v", kind, err)
		}
		if text, err := io.ReadAll(z); err != nil || len(text) == 0 {
			t.Errorf("%s: %d bytes, %v", kind, len(text), err)
		}
		s.Close()
	}
	for _, m := range []*protocol.Profile{{}, {Name: "cmdline"}, {Name: "profile"}, {Name: "profile", Seconds: 121}} {
		s, err := ask(m)
		if !errors.Is(err, syscall.EINVAL) {
			t.Errorf("%+v: %v, want EINVAL", m, err)
		}
		s.Close()
	}
	// Nobody looks longer than is waited for: another one can begin.
	s, err := l.Open(t.Context(), link.Interactive, &protocol.Profile{Name: "profile", Seconds: 120})
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
	for end := time.Now().Add(5 * time.Second); ; {
		s, err := ask(&protocol.Profile{Name: "profile", Seconds: 1})
		s.Close()
		if err == nil {
			break
		}
		if !errors.Is(err, syscall.EBUSY) || time.Now().After(end) {
			t.Fatalf("a profile behind one that was given up: %v", err)
		}
	}
}
