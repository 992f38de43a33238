package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestChaosFiles: what a program reads and writes in the target is whole, though
// nothing passes for a while in the middle of it, and the link is made anew. The
// longer time is with make chaos.
func TestChaosFiles(t *testing.T) {
	for _, d := range []time.Duration{2 * time.Second, 15 * time.Second} {
		if d > silentBound && !whole() {
			continue
		}
		t.Run(d.String(), func(t *testing.T) {
			script, err := os.ReadFile("programs/files/stalled.py")
			if err != nil {
				t.Fatal(err)
			}
			program := filepath.Join(w.dir, "bin", "stalled.py")
			if err := os.WriteFile(program, script, 0o644); err != nil {
				t.Fatal(err)
			}
			s := reads(t, "exec python3 "+program)
			if err := syscall.Kill(s.agent, syscall.SIGSTOP); err != nil {
				t.Fatal(err)
			}
			time.Sleep(d)
			if err := syscall.Kill(s.agent, syscall.SIGCONT); err != nil {
				t.Fatal(err)
			}
			if code := s.end(); code != 0 || strings.Count(s.stdout.String(), " intact\n") != 6 {
				t.Errorf("exit code %d, %s", code, s.stdout)
			}
			if lost := strings.Contains(s.stderr.String(), "the link to the agent is lost"); lost != (d > silentBound) {
				t.Errorf("the link was lost: %v\n%s", lost, s.stderr)
			}
		})
	}
}
