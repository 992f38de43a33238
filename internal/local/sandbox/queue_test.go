package sandbox

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mirrord-go/mirrord/internal/local/sandbox/tree"
)

// place connects, says nothing, and tells where the connection is until it is not in
// a queue any more.
func place(r *reporter, b *Box, o order) event {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	c, err := b.DialLocal(ctx, "tcp", o.Src, o.Dst)
	if err != nil {
		return failed("place", err)
	}
	defer c.Close()
	p := b.Follow(c.LocalAddr().(*net.TCPAddr).AddrPort(), c.RemoteAddr().(*net.TCPAddr).AddrPort())
	defer p.Forget()
	for told := ""; ctx.Err() == nil; time.Sleep(time.Millisecond) {
		queued, accepted := p.Place()
		waiting := b.Waiting(o.Dst.Port())
		switch {
		case accepted:
			return event{Name: "place", Text: fmt.Sprint("accepted, others wait: ", waiting)}
		case !queued:
			return event{Name: "place", Text: "unknown"}
		case waiting && told == "":
			told = fmt.Sprint("in the queue, stopped: ", b.Stopped())
			r.say(event{Name: "place", Text: told})
		}
	}
	return event{Name: "place", Text: "in the queue until the end"}
}

// awaitStopped waits until a process is stopped.
func awaitStopped(t *testing.T, pid int) {
	t.Helper()
	for begin := time.Now(); ; time.Sleep(time.Millisecond) {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		switch {
		case err == nil && tree.State(stat) == 'T':
			return
		case err != nil || time.Since(begin) > patience:
			t.Fatalf("process %d is not stopped: %s %v", pid, stat, err)
		}
	}
}

// A connection that the program has not accepted is told from one that it has, and
// the program that is stopped is known.
func TestPlace(t *testing.T) {
	for _, addr := range []string{"127.0.0.1:8121", "[::]:8121"} {
		asBoth(t, func(t *testing.T, uid int) {
			r := start(t, uid, scenario{}.prog(t, "leave", addr, "late"))
			program := r.await("listen").L.PID
			r.prints("listens")
			_ = unix.Kill(program, unix.SIGSTOP)
			awaitStopped(t, program)
			r.order(order{Do: "place", Dst: netip.MustParseAddrPort("127.0.0.1:8121")})
			if got, want := r.await("place").Text, fmt.Sprintf("in the queue, stopped: [%d]", program); got != want {
				t.Errorf("at first: %s, want %s", got, want)
			}
			_ = unix.Kill(program, unix.SIGCONT)
			_ = unix.Kill(program, unix.SIGUSR1)
			if got, want := r.await("place").Text, "accepted, others wait: false"; got != want {
				t.Errorf("then: %s, want %s", got, want)
			}
			_ = unix.Kill(program, unix.SIGKILL)
			r.code()
		})
	}
}

// A listener that waits for the client's first word before it has a connection must
// be told that.
func TestPlaceDeferred(t *testing.T) {
	asBoth(t, func(t *testing.T, uid int) {
		r := start(t, uid, scenario{}.prog(t, "leave", "127.0.0.1:8122", "deferred"))
		program := r.await("listen").L.PID
		r.prints("defers")
		r.order(order{Do: "place", Dst: netip.MustParseAddrPort("127.0.0.1:8122")})
		if got := r.await("place").Text; got != "unknown" {
			t.Errorf("it is %s, want unknown", got)
		}
		_ = unix.Kill(program, unix.SIGKILL)
		r.code()
	})
}
