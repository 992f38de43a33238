package relay

import (
	"context"
	"errors"
	"io"
	"slices"
	"syscall"
	"testing"
)

// wire is one side whose messages a test makes and takes.
type wire struct {
	in     chan string // closed: the end
	out    chan string // closed by CloseWrite
	reset  chan syscall.Errno
	closed chan struct{}
}

func newWire() *wire {
	return &wire{make(chan string, 10), make(chan string, 10), make(chan syscall.Errno, 10), make(chan struct{})}
}

func (w *wire) Receive(use func([]byte) error) error {
	select {
	case text, ok := <-w.in:
		if !ok {
			return io.EOF
		}
		return use([]byte(text))
	case <-w.closed:
		return io.ErrClosedPipe
	}
}

func (w *wire) Send(p []byte) error         { w.out <- string(p); return nil }
func (w *wire) CloseWrite() error           { close(w.out); return nil }
func (w *wire) Read([]byte) (int, error)    { panic("of streams") }
func (w *wire) Write([]byte) (int, error)   { panic("of streams") }
func (w *wire) Reset(e syscall.Errno) error { w.reset <- e; return nil }

func (w *wire) Close() error {
	select {
	case <-w.closed:
	default:
		close(w.closed)
	}
	return nil
}

func TestJoinPackets(t *testing.T) {
	a, b := newWire(), newWire()
	done := make(chan error, 1)
	go func() { done <- JoinPackets(t.Context(), a, b) }()
	a.in <- "one"
	a.in <- "two"
	close(a.in)
	var got []string
	for text := range b.out { // until the half-close
		got = append(got, text)
	}
	if want := []string{"one", "two"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	b.in <- "answer"
	close(b.in)
	if got := <-a.out; got != "answer" {
		t.Errorf("got %q", got)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	<-a.closed
	<-b.closed
}

func TestJoinPacketsEnds(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	a, b := newWire(), newWire()
	done := make(chan error, 1)
	go func() { done <- JoinPackets(ctx, a, b) }()
	cancel(syscall.ENETDOWN)
	if err := <-done; !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("got %v", err)
	}
	for _, w := range []*wire{a, b} {
		if got := <-w.reset; got != syscall.ENETDOWN {
			t.Errorf("reset with %v, want ENETDOWN", got)
		}
	}
}
