package sandbox

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mirrord-go/mirrord/internal/local/sandbox/tree"
)

// family is a command with descendants of every kind: a plain one, one in a
// session of its own, one that ignores SIGTERM, one in a nested user namespace,
// and a stopped one.
const family = `sleep 1000 & setsid sleep 1000 & (trap "" TERM; exec sleep 1000) & unshare -Ur sleep 1000 &
	sleep 1000 & kill -STOP $!; sleep 0.2; echo ready; `

func TestEnd(t *testing.T) {
	asBoth(t, func(t *testing.T, uid int) {
		r := start(t, uid, scenario{}.sh(family+"wait"))
		r.prints("ready")
		began := time.Now()
		r.order(order{Do: "end"})
		r.await("ended")
		if took := time.Since(began); took < tree.Grace || took > tree.Grace+2*time.Second {
			t.Errorf("took %v, want a little more than %v", took, tree.Grace)
		}
		if got := r.code(); got != 143 {
			t.Errorf("exit code: got %d, want 143", got)
		}
		r.await("done")
	})
}

// TestEndIsQuick where everybody obeys.
func TestEndIsQuick(t *testing.T) {
	r := start(t, userUID, scenario{}.sh("sleep 1000 & setsid sleep 1000 & sleep 0.1; echo ready; wait"))
	r.prints("ready")
	began := time.Now()
	r.order(order{Do: "end"})
	r.await("ended")
	if took := time.Since(began); took > tree.Grace/2 {
		t.Errorf("took %v, want much less than %v", took, tree.Grace)
	}
	r.code()
}

// TestFrontKilled: the command dies at once, its tree by the supervisor.
func TestFrontKilled(t *testing.T) {
	asBoth(t, func(t *testing.T, uid int) {
		r := start(t, uid, scenario{}.sh(family+"echo $$; wait"))
		r.prints("ready")
		r.await("running")
		r.cmd.Process.Kill()
		r.cmd.Wait()
		r.await("front-gone")
		r.await("done")
		r.vanish(time.Second)
	})
}

// TestParentDeathSignal: the front's death ends the command without the supervisor's help.
func TestParentDeathSignal(t *testing.T) {
	asBoth(t, func(t *testing.T, uid int) {
		r := start(t, uid, scenario{}.sh("trap '' TERM; echo ready; exec sleep 1000"))
		supervisor := r.await("supervisor").N
		r.prints("ready")
		r.await("running")
		unix.Kill(supervisor, unix.SIGSTOP)
		r.cmd.Process.Kill()
		r.cmd.Wait()
		for end := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
			if left := inNamespace(r.ns); len(left) <= 1 { // the helper, whose supervisor lives
				break
			}
			if time.Now().After(end) {
				t.Error("the command survived the front")
				break
			}
		}
		unix.Kill(supervisor, unix.SIGCONT)
		r.await("done")
	})
}

// TestSupervisorKilled: the helper ends the tree, then itself.
func TestSupervisorKilled(t *testing.T) {
	asBoth(t, func(t *testing.T, uid int) {
		r := start(t, uid, scenario{}.sh(family+"wait"))
		supervisor := r.await("supervisor").N
		r.await("running")
		r.prints("ready")
		unix.Kill(supervisor, unix.SIGKILL)
		if got := r.code(); got != 143 {
			t.Errorf("exit code: got %d, want 143", got)
		}
		r.vanish(tree.Grace + 2*time.Second)
	})
}

// TestHelperKilled: the supervisor ends the tree all the same.
func TestHelperKilled(t *testing.T) {
	r := start(t, userUID, scenario{}.sh("setsid sleep 1000 & echo ready; wait"))
	r.await("running")
	r.prints("ready")
	r.hurtHelper(unix.SIGKILL)
	r.await("helper-lost")
	r.order(order{Do: "end"}) // the supervisor needs no helper for that
	r.await("ended")
	r.code()
	r.await("done")
}

// hurtHelper sends a signal to the helper.
func (r *run) hurtHelper(sig unix.Signal) {
	r.t.Helper()
	for _, pid := range inNamespace(r.ns) {
		if text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)); strings.HasPrefix(string(text), "mirrord-helper") {
			unix.Kill(pid, sig)
			return
		}
	}
	r.t.Fatal("there is no helper")
}

// TestHelperStopped: it is continued, makes sockets again, and goes with the
// box even if it is stopped then.
func TestHelperStopped(t *testing.T) {
	r := start(t, userUID, scenario{}.sh("setsid sleep 1000 & echo ready; wait"))
	r.await("running")
	r.prints("ready")
	r.hurtHelper(unix.SIGSTOP)
	r.await("helper-woken")
	r.hurtHelper(unix.SIGSTOP)
	r.order(order{Do: "end"})
	r.await("ended")
	r.code()
	r.await("done")
	r.vanish(time.Second)
}

// TestSupervisorAndHelper are both gone, or one is stopped: the front ends the
// tree.
func TestSupervisorAndHelper(t *testing.T) {
	for name, sig := range map[string]unix.Signal{"killed": unix.SIGKILL, "stopped": unix.SIGSTOP, bareRoot: unix.SIGKILL} {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // it is the front's patience that they wait for
			uid := userUID
			if name == bareRoot {
				uid = 0
			}
			r := start(t, uid, scenario{}.sh(family+"exit 3"), func(c *exec.Cmd) { c.Env = append(c.Env, guardVar+"=1") })
			supervisor := r.await("supervisor").N
			r.await("running")
			r.prints("ready")
			r.hurtHelper(sig)
			unix.Kill(supervisor, unix.SIGKILL)
			if got := r.code(); got != 3 {
				t.Errorf("exit code: got %d, want 3", got)
			}
			r.vanish(time.Second)
		})
	}
}

// TestSpace: a sandbox is ended by a namespace that is its own, also where it has
// no user namespace; one that is the caller's too is refused.
func TestSpace(t *testing.T) {
	p := newProcess()
	p.pid = os.Getpid()
	for _, own := range []bool{true, false} {
		p.openSpace(own)
		over, cancel := context.WithCancel(t.Context())
		cancel() // whatever is wrong, nothing is ended
		if err := p.EndTree(over); err == nil || !strings.Contains(err.Error(), "no namespace of its own") {
			t.Errorf("own %v: got %v, want it refused", own, err)
		}
		p.space.Close()
	}
}

// TestBackground: what the command leaves behind is served on, and Done waits
// for it.
func TestBackground(t *testing.T) {
	asBoth(t, func(t *testing.T, uid int) {
		out, in, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer out.Close()
		sc := scenario{}.prog(t, "listen-raw", "127.0.0.1:8089", "time")
		sc.Spec.Argv = append([]string{"/bin/sh", "-c", `(read x <&9; exec "$@") >/dev/null & exit 4`, "sh"}, sc.Spec.Argv...)
		r := start(t, uid, sc, func(c *exec.Cmd) { c.ExtraFiles = append(c.ExtraFiles, nil, nil, nil, nil, out) })
		if got := r.code(); got != 4 {
			t.Errorf("exit code: got %d, want 4", got)
		}
		r.await("front-done")
		in.Write([]byte("go\n"))
		in.Close()
		l := r.await("listen", onPort(8089)).L
		for _, e := range r.seen {
			if e.Name == "done" {
				t.Error("Done before the last process has ended")
			}
		}
		unix.Kill(l.PID, unix.SIGTERM)
		r.await("done")
	})
}

// TestHelperIsInvisible: a command that waits for all its children finds none,
// and a pipe from it ends with it.
func TestHelperIsInvisible(t *testing.T) {
	asBoth(t, func(t *testing.T, uid int) {
		r := start(t, uid, scenario{}.sh(`cat /proc/$$/task/*/children; echo "children end"; sleep 1000 >/dev/null 2>&1 </dev/null &`))
		if got := r.code(); got != 0 {
			t.Errorf("exit code: got %d, want 0", got)
		}
		select {
		case <-r.printed:
		case <-time.After(patience):
			t.Error("somebody holds the command's output")
		}
		if got, want := r.output.String(), "children end\n"; !strings.HasSuffix(got, want) || strings.Count(got, " ") > 2 {
			t.Errorf("output: got %q, want %q and cat's own number", got, want)
		}
		r.order(order{Do: "end"})
		r.await("done")
	})
}
