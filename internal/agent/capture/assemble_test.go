package capture

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"github.com/mirrord-go/mirrord/internal/budget"
)

var (
	client = netip.MustParseAddrPort("192.0.2.1:40000")
	server = netip.MustParseAddrPort("10.0.0.7:80")
)

// ip makes an IPv4 or IPv6 packet from client to server.
func ip(k flowKey, flags byte, seq uint32, data string) []byte {
	tcp := make([]byte, 20, 20+len(data))
	binary.BigEndian.PutUint16(tcp, k.client.Port())
	binary.BigEndian.PutUint16(tcp[2:], k.server.Port())
	binary.BigEndian.PutUint32(tcp[4:], seq)
	tcp[12], tcp[13] = 5<<4, flags
	tcp = append(tcp, data...)
	if k.client.Addr().Is4() {
		b := make([]byte, 20)
		b[0], b[9] = 0x45, syscall.IPPROTO_TCP
		binary.BigEndian.PutUint16(b[2:], uint16(20+len(tcp)))
		copy(b[12:], k.client.Addr().AsSlice())
		copy(b[16:], k.server.Addr().AsSlice())
		return append(b, tcp...)
	}
	b := make([]byte, 40)
	b[0], b[6] = 0x60, syscall.IPPROTO_TCP
	binary.BigEndian.PutUint16(b[4:], uint16(len(tcp)))
	copy(b[8:], k.client.Addr().AsSlice())
	copy(b[24:], k.server.Addr().AsSlice())
	return append(b, tcp...)
}

// step is one packet of a script.
type step struct {
	flags byte
	seq   uint32
	data  string
	late  time.Duration // since the packet before
}

func play(steps []step) (text string, end error, a *assembler) {
	var conns []*Conn
	a = newAssembler(func(c *Conn) bool { conns = append(conns, c); return true }, nil, nil)
	now := time.Unix(0, 0)
	for _, s := range steps {
		now = now.Add(s.late)
		a.packet(ip(flowKey{client, server}, s.flags, s.seq, s.data), false, now)
	}
	a.forgetAll()
	if len(conns) != 1 {
		return "", nil, a
	}
	b, err := io.ReadAll(conns[0])
	if err == nil {
		err = io.EOF
	}
	return string(b), err, a
}

func TestAssemble(t *testing.T) {
	const S, A, F, R = flagSYN, flagACK, flagFIN, flagRST
	for _, c := range []struct {
		name  string
		steps []step
		want  string
		end   error // nil: no copy at all
	}{
		{"in order", []step{{S, 9, "", 0}, {A, 10, "", 0}, {A, 10, "abc", 0}, {A, 13, "de", 0}, {A | F, 15, "", 0}}, "abcde", io.EOF},
		{"end with data", []step{{S, 9, "", 0}, {A, 10, "ab", 0}, {A | F, 12, "c", 0}}, "abc", io.EOF},
		{"swapped", []step{{S, 9, "", 0}, {A, 12, "cd", 0}, {A, 10, "ab", 0}, {A | F, 14, "", 0}}, "abcd", io.EOF},
		{"end before data", []step{{S, 9, "", 0}, {A | F, 12, "", 0}, {A, 10, "ab", 0}}, "ab", io.EOF},
		{"sent again", []step{{S, 9, "", 0}, {S, 9, "", 0}, {A, 10, "ab", 0}, {A, 10, "ab", 0}, {A, 12, "c", 0}, {A | F, 13, "", 0}}, "abc", io.EOF},
		{"overlap", []step{{S, 9, "", 0}, {A, 10, "abc", 0}, {A, 12, "cde", 0}, {A | F, 15, "", 0}}, "abcde", io.EOF},
		{"overlap behind a gap", []step{{S, 9, "", 0}, {A, 13, "de", 0}, {A, 12, "cde", 0}, {A, 10, "abc", 0}, {A | F, 15, "", 0}}, "abcde", io.EOF},
		{"gap that stays", []step{{S, 9, "", 0}, {A, 10, "a", 0}, {A, 12, "c", 0}, {A, 13, "d", 10 * time.Second}}, "a", ErrIncomplete},
		{"reset", []step{{S, 9, "", 0}, {A, 10, "ab", 0}, {R | A, 12, "", 0}}, "ab", syscall.ECONNRESET},
		{"reset of a stranger", []step{{S, 9, "", 0}, {A, 10, "ab", 0}, {R, 5000, "", 0}, {A, 12, "c", 0}, {A | F, 13, "", 0}}, "abc", io.EOF},
		{"sequence numbers wrap", []step{{S, 1<<32 - 2, "", 0}, {A, 1<<32 - 1, "ab", 0}, {A, 1, "cd", 0}, {A | F, 3, "", 0}}, "abcd", io.EOF},
		{"wrap and swapped", []step{{S, 1<<32 - 2, "", 0}, {A, 1, "cd", 0}, {A, 1<<32 - 1, "ab", 0}, {A | F, 3, "", 0}}, "abcd", io.EOF},
		{"port used again", []step{{S, 9, "", 0}, {A, 10, "ab", 0}, {S, 500, "", 0}}, "ab", ErrIncomplete},
		{"older than the tap", []step{{A, 10, "ab", 0}, {A | F, 12, "", 0}}, "", nil},
		{"never accepted", []step{{S, 9, "", 0}, {S, 9, "", time.Second}}, "", nil},
		{"tap closed", []step{{S, 9, "", 0}, {A, 10, "ab", 0}}, "ab", ErrIncomplete},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err, _ := play(c.steps)
			if got != c.want || !errors.Is(err, c.end) {
				t.Errorf("got %q and %v, want %q and %v", got, err, c.want, c.end)
			}
		})
	}
}

// TestRandomOrder checks whole streams whose segments come swapped, doubled
// and overlapping.
func TestRandomOrder(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		want := make([]byte, 1+r.IntN(20000))
		for i := range want {
			want[i] = byte(r.Uint32())
		}
		first := r.Uint32()
		var steps []step
		for off := 0; off < len(want); {
			n := min(1+r.IntN(1400), len(want)-off)
			from := max(0, off-r.IntN(100))
			steps = append(steps, step{flagACK, first + 1 + uint32(from), string(want[from : off+n]), 0})
			off += n
		}
		steps = append(steps, steps[:len(steps)/3]...)
		steps = append(steps, step{flagACK | flagFIN, first + 1 + uint32(len(want)), "", 0})
		r.Shuffle(len(steps), func(i, j int) { steps[i], steps[j] = steps[j], steps[i] })
		got, err, _ := play(append([]step{{flagSYN, first, "", 0}}, steps...))
		if err != io.EOF || !bytes.Equal([]byte(got), want) {
			t.Fatalf("%d bytes in %d segments: got %d bytes, %v; sums %x %x", len(want), len(steps), len(got), err, sha256.Sum256([]byte(got)), sha256.Sum256(want))
		}
	}
}

func TestSlowReaderLosesItsCopyOnly(t *testing.T) {
	var conns []*Conn
	a := newAssembler(func(c *Conn) bool { conns = append(conns, c); return true }, nil, nil)
	now := time.Unix(0, 0)
	other := flowKey{netip.MustParseAddrPort("[2001:db8::1]:5"), netip.MustParseAddrPort("[2001:db8::7]:80")}
	for _, k := range []flowKey{{client, server}, other} {
		a.packet(ip(k, flagSYN, 0, ""), false, now)
		a.packet(ip(k, flagACK, 1, ""), false, now)
	}
	chunk := string(make([]byte, 60000))
	for seq := uint32(1); seq < 2*maxQueued; seq += uint32(len(chunk)) {
		a.packet(ip(flowKey{client, server}, flagACK, seq, chunk), false, now)
	}
	a.packet(ip(other, flagACK|flagFIN, 1, "intact"), false, now)
	if _, err := io.ReadAll(conns[0]); !errors.Is(err, ErrIncomplete) {
		t.Errorf("the slow copy ends with %v, want ErrIncomplete", err)
	}
	if b, err := io.ReadAll(conns[1]); err != nil || string(b) != "intact" {
		t.Errorf("the other copy is %q, %v", b, err)
	}
	if a.stats.Slow != 1 || a.stats.Connections != 2 {
		t.Errorf("counted %+v", a.stats)
	}
}

func TestFlowsAreBounded(t *testing.T) {
	a := newAssembler(func(*Conn) bool { return true }, nil, nil)
	now := time.Unix(0, 0)
	syn := func(n int) {
		k := flowKey{netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(n >> 16), byte(n >> 8), byte(n)}), 1), server}
		a.packet(ip(k, flagSYN, 1, ""), false, now)
	}
	for n := range maxFlows + 100 {
		syn(n)
	}
	if len(a.flows) != maxFlows || a.stats.Refused != 100 {
		t.Errorf("%d flows, %d refused", len(a.flows), a.stats.Refused)
	}
	now = now.Add(openTime + time.Second)
	syn(maxFlows + 200)
	if len(a.flows) != 1 {
		t.Errorf("%d flows after the flood, want 1", len(a.flows))
	}
}

func FuzzPacket(f *testing.F) {
	f.Add(ip(flowKey{client, server}, flagSYN, 9, ""), []byte{0x45})
	f.Add(ip(flowKey{client, server}, flagACK, 10, "data"), ip(flowKey{client, server}, flagFIN, 3, ""))
	f.Fuzz(func(t *testing.T, x, y []byte) {
		a := newAssembler(func(*Conn) bool { return true }, func([]byte) bool { return true }, nil)
		now := time.Unix(0, 0)
		a.packet(ip(flowKey{client, server}, flagSYN, 9, ""), false, now)
		a.packet(x, false, now)
		a.packet(y, false, now)
		a.forgetAll()
	})
}

// FuzzStream: segments in any order, doubled, overlapping or lost. A copy has
// what the client sent, from the first byte on, or ends with an error: it is
// never silently wrong.
func FuzzStream(f *testing.F) {
	f.Add([]byte{0, 4, 4, 4, 8, 2}, uint32(9))
	f.Add([]byte{4, 4, 0, 4, 0, 9, 200, 9}, uint32(1<<32-3)) // around the end of the numbers
	f.Fuzz(func(t *testing.T, cuts []byte, first uint32) {
		sent := make([]byte, 1<<9)
		for i := range sent {
			sent[i] = byte(i*7 + i>>8)
		}
		held := budget.New(1<<20).Share(0, budget.All)
		var c *Conn
		a := newAssembler(func(conn *Conn) bool { c = conn; return true }, nil, held)
		now, k := time.Unix(0, 0), flowKey{client, server}
		a.packet(ip(k, flagSYN, first, ""), false, now)
		a.packet(ip(k, flagACK, first+1, ""), false, now)
		for ; len(cuts) >= 2; cuts = cuts[2:] {
			from, n := int(cuts[0]), int(cuts[1])
			a.packet(ip(k, flagACK, first+1+uint32(from), string(sent[from:from+n])), false, now)
		}
		a.packet(ip(k, flagACK|flagFIN, first+1+uint32(len(sent)), ""), false, now)
		a.forgetAll()
		if c == nil {
			return
		}
		got, err := io.ReadAll(c)
		if len(got) > len(sent) || string(got) != string(sent[:len(got)]) {
			t.Errorf("got %x", got)
		}
		if err == nil && len(got) != len(sent) && a.stats.Connections > 0 {
			t.Errorf("ends in order after %d of %d bytes", len(got), len(sent))
		}
		c.Close()
		if n := held.Used(); n != 0 {
			t.Errorf("%d bytes are held by nobody", n)
		}
	})
}

// Copies that nobody reads, and pieces that wait for others, take no more than
// they may together, and give all of it back.
func TestMemoryIsBounded(t *testing.T) {
	const maxHeld = 32 << 20
	held := budget.New(maxHeld).Share(0, budget.All)
	var conns []*Conn
	a := newAssembler(func(c *Conn) bool { conns = append(conns, c); return true }, nil, held)
	now := time.Unix(0, 0)
	data := string(make([]byte, 1<<15))
	for i := range 20 {
		k := flowKey{netip.AddrPortFrom(client.Addr(), uint16(1000+i)), server}
		a.packet(ip(k, flagSYN, 0, ""), false, now)
		a.packet(ip(k, flagACK, 1, ""), false, now)
		seq := uint32(1)
		if i%2 == 1 {
			seq++ // behind a gap
		}
		for range 120 {
			a.packet(ip(k, flagACK, seq, data), false, now)
			seq += uint32(len(data))
		}
		if n := held.Used(); n > maxHeld {
			t.Fatalf("%d bytes are held, more than %d", n, maxHeld)
		}
	}
	if held.Used() < maxHeld/2 {
		t.Errorf("%d bytes are held: the limit was not tried", held.Used())
	}
	lost := 0
	for _, c := range conns {
		if c.err != nil {
			lost++
		}
	}
	if lost == 0 || lost == len(conns) {
		t.Errorf("%d of %d copies have ended, want some", lost, len(conns))
	}
	a.forgetAll()
	for _, c := range conns {
		c.Close()
	}
	if n := held.Used(); n != 0 {
		t.Errorf("%d bytes are held by nobody", n)
	}
}
