package packet

import (
	"encoding/hex"
	"net/netip"
	"testing"
)

// TestCut: what is read of packets, whole and broken ones.
func TestCut(t *testing.T) {
	const (
		v4 = "45000020000040004011000001020304050607081234005000" + "0c000061626364" // 4 bytes of payload
		v6 = "60000000000c1140" + "20010db8000000000000000000000001" + "20010db8000000000000000000000002" + "12340050000c000061626364"
	)
	for name, c := range map[string]struct {
		packet   string
		src, dst string
		payload  int // 0: not ok
	}{
		"IPv4":                    {v4, "1.2.3.4:4660", "5.6.7.8:80", 12},
		"IPv4, padded":            {v4 + "0000000000", "1.2.3.4:4660", "5.6.7.8:80", 12},
		"IPv4, without a length":  {"45000000" + v4[8:], "1.2.3.4:4660", "5.6.7.8:80", 12},
		"IPv4, cut":               {v4[:len(v4)-2], "", "", 0},
		"IPv4, TCP":               {v4[:18] + "06" + v4[20:], "", "", 0},
		"IPv4, head beyond":       {"4f" + v4[2:], "", "", 0},
		"IPv4, head too short":    {"44" + v4[2:], "", "", 0},
		"IPv6":                    {v6, "[2001:db8::1]:4660", "[2001:db8::2]:80", 12},
		"IPv6, padded":            {v6 + "00", "[2001:db8::1]:4660", "[2001:db8::2]:80", 12},
		"IPv6, cut":               {v6[:len(v6)-2], "", "", 0},
		"IPv6, extension header":  {v6[:12] + "00" + v6[14:], "", "", 0},
		"IPv6, length too short":  {v6[:8] + "0004" + v6[12:], "", "", 0},
		"nothing":                 {"", "", "", 0},
		"another protocol family": {"75" + v4[2:], "", "", 0},
	} {
		t.Run(name, func(t *testing.T) {
			b, err := hex.DecodeString(c.packet)
			if err != nil {
				t.Fatal(err)
			}
			src, dst, payload, ok := Cut(b, 17, 8)
			if ok != (c.payload > 0) || len(payload) != c.payload {
				t.Fatalf("%d bytes, %v", len(payload), ok)
			}
			if ok && (src.String() != c.src || dst.String() != c.dst) {
				t.Errorf("from %v to %v", src, dst)
			}
		})
	}
}

// TestChecksum: a packet with its checksum sums up to 0 (RFC 1071 §1).
func TestChecksum(t *testing.T) {
	for _, a := range []string{"192.0.2.1", "2001:db8::1"} {
		at := netip.MustParseAddr(a)
		for n := 8; n < 12; n++ {
			b := make([]byte, n)
			for i := range b {
				b[i] = byte(17 * i)
			}
			b[6], b[7] = 0, 0
			sum := Checksum(at, at, 17, b)
			b[6], b[7] = byte(sum>>8), byte(sum)
			if got := Checksum(at, at, 17, b); got != 0 {
				t.Errorf("%s, %d bytes: %#x", a, n, got)
			}
		}
	}
}
