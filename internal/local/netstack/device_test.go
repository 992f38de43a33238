package netstack

import (
	"bytes"
	"testing"

	"gvisor.dev/gvisor/pkg/buffer"
)

// TestPacket: a packet of any size stays what it is, and when the headers of one that
// is shared are looked at the payload is still shared, not copied.
func TestPacket(t *testing.T) {
	for _, n := range []int{1, headers, 2 * headers, 2*headers + 1, 1500, largest} {
		sent := bytes.Repeat([]byte("0123456789abcde"), n/15+1)[:n]
		b := packet(buffer.NewViewWithData(sent))
		shared := b.Clone()
		if got := b.Flatten(); !bytes.Equal(got, sent) {
			t.Errorf("%d bytes become %d others", n, len(got))
		}
		if n > 2*headers {
			v, ok := b.PullUp(20, 100)
			if !ok || !bytes.Equal(v.AsSlice(), sent[20:120]) {
				t.Errorf("of %d bytes other headers", n)
			}
			if last(b) != last(shared) {
				t.Errorf("the payload of %d bytes was copied", n)
			}
		}
		shared.Release()
		b.Release()
	}
}

// last is where the last piece of b lies.
func last(b buffer.Buffer) (at *byte) {
	b.Apply(func(v *buffer.View) { at = &v.AsSlice()[0] })
	return at
}
