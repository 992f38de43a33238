package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
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
		name   string
		short  bool
		window bool // it is what ends the session
		// lose takes the link away for good, and says when it can be known.
		lose  func(t *testing.T, r *relay)
		bound time.Duration // of the session's end
		says  []string
		left  time.Duration // of the agent in the cluster, at most
	}{
		{"the window passes", true, true, func(t *testing.T, r *relay) { r.set(func() { r.closes = true }) },
			window + 2*time.Second,
			// The API server cannot be reached: the agent is left to end itself.
			[]string{"did not come back within 10s", "it ends by itself now"},
			// Its own window, and what the cluster takes to remove a Job that has ended.
			window + 10*time.Second + removedWithin + 5*time.Second},
		{"the window passes in silence", false, true, func(t *testing.T, r *relay) { r.set(func() { r.stalls = true }) },
			silenceTime + window + 2*time.Second,
			[]string{"did not come back within 10s", "it ends by itself now"},
			silenceTime + window + 10*time.Second + removedWithin + 5*time.Second},
		{"the agent is stopped", false, false, func(t *testing.T, _ *relay) {
			for _, pid := range agentProcesses(t) {
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
			args := []string{"-t", "pod/app", "--steal", "--kubeconfig", kubeconfig}
			if c.window {
				args = append(args, "--agent-resume-window", fmt.Sprint(int(window.Seconds())))
			}
			s, url, pid := startFamily(t, "8035", args...)
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
			if c.window { // from a node, the target has had its port back all the while
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

// TestChaosLinkWholePort: a client whose request is with the program, on a port
// that is stolen whole, is answered when the link has been away for the time
// that the configuration gives; the session goes on.
func TestChaosLinkWholePort(t *testing.T) {
	const replies = 4 * time.Second
	r, kubeconfig := newRelay(t)
	config := filepath.Join(w.dir, "work", "replies.json")
	text := fmt.Sprintf(`{"feature": {"network": {"incoming": {"mode": "steal", "lost_reply_timeout": %d}}}}`, int(replies.Seconds()))
	if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	s, url, grandchild := startFamily(t, "8038", "-t", "pod/app", "-f", config, "--kubeconfig", kubeconfig)
	defer syscall.Kill(grandchild, syscall.SIGKILL)
	answer := make(chan string, 1)
	go func() {
		out, err := w.cluster.NodeExec(t.Context(), "node-2", "curl", "-sS", "--max-time", "60", "-w", "%{http_code}", url+"?for=15s")
		answer <- fmt.Sprint(out, err)
	}()
	for end := time.Now().Add(10 * time.Second); strings.Count(s.stdout.String(), "got /x from") < 2; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the program gets no request")
		}
	}
	lost := time.Now()
	r.set(func() { r.closes = true })
	got := <-answer
	if took := time.Since(lost); !strings.HasPrefix(got, "mirrord: ") || !strings.Contains(got, "502") || took < replies-slack || took > replies+closedBound+slack {
		t.Errorf("the client got %q after %v, want 502 after %v", got, took, replies)
	}
	r.set(func() { r.closes = false })
	if !s.stderr.waitFor("the link to the agent is back", runTime) {
		t.Fatal("the link does not come back")
	}
	for end := time.Now().Add(5 * time.Second); !strings.HasPrefix(request(t, url), "local go"); {
		if time.Now().After(end) {
			t.Fatal("the port is not stolen again")
		}
	}
}
