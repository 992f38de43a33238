package gather

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

// log keeps what each Write got.
type log struct {
	writes []string
	err    error
}

func (l *log) Write(b []byte) (int, error) {
	if l.err != nil {
		return 0, l.err
	}
	l.writes = append(l.writes, string(b))
	return len(b), nil
}

func TestWriter(t *testing.T) {
	for _, c := range []struct {
		name, does string // a word is written, but for these
		want       []string
	}{
		{"nothing is held at first", "a b", []string{"a", "b"}},
		{"one write of many", "HOLD a b c FLUSH", []string{"abc"}},
		{"nothing is not written", "HOLD FLUSH FLUSH", nil},
		{"after it as before", "HOLD a FLUSH b HOLD c d FLUSH", []string{"a", "b", "cd"}},
		{"what is too much goes on", "HOLD abcd efgh i FLUSH", []string{"abcdefgh", "i"}},
		{"a piece that is too much by itself", "HOLD a abcdefghij k FLUSH", []string{"a", "abcdefghij", "k"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := &log{}
			w := New(l, 8)
			for word := range strings.FieldsSeq(c.does) {
				switch word {
				case "HOLD":
					w.Hold()
				case "FLUSH":
					if err := w.Flush(); err != nil {
						t.Fatal(err)
					}
				default:
					if n, err := w.Write([]byte(word)); n != len(word) || err != nil {
						t.Fatalf("Write(%q) = %d, %v", word, n, err)
					}
				}
			}
			if !slices.Equal(l.writes, c.want) {
				t.Errorf("got writes %q, want %q", l.writes, c.want)
			}
		})
	}
}

func TestErrors(t *testing.T) {
	broken := errors.New("broken")
	l := &log{err: broken}
	w := New(l, 4)
	w.Hold()
	if _, err := w.Write([]byte("abc")); err != nil {
		t.Errorf("held: got %v", err)
	}
	if _, err := w.Write([]byte("def")); err != broken {
		t.Errorf("beyond what is held: got %v, want %v", err, broken)
	}
	if _, err := w.Write([]byte("ghi")); err != nil {
		t.Errorf("held again: got %v", err)
	}
	if err := w.Flush(); err != broken {
		t.Errorf("Flush: got %v, want %v", err, broken)
	}
}

// Once its buffer has grown, a batch allocates nothing.
func TestAllocations(t *testing.T) {
	w := New(discard{}, 1<<10)
	b := make([]byte, 100)
	if n := testing.AllocsPerRun(100, func() {
		w.Hold()
		for range 5 {
			_, _ = w.Write(b)
		}
		_ = w.Flush()
	}); n > 0 {
		t.Errorf("%v allocations a batch", n)
	}
}

type discard struct{}

func (discard) Write(b []byte) (int, error) { return len(b), nil }
