package handoff

import (
	"bytes"
	"errors"
	"io"
	"net/netip"
	"os"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"time"
)

func full() *Spec {
	return &Spec{
		Argv: []string{"a", ""}, Env: []string{"BYTES=\xff\x00\xfe", "B=" + strings.Repeat("x", 300<<10)}, Dir: "/d", Hostname: "h",
		Addrs: []netip.Prefix{netip.MustParsePrefix("10.0.0.1/24"), netip.MustParsePrefix("fd00::1/64")}, SYNRetries: 6, SYNLinear: 4,
		FUSE: true, Poll: true, MaxRead: 1 << 20, Binds: []string{"/usr", "/proc"}, Hides: []string{"/home/u/.kube"},
	}
}

func TestSpecEncoding(t *testing.T) {
	for _, s := range []*Spec{{}, full(), {DefaultPermissions: true}, {NoIPv6: true}, {Connects: true}} {
		got, err := DecodeSpec(s.Encode())
		if err != nil || !reflect.DeepEqual(got, s) {
			t.Errorf("got %+v, %v; want %+v", got, err, s)
		}
	}
	b := full().Encode()
	for _, n := range []int{0, 1, 5, len(b) / 2, len(b) - 1} {
		if _, err := DecodeSpec(b[:n]); err == nil {
			t.Errorf("the first %d bytes were taken for all", n)
		}
	}
	if _, err := DecodeSpec(append(b, 0)); err == nil {
		t.Error("a byte too much was taken")
	}
}

func TestErrorEncoding(t *testing.T) {
	e := &Error{Step: StepBind, Path: "/x", Errno: syscall.ENOENT, Text: "more", Instead: true}
	got, err := DecodeError(e.Encode())
	if err != nil || *got != *e {
		t.Fatalf("got %+v, %v; want %+v", got, err, e)
	}
	if !errors.Is(got, syscall.ENOENT) {
		t.Error("the errno is lost")
	}
	if got, want := e.Error(), `sandbox: bind "/x": more: no such file or directory`; got != want {
		t.Errorf("text: got %q, want %q", got, want)
	}
	for e, want := range map[Error]int{
		{Step: StepLookup, Errno: syscall.ENOENT}: 127, {Step: StepExec, Errno: syscall.ENOENT}: 127,
		{Step: StepExec, Errno: syscall.EACCES}: 126, {Step: StepLookup, Errno: syscall.EACCES}: 126,
		{Step: StepChdir, Errno: syscall.ENOENT}: 125,
	} {
		if got := e.ExitCode(); got != want {
			t.Errorf("%v: got %d, want %d", &e, got, want)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add((&Spec{Argv: []string{"a"}, Addrs: []netip.Prefix{netip.MustParsePrefix("10.0.0.1/24")}}).Encode())
	f.Add((&Error{Step: StepExec, Errno: 2}).Encode())
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0x7f})
	f.Fuzz(func(t *testing.T, b []byte) {
		if s, err := DecodeSpec(b); err == nil {
			again, err := DecodeSpec(s.Encode())
			if err != nil || !reflect.DeepEqual(again, s) {
				t.Errorf("%+v becomes %+v, %v", s, again, err)
			}
		}
		if e, err := DecodeError(b); err == nil {
			if again, err := DecodeError(e.Encode()); err != nil || *again != *e {
				t.Errorf("%+v becomes %+v, %v", e, again, err)
			}
		}
	})
}

func pair(t *testing.T) (a, b *Conn) {
	t.Helper()
	fa, fb, err := Pair()
	if err != nil {
		t.Fatal(err)
	}
	if a, err = NewConn(fa); err != nil {
		t.Fatal(err)
	}
	if b, err = NewConn(fb); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close(); b.Close() })
	return a, b
}

// TestConn: messages larger than the socket's buffer, and each descriptor with
// its own message.
func TestConn(t *testing.T) {
	a, b := pair(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	big := bytes.Repeat([]byte("0123456789"), 100<<10)
	sent := make(chan error, 1)
	go func() {
		defer w.Close()
		sent <- errors.Join(
			a.Send(Message{Kind: KindSpec, Body: big}),
			a.Send(Message{Kind: KindReady}),
			a.Send(Message{Kind: KindFile, Body: []byte{byte(Packets)}, File: w}),
			a.Send(Message{Kind: KindGo, Body: []byte("x")}),
			SendFile(a, "label", w),
			a.Close())
	}()
	for i, want := range []Message{{Kind: KindSpec, Body: big}, {Kind: KindReady}, {Kind: KindFile, Body: []byte{byte(Packets)}}, {Kind: KindGo, Body: []byte("x")}} {
		m, err := b.Receive()
		if err != nil {
			t.Fatal(err)
		}
		if m.Kind != want.Kind || !bytes.Equal(m.Body, want.Body) || (m.File != nil) != (want.Kind == KindFile) {
			t.Errorf("message %d: got kind %d, %d bytes, file %v; want kind %d, %d bytes", i, m.Kind, len(m.Body), m.File, want.Kind, len(want.Body))
		}
		if m.File != nil {
			m.File.Close()
		}
	}
	label, f, err := RecvFile(b)
	if err != nil || label != "label" {
		t.Fatalf("got %q, %v; want label", label, err)
	}
	f.WriteString("through")
	f.Close()
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(r); err != nil || string(got) != "through" {
		t.Errorf("the passed descriptor: got %q, %v; want through", got, err)
	}
	if _, err := b.Receive(); err != io.EOF {
		t.Errorf("after Close: got %v, want EOF", err)
	}
}

func TestConnEnds(t *testing.T) {
	a, b := pair(t)
	b.SetDeadline(time.Unix(1, 0))
	if _, err := b.Receive(); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("deadline: got %v", err)
	}
	if _, _, err := RecvFile(b); err == nil {
		t.Error("RecvFile after the deadline: no error")
	}
	b.SetDeadline(time.Time{})
	a.Send(Message{Kind: KindGo})
	if _, _, err := RecvFile(b); err == nil {
		t.Error("a message without descriptor was taken for one")
	}
	if err := a.Send(Message{Kind: KindSpec, Body: make([]byte, maxBody+1)}); !errors.Is(err, syscall.E2BIG) {
		t.Errorf("too large: got %v, want E2BIG", err)
	}
	b.Close()
	if _, err := b.Receive(); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("closed: got %v, want another error", err)
	}
	if err := a.Send(Message{Kind: KindGo}); !errors.Is(err, syscall.EPIPE) {
		t.Errorf("send to nobody: got %v, want EPIPE", err)
	}
}
