package incoming

import (
	"net/netip"
	"slices"
	"testing"
)

func TestReach(t *testing.T) {
	h := Host{
		Pod4: netip.MustParseAddr("10.1.2.3"), Pod6: netip.MustParseAddr("fd00::3"),
		Localhost4: netip.MustParseAddr("198.18.0.1"), Localhost6: netip.MustParseAddr("fd00:6d69::1"),
	}
	ap := netip.MustParseAddrPort
	none := netip.AddrPort{}
	for _, c := range []struct {
		name, client, listener string
		want                   []Attempt
	}{
		{"any v4 listener, v4 client", "192.0.2.7:999", "0.0.0.0:80", []Attempt{
			{Tunnel, ap("192.0.2.7:999"), ap("10.1.2.3:80")}, {Inside, none, ap("127.0.0.1:80")}, {Inside, none, ap("[::1]:80")}}},
		{"any v6 listener, v6 client", "[2001:db8::7]:999", "[::]:80", []Attempt{
			{Tunnel, ap("[2001:db8::7]:999"), ap("[fd00::3]:80")}, {Inside, none, ap("127.0.0.1:80")}, {Inside, none, ap("[::1]:80")}}},
		{"loopback listener", "192.0.2.7:999", "127.0.0.1:80", []Attempt{{Tunnel, ap("192.0.2.7:999"), ap("198.18.0.1:80")}}},
		{"::1 listener, v6 client", "[2001:db8::7]:999", "[::1]:80", []Attempt{{Tunnel, ap("[2001:db8::7]:999"), ap("[fd00:6d69::1]:80")}}},
		{"::1 listener, v4 client", "192.0.2.7:999", "[::1]:80", []Attempt{{Inside, none, ap("[::1]:80")}}},
		{"listener on the pod's address", "192.0.2.7:999", "10.1.2.3:80", []Attempt{{Tunnel, ap("192.0.2.7:999"), ap("10.1.2.3:80")}}},
		{"mapped client", "[::ffff:192.0.2.7]:999", "127.0.0.1:80", []Attempt{{Tunnel, ap("192.0.2.7:999"), ap("198.18.0.1:80")}}},
		{"client on loopback keeps its address", "127.0.0.9:999", "0.0.0.0:80", []Attempt{
			{Inside, ap("127.0.0.9:0"), ap("127.0.0.9:80")}, {Inside, none, ap("127.0.0.1:80")}, {Inside, none, ap("[::1]:80")}}},
		{"client is the pod itself", "10.1.2.3:999", "0.0.0.0:80", []Attempt{
			{Inside, ap("10.1.2.3:0"), ap("10.1.2.3:80")}, {Inside, none, ap("127.0.0.1:80")}, {Inside, none, ap("[::1]:80")}}},
		{"loopback client, ::1 listener", "127.0.0.1:999", "[::1]:80", []Attempt{{Inside, none, ap("[::1]:80")}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := h.Reach(ap(c.client), ap(c.listener)); !slices.Equal(got, c.want) {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
	t.Run("unknown client", func(t *testing.T) {
		got := h.Reach(netip.AddrPort{}, ap("0.0.0.0:80"))
		want := []Attempt{{Inside, none, ap("127.0.0.1:80")}, {Inside, none, ap("[::1]:80")}}
		if !slices.Equal(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
	})
	t.Run("pod without IPv6", func(t *testing.T) {
		h := h
		h.Pod6 = netip.Addr{}
		got := h.Reach(ap("[2001:db8::7]:999"), ap("[::]:80"))
		want := []Attempt{{Inside, none, ap("127.0.0.1:80")}, {Inside, none, ap("[::1]:80")}}
		if !slices.Equal(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
	})
}
