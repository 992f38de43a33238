package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Whatever ends a session, nothing of it is left: start's clean-up checks the
// cluster and this machine after each case, this file adds the target.

func TestNothingLeftInTheTarget(t *testing.T) {
	before, err := w.cluster.PodNetns(t.Context(), w.namespace, "app")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		end  func(t *testing.T, r *run)
	}{
		{"the program ends", func(t *testing.T, r *run) { r.stop() }},
		{"Ctrl-C", func(t *testing.T, r *run) { r.signal(syscall.SIGINT); r.end() }},
		{"kill -9 of what the user started", func(t *testing.T, r *run) { r.signal(syscall.SIGKILL); r.end() }},
		{"kill -9 of the supervisor", func(t *testing.T, r *run) {
			if err := syscall.Kill(supervisor(t), syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			if code := r.end(); code == 0 {
				t.Error("the session failed, and the exit code is 0")
			}
			if !strings.Contains(r.stderr.String(), "supervisor") {
				t.Errorf("nobody said what happened:\n%s", r.stderr)
			}
		}},
		{"the agent's pod is deleted", func(t *testing.T, r *run) {
			kubectl(t, "delete", "pod", "-l", "app.kubernetes.io/name=mirrord-agent", "--grace-period=0", "--force", "--wait=false")
			kubectl(t, "delete", "job", "-l", "app.kubernetes.io/name=mirrord-agent", "--wait=false")
			select {
			case <-r.done:
			case <-time.After(80 * time.Second):
				t.Fatal("the session goes on without an agent")
			}
			if code := r.end(); code == 0 {
				t.Error("the session failed, and the exit code is 0")
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, url, pid := startFamily(t, "8021", "-t", "pod/app", "--steal")
			if c.name == "the program ends" || c.name == "Ctrl-C" { // it would keep the session, as it should
				defer syscall.Kill(pid, syscall.SIGKILL)
			}
			c.end(t, r)
			if c.name == "the program ends" || c.name == "Ctrl-C" {
				syscall.Kill(pid, syscall.SIGKILL)
			} else {
				gone(t, pid)
			}
			nothingLeft(t)
			if got := request(t, url); !strings.HasPrefix(got, "remote /x") {
				t.Errorf("afterwards the target's port answers %q", got)
			}
			ctx, cancel := context.WithTimeout(t.Context(), removedWithin)
			defer cancel()
			if err := w.cluster.Unchanged(ctx, w.namespace, "app", before); err != nil {
				t.Errorf("left in the target: %v", err)
			}
		})
	}
}

// startFamily starts a session whose command serves a port of the target's, and
// has a grandchild in a session of its own, which must end with the others. It
// gives where the port is, and the grandchild.
func startFamily(t *testing.T, port string, args ...string) (r *run, url string, grandchild int) {
	t.Helper()
	pidFile := filepath.Join(w.dir, "work", "grandchild")
	os.Remove(pidFile)
	r = start(t, append(args, "bash", "-c", fmt.Sprintf("setsid sleep 1000 & echo $! >%s; exec goserver %s", pidFile, port))...)
	r.waitFor("listening")
	url = fmt.Sprintf("http://%s:%s/x", podIP(t, "app"), port)
	if got := request(t, url); !strings.HasPrefix(got, "local go") {
		t.Fatalf("got %q, want local go", got)
	}
	b, err := os.ReadFile(pidFile)
	if err != nil {
		t.Fatal(err)
	}
	if grandchild, err = strconv.Atoi(strings.TrimSpace(string(b))); err != nil {
		t.Fatal(err)
	}
	return r, url, grandchild
}

// supervisor is the process id of the one supervisor.
func supervisor(t *testing.T) int {
	t.Helper()
	for _, p := range processes(w.mirrord) {
		id, args, _ := strings.Cut(p, " ")
		if strings.Contains(args, "mirrord-supervisor") {
			pid, err := strconv.Atoi(id)
			if err != nil {
				t.Fatal(err)
			}
			return pid
		}
	}
	t.Fatal("there is no supervisor")
	return 0
}

// supervises reports whether a process with these arguments, as /proc has them, is
// the supervisor of what the user started. It is nobody's child.
func supervises(args string, front int) bool {
	return args == fmt.Sprintf("mirrord-supervisor\x00%d\x00", front)
}

// gone waits until process pid has ended.
func gone(t *testing.T, pid int) {
	t.Helper()
	for begin := time.Now(); time.Since(begin) < 10*time.Second; time.Sleep(20 * time.Millisecond) {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			return
		}
		if _, rest, _ := strings.Cut(string(b), ") "); strings.HasPrefix(rest, "Z") {
			return
		}
	}
	t.Errorf("process %d of the tree still lives", pid)
}

func TestTargetEnds(t *testing.T) {
	kubectl(t, "run", "brief", "--image=debian:1", "--restart=Never", "--command", "--", "sleep", "infinity")
	kubectl(t, "wait", "--for=condition=Ready", "pod/brief", "--timeout=20s")
	r := start(t, "-t", "pod/brief", "sh", "-c", "echo ready; sleep 1000")
	r.waitFor("ready")
	kubectl(t, "delete", "pod", "brief", "--grace-period=1", "--wait=false")
	if code := r.end(); code == 0 {
		t.Error("the session failed, and the exit code is 0")
	}
	if !strings.Contains(r.stderr.String(), "target has ended") {
		t.Errorf("nobody said why:\n%s", r.stderr)
	}
}

func TestInterruptedWhileStarting(t *testing.T) {
	r := start(t, "-t", "pod/app", "sleep", "1000")
	if !r.stderr.waitFor("ordered", runTime) { // the Job is there, its pod is not
		t.Fatal("no agent was ordered")
	}
	r.signal(syscall.SIGINT)
	if code := r.end(); code != 128+int(syscall.SIGINT) {
		t.Errorf("exit code %d, want 130; stderr:\n%s", code, r.stderr)
	}
}

func TestTwoSessionsAtOnce(t *testing.T) {
	a := start(t, "-t", "pod/app", "--steal", "goserver", "8022")
	b := start(t, "-t", "pod/app", "--steal", "goserver", "8023")
	a.waitFor("listening")
	b.waitFor("listening")
	for _, port := range []int{8022, 8023} {
		if got := request(t, fmt.Sprintf("http://%s:%d/", podIP(t, "app"), port)); !strings.HasPrefix(got, "local go") {
			t.Errorf("port %d: %q", port, got)
		}
	}
	a.stop()
	b.stop()
}
