package link

import (
	"bufio"
	"bytes"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestFollows: a reader is left to wait for the next frame only if that is there as a
// whole and wakes it.
func TestFollows(t *testing.T) {
	data := func(stream uint64, n int) []byte {
		return append(appendHeader(nil, header{typ: typeData, stream: stream, n: n}), make([]byte, n)...)
	}
	for _, c := range []struct {
		name string
		next []byte
		want bool
	}{
		{"nothing", nil, false},
		{"half a header", data(3, 0)[:headerSize-1], false},
		{"a frame", data(3, 100), true},
		{"the end of the stream", data(3, 0), true},
		{"a frame without its last byte", data(3, 100)[:headerSize+99], false},
		{"a frame of another stream", data(5, 100), false},
		{"a frame of another type", appendNumber(nil, typeWindow, 3, 100), false},
		{"a frame beyond what may be", data(3, maxPayload+1), false},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := bufio.NewReaderSize(bytes.NewReader(c.next), readBuffer)
			_, _ = r.Peek(1) // takes what is there
			if got := follows(r, 3); got != c.want {
				t.Errorf("got %v, want %v", got, c.want)
			}
			if r.Buffered() != len(c.next) {
				t.Errorf("%d bytes are left of %d", r.Buffered(), len(c.next))
			}
		})
	}
}

// TestReady waits as Read does, for all that Read waits for, and takes nothing.
func TestReady(t *testing.T) {
	run(t, func() (a, b end) { return pair(64<<10, 0, 0) }, func(t *testing.T, near, far *Conn) {
		a, b := opened(t, near, far, Bulk)
		if _, err := a.Write([]byte("word")); err != nil {
			t.Fatal(err)
		}
		if n := b.Ready(); n != 4 || b.Buffered() != 4 {
			t.Errorf("Ready = %d with %d bytes there, want 4", n, b.Buffered())
		}
		p := make([]byte, 10)
		if n, err := b.Read(p); string(p[:n]) != "word" || err != nil {
			t.Errorf("then Read gives %q, %v", p[:n], err)
		}
		a.CloseWrite()
		if n := b.Ready(); n != 0 {
			t.Errorf("at the end Ready = %d", n)
		}
		if err := b.Reset(0); err != nil {
			t.Error(err)
		}
		if n := a.Ready(); n != 0 {
			t.Errorf("after a reset Ready = %d", n)
		}
		c, d := opened(t, near, far, Bulk)
		if near.Close(""); c.Ready() != 0 || d.Ready() != 0 {
			t.Error("after the end of the link there is something to be read")
		}
		for _, s := range []*Stream{a, b, c, d} {
			s.Close()
		}
	})
}

// lateBye is a pipe on which writing GOAWAY takes longer than the other end's
// answer to it.
type lateBye struct{ end }

func (l lateBye) Write(b []byte) (int, error) {
	n, err := l.end.Write(b)
	if b[0] == typeGoAway {
		time.Sleep(closeTime / 2) // virtual
	}
	return n, err
}

// TestReasonOutlivesTheAnswer: the other end closes the pipe once it has read
// GOAWAY; that is not why the link ended.
func TestReasonOutlivesTheAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := unshaped()
		near, far := New(a, Local, Options{}), New(lateBye{b}, Agent, Options{})
		far.Close("tea time")
		<-near.Done()
		for name, c := range map[string]*Conn{"who closed it": far, "the other": near} {
			if err := c.Err(); err == nil || !strings.Contains(err.Error(), "tea time") {
				t.Errorf("%s: %v, want the reason", name, err)
			}
		}
		near.Close("")
	})
}
