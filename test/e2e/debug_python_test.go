package e2e

import (
	"encoding/json"
	"os/exec"
	"strings"
	"testing"
)

// addLine is the line of programs/debug/app.py where n is known.
const addLine = 6

// TestDebugpyListens is what a user does without any launch configuration.
func TestDebugpyListens(t *testing.T) {
	port := freePort(t)
	r := start(t, "-t", debugged, "--steal", "--", python, "-Xfrozen_modules=off", "-m", "debugpy", "--listen", "127.0.0.1:"+port, "--wait-for-client", debugProgram("app.py"))
	r.published(port)
	d := dialDAP(t, port)
	d.hit("attach", fields{"justMyCode": true}, debugProgram("app.py"), addLine)
	d.finish()
	if code := r.end(); code != 0 || !strings.Contains(r.stdout.String(), "result 42") {
		t.Errorf("exit code %d, stdout %q", code, r.stdout)
	}
}

// TestDebugpyLaunch is what VS Code does: its adapter starts the launcher, that
// one the program in a session, which connects back to the adapter.
func TestDebugpyLaunch(t *testing.T) {
	for _, c := range []struct {
		name, console string
		stop          bool
	}{
		{"internal console", "internalConsole", false},
		{"terminal", "integratedTerminal", false},
		{"stopped at the breakpoint", "integratedTerminal", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			terminal := newOutput()
			var shell *exec.Cmd
			t.Cleanup(func() { // the adapter has ended by then
				if shell != nil {
					_ = shell.Wait()
				}
				nothingLeft(t)
				if t.Failed() {
					t.Logf("the terminal:\n%s", terminal)
				}
			})
			d := adapterOf(t, python, "-m", "debugpy.adapter")
			d.asked = func(command string, arguments json.RawMessage) any {
				var in struct{ Args []string }
				if err := json.Unmarshal(arguments, &in); err != nil || command != "runInTerminal" {
					t.Errorf("%s: %v", command, err)
				}
				// A shell of a terminal is no relative of the adapter.
				shell = outside(append([]string{"sh", "-c", `"$@" & wait`, "sh"}, in.Args...)...)
				shell.SysProcAttr.Setsid = true
				shell.Stdout, shell.Stderr = terminal, terminal
				if err := shell.Start(); err != nil {
					t.Error(err)
				}
				return fields{"shellProcessId": shell.Process.Pid}
			}
			d.hit("launch", fields{
				"name": "e2e", "program": debugProgram("app.py"), "console": c.console, "cwd": w.dir, "debugLauncherPython": python,
				"python": append([]string{w.mirrord, "exec", "-v", "-n", w.namespace, "-t", debugged, "--"}, python),
			}, debugProgram("app.py"), addLine)
			if said := terminal.String(); shell != nil && (!strings.Contains(said, ": local, connected") || strings.Contains(said, "comes from or with")) {
				t.Error("the adapter was not reached by what the command line says")
			}
			if c.stop {
				d.request("disconnect", fields{"terminateDebuggee": true}, nil)
			} else {
				d.finish()
			}
			if shell == nil {
				d.wait("the program's output", func(m dapMessage) bool { return m.Event == "output" && strings.Contains(string(m.Body), "result") })
			}
		})
	}
}

// TestDebugpySubprocess: a child of the program connects to the adapter as well.
func TestDebugpySubprocess(t *testing.T) {
	port := freePort(t)
	r := start(t, "-t", debugged, "--", python, "-Xfrozen_modules=off", "-m", "debugpy", "--listen", port, "--wait-for-client", debugProgram("app.py"), "fork")
	r.published(port)
	d := dialDAP(t, port)
	d.request("initialize", fields{"clientID": "e2e", "adapterID": "e2e", "pathFormat": "path", "linesStartAt1": true, "columnsStartAt1": true}, nil)
	d.send(dapMessage{Type: "request", Command: "attach", Arguments: fields{"subProcess": true}})
	d.event("initialized")
	d.request("configurationDone", fields{}, nil)
	var child struct {
		Connect struct {
			Host string
			Port int
		}
		SubProcessID int `json:"subProcessId"`
	}
	if err := json.Unmarshal(d.event("debugpyAttach").Body, &child); err != nil {
		t.Fatal(err)
	}
	second := dialDAP(t, port)
	second.hit("attach", fields{"subProcessId": child.SubProcessID}, debugProgram("app.py"), addLine)
	second.request("disconnect", fields{}, nil)
	d.request("disconnect", fields{}, nil)
	if code := r.end(); code != 0 || !strings.Contains(r.stdout.String(), "result 42") {
		t.Errorf("exit code %d, stdout %q", code, r.stdout)
	}
}
