package e2e

import (
	"bytes"
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

// TestChaosLinkEnds: a session whose link does not come back ends, tells why,
// and leaves nothing; the target serves its port itself.
func TestChaosLinkEnds(t *testing.T) {
	const window = 10 * time.Second
	for _, c := range []struct {
		name  string
		short bool
		// lose takes the link away for good, and says when it can be known.
		lose  func(t *testing.T, r *relay)
		bound time.Duration // of the session's end
		says  []string
		left  time.Duration // of the agent in the cluster, at most
	}{
		{"the window passes", true, func(t *testing.T, r *relay) { r.set(func() { r.closes = true }) },
			window + 2*time.Second,
			// The API server cannot be reached: the agent is left to end itself.
			[]string{"did not come back within 10s", "it ends by itself now"},
			// Its own window, and what the cluster takes to remove a Job that has ended.
			window + 10*time.Second + removedWithin + 5*time.Second},
		{"the agent is stopped", false, func(t *testing.T, _ *relay) {
			for _, pid := range agents(t) {
				if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
					t.Fatal(err)
				}
			}
		}, 35 * time.Second, []string{"the agent does not answer any more"}, 45 * time.Second},
	} {
		if !c.short && !whole() {
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			r, kubeconfig := newRelay(t)
			pidFile := filepath.Join(w.dir, "work", "grandchild")
			os.Remove(pidFile)
			args := []string{"-t", "pod/app", "--steal", "--kubeconfig", kubeconfig}
			if c.short {
				args = append(args, "--agent-resume-window", fmt.Sprint(int(window.Seconds())))
			}
			s := start(t, append(args, "bash", "-c", fmt.Sprintf("setsid sleep 1000 & echo $! >%s; exec goserver 8035", pidFile))...)
			s.waitFor("listening")
			url := fmt.Sprintf("http://%s:8035/x", podIP(t, "app"))
			if got := request(t, url); !strings.HasPrefix(got, "local go") {
				t.Fatalf("got %q, want local go", got)
			}
			b, err := os.ReadFile(pidFile)
			if err != nil {
				t.Fatal(err)
			}
			pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
			if err != nil {
				t.Fatal(err)
			}
			began := time.Now()
			c.lose(t, r)
			select {
			case <-s.done:
			case <-time.After(c.bound + removedWithin):
				t.Fatal("the session goes on without a link")
			}
			if took := time.Since(began); took > c.bound+slack {
				t.Errorf("the session ended after %v, want %v", took, c.bound)
			}
			if code := s.end(); code == 0 {
				t.Error("the session failed, and the exit code is 0")
			}
			for _, want := range c.says {
				if !strings.Contains(s.stderr.String(), want) {
					t.Errorf("nobody said %q:\n%s", want, s.stderr)
				}
			}
			gone(t, pid)
			if c.short { // from a node, the target has had its port back all the while
				if got := request(t, url); !strings.HasPrefix(got, "remote /x") {
					t.Errorf("the target's port answers %q", got)
				}
			}
			ctx, cancel := context.WithTimeout(t.Context(), c.left-time.Since(began))
			defer cancel()
			for ; ctx.Err() == nil; time.Sleep(200 * time.Millisecond) {
				if out := kubectl(t, "get", "jobs,pods", "-l", "app.kubernetes.io/name=mirrord-agent", "-o", "name"); out == "" {
					break
				}
			}
			if ctx.Err() != nil {
				t.Errorf("the agent is still there after %v", c.left)
			}
			if got := request(t, url); !strings.HasPrefix(got, "remote /x") {
				t.Errorf("afterwards the target's port answers %q", got)
			}
		})
	}
}

// agents are the processes of this session's agents, which run on this machine.
func agents(t *testing.T) (pids []int) {
	t.Helper()
	session := kubectl(t, "get", "jobs", "-l", "app.kubernetes.io/name=mirrord-agent", "-o", "jsonpath={.items[*].metadata.labels.mirrord/session}")
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, f := range files {
		args, err := os.ReadFile(f)
		if err == nil && session != "" && bytes.HasPrefix(args, []byte("/mirrord-agent\x00")) && bytes.Contains(args, []byte("\x00"+session+"\x00")) {
			pid, err := strconv.Atoi(filepath.Base(filepath.Dir(f)))
			if err != nil {
				t.Fatal(err)
			}
			pids = append(pids, pid)
		}
	}
	if len(pids) == 0 {
		t.Fatalf("no agent of session %q runs on this machine", session)
	}
	return pids
}
