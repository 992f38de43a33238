package link

import (
	"context"
	"errors"
	"io"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// lostPair is a link that is only said to be lost: nobody answers at its far
// end.
func lostPair(t *testing.T, f func(t *testing.T, near, far *Conn)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		a, b := pair(256<<10, 0, 0)
		near, far := New(a, Local, Options{}), New(b, Agent, Options{})
		f(t, near, far)
		near.Close("")
		far.Close("")
	})
}

// What begins while the link is lost, or has not been answered by then, waits
// for BeginTime; what is open waits for the link.
func TestLost(t *testing.T) {
	lostPair(t, func(t *testing.T, near, far *Conn) {
		open, peer := opened(t, near, far, Bulk)
		if _, err := peer.Write([]byte("hello")); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(open, make([]byte, 5)); err != nil {
			t.Fatal(err)
		}
		// ends gives when reading s ends, and how.
		ends := func(s *Stream) (at <-chan time.Duration, result *error) {
			ch, start := make(chan time.Duration, 1), time.Now()
			result = new(error)
			go func() {
				_, *result = s.Read(make([]byte, 1))
				ch <- time.Since(start)
			}()
			return ch, result
		}
		asked, err := near.Open(t.Context(), Interactive, question("/asked"))
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second) // the loss comes later than the question
		near.SetLost(true)
		askedEnds, askedErr := ends(asked)
		openEnds, _ := ends(open)
		time.Sleep(5 * time.Second)
		fresh, _ := near.Open(t.Context(), Bulk, question("/fresh"))
		freshEnds, freshErr := ends(fresh)
		lasting, _ := near.Open(Lasting(t.Context()), Bulk, question("/lasting"))
		lastingEnds, _ := ends(lasting)
		forgotten, _ := near.Open(t.Context(), Bulk, question("/forgotten"))
		forgotten.Close()

		if got := <-askedEnds; got != BeginTime || !errors.Is(*askedErr, ErrLost) || !errors.Is(*askedErr, syscall.EHOSTUNREACH) {
			t.Errorf("what was asked before the loss ends after %v with %v, want %v and %v", got, *askedErr, BeginTime, ErrLost)
		}
		if got := <-freshEnds; got != BeginTime || !errors.Is(*freshErr, ErrLost) {
			t.Errorf("what began in the loss ends after %v with %v, want %v and %v", got, *freshErr, BeginTime, ErrLost)
		}
		time.Sleep(time.Minute)
		select {
		case <-openEnds:
			t.Error("an open stream has ended")
		case <-lastingEnds:
			t.Error("a stream that is to last has ended")
		default:
		}
		near.SetLost(false)
		for range 2 { // the others were reset
			accept(t, far).Close()
		}
		<-lastingEnds
		for _, s := range []*Stream{asked, fresh, lasting, open, peer} {
			s.Close()
		}
		<-openEnds
	})
}

// The link comes back in time, and is lost again: each loss has its own time.
func TestLostTwice(t *testing.T) {
	lostPair(t, func(t *testing.T, near, far *Conn) {
		near.SetLost(true)
		s, err := near.Open(t.Context(), Bulk, question("/"))
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		time.Sleep(10 * time.Second)
		near.SetLost(false)
		time.Sleep(time.Minute) // slow, but not lost
		near.SetLost(true)
		start := time.Now()
		if _, err := s.Read(make([]byte, 1)); !errors.Is(err, ErrLost) || time.Since(start) != BeginTime {
			t.Errorf("ends after %v with %v, want %v and %v", time.Since(start), err, BeginTime, ErrLost)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := near.Call(ctx, question("/call")); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a call of a second ends with %v, want %v", err, context.DeadlineExceeded)
		}
	})
}
