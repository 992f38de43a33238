package files

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"syscall"
	"testing"

	"github.com/mirrord-go/mirrord/internal/link"
	"github.com/mirrord-go/mirrord/internal/protocol"
)

// TestReadsInOrder: many on one stream, none waited for, are answered in their
// order, each with its own errno.
func TestReadsInOrder(t *testing.T) {
	root := tempRoot(t)
	const size = 40 << 20 // more than may be on the way
	content := make([]byte, size)
	for i := range content {
		content[i] = byte(i >> 18)
	}
	must(t, os.WriteFile(filepath.Join(root, "file"), content, 0o644))
	c := serve(t, root, As{})
	o := get[*protocol.Opened](c, &protocol.Open{Path: "/file"})
	const n = 256 << 10
	s, err := c.l.Open(t.Context(), link.Bulk, &protocol.ReadAt{Handle: o.Handle, N: n})
	must(t, err)
	defer s.Close()
	for off := int64(n); off < size; off += n {
		must(t, s.Send(&protocol.ReadAt{Handle: o.Handle, Off: off, N: n}))
	}
	ask := []protocol.Message{&protocol.ReadAt{Handle: o.Handle, Off: -1, N: 1}, &protocol.ReadAt{Handle: o.Handle, Off: size, N: 1},
		&protocol.ReadAt{Handle: o.Handle + 1, N: 1}, &protocol.Statfs{Path: "/"}, &protocol.ReadAt{Handle: o.Handle, Off: size - 1, N: 9}}
	for _, m := range ask {
		must(t, s.Send(m))
	}
	must(t, s.CloseWrite())
	for off := 0; off < size; off += n {
		m, err := s.Receive()
		must(t, err)
		if d, ok := m.(*protocol.Data); !ok || len(d.Bytes) != n || d.Bytes[0] != byte(off>>18) || d.Bytes[n-1] != byte(off>>18) {
			t.Fatalf("at %d: %T", off, m)
		}
	}
	for i, want := range []protocol.Message{&protocol.Answer{Errno: syscall.EINVAL}, &protocol.Data{}, &protocol.Answer{Errno: syscall.EBADF},
		&protocol.Answer{Errno: syscall.EPROTO}, &protocol.Data{Bytes: content[size-1:]}} {
		if m, err := s.Receive(); err != nil || !reflect.DeepEqual(m, want) {
			t.Errorf("%+v: got %+v, %v, want %+v", ask[i], m, err, want)
		}
	}
	if m, err := s.Receive(); !errors.Is(err, io.EOF) {
		t.Errorf("behind them: %+v, %v", m, err)
	}
}
