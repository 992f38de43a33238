package e2e

import (
	"bufio"
	"io"
	"net"
	"net/rpc/jsonrpc"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// goTool builds a program of a Go module once and gives its path. It is in the
// build cache afterwards.
func goTool(t testing.TB, module, version string) string {
	t.Helper()
	file := filepath.Join(w.dir, "bin", filepath.Base(module))
	if _, err := os.Stat(file); err == nil {
		return file
	}
	cmd := exec.Command("go", "install", module+"@"+version)
	cmd.Dir = w.dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-trimpath", "GOBIN="+filepath.Dir(file))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", cmd, err, out)
	}
	return file
}

func delve(t testing.TB) string {
	return goTool(t, "github.com/go-delve/delve/cmd/dlv", "v1.27.2")
}

// goLine is the line of programs/debugged/main.go where n is known.
const goLine = 8

// TestDelveHeadless is delve with a client that connects to it.
func TestDelveHeadless(t *testing.T) {
	port := freePort(t)
	r := start(t, "-t", debugged, "--steal", "--", delve(t), "exec", "--headless", "--api-version=2", "--accept-multiclient", "--listen=127.0.0.1:"+port, debugProgram("debugged-go"))
	r.published(port)
	c, err := jsonrpc.Dial("tcp", "127.0.0.1:"+port)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	call := func(method string, in, out any) {
		t.Helper()
		if err := c.Call("RPCServer."+method, in, out); err != nil {
			t.Fatalf("%s: %v", method, err)
		}
	}
	call("CreateBreakpoint", fields{"Breakpoint": fields{"functionName": "main.add"}}, &fields{})
	call("Command", fields{"name": "continue"}, &fields{})
	var n struct{ Variable struct{ Value string } }
	call("Eval", fields{"Scope": fields{"GoroutineID": -1}, "Expr": "n"}, &n)
	if n.Variable.Value != "41" {
		t.Errorf("n is %q, want 41", n.Variable.Value)
	}
	call("Detach", fields{"Kill": true}, &fields{})
	r.end()
}

// TestDelveConnects is delve as VS Code's Go extension starts it in a terminal:
// it connects to the editor.
func TestDelveConnects(t *testing.T) {
	for _, how := range []string{"to its end", "stopped"} {
		t.Run(how, func(t *testing.T) {
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer ln.Close()
			_, port, _ := net.SplitHostPort(ln.Addr().String())
			r := start(t, "-t", debugged, "--", delve(t), "dap", "--client-addr=:"+port)
			_ = ln.(*net.TCPListener).SetDeadline(time.Now().Add(runTime))
			c, err := ln.Accept()
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			source, err := filepath.Abs("programs/debugged/main.go")
			if err != nil {
				t.Fatal(err)
			}
			d := newDAP(t, c, c)
			d.hit("launch", fields{"mode": "exec", "program": debugProgram("debugged-go")}, source, goLine)
			if how == "stopped" {
				d.request("disconnect", fields{"terminateDebuggee": true}, nil)
			} else {
				d.finish()
				r.waitFor("result 42")
			}
			r.end()
		})
	}
}

// TestDelveListens is delve as VS Code's Go extension starts it without a terminal:
// it tells by descriptor 3 that it listens, and the editor connects at once, and
// once. So its port is open here when listen(2) returns.
func TestDelveListens(t *testing.T) {
	log, logEnd, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	port := freePort(t)
	argv := []string{w.mirrord, "exec", "-n", w.namespace, "-t", debugged, "--steal", "--", delve(t), "dap", "--listen=127.0.0.1:" + port, "--log-dest=3"}
	r := startCommand(t, argv, func(cmd *exec.Cmd) { cmd.ExtraFiles = []*os.File{logEnd} })
	logEnd.Close()
	for lines := bufio.NewScanner(log); !strings.Contains(lines.Text(), "listening at: 127.0.0.1:"+port); {
		if !lines.Scan() {
			t.Fatalf("delve did not say that it listens: %v", lines.Err())
		}
	}
	d := dialDAP(t, port)
	source, err := filepath.Abs("programs/debugged/main.go")
	if err != nil {
		t.Fatal(err)
	}
	d.hit("launch", fields{"mode": "exec", "program": debugProgram("debugged-go")}, source, goLine)
	d.finish()
	r.end()
}

// dialogue is with a debugger that is spoken to line by line.
type dialogue struct {
	t    testing.TB
	in   io.Writer
	out  *output
	done <-chan struct{}
}

// say sends a line and waits for what it leads to.
func (s *dialogue) say(line, want string) {
	s.t.Helper()
	if _, err := io.WriteString(s.in, line+"\n"); err != nil {
		s.t.Fatalf("%q: %v; so far:\n%s", line, err, s.out)
	}
	if !s.out.waitFor(want, runTime) {
		s.t.Fatalf("after %q there never was %q:\n%s", line, want, s.out)
	}
}

// besides starts a debugger on this machine, outside of the session.
func besides(t testing.TB, argv ...string) *dialogue {
	t.Helper()
	cmd := outside(argv...)
	out := newOutput()
	cmd.Stdout, cmd.Stderr = out, out
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = cmd.Wait()
		out.close()
	}()
	t.Cleanup(func() {
		in.Close()
		_ = cmd.Process.Kill()
		<-done
		if t.Failed() {
			t.Logf("%s:\n%s", argv[0], out)
		}
	})
	return &dialogue{t, in, out, done}
}

// inside is the same for a debugger in a session.
func (r *run) inside() *dialogue { return &dialogue{r.t, r.stdin, r.stdout, r.done} }

// TestGDB is gdb in the session with its program, as editors for C start it.
func TestGDB(t *testing.T) {
	r := start(t, "-t", debugged, "--", "gdb", "--interpreter=mi2", "-q", "-nx", debugProgram("debugged-c"))
	s := r.inside()
	s.say("-break-insert add", "^done,bkpt=")
	s.say("-exec-run", `*stopped,reason="breakpoint-hit"`)
	s.say("-data-evaluate-expression n", `value="41"`)
	s.say("-exec-finish", `reason="function-finished"`)
	s.say("-exec-continue", "result 42")
	s.say("-gdb-exit", "^exit")
	if code := r.end(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// TestGDBServer is a server in the session and gdb outside of it.
func TestGDBServer(t *testing.T) {
	port := freePort(t)
	r := start(t, "-t", debugged, "--steal", "--", "gdbserver", "127.0.0.1:"+port, debugProgram("debugged-c"))
	r.published(port)
	s := besides(t, "gdb", "-q", "-nx", debugProgram("debugged-c"))
	s.say("set confirm off", "")
	s.say("target remote 127.0.0.1:"+port, "_start")
	s.say("break add", "Breakpoint 1 at")
	s.say("continue", "Breakpoint 1, add")
	s.say("print n", "$1 = 41")
	s.say("kill", "killed")
	s.say("quit", "")
	r.end()
}

// TestLLDB is lldb outside of the session and its server inside.
func TestLLDB(t *testing.T) {
	port := freePort(t)
	r := start(t, "-t", debugged, "--steal", "--", "lldb-server", "gdbserver", "127.0.0.1:"+port, "--", debugProgram("debugged-c"))
	r.published(port)
	s := besides(t, "lldb", "--no-lldbinit", debugProgram("debugged-c"))
	s.say("gdb-remote 127.0.0.1:"+port, "stopped")
	s.say("breakpoint set --name add", "Breakpoint 1:")
	s.say("continue", "stop reason = breakpoint")
	s.say("frame variable n", "(int) n = 41")
	s.say("process kill", "exited with status")
	s.say("quit", "")
	r.end()
}

// TestLLDBDescriptor is lldb outside of the session, with a shim in place of its
// server: they speak by a descriptor that is passed on.
func TestLLDBDescriptor(t *testing.T) {
	server, err := exec.LookPath("lldb-server")
	if err != nil {
		t.Fatal(err)
	}
	shim := filepath.Join(w.dir, "work", "lldb-shim")
	script := "#!/bin/sh\nexec " + w.mirrord + " exec -q -n '" + w.namespace + "' -t " + debugged + " -- " + server + ` "$@"` + "\n"
	if err := os.WriteFile(shim, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nothingLeft(t) })
	s := besides(t, "env", "LLDB_DEBUGSERVER_PATH="+shim, "lldb", "--no-lldbinit", debugProgram("debugged-c"))
	s.say("settings set plugin.process.gdb-remote.packet-timeout 60", "") // a session's start takes longer than a server's
	s.say("breakpoint set --name add", "Breakpoint 1:")
	s.say("process launch --no-stdio", "stop reason = breakpoint")
	s.say("frame variable n", "(int) n = 41")
	s.say("process kill", "exited with status")
	s.say("quit", "")
	<-s.done
}

func TestStrace(t *testing.T) {
	trace := filepath.Join(w.dir, "work", "trace")
	r := start(t, "-t", debugged, "--", "strace", "-f", "-o", trace, "-e", "trace=write,exit_group", debugProgram("debugged-c"))
	if code := r.end(); code != 0 || !strings.Contains(r.stdout.String(), "result 42") {
		t.Errorf("exit code %d, stdout %q", code, r.stdout)
	}
	if b, err := os.ReadFile(trace); err != nil || !strings.Contains(string(b), `write(1, "result 42`) {
		t.Errorf("%v, %s", err, b)
	}
}

// TestStraceFromOutside traces a program of a session by its number here.
func TestStraceFromOutside(t *testing.T) {
	pidFile := filepath.Join(w.dir, "work", "traced")
	trace := filepath.Join(w.dir, "work", "trace-outside")
	r := start(t, "-t", debugged, "--", "sh", "-c", "echo $$ >"+pidFile+"; echo ready; read line; echo got $line")
	r.waitFor("ready")
	b, err := os.ReadFile(pidFile)
	if err != nil {
		t.Fatal(err)
	}
	s := besides(t, "strace", "-o", trace, "-e", "trace=write", "-p", strings.TrimSpace(string(b)))
	if !s.out.waitFor("attached", runTime) {
		t.Fatalf("strace: %s", s.out)
	}
	if _, err := io.WriteString(r.stdin, "it\n"); err != nil {
		t.Fatal(err)
	}
	if code := r.end(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	<-s.done
	if b, err := os.ReadFile(trace); err != nil || !strings.Contains(string(b), `write(1, "got it`) {
		t.Errorf("%v, %s", err, b)
	}
}

// TestJDWPListens is a JVM that waits for its debugger.
func TestJDWPListens(t *testing.T) {
	port := freePort(t)
	r := start(t, "-t", debugged, "--steal", "--", "java", "-agentlib:jdwp=transport=dt_socket,server=y,suspend=y,address=127.0.0.1:"+port, "-cp", debugProgram(""), "Debugged")
	r.published(port)
	jdb(besides(t, "jdb", "-connect", "com.sun.jdi.SocketAttach:hostname=127.0.0.1,port="+port))
	r.waitFor("result 42")
	r.end()
}

// TestJDWPConnects is a JVM that connects to its debugger, as Java's extension
// starts it.
func TestJDWPConnects(t *testing.T) {
	for _, host := range []string{"localhost", "127.0.0.1"} {
		t.Run(host, func(t *testing.T) {
			port := freePort(t)
			s := besides(t, "jdb", "-connect", "com.sun.jdi.SocketListen:localAddress=127.0.0.1,port="+port)
			for !listensHere(port) {
				time.Sleep(20 * time.Millisecond)
			}
			r := start(t, "-t", debugged, "--", "java", "-agentlib:jdwp=transport=dt_socket,server=n,suspend=y,address="+host+":"+port, "-cp", debugProgram(""), "Debugged")
			jdb(s)
			r.waitFor("result 42")
			if code := r.end(); code != 0 {
				t.Errorf("exit code %d", code)
			}
		})
	}
}

// listensHere reports whether somebody listens on a port, without connecting: a
// debugger takes one connection.
func listensHere(port string) bool {
	ln, err := net.Listen("tcp", "127.0.0.1:"+port)
	if err == nil {
		ln.Close()
	}
	return err != nil
}

// jdb stops at the breakpoint, reads n and goes on to the end.
func jdb(s *dialogue) {
	s.t.Helper()
	if !s.out.waitFor("main[1]", runTime) { // it is no use to speak to it before
		s.t.Fatalf("jdb never was connected:\n%s", s.out)
	}
	s.say("stop in Debugged.add", "Deferring breakpoint Debugged.add")
	s.say("run", "Breakpoint hit")
	s.say("print n", "n = 41")
	s.say("cont", "The application exited")
}
