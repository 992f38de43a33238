package relay

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/mirrord-go/mirrord/internal/budget"
	"github.com/mirrord-go/mirrord/internal/testnet"
)

// joined gives the two outer ends of a relay and a channel with its result.
func joined(t *testing.T, ctx context.Context, large *budget.Share) (a, b *net.TCPConn, done chan error) {
	a, a2 := testnet.Pair(t)
	b, b2 := testnet.Pair(t)
	done = make(chan error, 1)
	go func() {
		_, err := Join(ctx, large, a2, b2)
		done <- err
	}()
	return a, b, done
}

func TestHalfClose(t *testing.T) {
	a, b, done := joined(t, t.Context(), nil)
	want := make([]byte, 3<<20)
	rand.Read(want)
	go func() {
		a.Write(want)
		a.CloseWrite()
	}()
	got, err := io.ReadAll(b)
	if err != nil || !bytes.Equal(got, want) {
		t.Fatalf("got %d bytes, %v, want the %d that were sent", len(got), err, len(want))
	}
	// The other direction is still open.
	if _, err := b.Write([]byte("answer")); err != nil {
		t.Fatal(err)
	}
	b.CloseWrite()
	if got, err := io.ReadAll(a); err != nil || string(got) != "answer" {
		t.Errorf("got %q, %v, want answer", got, err)
	}
	if err := <-done; err != nil {
		t.Errorf("relay ended with %v, want nil", err)
	}
}

func TestResetIsPassedOn(t *testing.T) {
	a, b, done := joined(t, t.Context(), nil)
	if _, err := a.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(b, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	a.SetLinger(0)
	a.Close()
	if _, err := b.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("other side reads %v, want ECONNRESET", err)
	}
	if err := <-done; !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("relay ended with %v, want ECONNRESET", err)
	}
}

// A reset is passed on as one, also when it was a write that heard it.
func TestResetThatAWriteHears(t *testing.T) {
	a, b := testnet.Pair(t)
	a.SetLinger(0)
	a.Close()
	for !isClosed(b) {
		time.Sleep(time.Millisecond)
	}
	if _, err := b.Write([]byte("x")); !errors.Is(err, syscall.ECONNRESET) {
		t.Fatalf("the write ends with %v, want ECONNRESET", err)
	}
	c, d := testnet.Pair(t)
	done := make(chan error, 1)
	go func() {
		_, err := Join(t.Context(), nil, b, d)
		done <- err
	}()
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("other side reads %v, want ECONNRESET", err)
	}
	c.Close()
	if err := <-done; !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("relay ended with %v, want ECONNRESET", err)
	}
}

func TestEndOfContextResets(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	a, b, done := joined(t, ctx, nil)
	cancel()
	for _, c := range []net.Conn{a, b} {
		if _, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, io.EOF) {
			t.Errorf("read gives %v, want a reset", err)
		}
	}
	<-done
}

func TestDrainForgetsTheReply(t *testing.T) {
	app, dst := testnet.Pair(t)
	client, src := testnet.Pair(t)
	done := make(chan error, 1)
	go func() {
		_, err := Drain(t.Context(), nil, dst, src)
		done <- err
	}()
	client.Write([]byte("request"))
	client.CloseWrite()
	go func() { // a long reply must not block
		app.Write(make([]byte, 4<<20))
		app.CloseWrite()
	}()
	if got, err := io.ReadAll(app); err != nil || string(got) != "request" {
		t.Errorf("app got %q, %v, want request", got, err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	if n, err := client.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		t.Errorf("client hears %d bytes, %v, want the end", n, err)
	}
}
