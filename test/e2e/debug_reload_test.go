package e2e

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestReloadersAtWork: a program that starts its server anew when a file changes gets
// the target's traffic again, and browsers notice by their sockets.
func TestReloadersAtWork(t *testing.T) {
	for _, c := range []struct {
		name    string
		version string // the file that changes, with %d
		argv    func(t *testing.T, dir, port string) []string
		waits   bool // for its connections to end before it reloads
	}{
		{"node --watch", "version.js", func(_ *testing.T, dir, port string) []string {
			return []string{"env", "PORT=" + port, "node", "--watch", filepath.Join(dir, "reloaded.js")}
		}, false},
		{"nodemon", "version.js", func(t *testing.T, dir, port string) []string {
			return []string{"env", "PORT=" + port, "NO_UPDATE_NOTIFIER=1", nodeTool(t, "nodemon", "3.1.10"), "--watch", dir, "--signal", "SIGTERM", filepath.Join(dir, "reloaded.js")}
		}, false},
		{"air", "version.js", func(t *testing.T, dir, port string) []string {
			air := goTool(t, "github.com/air-verse/air", "v1.63.0")
			write(t, filepath.Join(dir, ".air.toml"), `
root = "."
tmp_dir = "tmp"
[build]
cmd = "cp reloaded.js version.js tmp/"
full_bin = "node tmp/reloaded.js"
include_ext = ["js"]
exclude_dir = ["tmp"]
`)
			return []string{"env", "PORT=" + port, "sh", "-c", "cd " + dir + " && exec " + air}
		}, false},
		{"uvicorn --reload", "version.py", func(_ *testing.T, dir, port string) []string {
			return []string{python, "-m", "uvicorn", "--reload", "--reload-dir", dir, "--app-dir", dir, "--host", "0.0.0.0", "--port", port, "reloaded:app"}
		}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir, err := os.MkdirTemp(filepath.Join(w.dir, "work"), "reload")
			if err != nil {
				t.Fatal(err)
			}
			for _, name := range []string{"reloaded.js", "reloaded.py"} {
				b, err := os.ReadFile(debugProgram(name))
				if err != nil {
					t.Fatal(err)
				}
				write(t, filepath.Join(dir, name), string(b))
			}
			set := func(n int) {
				text := fmt.Sprintf("module.exports = %d;\n", n)
				if strings.HasSuffix(c.version, ".py") {
					text = fmt.Sprintf("number = %d\n", n)
				}
				write(t, filepath.Join(dir, c.version), text)
			}
			set(1)
			if err := os.Chown(dir, user, user); err != nil {
				t.Fatal(err)
			}
			port := freePort(t)
			r := start(t, append([]string{"-t", debugged, "--steal", "--"}, c.argv(t, dir, port)...)...)
			if !r.stderr.waitFor("open here at 127.0.0.1:"+port, runTime) {
				t.Fatal("nobody listens")
			}
			serves(t, port, 1)
			live := openLive(t, port)
			defer live.Close()
			if c.waits {
				live.Close()
			}
			set(2)
			if _, err := io.Copy(io.Discard, live); err != nil && !c.waits && os.IsTimeout(err) {
				t.Error("the browser's socket has not ended with the reload")
			}
			serves(t, port, 2)
			r.stop()
		})
	}
}

// nodeTool gives the program of a package of npm's, once for all tests.
func nodeTool(t testing.TB, name, version string) string {
	t.Helper()
	dir := filepath.Join(w.dir, "bin", name)
	file := filepath.Join(dir, "node_modules", ".bin", name)
	if _, err := os.Stat(file); err == nil {
		return file
	}
	// No scripts: what is fetched runs as the user, in sessions only.
	cmd := exec.Command("npm", "install", "--prefix", dir, "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel", "error", name+"@"+version)
	cmd.Dir = w.dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", cmd, err, out)
	}
	return file
}

// write writes a file of the user's.
func write(t testing.TB, name, text string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(name, user, user); err != nil {
		t.Fatal(err)
	}
}

// serves waits until a version is served, here and to clients of the target.
func serves(t testing.TB, port string, version int) {
	t.Helper()
	want := fmt.Sprintf("version %d", version)
	ask := map[string]func() (string, error){"here": func() (string, error) { return httpGet("http://127.0.0.1:" + port + "/") }}
	if strings.HasPrefix(debugged, "pod/") {
		ip := podIP(t, strings.TrimPrefix(debugged, "pod/"))
		ask["in the cluster"] = func() (string, error) {
			return w.cluster.Kubectl(t.Context(), "-n", w.namespace, "exec", "tools", "--", "curl", "-sS", "--max-time", "10", "http://"+ip+":"+port+"/")
		}
	}
	for where, ask := range ask {
		end := time.Now().Add(runTime)
		for {
			got, err := ask()
			if err == nil && strings.TrimSpace(got) == want {
				break
			}
			if time.Now().After(end) {
				t.Fatalf("%s: got %q, %v; want %q", where, got, err, want)
			}
			time.Sleep(50 * time.Millisecond)
		}
	}
}

// openLive opens what a browser keeps open to learn of a reload.
func openLive(t testing.TB, port string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", "127.0.0.1:"+port)
	if err != nil {
		t.Fatal(err)
	}
	_ = c.SetDeadline(time.Now().Add(runTime))
	fmt.Fprintf(c, "GET /live HTTP/1.1\r\nHost: localhost\r\n\r\n")
	r := bufio.NewReader(c)
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(line, "data: 1") {
			return c
		}
	}
}
