package claims

import (
	"context"
	"errors"
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
	c, err := Take(in, 80, "ana@laptop since 14:00")
	if err != nil {
		t.Fatal(err)
	}
	_, err = Take(in, 80, "bob")
	var held *HeldError
	if !errors.As(err, &held) || held.Holder != "ana@laptop since 14:00" || !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("got %v, want: held by ana", err)
	}
	in.pids = []int{os.Getpid()} // a process list that the target is in as well
	_, err = Take(in, 80, "bob")
	if held = nil; !errors.As(err, &held) || held.Holder != "" || !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("of a process of the target's container: got %v, want: held by nobody who is believed", err)
	}
	c.Release()
	c, err = Take(in, 80, "bob")
	if err != nil {
		t.Fatalf("after its release: %v", err)
	}
	c.Release()
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
			_, err := Take(in, 80, "bob")
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
	c, err := Take(in, 80, strings.Repeat("x", 1000))
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
	if _, err := Take(in, 80, "bob"); !strings.Contains(err.Error(), strings.Repeat("x", maxName)) || len(err.Error()) > 2*maxName {
		t.Errorf("got %v", err)
	}
}
