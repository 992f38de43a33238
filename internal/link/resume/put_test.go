package resume

import (
	"io"
	"testing"
	"testing/synctest"
)

// TestPut: what comes goes to who waits, as far as there is room and nothing is
// before it.
func TestPut(t *testing.T) {
	for _, c := range []struct {
		name        string
		kept        string
		want        int // room of who waits
		pieces      []string
		given, ring string
	}{
		{"nobody waits", "", 0, []string{"ab"}, "", "ab"},
		{"it fits", "", 4, []string{"ab"}, "ab", ""},
		{"more of it", "", 4, []string{"ab", "cd"}, "abcd", ""},
		{"it does not fit", "", 3, []string{"ab", "cd", "e"}, "abc", "de"},
		{"something is before it", "x", 4, []string{"ab"}, "", "xab"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := &Pipe{want: make([]byte, c.want)}
			p.in.base = 1000
			p.in.append([]byte(c.kept))
			end := p.in.end()
			for _, b := range c.pieces {
				p.put([]byte(b))
				end += uint64(len(b))
			}
			kept := make([]byte, p.in.n)
			p.in.copyFrom(p.in.base, kept)
			if given := string(p.want[:p.given]); given != c.given || string(kept) != c.ring || p.in.end() != end {
				t.Errorf("given %q, kept %q until %d; want %q, %q, %d", given, kept, p.in.end(), c.given, c.ring, end)
			}
		})
	}
}

// TestWaitingReadGivesAll in order across its ends, also where the other end says
// goodbye at once, and what was taken by who waits is acknowledged.
func TestWaitingReadGivesAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := newLab(t, Options{}).session(Options{})
		got := make(chan string)
		go func() {
			b := make([]byte, 4)
			all := ""
			for {
				n, err := far.Read(b)
				all += string(b[:n])
				if err != nil {
					if err != io.EOF {
						t.Errorf("the end: %v", err)
					}
					got <- all
					return
				}
			}
		}()
		synctest.Wait() // it waits
		const words = "more than it has room for"
		if _, err := near.Write([]byte(words)); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		far.mu.Lock()
		if far.given != 0 || far.in.n != 0 {
			t.Errorf("%d and %d bytes are left", far.given, far.in.n)
		}
		far.mu.Unlock()
		near.Write([]byte("bye"))
		near.Close()
		if all := <-got; all != words+"bye" {
			t.Errorf("read %q", all)
		}
		near.mu.Lock()
		defer near.mu.Unlock()
		if near.out.n != 0 {
			t.Errorf("%d bytes are not acknowledged", near.out.n)
		}
		far.Close()
	})
}
