package sandbox

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/mirrord-go/mirrord/internal/local/sandbox/handoff"
)

// A session under test whose command joins is made by two fronts: the keeper,
// which starts sandbox and supervisor and ends when they are ready, and the
// joiner, which has the test's terminal, descriptors and signals. So every test
// that plays a session holds for a command that joins one.

// joinerRole starts the keeper and joins what that has made.
func joinerRole() int {
	syscall.CloseOnExec(eventsFD)
	syscall.CloseOnExec(ordersFD)
	events, orders := os.NewFile(eventsFD, "events"), os.NewFile(ordersFD, "orders")
	r := &reporter{f: events}
	broken := func(err error) int {
		r.say(failed("launch", err))
		return 99
	}
	down, up, err := os.Pipe()
	if err != nil {
		return broken(err)
	}
	door, theirs, err := handoff.Pair()
	if err != nil {
		return broken(err)
	}
	// Not by os/exec: the caller's own descriptors are the command's only.
	inherited, err := inheritedFiles()
	if err != nil {
		return broken(err)
	}
	for _, fd := range inherited {
		syscall.CloseOnExec(fd)
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), roleVar+"=keeper")
	cmd.ExtraFiles = []*os.File{events, orders, down, theirs}
	if err := cmd.Run(); cmd.ProcessState == nil {
		return broken(err)
	}
	if code := cmd.ProcessState.ExitCode(); code != 0 { // there is nothing to join
		up.Write([]byte{1})
		return code
	}
	for _, fd := range inherited {
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFD, 0); err != nil {
			return broken(err)
		}
	}
	down.Close()
	theirs.Close()
	conn, err := handoff.NewConn(door)
	if err != nil {
		return broken(err)
	}
	own, guide, err := handoff.RecvFile(conn)
	if err != nil {
		return broken(err)
	}
	p, sock, err := Enter(guide, own == "own")
	if err != nil {
		return broken(err)
	}
	if err := handoff.SendFile(conn, "init", sock); err != nil {
		return broken(err)
	}
	sock.Close()
	guide.Close()
	conn.Close()
	r.say(event{Name: "front", N: os.Getpid()})
	code := p.Wait()
	up.Write([]byte{1}) // an orderly end
	return code
}

// keeperRole starts sandbox and supervisor, and ends when the first init has.
func keeperRole() int {
	files := make([]*os.File, 4)
	for i := range files {
		syscall.CloseOnExec(eventsFD + i)
		files[i] = os.NewFile(uintptr(eventsFD+i), "inherited")
	}
	p, sock, err := Launch(As{})
	if err != nil {
		(&reporter{f: files[0]}).say(failed("launch", err))
		return 99
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = []string{"supervisor"}
	cmd.Dir = "/"
	cmd.Env = append(os.Environ(), roleVar+"=supervisor")
	cmd.ExtraFiles = []*os.File{files[0], files[1], sock, files[2], files[3]}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return 99
	}
	sock.Close()
	return p.Wait()
}

// admit is the supervisor's part.
func admit(ctx context.Context, b *Box, door *os.File, spec handoff.Spec) (*Command, error) {
	conn, err := handoff.NewConn(door)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	own := ""
	if b.Own() {
		own = "own"
	}
	if err := handoff.SendFile(conn, own, b.Door()); err != nil {
		return nil, err
	}
	_, sock, err := handoff.RecvFile(conn)
	if err != nil {
		return nil, err
	}
	c, err := b.Join(ctx, sock, spec)
	if err != nil {
		return nil, err
	}
	return c, c.Go(ctx)
}

// ignored are the signals that this process ignores, and so its children, as a
// mask.
func ignored(t *testing.T) (mask uint64) {
	t.Helper()
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(text), "\nSigIgn:\t")
	if mask, err = strconv.ParseUint(strings.SplitN(after, "\n", 2)[0], 16, 64); err != nil {
		t.Fatal(err)
	}
	return mask
}

// TestJoinedIsTheSame: what a command sees of itself is what it sees without
// mirrord, but for the namespaces.
func TestJoinedIsTheSame(t *testing.T) {
	asBoth(t, func(t *testing.T, uid int) {
		r := start(t, uid, scenario{}.sh(`ulimit -Sn; ulimit -Hn; umask; grep -E "^(Cap(Eff|Prm|Inh|Amb)|NoNewPrivs|SigIgn|SigBlk):" /proc/self/status | tr -d '\t' | tr '\n' ' '; ls /proc/self/fd | tr '\n' ' '`),
			func(c *exec.Cmd) {
				c.Args = []string{"sh", "-c", `ulimit -Sn 300; umask 027; trap "" HUP; exec "$0"`, c.Path}
				c.Path = "/bin/sh"
			})
		if got := r.code(); got != 0 {
			t.Errorf("exit code: got %d, want 0", got)
		}
		<-r.printed
		caps := "CapInh:0000000000000000 CapPrm:0000000000000000 CapEff:0000000000000000 CapAmb:0000000000000000 "
		got := r.output.String()
		if uid != 0 && !strings.Contains(got, caps) {
			t.Errorf("capabilities: got %q, want %q", got, caps)
		}
		if !strings.HasPrefix(got, "300\n") || !strings.Contains(got, "\n0027\n") || !strings.Contains(got, fmt.Sprintf("SigBlk:0000000000000000 SigIgn:%016x ", ignored(t)|1)) || !strings.Contains(got, "NoNewPrivs:0 ") {
			t.Errorf("got %q, want the limit 300, the mask 0027, SIGHUP ignored, and no new restrictions", got)
		}
		if !strings.HasSuffix(got, "0 1 2 3 ") {
			t.Errorf("descriptors: got %q, want 0 1 2, and the directory's", got)
		}
		r.await("done")
	})
}
