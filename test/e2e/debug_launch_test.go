package e2e

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// Launch configurations of VS Code, as its extension has them rewritten for a session
// that runs: each is used as the extension of its language is documented to use it.

// rewritten is what debug-config prints, as far as an editor does something with it.
type rewritten struct {
	Configuration fields
	Tasks         []struct {
		Command        string
		Args           []string
		Options        struct{ Cwd string }
		ProblemMatcher struct{ Background struct{ EndsPattern string } }
	}
	Wrapped bool
}

// forSession has a configuration rewritten for a session.
func forSession(t testing.TB, id string, configuration fields) (r rewritten) {
	t.Helper()
	configuration["name"], configuration["request"] = "e2e", "launch"
	cmd := outside(w.mirrord, "debug-config", "--session", id, "--json", "-", "e2e")
	cmd.Stdin = strings.NewReader(string(marshal(fields{"configurations": []fields{configuration}})))
	out, err := cmd.Output()
	if err == nil {
		err = json.Unmarshal(out, &r)
	}
	if err != nil || !r.Wrapped {
		t.Fatalf("debug-config: %v: %s", err, out)
	}
	return r
}

// text is a value of the configuration.
func (r rewritten) text(t testing.TB, key string) string {
	t.Helper()
	s, ok := r.Configuration[key].(string)
	if !ok {
		t.Fatalf("%s is %v, want a text", key, r.Configuration[key])
	}
	return s
}

// adapterOf starts an adapter on this machine and speaks with it.
func adapterOf(t *testing.T, argv ...string) *dap {
	t.Helper()
	adapter := outside(argv...)
	adapter.SysProcAttr.Setsid = true
	to, err := adapter.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	from, err := adapter.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := adapter.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		to.Close()
		_ = adapter.Process.Kill()
		_ = adapter.Wait()
	})
	return newDAP(t, from, to)
}

// awaitPublished waits until a session has opened a port here.
func awaitPublished(t testing.TB, id, port string) {
	t.Helper()
	for end := time.Now().Add(runTime); ; time.Sleep(50 * time.Millisecond) {
		out, err := outside(w.mirrord, "status", id, "-o", "json").Output()
		if err == nil && strings.Contains(string(out), `"127.0.0.1:`+port+`"`) {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("port %s is not open here: %v: %s", port, err, out)
		}
	}
}

func TestLaunchConfigurations(t *testing.T) {
	id := kept(t, "-t", debugged, "--steal")

	t.Run("debugpy", func(t *testing.T) {
		r := forSession(t, id, fields{"type": "debugpy", "program": debugProgram("app.py"), "console": "internalConsole", "cwd": w.dir, "python": python})
		d := adapterOf(t, python, "-m", "debugpy.adapter")
		d.hit("launch", r.Configuration, debugProgram("app.py"), addLine)
		d.finish()
		d.wait("the program's output", func(m dapMessage) bool { return m.Event == "output" && strings.Contains(string(m.Body), "result") })
	})

	t.Run("go", func(t *testing.T) {
		source, err := filepath.Abs("programs/debugged")
		if err != nil {
			t.Fatal(err)
		}
		r := forSession(t, id, fields{"type": "go", "mode": "auto", "program": source, "dlvToolPath": delve(t)})
		for _, task := range r.Tasks { // the build, which runs as the editor's other tasks do
			cmd := exec.Command(task.Command, task.Args...)
			cmd.Dir = task.Options.Cwd
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("%s: %v: %s", cmd, err, out)
			}
		}
		log, logEnd, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer log.Close()
		port := freePort(t)
		p := startCommandOnly(t, []string{r.text(t, "dlvToolPath"), "dap", "--listen=127.0.0.1:" + port, "--log-dest=3"}, func(cmd *exec.Cmd) { cmd.ExtraFiles = []*os.File{logEnd} })
		logEnd.Close()
		for lines := bufio.NewScanner(log); !strings.Contains(lines.Text(), "listening at: 127.0.0.1:"+port); {
			if !lines.Scan() {
				t.Fatalf("delve did not say that it listens: %v", lines.Err())
			}
		}
		d := dialDAP(t, port)
		d.hit("launch", fields{"mode": r.text(t, "mode"), "program": r.text(t, "program")}, filepath.Join(source, "main.go"), goLine)
		d.finish()
		p.end()
	})

	t.Run("cppdbg", func(t *testing.T) {
		r := forSession(t, id, fields{"type": "cppdbg", "MIMode": "gdb", "program": debugProgram("debugged-c"), "cwd": w.dir})
		p := startCommandOnly(t, []string{r.text(t, "miDebuggerPath"), "--interpreter=mi", "-q", "-nx", r.text(t, "program")})
		s := p.inside()
		s.say("1-break-insert add", "1^done,bkpt=")
		s.say("2-exec-run", `*stopped,reason="breakpoint-hit"`)
		s.say("3-data-evaluate-expression n", `3^done,value="41"`)
		s.say("4-exec-continue", "result 42")
		s.say("5-gdb-exit", "5^exit")
		if code := p.end(); code != 0 {
			t.Errorf("exit code %d", code)
		}
	})

	t.Run("java", func(t *testing.T) {
		r := forSession(t, id, fields{"type": "java", "mainClass": "Debugged", "classPaths": []string{debugProgram("")}})
		// The extension reads which Java it is from the JDK around it, and has it connect to
		// a port of its own.
		if out, err := outside(r.text(t, "javaExec"), "-version").CombinedOutput(); err != nil || !strings.Contains(string(out), "version") {
			t.Errorf("-version: %v: %s", err, out)
		}
		release := filepath.Join(filepath.Dir(filepath.Dir(r.text(t, "javaExec"))), "release")
		if b, err := os.ReadFile(release); err != nil || !strings.Contains(string(b), "JAVA_VERSION") {
			t.Errorf("%s: %v: %s", release, err, b)
		}
		port := freePort(t)
		s := besides(t, "jdb", "-connect", "com.sun.jdi.SocketListen:localAddress=127.0.0.1,port="+port)
		for !listensHere(port) {
			time.Sleep(20 * time.Millisecond)
		}
		p := startCommandOnly(t, []string{r.text(t, "javaExec"), "-agentlib:jdwp=transport=dt_socket,server=n,suspend=y,address=localhost:" + port, "-cp", debugProgram(""), r.text(t, "mainClass")})
		jdb(s)
		p.waitFor("result 42")
		if code := p.end(); code != 0 {
			t.Errorf("exit code %d", code)
		}
	})

	t.Run("lldb", func(t *testing.T) {
		r := forSession(t, id, fields{"type": "lldb", "program": debugProgram("debugged-c")})
		if len(r.Tasks) != 1 {
			t.Fatalf("%d tasks, want 1", len(r.Tasks))
		}
		task := r.Tasks[0]
		p := startCommandOnly(t, append([]string{"env", task.Command}, task.Args...)) // as the user finds it
		awaitPublished(t, id, regexp.MustCompile(`[0-9]+$`).FindString(task.ProblemMatcher.Background.EndsPattern))
		s := besides(t, "lldb", "--no-lldbinit")
		commands := func(key, want string) {
			t.Helper()
			for _, c := range r.Configuration[key].([]any) {
				s.say(fmt.Sprint(c), want)
			}
		}
		commands("targetCreateCommands", "Current executable set")
		s.say("breakpoint set --name add", "Breakpoint 1:")
		commands("processCreateCommands", "stopped")
		commands("postRunCommands", "stop reason = breakpoint")
		s.say("frame variable n", "(int) n = 41")
		s.say("process continue", "exited with status = 0")
		s.say("quit", "")
		p.end()
	})
}
