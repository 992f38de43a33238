package sandbox

import (
	"fmt"
	"testing"

	"golang.org/x/sys/unix"
)

// TestKindsOfSockets: what no session carries is told, with its process, and
// the kernel's answer is the program's; a program with a network of its own is
// not looked at.
func TestKindsOfSockets(t *testing.T) {
	const script = `
import socket, os
for domain, kind, protocol in ((2, 1, 0), (2, 3, 1), (17, 3, 0), (10, 3, 58), (2, 1, 132), (1, 5, 0)):
    try: socket.socket(domain, kind, protocol); print("made", flush=True)
    except OSError as e: print(os.strerror(e.errno), flush=True)
print("done", flush=True)`
	asBoth(t, func(t *testing.T, uid int) {
		sc := scenario{}
		sc.Spec.Argv = []string{"/bin/sh", "-c", `unshare -Urn python3 -c "$0"; echo between; exec python3 -c "$0"`, script}
		r := start(t, uid, sc)
		r.prints("between")
		for _, want := range []string{"raw", "packet", "raw", "SCTP"} {
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
		{unix.AF_VSOCK, unix.SOCK_STREAM, 0, "vsock"}, {unix.AF_SMC, unix.SOCK_STREAM, 0, ""}, {unix.AF_INET, unix.SOCK_STREAM, 999, ""},
	} {
		if got := kind(c.domain, c.typ, c.protocol); got != c.want {
			t.Errorf("%s: got %q, want %q", fmt.Sprint(c.domain, c.typ, c.protocol), got, c.want)
		}
	}
}
