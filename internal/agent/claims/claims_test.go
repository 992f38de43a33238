package claims

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mirrord-go/mirrord/internal/leak"
	"github.com/mirrord-go/mirrord/internal/netns"
	"github.com/mirrord-go/mirrord/internal/testnet"
)

func TestMain(m *testing.M) { os.Exit(leak.Main(m)) }

// room is the network namespace of a process, whose container holds pids.
type room struct {
	ns   *os.File
	pids []int
}

func (r *room) Do(f func() error) error { return netns.Do(r.ns, f) }
func (r *room) Holds(pid int) bool      { return slices.Contains(r.pids, pid) }

// here is the network namespace of process pid.
func here(t *testing.T, pid int) *room {
	t.Helper()
	ns, err := netns.Open(pid)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })
	return &room{ns: ns}
}

func TestClaim(t *testing.T) {
	in := here(t, testnet.Process(t, syscall.CLONE_NEWNET, nil, "true"))
	c, err := Take(in, TCP, 80, "ana@laptop since 14:00", nil)
	if err != nil {
		t.Fatal(err)
	}
	_, err = Take(in, TCP, 80, "bob", nil)
	var held *HeldError
	if !errors.As(err, &held) || held.Holder != "ana@laptop since 14:00" || !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("got %v, want: held by ana", err)
	}
	in.pids = []int{os.Getpid()} // a process list that the target is in as well
	_, err = Take(in, TCP, 80, "bob", nil)
	if held = nil; !errors.As(err, &held) || held.Holder != "" || !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("of a process of the target's container: got %v, want: held by nobody who is believed", err)
	}
	c.Release()
	c, err = Take(in, TCP, 80, "bob", nil)
	if err != nil {
		t.Fatalf("after its release: %v", err)
	}
	c.Release()
}

// TestSilentHolder: a colleague who is stopped has its ports still, and that is said.
func TestSilentHolder(t *testing.T) {
	in := here(t, testnet.Process(t, syscall.CLONE_NEWNET, nil, "true"))
	var ln net.Listener // nobody accepts
	if err := in.Do(func() (err error) { ln, err = net.Listen("unix", name(TCP, 80)); return err }); err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	_, err := Take(in, TCP, 80, "bob", nil)
	if want := "port 80 is held by another session, whose agent does not answer, as if it were stopped"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %q", err, want)
	}
}

// squatter is a program that holds port 80's claim.
const squatter = `
import socket, os, sys, time
s = socket.socket(socket.AF_UNIX)
s.bind("\0mirrord-claim-tcp-80")
s.listen(%BACKLOG%)
open(os.environ["READY"], "w").close()
while True:
    if "%BACKLOG%" == "0":
        time.sleep(1000)
    c, _ = s.accept()
    try:
        %SAYS%
    except OSError:
        pass
`

// TestSquattedClaim: a process of the target that holds a claim can keep the
// port, which is its own, and can neither pass for a colleague nor keep the
// agent waiting.
func TestSquattedClaim(t *testing.T) {
	for name, c := range map[string]struct{ backlog, says string }{
		"a colleague's name": {"5", `c.sendall(b"ana@laptop since 14:00"); c.close()`},
		"silent":             {"5", "keep = c"},
		"endless":            {"5", `exec("while True: c.sendall(b'\\x1b]0;x\\x07' * 1000)")`},
		"its queue is full":  {"0", "pass"},
	} {
		t.Run(name, func(t *testing.T) {
			ready := filepath.Join(t.TempDir(), "ready")
			program := strings.NewReplacer("%BACKLOG%", c.backlog, "%SAYS%", c.says).Replace(squatter)
			pid := testnet.Process(t, syscall.CLONE_NEWNET|syscall.CLONE_NEWPID, []string{"READY=" + ready},
				"python3 - <<'END' &\n"+program+"\nEND\nuntil test -e $READY; do sleep 0.01; done")
			in := here(t, pid)
			if c.backlog == "0" { // one waits in a queue of length 0
				_ = in.Do(func() error {
					keep, err := net.Dial("unix", "@mirrord-claim-tcp-80")
					if err == nil {
						t.Cleanup(func() { keep.Close() })
					}
					return err
				})
			}
			began := time.Now()
			_, err := Take(in, TCP, 80, "bob", nil)
			if took := time.Since(began); took > 2*askTime {
				t.Errorf("it took %v", took)
			}
			var held *HeldError
			if !errors.Is(err, syscall.EADDRINUSE) || errors.As(err, &held) && held.Holder != "" {
				t.Errorf("got %v, want a port held by nobody who is believed", err)
			}
		})
	}
}

// TestManyAsk: strangers who ask and do not read hold nobody up.
func TestManyAsk(t *testing.T) {
	in := here(t, testnet.Process(t, syscall.CLONE_NEWNET, nil, "true"))
	c, err := Take(in, TCP, 80, strings.Repeat("x", 1000), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Release()
	for range 200 {
		err := in.Do(func() error {
			conn, err := (&net.Dialer{Timeout: time.Second}).DialContext(context.Background(), "unix", "@mirrord-claim-tcp-80")
			if err == nil {
				t.Cleanup(func() { conn.Close() })
			}
			return err
		})
		if err != nil && !errors.Is(err, unix.EAGAIN) {
			t.Fatal(err)
		}
	}
	if _, err := Take(in, TCP, 80, "bob", nil); !strings.Contains(err.Error(), strings.Repeat("x", maxName)) || len(err.Error()) > 2*maxName {
		t.Errorf("got %v", err)
	}
}

// TestJoin: a colleague joins, and is connected until either closes, whatever
// becomes of the claim.
func TestJoin(t *testing.T) {
	in := here(t, testnet.Process(t, syscall.CLONE_NEWNET, nil, "true"))
	if c, err := Join(in, 80); !errors.Is(err, ErrAlone) {
		t.Fatalf("a port that nobody holds: got %v, %v", c, err)
	}
	came := make(chan net.Conn, 1)
	c, err := Take(in, TCP, 80, "ana@laptop", func(c net.Conn) { came <- c })
	if err != nil {
		t.Fatal(err)
	}
	near, err := Join(in, 80)
	if err != nil {
		t.Fatal(err)
	}
	defer near.Close()
	far := <-came
	defer far.Close()
	c.Release()
	if _, err := near.Write([]byte("more")); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 4)
	if _, err := io.ReadFull(far, got); err != nil || string(got) != "more" {
		t.Errorf("the holder hears %q, %v", got, err)
	}
	if c, err := Join(in, 80); !errors.Is(err, ErrAlone) {
		t.Errorf("after the release: got %v, %v", c, err)
	}
}

// TestJoinRefused: a holder that nobody can join, a stranger who wants to, and a
// holder who is a stranger.
func TestJoinRefused(t *testing.T) {
	in := here(t, testnet.Process(t, syscall.CLONE_NEWNET, nil, "true"))
	alone, err := Take(in, TCP, 80, "ana@laptop", nil)
	if err != nil {
		t.Fatal(err)
	}
	if c, err := Join(in, 80); err == nil { // the word may go out before the end comes in
		if _, err := c.Read(make([]byte, 1)); err == nil {
			t.Error("one who takes nobody was joined")
		}
		c.Close()
	}
	alone.Release()
	stranger := &room{ns: in.ns, pids: []int{os.Getpid()}}
	c, err := Take(stranger, TCP, 80, "ana@laptop", func(c net.Conn) { t.Error("a stranger has joined"); c.Close() })
	if err != nil {
		t.Fatal(err)
	}
	if c, err := Join(in, 80); err == nil {
		if _, err := c.Read(make([]byte, 1)); err == nil {
			t.Error("a stranger has joined, and hears something")
		}
		c.Close()
	}
	if c, err := Join(stranger, 80); !errors.Is(err, ErrAlone) {
		t.Errorf("a stranger was joined: %v, %v", c, err)
	}
	c.Release()
}

// TestReleaseWithAsking: somebody who has been told the name and says nothing
// does not delay the release.
func TestReleaseWithAsking(t *testing.T) {
	in := here(t, testnet.Process(t, syscall.CLONE_NEWNET, nil, "true"))
	c, err := Take(in, TCP, 80, "ana@laptop", func(c net.Conn) { c.Close() })
	if err != nil {
		t.Fatal(err)
	}
	for range 2 * maxAsking {
		conn, err := dial(in, TCP, 80)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if got := ask(in, conn); got != "ana@laptop" {
			t.Fatalf("the holder is %q", got)
		}
	}
	began := time.Now()
	c.Release()
	if took := time.Since(began); took > askTime/2 {
		t.Errorf("it took %v", took)
	}
}
