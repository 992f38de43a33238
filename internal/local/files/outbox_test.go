package files

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mirrord-go/mirrord/internal/link"
	"github.com/mirrord-go/mirrord/internal/protocol"
	"github.com/mirrord-go/mirrord/internal/rules"
)

// writable has all of the target written there.
func writable(t *testing.T) func(o *Options) {
	return func(o *Options) { o.Rules = ruled(t, rules.FilesOptions{Mode: rules.FilesWrite}, rules.Places{}) }
}

// TestNewFileIsThreeRoundTrips: one finds that there is none, one makes it and
// one writes it, also more than a new stream may carry unasked.
func TestNewFileIsThreeRoundTrips(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		root := t.TempDir()
		f := newFar(t, root, writable(t))
		content := bytes.Repeat([]byte("0123456789abcdef"), 8<<10)
		if took := trips(func() {
			if _, err := f.find("/file"); errno(err) != syscall.ENOENT {
				t.Errorf("before it is made: %v, want ENOENT", err)
			}
			file, err := f.Create(t.Context(), "/file", unix.O_WRONLY, 0o644)
			must(t, err)
			must(t, second(file.WriteAt(t.Context(), content, 0, false)))
			must(t, file.Flush(t.Context()))
			must(t, file.Close())
		}); took > 3.1 {
			t.Errorf("a new file of %d bytes took %.1f round trips, want 3", len(content), took)
		}
		if got, err := os.ReadFile(filepath.Join(root, "file")); err != nil || !bytes.Equal(got, content) {
			t.Errorf("%d bytes, %v, want %d", len(got), err, len(content))
		}
	})
}

// TestWriteAgainIsThreeRoundTrips: one brings the names on the way up to date, one
// opens the file and one writes it, also where the directory was of little use
// before.
func TestWriteAgainIsThreeRoundTrips(t *testing.T) {
	root := t.TempDir()
	write(t, filepath.Join(root, "data/large"), strings.Repeat("x", prefetch+1))
	write(t, filepath.Join(root, "data/written/file"), "old")
	aged(t)
	synctest.Test(t, func(t *testing.T) {
		f := newFar(t, root, writable(t))
		_, err := f.find("/data/large")
		must(t, err)
		for i := range 3 {
			time.Sleep(DefaultLife + time.Millisecond)
			took := trips(func() {
				n, err := f.find("/data/written/file")
				must(t, err)
				file, err := f.Open(t.Context(), "/data/written/file", n.Key, unix.O_WRONLY|unix.O_TRUNC)
				must(t, err)
				must(t, second(file.WriteAt(t.Context(), []byte("new"), 0, false)))
				must(t, file.Flush(t.Context()))
				must(t, file.Close())
			})
			if took > 3.1 {
				t.Errorf("time %d took %.1f round trips, want 3", i+1, took)
			}
		}
	})
}

// TestWriteFillsTheLink: writing a file takes the time that its bytes need, and
// what finding out what the link carries costs.
func TestWriteFillsTheLink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const size = 50_000_000
		f := newFarAt(t, t.TempDir(), farRate, writable(t))
		began := time.Now()
		file, err := f.Create(t.Context(), "/file", unix.O_WRONLY, 0o644)
		must(t, err)
		defer file.Close()
		buf := make([]byte, 1<<20)
		for off := 0; off < size; off += len(buf) {
			must(t, second(file.WriteAt(t.Context(), buf[:min(size-off, len(buf))], int64(off), false)))
		}
		must(t, file.Flush(t.Context()))
		took, least := time.Since(began), size*time.Second/farRate
		if share := float64(least) / float64(took); share < 0.915 {
			t.Errorf("it took %v, %.3f of what the link carries", took, share)
		}
	})
}

// TestIdleWriterKeepsNoStream: a file that is open for writing and not written
// has none, and can be written later.
func TestIdleWriterKeepsNoStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := writing(t, nil)
		v.has(nil, map[string]string{"/file": ""})
		file, err := v.openFile(v.in("/file"), unix.O_WRONLY)
		must(t, err)
		defer file.Close()
		box := file.(*remoteFile).box
		open := func() bool { box.mu.Lock(); defer box.mu.Unlock(); return box.stream != nil }
		want := ""
		for i := range 3 {
			if i > 0 == open() {
				t.Errorf("before write %d: a stream is open: %v", i, open())
			}
			must(t, second(file.WriteAt(t.Context(), []byte("word "), int64(len(want)), false)))
			must(t, file.Flush(t.Context()))
			want += "word "
			if !open() {
				t.Errorf("after write %d: no stream is open", i)
			}
			time.Sleep(2 * idleTime)
		}
		if got := read(t, v.remote(v.in("/file"))); got != want {
			t.Errorf("the file is %q, want %q", got, want)
		}
	})
}

// TestOpenEndsItsStream: an agent that ends the stream behind its answer is
// written to by others.
func TestOpenEndsItsStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := writing(t, nil)
		v.has(nil, map[string]string{"/file": ""})
		v.target.on(func(s *link.Stream, m protocol.Message) bool {
			if _, ok := m.(*protocol.Open); !ok {
				return false
			}
			reply, err := v.target.reply(m)
			must(t, err)
			_ = s.Send(reply)
			s.Close()
			return true
		})
		file, err := v.openFile(v.in("/file"), unix.O_WRONLY)
		must(t, err)
		defer file.Close()
		synctest.Wait() // until that is heard
		must(t, second(file.WriteAt(t.Context(), []byte("content"), 0, false)))
		must(t, file.Flush(t.Context()))
		if got := read(t, v.remote(v.in("/file"))); got != "content" {
			t.Errorf("the file is %q", got)
		}
	})
}

// TestIdleWriterIsNotTold: a stream that is lost with nothing on its way is
// nobody's error.
func TestIdleWriterIsNotTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := writing(t, nil)
		v.has(nil, map[string]string{"/file": ""})
		file, err := v.openFile(v.in("/file"), unix.O_WRONLY)
		must(t, err)
		defer file.Close()
		v.link.Close("")
		synctest.Wait()
		if err := file.Flush(t.Context()); err != nil {
			t.Errorf("close of what was not written: %v", err)
		}
		if err := errors.Join(second(file.WriteAt(t.Context(), []byte("x"), 0, false)), file.Flush(t.Context())); errno(err) != syscall.EIO {
			t.Errorf("a write: %v, want EIO", err)
		}
	})
}
