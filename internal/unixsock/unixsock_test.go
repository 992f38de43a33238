package unixsock

import (
	"bytes"
	"errors"
	"io"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mirrord-go/mirrord/internal/budget"
	"github.com/mirrord-go/mirrord/internal/leak"
)

func TestMain(m *testing.M) { os.Exit(leak.Main(m)) }

func pair(t *testing.T, typ int) (a, b *Conn) {
	t.Helper()
	leak.Check(t)
	fds, err := unix.Socketpair(unix.AF_UNIX, typ|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	for i, c := range []**Conn{&a, &b} {
		if *c, err = New(fds[i]); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { (*c).Close() })
	}
	return a, b
}

func receive(c *Conn) (text string, err error) {
	err = c.Receive(func(p []byte) error { text = string(p); return nil })
	return text, err
}

func TestPackets(t *testing.T) {
	a, b := pair(t, unix.SOCK_SEQPACKET)
	b.Packets = budget.New(1<<20).Share(0, budget.All)
	large := strings.Repeat("x", 150_000)
	for _, text := range []string{"one", "two", large} {
		if err := a.Send([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	for _, want := range []string{"one", "two", large} {
		if got, err := receive(b); err != nil || got != want {
			t.Errorf("got %d bytes, %v, want %d", len(got), err, len(want))
		}
	}
	if err := a.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if got, err := receive(b); err != io.EOF {
		t.Errorf("at the end: %q, %v, want EOF", got, err)
	}
	if err := b.Send([]byte("back")); err != nil {
		t.Fatal(err)
	}
	if got, err := receive(a); err != nil || got != "back" {
		t.Errorf("after the half-close: %q, %v", got, err)
	}
	if used := b.Packets.Used(); used != 0 {
		t.Errorf("%d bytes are still taken", used)
	}
}

// A Read that fails has read nothing (io.Reader).
func TestReadFails(t *testing.T) {
	a, b := pair(t, unix.SOCK_STREAM)
	if _, err := b.Write([]byte("unread")); err != nil {
		t.Fatal(err)
	}
	if err := a.Close(); err != nil { // with bytes unread: a reset
		t.Fatal(err)
	}
	if n, err := b.Read(make([]byte, 8)); n != 0 || !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("read %d, %v", n, err)
	}
}

func TestPacketsWithoutMemory(t *testing.T) {
	a, b := pair(t, unix.SOCK_SEQPACKET)
	b.Packets = budget.New(10).Share(0, budget.All)
	if err := a.Send(make([]byte, 11)); err != nil {
		t.Fatal(err)
	}
	if _, err := receive(b); !errors.Is(err, syscall.ENOBUFS) {
		t.Errorf("got %v, want ENOBUFS", err)
	}
}

// Sending waits for room, in whoever's name; the end of either side ends it.
func TestSendWaits(t *testing.T) {
	for name, as := range map[string]func(func()) error{"itself": nil, "as another": func(f func()) error { f(); return nil }} {
		t.Run(name, func(t *testing.T) {
			a, b := pair(t, unix.SOCK_STREAM)
			a.As = as
			want := bytes.Repeat([]byte("0123456789"), 1_000_000)
			sent := make(chan error, 1)
			go func() {
				_, err := a.Write(want)
				sent <- errors.Join(err, a.CloseWrite())
			}()
			if got, err := io.ReadAll(b); err != nil || !bytes.Equal(got, want) {
				t.Errorf("got %d bytes, %v, want %d", len(got), err, len(want))
			}
			if err := <-sent; err != nil {
				t.Error(err)
			}
			c, d := pair(t, unix.SOCK_STREAM)
			c.As = as
			go func() {
				_, err := c.Write(want)
				sent <- err
			}()
			time.AfterFunc(10*time.Millisecond, func() { d.Close() })
			if err := <-sent; !errors.Is(err, syscall.EPIPE) && !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("to nobody: %v, want EPIPE", err)
			}
		})
	}
}

// Descriptors never come in, and are told of.
func TestDescriptorsStayOut(t *testing.T) {
	for _, typ := range []int{unix.SOCK_STREAM, unix.SOCK_SEQPACKET} {
		a, b := pair(t, typ)
		dropped := 0
		b.Dropped = func() { dropped++ }
		for _, oob := range [][]byte{nil, unix.UnixRights(0, 1, 2)} {
			if _, _, err := a.c.WriteMsgUnix([]byte("text"), oob, nil); err != nil {
				t.Fatal(err)
			}
			if typ == unix.SOCK_STREAM {
				if n, err := b.Read(make([]byte, 10)); n != 4 || err != nil {
					t.Errorf("read %d, %v", n, err)
				}
			} else if got, err := receive(b); got != "text" || err != nil {
				t.Errorf("got %q, %v", got, err)
			}
		}
		if dropped != 1 {
			t.Errorf("told %d times, want once", dropped)
		}
	}
}

func TestName(t *testing.T) {
	for sunPath, want := range map[string]string{"/x": "/x", "\x00x": "@x", "\x00x\x00\x00": "@x", "\x00": "@"} {
		if got := Name(sunPath); got != want {
			t.Errorf("%q: got %q, want %q", sunPath, got, want)
		}
	}
}

func TestConnectRefusesWhatIsNoName(t *testing.T) {
	for _, name := range []string{"", "/" + strings.Repeat("x", MaxName)} {
		if err := Connect(0, name); err != unix.EINVAL {
			t.Errorf("%d bytes: got %v, want EINVAL", len(name), err)
		}
	}
}
