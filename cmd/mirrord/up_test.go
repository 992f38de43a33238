package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// writes waits until the terminal has got a text.
func (v *view) writes(text string) {
	v.t.Helper()
	limit := time.After(time.Minute)
	for !strings.Contains(v.all(), text) {
		select {
		case <-v.more:
		case <-limit:
			v.t.Fatalf("%q is not written; there is\n%s", text, v.all())
		}
	}
}

// TestUpTerminal: on a terminal services have colours and their unfinished lines
// are seen, and Ctrl-C reaches all that they have started, once.
func TestUpTerminal(t *testing.T) {
	home := t.TempDir()
	target := exec.Command("sleep", "1000")
	if err := target.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = target.Process.Kill(); _ = target.Wait() })
	file := filepath.Join(home, "services.yaml")
	const trap = `trap "echo got INT; sleep 0.2; exit 0" INT; `
	text := fmt.Sprintf("services:\n"+
		"  a: {target: process/%[1]d, run: {dir: %[2]s, command: [bash, -c, '%[3]sprintf \"a? \"; while :; do sleep 0.05; done']}}\n"+
		"  bc: {target: process/%[1]d, run: {dir: %[2]s, command: [bash, -c, '%[3]sbash -c \"trap \\\"echo child; exit\\\" INT; echo ready; while :; do sleep 0.05; done\" & while :; do sleep 0.05; done']}}\n",
		target.Process.Pid, home, trap)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	v := onTerminal(t, home, []string{"NO_COLOR="}, 24, 200, "up", "-f", file)
	v.writes("\x1b[36ma  | \x1b[0ma? ")
	v.writes("\x1b[33mbc | \x1b[0mready\r\n")
	v.writes("all 2 services run")
	v.types("\x03")
	_ = v.wait()
	all := v.all()
	if code := v.cmd.ProcessState.ExitCode(); code != 130 {
		t.Errorf("exit code %d", code)
	}
	if n := strings.Count(all, "got INT"); n != 2 || !strings.Contains(all, "all are told to end; Ctrl-C again kills them") {
		t.Errorf("Ctrl-C was heard %d times:\n%s", n, all)
	}
}
