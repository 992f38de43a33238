package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestBreakpoint stops a program as a debugger does: the target answers its clients
// until it goes on, and none but the first waits for that.
func TestBreakpoint(t *testing.T) {
	const program = `
import http.server, os
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "5")
        self.end_headers()
        self.wfile.write(b"local")
server = http.server.HTTPServer(("", int(os.environ["PORT"])), Handler)
print("pid", os.getpid(), ".", flush=True)
server.serve_forever()`
	for name, filter := range map[string]string{"whole": "", "filtered": `, "http_filter": {"path_filter": "."}`} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(w.dir, "work", "breakpoint.json")
			if err := os.WriteFile(file, []byte(`{"feature": {"network": {"incoming": {"mode": "steal", "accept_timeout": 2`+filter+`}}}}`), 0o644); err != nil {
				t.Fatal(err)
			}
			p := newPrey(t)
			ask := func() (answer string, took time.Duration) {
				began := time.Now()
				out, err := exec.Command("nsenter", "-t", strconv.Itoa(p.client), "--net", "curl", "-sS", "--max-time", "20", "http://"+p.ip+":"+chaosPort+"/").CombinedOutput()
				if err != nil {
					t.Errorf("the client got %q, %v", out, err)
				}
				answer, _, _ = strings.Cut(strings.TrimSpace(string(out)), " ")
				return answer, time.Since(began)
			}
			r := start(t, "--config-file", file, "-t", "pod/"+p.pod, "env", "PORT="+chaosPort, "python3", "-c", program)
			r.waitFor(" .\n")
			var pid int
			if _, err := fmt.Sscanf(r.stdout.String(), "pid %d", &pid); err != nil {
				t.Fatal(err)
			}
			if got, _ := ask(); got != "local" {
				t.Errorf("at first: %q", got)
			}
			if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
				t.Fatal(err)
			}
			defer syscall.Kill(pid, syscall.SIGCONT)
			got, took := ask()
			t.Logf("the target answers after %v", took)
			if got != "remote" || took > 6*time.Second {
				t.Errorf("while it is stopped: %q, after %v", got, took)
			}
			said := fmt.Sprintf("port %s: the program has not accepted a connection for 2s (process %d is stopped", chaosPort, pid)
			r.waitForText(said)
			for range 5 {
				if got, took := ask(); got != "remote" || took > 1500*time.Millisecond {
					t.Errorf("while that is known: %q, after %v", got, took)
				}
			}
			if err := syscall.Kill(pid, syscall.SIGCONT); err != nil {
				t.Fatal(err)
			}
			for begin, got := time.Now(), ""; got != "local"; got, _ = ask() {
				if time.Since(begin) > 10*time.Second {
					t.Fatalf("when it goes on: %q", got)
				}
			}
			r.waitForText("port " + chaosPort + ": the program accepts connections again")
			if n := strings.Count(r.stderr.String(), said); n != 1 {
				t.Errorf("that it was stopped was said %d times", n)
			}
			r.stop()
		})
	}
}
