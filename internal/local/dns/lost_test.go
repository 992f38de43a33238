package dns

import (
	"context"
	"syscall"
	"testing"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/mirrord-go/mirrord/internal/rules"
)

// toldSocket is a socket that passes errnos on.
type toldSocket struct {
	*socket
	told chan syscall.Errno
}

func (s toldSocket) Unreachable(errno syscall.Errno) { s.told <- errno }

// A lookup that finds no way to its name server is answered with a failure that
// is temporary; what was answered before is not, and other errors pass.
func TestNoWayToTheServer(t *testing.T) {
	for name, o := range map[string]rules.DNSOptions{"all remote": {}, "filtered": filter("local", "db")} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, o)
			f := toldSocket{newSocket(), make(chan syscall.Errno, 1)}
			done := make(chan struct{})
			go func() {
				defer close(done)
				b.UDP(t.Context(), f, func(_ context.Context, f UDPFlow, _ rules.Decision) {
					buf := make([]byte, maxMessage)
					for i := range 3 {
						if _, err := f.Read(buf); err != nil {
							t.Error(err)
						}
						if i == 0 {
							q, _ := parseQuery(buf)
							_, _ = f.Write(reply(q))
						}
					}
					f.Unreachable(syscall.EHOSTUNREACH)
					f.Unreachable(syscall.EHOSTUNREACH) // the other of the two; both are answered
					f.Unreachable(syscall.ECONNREFUSED)
				})
			}()
			f.sent <- question(1, "answered.", typeA)
			if got := parse(t, within(t, "an answer", f.got)); got.id != 1 || got.code != dnsmessage.RCodeSuccess {
				t.Errorf("got %+v", got)
			}
			f.sent <- question(2, "web.", typeA)
			f.sent <- question(3, "web.", typeAAAA)
			for id := uint16(2); id <= 3; id++ {
				if got := parse(t, within(t, "an answer", f.got)); got.id != id || got.code != dnsmessage.RCodeServerFailure || got.question != "web." {
					t.Errorf("got %+v, want a server failure for %d", got, id)
				}
			}
			if got := within(t, "an errno", f.told); got != syscall.ECONNREFUSED {
				t.Errorf("told %v, want %v", got, syscall.ECONNREFUSED)
			}
			within(t, "the end of the flow", done)
		})
	}
}
