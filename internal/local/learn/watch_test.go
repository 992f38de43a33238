package learn

import (
	"context"
	"errors"
	"os"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mirrord-go/mirrord/internal/leak"
	"github.com/mirrord-go/mirrord/internal/local/fusefs"
	"github.com/mirrord-go/mirrord/internal/protocol"
)

func TestMain(m *testing.M) { os.Exit(leak.Main(m)) }

// ofTarget is the key of the target's files here.
const ofTarget = 1 << 40

// fake is a Tree of a few files; what it has no method for the test does not
// call.
type fake struct {
	fusefs.Tree
	keys map[string]uint64
	errs map[string]error
	got  []fusefs.File // that were given back to it
}

func (f *fake) Lookup(ctx context.Context, p string) (fusefs.Node, error) {
	if f.keys[p] == ofTarget {
		Trip(ctx)
		Trip(ctx)
	}
	if err := f.errs[p]; err != nil {
		return fusefs.Node{}, err
	}
	if f.keys[p] == 0 {
		return fusefs.Node{Keep: time.Second}, syscall.ENOENT
	}
	return fusefs.Node{Key: f.keys[p]}, nil
}

func (f *fake) Open(_ context.Context, p string, key uint64, _ uint32) (fusefs.File, error) {
	if err := f.errs[p]; err != nil {
		return nil, err
	}
	if key == ofTarget {
		return &far{}, nil
	}
	return &near{}, nil
}

func (f *fake) Create(context.Context, string, uint32, uint32) (fusefs.File, error) {
	return &near{}, nil
}

func (f *fake) Name(_ context.Context, file fusefs.File, _ string) error {
	f.got = append(f.got, file)
	return nil
}

func (f *fake) Rename(_ context.Context, old, _ string, _ uint32) error { return f.errs[old] }

// far is a file of the target's, near one of this machine's.
type far struct {
	fusefs.File
	from fusefs.File
}

func (f *far) ReadAt(_ context.Context, p []byte, _ int64) (int, error) { return len(p), nil }
func (f *far) CopyFrom(_ context.Context, from fusefs.File, _, _ int64, n uint64) (int64, error) {
	f.from = from
	return int64(n), nil
}
func (f *far) Stat(context.Context) (protocol.Attr, time.Duration, error) {
	return protocol.Attr{Size: 7}, time.Second, nil
}
func (f *far) Flush(context.Context) error { return syscall.EROFS }
func (f *far) Close() error                { return nil }

type near struct{ fusefs.File }

func (*near) Fd() int { return 0 }

// The watched Tree gives what the Tree gives, and notes it.
func TestWatch(t *testing.T) {
	f := &fake{keys: map[string]uint64{"/t": ofTarget, "/h": 1}, errs: map[string]error{"/no": &os.PathError{Err: syscall.EACCES}, "/move": syscall.EXDEV}}
	l := NewLog()
	w := Watch(f, l, func(key uint64) bool { return key == ofTarget })
	ctx := t.Context()
	if n, err := w.Lookup(ctx, "/t"); n.Key != ofTarget || err != nil {
		t.Errorf("lookup: %v %v", n, err)
	}
	if n, err := w.Lookup(ctx, "/none"); !errors.Is(err, syscall.ENOENT) || n.Keep != time.Second {
		t.Errorf("lookup of nothing: %v %v", n, err)
	}
	if f, err := w.Open(ctx, "/no", 1, unix.O_RDONLY); f != nil || !errors.Is(err, syscall.EACCES) {
		t.Errorf("a refused open gives %v, %v", f, err)
	}
	here, err := w.Open(ctx, "/h", 1, unix.O_RDONLY)
	if _, ok := here.(fusefs.Lender); !ok || err != nil {
		t.Errorf("a file of this machine's is no descriptor any more: %T, %v", here, err)
	}
	made, err := w.Create(ctx, "/new", 0, 0)
	if _, ok := made.(fusefs.Lender); !ok || err != nil {
		t.Errorf("a new file of this machine's is no descriptor any more: %T, %v", made, err)
	}
	there, err := w.Open(ctx, "/t", ofTarget, unix.O_RDWR)
	if err != nil {
		t.Fatal(err)
	}
	if n, err := there.ReadAt(ctx, make([]byte, 10), 0); n != 10 || err != nil {
		t.Errorf("read %d, %v", n, err)
	}
	if n, err := there.CopyFrom(ctx, there, 0, 0, 5); n != 5 || err != nil || bare(there).(*far).from != bare(there) {
		t.Errorf("copied %d, %v, from %T", n, err, bare(there).(*far).from)
	}
	if a, keep, err := there.Stat(ctx); a.Size != 7 || keep != time.Second || err != nil {
		t.Errorf("stat: %v %v %v", a, keep, err)
	}
	if err := there.Flush(ctx); !errors.Is(err, syscall.EROFS) {
		t.Errorf("flush: %v", err)
	}
	if err := w.Name(ctx, there, "/named"); err != nil || f.got[0] != bare(there) {
		t.Errorf("name: %v, of %T", err, f.got)
	}
	if err := w.Rename(ctx, "/move", "/to", 0); !errors.Is(err, syscall.EXDEV) {
		t.Errorf("rename: %v", err)
	}
	s := l.paths["/t"]
	if s.lookups != 1 || s.trips != 2 || s.opens != 1 || s.bytes != 15 || !s.target || s.here || len(s.refused) != 1 || s.refused[0] != (refusal{writing, syscall.EROFS, 1}) {
		t.Errorf("of the target's file is noted %+v", s)
	}
	if s := l.paths["/none"]; s.missed != 1 || !s.missing() {
		t.Errorf("of nothing is noted %+v", s)
	}
	if s := l.paths["/h"]; s.opens != 1 || !s.here || s.target {
		t.Errorf("of this machine's file is noted %+v", s)
	}
	if s := l.paths["/new"]; !s.made {
		t.Errorf("of a new file is noted %+v", s)
	}
	for _, p := range []string{"/move", "/to"} {
		if s := l.paths[p]; len(s.refused) != 1 || s.refused[0].errno != syscall.EXDEV || s.made {
			t.Errorf("of %s is noted %+v", p, s)
		}
	}
}

// Without a call that counts, nothing is counted.
func TestTripOfNobody(t *testing.T) { Trip(t.Context()) }

// sizeless is a file of procfs.
type sizeless struct{ far }

func (*sizeless) Sizeless() bool { return true }

func TestSizelessIsKnownThrough(t *testing.T) {
	for _, c := range []struct {
		f    fusefs.File
		want bool
	}{{&sizeless{}, true}, {&far{}, false}} {
		if got := (&file{c.f, NewLog(), "/p"}).Sizeless(); got != c.want {
			t.Errorf("%T: sizeless is %v", c.f, got)
		}
	}
}
