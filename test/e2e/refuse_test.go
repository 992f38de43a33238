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

	"golang.org/x/sys/unix"
)

// What must not happen to others on a shared cluster.

// withoutFlush is a file that leaves connections from before alone.
func withoutFlush(t *testing.T) string {
	file := filepath.Join(w.dir, "work", "flush.json")
	if err := os.WriteFile(file, []byte(`{"agent": {"flush_connections": false}}`), 0o644); err != nil {
		t.Fatal(err)
	}
	return file
}

// The agent has what its session needs and no more, on all of its threads.
func TestLeastCapabilities(t *testing.T) {
	for _, c := range []struct {
		name string
		args []string
		want uint64
	}{
		{"mirror", []string{"-t", "pod/app"}, 1 << unix.CAP_NET_RAW},
		{"steal", []string{"-t", "pod/app", "--steal"}, 1<<unix.CAP_NET_ADMIN | 1<<unix.CAP_BPF | 1<<unix.CAP_NET_RAW},
		{"steal and leave connections", []string{"-t", "pod/app", "--steal", "-f", withoutFlush(t)}, 1<<unix.CAP_NET_ADMIN | 1<<unix.CAP_BPF},
		{"no target", nil, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := start(t, append(c.args, "sh", "-c", "echo ready; read -r line")...)
			r.waitFor("ready")
			job := strings.TrimPrefix(kubectl(t, "get", "jobs", "-l", "app.kubernetes.io/name=mirrord-agent", "-o", "name"), "job.batch/mirrord-agent-")
			threads := 0
			exes, _ := filepath.Glob("/proc/[0-9]*/exe")
			for _, exe := range exes {
				if to, err := os.Readlink(exe); err != nil || to != "/mirrord-agent" {
					continue
				}
				if args, err := os.ReadFile(filepath.Join(filepath.Dir(exe), "cmdline")); err != nil || !strings.Contains(string(args), job) {
					continue // of somebody else's session
				}
				tasks, _ := filepath.Glob(filepath.Join(filepath.Dir(exe), "task", "*", "status"))
				for _, task := range tasks {
					b, err := os.ReadFile(task)
					if err != nil {
						continue // the thread has ended
					}
					threads++
					for line := range strings.Lines(string(b)) {
						set, value, _ := strings.Cut(line, ":")
						if set != "CapPrm" && set != "CapEff" && set != "CapInh" {
							continue
						}
						got, err := strconv.ParseUint(strings.TrimSpace(value), 16, 64)
						if err != nil || got&^c.want != 0 || set == "CapPrm" && got != c.want {
							t.Errorf("%s of %s is %x, want %x", set, task, got, c.want)
						}
					}
				}
			}
			if threads == 0 {
				t.Error("no agent was found")
			}
			r.end()
		})
	}
}

func TestStealFromANodeIsRefused(t *testing.T) {
	r := start(t, "-t", "pod/hostnet", "--steal", "true")
	if code := r.end(); code != 1 || !strings.Contains(r.stderr.String(), "steal-host-network") {
		t.Errorf("exit code %d, stderr:\n%s", code, r.stderr)
	}
	if got := in(t, "pod/hostnet", "hostname"); !strings.HasPrefix(got, "node-") {
		t.Errorf("without stealing: hostname %q, want the node's", got)
	}
}

// A port has one taker. The second program's listen fails as it would on one
// machine, and it is said who has the port.
func TestPortIsTakenOnce(t *testing.T) {
	a := start(t, "-t", "pod/app", "--steal", "goserver", "8024")
	a.waitFor("listening")
	b := start(t, "-t", "pod/app", "--steal", "goserver", "8024")
	if code := b.end(); code == 0 || !strings.Contains(b.stdout.String(), "address already in use") || !strings.Contains(b.stderr.String(), "@") {
		t.Errorf("the second: exit code %d, stderr:\n%s", code, b.stderr)
	}
	if got := request(t, fmt.Sprintf("http://%s:8024/", podIP(t, "app"))); !strings.HasPrefix(got, "local go") {
		t.Errorf("the first has lost its port: %q", got)
	}
	a.stop()
}

// Ctrl-C while the cluster takes its time to start the agent removes it.
func TestInterruptedWhileTheAgentCannotStart(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGKILL} {
		t.Run(sig.String(), func(t *testing.T) {
			r := start(t, "-t", "pod/app", "--agent-image", "registry.invalid/no/such:image", "sleep", "1000")
			if !r.stderr.waitFor("is on node", runTime) {
				t.Fatal("no agent was ordered")
			}
			r.signal(sig)
			if code := r.end(); sig != syscall.SIGKILL && code != 128+int(sig) {
				t.Errorf("exit code %d, want %d; stderr:\n%s", code, 128+int(sig), r.stderr)
			}
		})
	}
	t.Run("the supervisor is killed", func(t *testing.T) {
		r := start(t, "-t", "pod/app", "--agent-image", "registry.invalid/no/such:image", "sleep", "1000")
		if !r.stderr.waitFor("is on node", runTime) {
			t.Fatal("no agent was ordered")
		}
		if err := syscall.Kill(supervisor(t), syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		if code := r.end(); code == 0 {
			t.Error("exit code 0")
		}
	})
}

// Both of mirrord's processes killed at once: nobody is left to delete the
// agent, but the target's port is its own again within seconds. What the cluster
// does then is waited for in TestChaosKill.
func TestNobodyIsLeft(t *testing.T) {
	r := start(t, "-t", "pod/app", "--steal", "goserver", "8025")
	r.waitFor("listening")
	url := fmt.Sprintf("http://%s:8025/", podIP(t, "app"))
	if got := request(t, url); !strings.HasPrefix(got, "local go") {
		t.Fatalf("got %q", got)
	}
	pid := supervisor(t)
	r.signal(syscall.SIGSTOP) // or it would clean up
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	r.signal(syscall.SIGKILL)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for {
		out, err := w.cluster.Kubectl(ctx, "-n", w.namespace, "exec", "tools", "--", "curl", "-sS", "--max-time", "2", url)
		if err == nil && strings.HasPrefix(out, "remote /") {
			break
		}
		if ctx.Err() != nil {
			t.Fatalf("the target has not got its port back: %q, %v", out, err)
		}
	}
	kubectl(t, "delete", "job", "-l", "app.kubernetes.io/name=mirrord-agent")
}

// The supervisor works in another directory; paths mean what they mean to the
// user.
func TestRelativeKubeconfig(t *testing.T) {
	r := startCommand(t, []string{w.mirrord, "exec", "-n", w.namespace, "--kubeconfig", "../kubeconfig", "-t", "pod/app", "hostname"}, nil)
	if code := r.end(); code != 0 || strings.TrimSpace(r.stdout.String()) != "app" {
		t.Errorf("exit code %d, stdout %q", code, r.stdout)
	}
}
