package e2e

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestHandback starts and ends programs and sessions under a client that asks
// the target all the time: every request is answered, but those that the local
// program had when it ended.
func TestHandback(t *testing.T) {
	pause, rounds := 10*time.Millisecond, 2 // a request comes in every gap
	if whole() {                            // 100 sessions, 500 connections a second
		pause, rounds = 2*time.Millisecond, 25
	}
	filter := filepath.Join(w.dir, "work", "handback.json")
	if err := os.WriteFile(filter, []byte(`{"feature": {"network": {"incoming": {"mode": "steal", "http_filter": {"path_filter": "."}}}}}`), 0o644); err != nil {
		t.Fatal(err)
	}
	ends := []struct {
		name string
		end  func(h *hunted)
	}{
		{"the program exits", func(h *hunted) { _ = syscall.Kill(h.program, syscall.SIGUSR1) }},
		{"the program is killed", func(h *hunted) { _ = syscall.Kill(h.program, syscall.SIGKILL) }},
		{"Ctrl-C", func(h *hunted) { h.ctrlC() }},
		{"the command is told to end", func(h *hunted) { _ = syscall.Kill(h.cmd.Process.Pid, syscall.SIGTERM) }},
	}
	for name, args := range map[string][]string{"whole": {"--steal"}, "filtered": {"--config-file", filter}} {
		t.Run(name, func(t *testing.T) {
			p := newPrey(t)
			a := askEvery(t, p, pause)
			if !a.seen("remote", time.Now(), 10*time.Second) {
				t.Fatal("the target answers nobody")
			}
			got := map[string]bool{}
			for i := range rounds * len(ends) {
				c := ends[i%len(ends)]
				h := huntOnly(t, p, args...)
				h.waitFor("ready")
				h.ordered()
				if !a.seen("local", time.Now(), 10*time.Second) {
					t.Fatal("the program gets nothing")
				}
				struck := time.Now()
				c.end(h)
				select {
				case <-h.done:
				case <-time.After(10 * time.Second):
					t.Fatalf("%s: the session does not end", c.name)
				}
				t.Logf("%s at %s, the session ended at %s", c.name, struck.Format("05.000"), time.Now().Format("05.000"))
				maps.Copy(got, held(t, h))
				nothingOf(t, h, collectTime) // how soon is for others to test
			}
			if !a.seen("remote", time.Now(), 5*time.Second) {
				t.Error("the target does not serve its port")
			}
			var all, local, inside int
			var bad []string
			for _, q := range a.answers() {
				switch all++; {
				case q.answer == "local":
					local++
				case !q.failed() || q.answer == "open":
				case q.of(got):
					inside++
				default:
					bad = append(bad, q.String())
				}
			}
			unchanged(t, p, goneTime)
			t.Logf("%d sessions, %d requests, %d of them served here: %d failed inside the program", rounds*len(ends), all, local, inside)
			if len(bad) > 0 {
				t.Errorf("%d requests failed that the program never had:\n%s", len(bad), strings.Join(bad[:min(len(bad), 20)], "\n"))
			}
		})
	}
}

// TestHandbackOfTheQueue kills a program that has a connection in its listener's
// queue, with a request in it: the target answers that.
func TestHandbackOfTheQueue(t *testing.T) {
	const program = `
import os, select, signal, socket
ln = socket.create_server(("", int(os.environ["PORT"])))
p = select.poll()
p.register(ln, select.POLLIN)
p.poll()
os.kill(os.getpid(), signal.SIGKILL)`
	filter := filepath.Join(w.dir, "work", "queue.json")
	if err := os.WriteFile(filter, []byte(`{"feature": {"network": {"incoming": {"mode": "steal", "http_filter": {"path_filter": "."}}}}}`), 0o644); err != nil {
		t.Fatal(err)
	}
	p := newPrey(t)
	for name, args := range map[string][]string{"whole": {"--steal"}, "filtered": {"--config-file", filter}} {
		t.Run(name, func(t *testing.T) {
			for range 3 {
				argv := append([]string{w.mirrord, "exec", "-n", w.namespace, "-t", "pod/" + p.pod}, args...)
				r := startCommand(t, append(argv, "env", "PORT="+chaosPort, "python3", "-c", program), nil)
				if !r.stderr.waitFor("port "+chaosPort, runTime) {
					t.Fatal("the port is not stolen")
				}
				out, err := exec.Command("nsenter", "-t", strconv.Itoa(p.client), "--net", "curl", "-sS", "--max-time", "20", "http://"+p.ip+":"+chaosPort+"/").CombinedOutput()
				if got := strings.TrimSpace(string(out)); err != nil || !strings.HasPrefix(got, "remote") {
					t.Errorf("the client got %q, %v, want the target's answer", got, err)
				}
				r.wait()
			}
		})
	}
}

// huntOnly starts a session on p whose command is the program itself, alone.
func huntOnly(t *testing.T, p *prey, args ...string) *hunted {
	t.Helper()
	h := &hunted{prey: p, log: filepath.Join(w.dir, "work", fmt.Sprintf("got-%d", time.Now().UnixNano()))}
	argv := append([]string{w.mirrord, "exec", "--verbose", "-n", w.namespace, "-t", "pod/" + p.pod}, args...)
	h.run = startCommand(t, append(argv, "chaos", "serve", chaosPort, h.log), ownGroup)
	t.Cleanup(h.release)
	return h
}
