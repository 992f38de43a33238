package files

import (
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mirrord-go/mirrord/internal/rules"
)

// A link of 200 Mbit/s: what it carries in a round trip is 1 MB.
const rate = 200_000_000 / 8

// TestReadFillsTheLink: reading a file in order takes as long as its bytes need.
func TestReadFillsTheLink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const size = 200_000_000
		root := t.TempDir()
		must(t, os.WriteFile(filepath.Join(root, "file"), nil, 0o644))
		must(t, os.Truncate(filepath.Join(root, "file"), size))
		f := newFarAt(t, root, rate, nil)
		n, err := f.find("/file")
		must(t, err)
		file, err := f.Open(t.Context(), "/file", n.Key, unix.O_RDONLY)
		must(t, err)
		defer file.Close()
		began := time.Now()
		buf := make([]byte, 128<<10)
		total := 0
		for {
			n, err := file.ReadAt(t.Context(), buf, int64(total))
			must(t, err)
			if total += n; n == 0 {
				break
			}
		}
		took := time.Since(began)
		least := time.Duration(size) * time.Second / rate
		if share := float64(least) / float64(took); share < 0.95 {
			t.Errorf("it took %v, %.2f of what the link carries", took, share)
		}
	})
}

func TestWriteFillsTheLink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const size = 50_000_000
		root := t.TempDir()
		f := newFarAt(t, root, rate, func(o *Options) { o.Rules = ruled(t, rules.FilesOptions{Mode: rules.FilesWrite}, rules.Places{}) })
		began := time.Now()
		file, err := f.Create(t.Context(), "/file", unix.O_WRONLY, 0o644)
		must(t, err)
		defer file.Close()
		t.Logf("created %v", time.Since(began))
		buf := make([]byte, 1<<20)
		total := 0
		for total < size {
			n, err := file.WriteAt(t.Context(), buf[:min(size-total, len(buf))], int64(total))
			must(t, err)
			total += n
		}
		t.Logf("written %v", time.Since(began))
		must(t, file.Flush(t.Context()))
		took := time.Since(began)
		least := time.Duration(size) * time.Second / rate
		t.Logf("%v, %.3f", took, float64(least)/float64(took))
	})
}
