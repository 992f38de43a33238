package profile

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"syscall"
	"testing"
	"time"
)

// read gives what a profile holds.
func read(t *testing.T, kind string, d time.Duration) []byte {
	t.Helper()
	b, err := Take(t.Context(), kind, d)
	if err != nil {
		t.Fatalf("%s: %v", kind, err)
	}
	z, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		t.Fatalf("%s: %v", kind, err)
	}
	text, err := io.ReadAll(z)
	if err != nil {
		t.Fatalf("%s: %v", kind, err)
	}
	return text
}

func TestTake(t *testing.T) {
	for _, kind := range Kinds() {
		// The names of functions are among its strings.
		if text := read(t, kind, 50*time.Millisecond); kind == Goroutine && !bytes.Contains(text, []byte("TestTake")) || len(text) == 0 {
			t.Errorf("%s: %d bytes, without this test", kind, len(text))
		}
	}
}

func TestRefused(t *testing.T) {
	for _, c := range []struct {
		kind string
		d    time.Duration
	}{{"", 0}, {"trace", time.Second}, {"threadcreate", 0}, {CPU, 0}, {CPU, -1}, {CPU, MaxTime + 1}} {
		if b, err := Take(t.Context(), c.kind, c.d); !errors.Is(err, syscall.EINVAL) || len(b) > 0 {
			t.Errorf("%q, %v: %v, %d bytes; want EINVAL and nothing", c.kind, c.d, err, len(b))
		}
	}
}

// A second profile of the time would end the first.
func TestOneAtATime(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	first := make(chan error, 1)
	go func() {
		err := error(syscall.EBUSY)
		for errors.Is(err, syscall.EBUSY) { // one of those below is first
			_, err = Take(ctx, CPU, MaxTime)
		}
		first <- err
	}()
	for end := time.Now().Add(3 * time.Second); ; time.Sleep(time.Millisecond) {
		_, err := Take(t.Context(), CPU, time.Millisecond)
		if errors.Is(err, syscall.EBUSY) {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("a second profile beside the first: %v", err)
		}
	}
	cancel() // and it ends at once
	if err := <-first; err != nil {
		t.Error(err)
	}
}
