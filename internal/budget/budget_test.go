package budget

import (
	"context"
	"errors"
	"math/rand/v2"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
)

func TestShares(t *testing.T) {
	b := New(100)
	b.Reserve(10)
	a, z := b.Share(20, All), b.Share(30, 50)
	steps := []struct {
		name  string
		share *Share
		take  int // negative: give
		ok    bool
		freeA int
		freeZ int
	}{
		{"nothing yet", a, 0, true, 60, 50},
		{"its own", a, 20, true, 40, 50},
		{"borrowed", a, 10, true, 30, 50},
		{"more than there is", a, 31, false, 30, 50},
		{"all", a, 30, true, 0, 30},
		{"the other has its least", z, 31, false, 0, 30},
		{"and takes it", z, 30, true, 0, 0},
		{"nothing is left", z, 1, false, 0, 0},
		{"its own comes back to it alone", z, -10, true, 0, 10},
		{"what was borrowed is everybody's", a, -40, true, 40, 30}, // z's most is 50
		{"up to its most", z, 31, false, 40, 30},
		{"up to its most, and no more", z, 30, true, 20, 0},
	}
	for _, c := range steps {
		ok := true
		if c.take < 0 {
			c.share.Give(-c.take)
		} else {
			ok = c.share.Take(c.take)
		}
		if ok != c.ok || a.Free() != c.freeA || z.Free() != c.freeZ {
			t.Fatalf("%s: %v, %d and %d are free, want %v, %d and %d", c.name, ok, a.Free(), z.Free(), c.ok, c.freeA, c.freeZ)
		}
	}
}

func TestNilShareHasNoEnd(t *testing.T) {
	var s *Share
	if !s.Take(1<<40) || s.Wait(t.Context(), 1<<40) != nil || s.Free() != All || s.Used() != 0 {
		t.Error("a nil share has an end")
	}
	s.Give(1)
}

func TestTheSumMustHold(t *testing.T) {
	for name, f := range map[string]func(){
		"a share too many": func() { b := New(10); b.Share(6, 6); b.Share(5, 5) },
		"given twice":      func() { s := New(10).Share(6, 6); s.Take(1); s.Give(2) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: it goes on", name)
				}
			}()
			f()
		}()
	}
}

// Whatever the others do at the same time, each share can have its least, and
// all together never have more than the total.
func TestNoShareStarvesAnother(t *testing.T) {
	const total, least, shares = 1000, 100, 5
	b := New(total)
	all := make([]*Share, shares)
	for i := range all {
		all[i] = b.Share(least, All)
	}
	var wg sync.WaitGroup
	for i, s := range all {
		wg.Go(func() {
			random := rand.New(rand.NewPCG(1, uint64(i)))
			var taken []int
			used := 0
			for range 3000 {
				n := 1 + random.IntN(least/2)
				ok := s.Take(n)
				if !ok && used+n <= least {
					t.Errorf("share %d uses %d and gets no %d more", i, used, n)
					return
				}
				if ok {
					taken, used = append(taken, n), used+n
				}
				for len(taken) > 0 && (!ok || random.IntN(3) == 0) {
					ok = true
					s.Give(taken[0])
					taken, used = taken[1:], used-taken[0]
				}
				b.mu.Lock()
				sum := b.common
				for _, s := range all {
					sum += max(s.used, s.least)
				}
				if sum != total || b.common < 0 {
					t.Errorf("the sum is %d with %d in common, want %d", sum, b.common, total)
				}
				b.mu.Unlock()
			}
			for _, n := range taken {
				s.Give(n)
			}
		})
	}
	wg.Wait()
	if b.common != total-shares*least {
		t.Errorf("in the end %d are in common, want %d", b.common, total-shares*least)
	}
}

// Who waits gets its room in turn: a large one is not overtaken by small ones.
func TestWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := New(10)
		s, other := b.Share(4, All), b.Share(0, All)
		if !s.Take(2) || !other.Take(6) {
			t.Fatal("no room at the beginning")
		}
		var order []string
		wait := func(name string, n int) {
			go func() {
				if err := s.Wait(t.Context(), n); err != nil {
					t.Error(err)
				}
				order = append(order, name)
			}()
			synctest.Wait()
		}
		wait("large", 6)
		wait("small", 1)
		if !s.Take(1) {
			t.Error("who does not wait is kept by those who do")
		}
		s.Give(1)
		synctest.Wait()
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(syscall.EAGAIN)
		if err := s.Wait(ctx, 1); !errors.Is(err, syscall.EAGAIN) {
			t.Errorf("got %v, want the cause", err)
		}
		other.Give(4) // another share's
		synctest.Wait()
		if got := strings.Join(order, " "); got != "large" {
			t.Errorf("got %q, want the large one first", got)
		}
		other.Give(2)
		synctest.Wait()
		if got := strings.Join(order, " "); got != "large small" || s.Used() != 9 {
			t.Errorf("got %q with %d in use, want both", got, s.Used())
		}
	})
}
