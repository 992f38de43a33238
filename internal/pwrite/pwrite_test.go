package pwrite

import (
	"bytes"
	"os"
	"path/filepath"
	"sync"
	"testing"
)

// TestInPlace: what belongs to a place goes there, and what is appended to the
// end, whoever does the other meanwhile.
func TestInPlace(t *testing.T) {
	for _, c := range []struct {
		name  string
		flags int
		end   bool
	}{
		{"to write", os.O_RDWR, false},
		{"to append", os.O_RDWR | os.O_APPEND, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			f, err := os.OpenFile(filepath.Join(t.TempDir(), "f"), c.flags|os.O_CREATE, 0o600)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			const size, times = 4096, 200
			if _, err := f.Write(make([]byte, size)); err != nil {
				t.Fatal(err)
			}
			var o Order
			var wg sync.WaitGroup
			wg.Go(func() {
				for range times {
					if n, err := o.Write(int(f.Fd()), bytes.Repeat([]byte("p"), 100), 50, true); n != 100 || err != nil {
						t.Errorf("in place: %d, %v", n, err)
					}
				}
			})
			for range times {
				if n, err := o.Write(int(f.Fd()), []byte("a"), 10, false); n != 1 || err != nil {
					t.Errorf("write: %d, %v", n, err)
				}
			}
			wg.Wait()
			want := make([]byte, size)
			copy(want[50:], bytes.Repeat([]byte("p"), 100))
			if c.end {
				want = append(want, bytes.Repeat([]byte("a"), times)...)
			} else {
				want[10] = 'a'
			}
			got, err := os.ReadFile(f.Name())
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("%v: %d bytes, want %d", err, len(got), len(want))
			}
		})
	}
}
