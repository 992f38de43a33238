package threadpool

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mirrord-go/mirrord/internal/leak"
)

var errEnded, errNobody = errors.New("ended"), errors.New("nobody")

// What is done is done by threads that became somebody, and by no others.
func TestPool(t *testing.T) {
	leak.Check(t)
	var mu sync.Mutex
	ours := map[int]bool{}
	p, err := New(3, errEnded, func() error {
		mu.Lock()
		defer mu.Unlock()
		ours[unix.Gettid()] = true
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(ours) != 3 {
		t.Errorf("%d threads, want 3", len(ours))
	}
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			foreign := true
			if err := p.Do(t.Context(), func() { foreign = !ours[unix.Gettid()] }); err != nil || foreign {
				t.Errorf("by another thread: %v, %v", foreign, err)
			}
		})
	}
	wg.Wait()
	if !p.Close() || !p.Close() {
		t.Error("Close: some hang")
	}
	if err := p.Do(t.Context(), func() { t.Error("after Close") }); err != errEnded {
		t.Errorf("got %v, want %v", err, errEnded)
	}
}

func TestNobody(t *testing.T) {
	leak.Check(t)
	var asked atomic.Int32
	_, err := New(3, errEnded, func() error {
		if asked.Add(1) == 2 {
			return errNobody
		}
		return nil
	})
	if !errors.Is(err, errNobody) {
		t.Errorf("got %v, want %v", err, errNobody)
	}
}

// One that hangs keeps neither who waits for a thread nor Close.
func TestOneThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, err := New(1, errEnded, func() error { return nil })
		if err != nil {
			t.Fatal(err)
		}
		answered := make(chan struct{})
		var wg sync.WaitGroup
		wg.Go(func() { _ = p.Do(t.Context(), func() { <-answered }) })
		synctest.Wait()
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, errNobody)
		defer cancel()
		if err := p.Do(ctx, func() {}); err != errNobody {
			t.Errorf("got %v, want %v", err, errNobody)
		}
		if began := time.Now(); p.Close() || time.Since(began) != EndTime {
			t.Errorf("Close after %v, want %v", time.Since(began), EndTime)
		}
		close(answered)
		wg.Wait()
	})
}
