package resume

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"strings"
	"testing"
)

func TestFrames(t *testing.T) {
	h := hello{fresh: true, session: ID{1, 2, 3}, epoch: 7, received: 1 << 40}
	b := appendHello(nil, h)
	if got, err := parseHello(b[headerSize:]); err != nil || got != h {
		t.Errorf("got %+v, %v, want %+v", got, err, h)
	}
	if got, err := parseHello(append(b[headerSize:], "of a newer release"...)); err != nil || got != h {
		t.Errorf("longer: got %+v, %v, want %+v", got, err, h)
	}
	w := welcome{epoch: 7, received: 9}
	b = appendWelcome(nil, w)
	if got, err := parseAnswer(b[0], b[headerSize:]); err != nil || got != w {
		t.Errorf("got %+v, %v, want %+v", got, err, w)
	}
	b = appendRefused(nil, &RefusedError{RefusedBusy, strings.Repeat("x", 5000)})
	_, err := parseAnswer(b[0], b[headerSize:])
	var refused *RefusedError
	if !errors.As(err, &refused) || refused.Code != RefusedBusy || len(refused.Text) != maxText {
		t.Errorf("got %v, want a refusal with %d bytes of text", err, maxText)
	}
	newer := appendHello(nil, h)[headerSize:]
	newer[4] = version + 1
	if _, err := parseHello(newer); !errors.As(err, &refused) || refused.Code != RefusedVersion {
		t.Errorf("got %v, want a refusal", err)
	}
}

// book remembers what readFrames gives.
type book struct {
	got   bytes.Buffer
	next  uint64
	seen  bool
	other int
}

func (k *book) data(o uint64, p []byte) error {
	if k.seen && o != k.next {
		return errProtocol
	}
	k.seen, k.next = true, o+uint64(len(p))
	k.got.Write(p)
	return nil
}
func (k *book) ack(uint64) error         { k.other++; return nil }
func (k *book) ping(uint64) error        { k.other++; return nil }
func (k *book) pong(uint64) error        { k.other++; return nil }
func (k *book) bye(uint64, string) error { k.other++; return nil }

// FuzzReadFrames: no panic on any input, no more data than was in it, and the
// same result however the bytes arrive.
func FuzzReadFrames(f *testing.F) {
	data := append(binary.BigEndian.AppendUint64(appendHeader(nil, typeData, 13), 5), "hello"...)
	f.Add(data)
	f.Add(appendNumber(appendNumber(data, typeAck, 1), typePing, 2))
	f.Add(appendBye(nil, 3, "bye"))
	f.Add(appendHello(nil, hello{epoch: 1}))
	f.Add([]byte{99, 0, 0, 2, 1, 1, typePong, 0, 0, 8})
	f.Fuzz(func(t *testing.T, b []byte) {
		var whole, single book
		errWhole := readFrames(bufio.NewReaderSize(bytes.NewReader(b), maxSmall), &whole)
		errSingle := readFrames(bufio.NewReaderSize(oneByOne{bytes.NewReader(b)}, maxSmall), &single)
		if errWhole == nil || errSingle == nil {
			t.Fatal("no error at the end")
		}
		if whole.got.Len() > len(b) || !bytes.Equal(whole.got.Bytes(), single.got.Bytes()) || whole.other != single.other {
			t.Errorf("at once: %d bytes, %d frames, %v; one by one: %d bytes, %d frames, %v",
				whole.got.Len(), whole.other, errWhole, single.got.Len(), single.other, errSingle)
		}
	})
}

type oneByOne struct{ r *bytes.Reader }

func (o oneByOne) Read(p []byte) (int, error) { return o.r.Read(p[:min(1, len(p))]) }

func FuzzHello(f *testing.F) {
	f.Add(appendHello(nil, hello{epoch: 1})[headerSize:])
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := parseHello(b)
		if err != nil {
			return
		}
		if again, err := parseHello(appendHello(nil, h)[headerSize:]); err != nil || again != h {
			t.Errorf("%+v comes back as %+v, %v", h, again, err)
		}
		_, _ = parseAnswer(typeWelcome, b)
		_, _ = parseAnswer(typeRefused, b)
	})
}

// FuzzRing compares a ring with a slice.
func FuzzRing(f *testing.F) {
	f.Add([]byte{200, 100, 3, 250, 250, 9})
	f.Fuzz(func(t *testing.T, steps []byte) {
		r := ring{base: 1<<32 - 500}
		var want []byte
		for i, s := range steps {
			if i%2 == 0 {
				p := bytes.Repeat([]byte{byte(i), s}, int(s)*97)
				r.append(p)
				want = append(want, p...)
			} else {
				n := len(want) * int(s) / 255
				r.discard(r.base + uint64(n))
				want = want[n:]
				r.shrink()
			}
			from := len(want) / 3
			got := make([]byte, len(want))
			n := r.copyFrom(r.base+uint64(from), got)
			if r.n != len(want) || !bytes.Equal(got[:n], want[from:]) {
				t.Fatalf("step %d: %d bytes, %d from %d, want %d", i, r.n, n, from, len(want))
			}
		}
	})
}
