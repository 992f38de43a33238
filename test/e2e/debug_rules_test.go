package e2e

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestDebuggerPaths: temporary and runtime directories are this machine's, under
// the same paths, with sockets and FIFOs in them: adapters meet their programs there.
func TestDebuggerPaths(t *testing.T) {
	dir, err := os.MkdirTemp(filepath.Join(w.dir, "home"), "paths")
	if err != nil {
		t.Fatal(err)
	}
	socket, fifo := filepath.Join(dir, "socket"), filepath.Join(dir, "fifo")
	ln, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if err := syscall.Mkfifo(fifo, 0o666); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{dir, socket, fifo} {
		if err := os.Chown(p, user, user); err != nil {
			t.Fatal(err)
		}
	}
	go func() {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		fmt.Fprintln(c, "adapter")
	}()
	script := `import os, socket, tempfile
assert tempfile.gettempdir() == os.environ["TMPDIR"] == os.environ["XDG_RUNTIME_DIR"]
s = socket.socket(socket.AF_UNIX); s.connect(os.environ["TMPDIR"] + "/socket"); print(s.makefile().readline().strip(), flush=True)
open(os.environ["TMPDIR"] + "/file", "w").write("written")
print(open(os.environ["TMPDIR"] + "/fifo").readline().strip())`
	r := startCommand(t, []string{w.mirrord, "exec", "-n", w.namespace, "-t", debugged, "--", python, "-c", script}, func(cmd *exec.Cmd) {
		cmd.Env = append(cmd.Env, "TMPDIR="+dir, "XDG_RUNTIME_DIR="+dir)
	})
	r.waitFor("adapter")
	f, err := os.OpenFile(fifo, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	fmt.Fprintln(f, "through the fifo")
	if code := r.end(); code != 0 || !strings.Contains(r.stdout.String(), "through the fifo") {
		t.Errorf("exit code %d, stdout %q", code, r.stdout)
	}
	if b, err := os.ReadFile(filepath.Join(dir, "file")); err != nil || string(b) != "written" {
		t.Errorf("what the program wrote: %q, %v", b, err)
	}
}

// TestDebuggerVariables: what the target has of debuggers and runtimes does not
// reach the program, and what the launcher has set does.
func TestDebuggerVariables(t *testing.T) {
	names := []string{"NODE_OPTIONS", "VSCODE_INSPECTOR_OPTIONS", "PYTHONPATH", "PYTHONBREAKPOINT", "PYDEVD_USE_FRAME_EVAL", "DEBUGPY_LAUNCHER_PORT", "JAVA_TOOL_OPTIONS", "RUBYOPT", "XDEBUG_CONFIG",
		"DOTNET_STARTUP_HOOKS", "LLDB_DEBUGSERVER_PATH", "TMPDIR", "XDG_RUNTIME_DIR"}
	target := exec.Command("sleep", "1000")
	target.Env, target.SysProcAttr = append(environment(), "COLOR=target"), &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: user, Gid: user}}
	for _, n := range names {
		target.Env = append(target.Env, n+"=/of/the/target")
	}
	if err := target.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = target.Process.Kill(); _ = target.Wait() })
	launcher := filepath.Join(w.dir, "home") // some of them are directories
	for name, set := range map[string]func(*exec.Cmd){"nothing set": nil, "set": func(cmd *exec.Cmd) {
		for _, n := range names {
			cmd.Env = append(cmd.Env, n+"="+launcher)
		}
	}} {
		t.Run(name, func(t *testing.T) {
			r := startCommand(t, []string{w.mirrord, "exec", "-q", "-t", fmt.Sprintf("process/%d", target.Process.Pid), "--", "env"}, set)
			if code := r.end(); code != 0 {
				t.Fatalf("exit code %d", code)
			}
			got := map[string]string{}
			for line := range strings.Lines(r.stdout.String()) {
				name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
				got[name] = value
			}
			if got["COLOR"] != "target" {
				t.Errorf("COLOR is %q: the target's environment is not there", got["COLOR"])
			}
			for _, n := range names {
				want := ""
				if set != nil {
					want = launcher
				}
				// Of what only the target has PYTHON's own may be taken: see TestDebuggersVariables.
				if got[n] != want && !(set == nil && n == "PYTHONBREAKPOINT") {
					t.Errorf("%s is %q, want %q", n, got[n], want)
				}
			}
		})
	}
}

// TestDebuggerPIDs: a process has the same number inside and out.
func TestDebuggerPIDs(t *testing.T) {
	r := start(t, "-t", debugged, "--", python, "-c", "import os, sys; print(os.getpid(), flush=True); sys.stdin.read()", "marked-by-"+t.Name())
	r.waitFor("\n")
	b, err := os.ReadFile("/proc/" + strings.TrimSpace(r.stdout.String()) + "/cmdline")
	if err != nil || !strings.Contains(string(b), "marked-by-"+t.Name()) {
		t.Errorf("process %s is %q here: %v", r.stdout, b, err)
	}
	r.end()
}

// TestDebuggerDescriptors: what the editor has left open is open in the program,
// at the same number, a socket too.
func TestDebuggerDescriptors(t *testing.T) {
	pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "ours"), os.NewFile(uintptr(pair[1]), "theirs")
	defer ours.Close()
	log, logEnd, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	r := startCommand(t, []string{w.mirrord, "exec", "-n", w.namespace, "-t", debugged, "--", "sh", "-c", "echo to the log >&3; cat <&4; echo end >&4"}, func(cmd *exec.Cmd) {
		cmd.ExtraFiles = []*os.File{logEnd, theirs}
	})
	logEnd.Close()
	theirs.Close()
	if line, err := bufio.NewReader(log).ReadString('\n'); line != "to the log\n" {
		t.Errorf("on descriptor 3: %q, %v", line, err)
	}
	fmt.Fprintln(ours, "by the socket")
	if err := syscall.Shutdown(int(ours.Fd()), syscall.SHUT_WR); err != nil {
		t.Fatal(err)
	}
	r.waitFor("by the socket")
	if line, err := bufio.NewReader(ours).ReadString('\n'); line != "end\n" {
		t.Errorf("on descriptor 4: %q, %v", line, err)
	}
	r.end()
}

// TestDebuggerEnds: however an editor ends a program, nothing is left, here and in
// the cluster.
func TestDebuggerEnds(t *testing.T) {
	for _, c := range []struct {
		name string
		end  func(t *testing.T, pid int)
		code int
	}{
		{"SIGINT to mirrord alone", func(_ *testing.T, pid int) { _ = syscall.Kill(pid, syscall.SIGINT) }, 128 + 2},
		{"SIGTERM to mirrord alone", func(_ *testing.T, pid int) { _ = syscall.Kill(pid, syscall.SIGTERM) }, 128 + 15},
		{"SIGKILL to the tree, leaves first", func(t *testing.T, pid int) { killTree(t, pid) }, -1},
		{"SIGKILL to the group", func(_ *testing.T, pid int) { _ = syscall.Kill(-pid, syscall.SIGKILL) }, -1},
		{"SIGTERM to the group", func(_ *testing.T, pid int) { _ = syscall.Kill(-pid, syscall.SIGTERM) }, 128 + 15},
	} {
		t.Run(c.name, func(t *testing.T) {
			mark := "marked-by-" + strings.ReplaceAll(t.Name(), "/", "-")
			script := "import os, signal, time; signal.signal(signal.SIGINT, signal.SIG_DFL); os.fork(); os.write(1, b'ready\\n'); time.sleep(3600)"
			r := startCommand(t, []string{w.mirrord, "exec", "-n", w.namespace, "-t", debugged, "--", python, "-c", script, mark}, func(cmd *exec.Cmd) {
				cmd.SysProcAttr.Setpgid = true
			})
			r.waitFor("ready\nready")
			c.end(t, r.cmd.Process.Pid)
			if code := r.end(); code != c.code {
				t.Errorf("exit code %d, want %d", code, c.code)
			}
			if c.code == 128+2 || c.name == "SIGTERM to mirrord alone" { // the child heard nothing, and keeps the session as it would run on without
				for _, pid := range pidsWith(mark) {
					_ = syscall.Kill(pid, syscall.SIGTERM)
				}
			}
			for end := time.Now().Add(removedWithin); len(processesWith(mark)) > 0; time.Sleep(50 * time.Millisecond) {
				if time.Now().After(end) {
					t.Fatalf("still there: %s", processesWith(mark))
				}
			}
		})
	}
}

// pidsWith gives the processes that have an argument.
func pidsWith(argument string) (pids []int) {
	for _, p := range processesWith(argument) {
		var pid int
		_, _ = fmt.Sscan(p, &pid)
		pids = append(pids, pid)
	}
	return pids
}
