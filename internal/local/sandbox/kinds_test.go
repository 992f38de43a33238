package sandbox

import (
	"fmt"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// TestKindsOfSockets: what no session carries is told, with its process, and
// the kernel's answer is the program's; a program with a network of its own is
// not looked at.
func TestKindsOfSockets(t *testing.T) {
	const script = `
import socket, os
for domain, kind, protocol in ((2, 1, 0), (2, 3, 17), (17, 3, 0), (10, 3, 58), (2, 1, 132), (1, 5, 0), (2, 2, 1), (10, 2, 58)):
    try: socket.socket(domain, kind, protocol); print("made", flush=True)
    except OSError as e: print(os.strerror(e.errno), flush=True)
s = socket.socket()
for level, name in ((1, 2), (1, 36), (0, 19), (41, 75), (0, 36)):
    try: s.setsockopt(level, name, 1)
    except OSError as e: print(os.strerror(e.errno), flush=True)
print("done", flush=True)`
	asBoth(t, func(t *testing.T, uid int) {
		sc := scenario{}
		sc.Spec.Argv = []string{"/bin/sh", "-c", `unshare -Urn python3 -c "$0"; echo between; exec python3 -c "$0"`, script}
		r := start(t, uid, sc)
		r.prints("between")
		want := []string{"raw", "packet", "raw ICMP", "SCTP", "SO_MARK", "IP_TRANSPARENT", "IPV6_TRANSPARENT"}
		if uid == 0 { // it may, and ping so
			want = slices.Delete(want, 2, 3)
		}
		for _, want := range want {
			if e := r.await("socket"); e.Text != want || e.N == 0 {
				t.Errorf("got %s of process %d, want %s", e.Text, e.N, want)
			}
		}
		if got := r.code(); got != 0 {
			t.Errorf("exit code: got %d; output %s", got, r.output)
		}
		r.none("socket")
	})
}

func TestKind(t *testing.T) {
	for _, c := range []struct {
		domain, typ, protocol int
		want                  string
	}{
		{unix.AF_INET, unix.SOCK_RAW | unix.SOCK_CLOEXEC, unix.IPPROTO_RAW, "raw"}, {unix.AF_INET6, unix.SOCK_SEQPACKET, unix.IPPROTO_SCTP, "SCTP"},
		{unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_ICMP, "raw ICMP"}, {unix.AF_INET6, unix.SOCK_RAW | unix.SOCK_NONBLOCK, unix.IPPROTO_ICMPV6, "raw ICMP"},
		{unix.AF_INET6, unix.SOCK_RAW, unix.IPPROTO_ICMP, "raw"}, {unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_IGMP, "raw"}, {unix.AF_INET, unix.SOCK_PACKET, 0, "packet"},
		{unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_DCCP, "DCCP"}, {unix.AF_INET, unix.SOCK_DGRAM, unix.IPPROTO_UDPLITE, "UDP-Lite"}, {unix.AF_INET, unix.SOCK_RDM, 0, ""},
		{unix.AF_KEY, unix.SOCK_RAW, 2, "IPsec key"}, {unix.AF_X25, unix.SOCK_SEQPACKET, 0, "family 9"}, {unix.AF_KCM, unix.SOCK_DGRAM, 0, ""}, {unix.AF_UNSPEC, unix.SOCK_STREAM, 0, ""}, {999, unix.SOCK_STREAM, 0, ""},
		{unix.AF_VSOCK, unix.SOCK_STREAM, 0, "vsock"}, {unix.AF_SMC, unix.SOCK_STREAM, 0, ""}, {unix.AF_INET, unix.SOCK_STREAM, 999, ""},
	} {
		if got := kind(c.domain, c.typ, c.protocol); got != c.want {
			t.Errorf("%s: got %q, want %q", fmt.Sprint(c.domain, c.typ, c.protocol), got, c.want)
		}
	}
}
