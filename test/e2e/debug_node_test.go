package e2e

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gorilla/websocket"
)

// inspector is a client of node's inspector (Chrome DevTools Protocol).
type inspector struct {
	t    testing.TB
	c    *websocket.Conn
	last int
	kept []inspectorMessage // events that nobody has waited for
}

type inspectorMessage struct {
	ID     int
	Method string
	Params json.RawMessage
	Result json.RawMessage
	Error  *struct{ Message string }
}

// inspect opens the inspector at address over c.
func inspect(t testing.TB, c net.Conn, address string) *inspector {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	_ = c.SetDeadline(time.Now().Add(runTime))
	ws, _, err := websocket.NewClient(c, u, nil, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ws.Close() })
	return &inspector{t: t, c: ws}
}

func (i *inspector) read(what string, is func(inspectorMessage) bool) inspectorMessage {
	i.t.Helper()
	for n, m := range i.kept {
		if is(m) {
			i.kept = append(i.kept[:n:n], i.kept[n+1:]...)
			return m
		}
	}
	for {
		var m inspectorMessage
		if err := i.c.ReadJSON(&m); err != nil {
			i.t.Fatalf("wait for %s: %v", what, err)
		}
		if is(m) {
			return m
		}
		i.kept = append(i.kept, m)
	}
}

func (i *inspector) call(method string, params, result any) {
	i.t.Helper()
	i.last++
	if params == nil {
		params = fields{}
	}
	if err := i.c.WriteJSON(fields{"id": i.last, "method": method, "params": params}); err != nil {
		i.t.Fatal(err)
	}
	m := i.read("the answer to "+method, func(m inspectorMessage) bool { return m.ID == i.last })
	if m.Error != nil {
		i.t.Fatalf("%s: %s", method, m.Error.Message)
	}
	if result != nil {
		if err := json.Unmarshal(m.Result, result); err != nil {
			i.t.Fatal(err)
		}
	}
}

// hit stops at the breakpoint of programs/debug/app.js and reads n there.
func (i *inspector) hit() {
	i.t.Helper()
	i.prepare()
	i.paused()
}

// prepare sets the breakpoint, after which the program may go on.
func (i *inspector) prepare() {
	i.t.Helper()
	i.call("Runtime.enable", nil, nil)
	i.call("Debugger.enable", nil, nil)
	i.call("Debugger.setBreakpointByUrl", fields{"lineNumber": 4, "urlRegex": `.*/app\.js$`}, nil)
	i.call("Runtime.runIfWaitingForDebugger", nil, nil)
}

// paused waits until the program has come to the breakpoint and reads n.
func (i *inspector) paused() {
	i.t.Helper()
	var paused struct {
		HitBreakpoints []string `json:"hitBreakpoints"`
		CallFrames     []struct {
			CallFrameID string `json:"callFrameId"`
		} `json:"callFrames"`
	}
	for {
		m := i.read("a pause", func(m inspectorMessage) bool { return m.Method == "Debugger.paused" })
		if err := json.Unmarshal(m.Params, &paused); err != nil {
			i.t.Fatal(err)
		}
		if len(paused.HitBreakpoints) > 0 && strings.HasPrefix(paused.HitBreakpoints[0], "2:") { // by pattern
			break
		}
		i.call("Debugger.resume", nil, nil) // --inspect-brk stops before the first line
	}
	var n struct{ Result struct{ Value int } }
	i.call("Debugger.evaluateOnCallFrame", fields{"callFrameId": paused.CallFrames[0].CallFrameID, "expression": "n"}, &n)
	if n.Result.Value != 41 {
		i.t.Errorf("n is %d, want 41", n.Result.Value)
	}
}

// inspectPort asks a published inspector for its address and opens it.
func inspectPort(t testing.TB, port string) *inspector {
	t.Helper()
	resp, err := http.Get("http://127.0.0.1:" + port + "/json/list")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var list []struct {
		URL string `json:"webSocketDebuggerUrl"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&list); err != nil || len(list) != 1 {
		t.Fatalf("%v, %v", list, err)
	}
	c, err := net.Dial("tcp", "127.0.0.1:"+port)
	if err != nil {
		t.Fatal(err)
	}
	return inspect(t, c, list[0].URL)
}

func TestNodeInspect(t *testing.T) {
	for _, c := range []struct {
		name string
		argv func(port string) []string
	}{
		{"--inspect-brk", func(port string) []string {
			return []string{"node", "--inspect-brk=127.0.0.1:" + port, debugProgram("app.js")}
		}},
		{"NODE_OPTIONS of a script", func(port string) []string {
			return []string{"sh", "-c", "NODE_OPTIONS=--inspect-brk=" + port + " exec node " + debugProgram("app.js")}
		}},
		{"deep below", func(port string) []string {
			return []string{python, "-c", "import os, sys; os.waitpid(os.spawnvp(os.P_NOWAIT, 'node', ['node', '--inspect-brk=' + sys.argv[1], sys.argv[2]]), 0)", port, debugProgram("app.js")}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			port := freePort(t)
			r := start(t, append([]string{"-t", debugged, "--steal", "--"}, c.argv(port)...)...)
			r.published(port)
			i := inspectPort(t, port)
			i.hit()
			i.call("Debugger.resume", nil, nil)
			r.waitFor("result 42")
			i.c.Close()
			if code := r.end(); code != 0 {
				t.Errorf("exit code %d", code)
			}
		})
	}
}

// TestNodeInspectLater is a program that does not wait for its debugger.
func TestNodeInspectLater(t *testing.T) {
	port := freePort(t)
	r := start(t, "-t", debugged, "--steal", "--", "node", "--inspect="+port, "-e", "process.stdin.once('data', () => require('"+debugProgram("app.js")+"'))")
	r.published(port)
	i := inspectPort(t, port)
	i.prepare()
	if _, err := io.WriteString(r.stdin, "go on\n"); err != nil {
		t.Fatal(err)
	}
	i.paused()
	i.call("Debugger.resume", nil, nil)
	r.waitFor("result 42")
	i.c.Close()
	r.end()
}

// TestNodeStop ends a program that stands at a breakpoint as js-debug does: the
// whole tree is killed, leaves first.
func TestNodeStop(t *testing.T) {
	port := freePort(t)
	r := start(t, "-t", debugged, "--", "sh", "-c", "node --inspect-brk="+port+" "+debugProgram("app.js")+"; true")
	r.published(port)
	inspectPort(t, port).hit()
	killTree(t, r.cmd.Process.Pid)
	r.end()
	for _, p := range processesWith(debugProgram("app.js")) {
		t.Errorf("still there: %s", p)
	}
}

// TestBootloader is js-debug's way: the program's watchdog reaches the editor by
// a socket that has a path, and the inspector within the session.
func TestBootloader(t *testing.T) {
	dir, err := os.MkdirTemp(filepath.Join(w.dir, "home"), "tmp")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(dir, user, user); err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(dir, "node-cdp.sock")
	ln, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if err := os.Chmod(socket, 0o666); err != nil {
		t.Fatal(err)
	}
	options := marshal(fields{"inspectorIpc": socket, "watchdog": debugProgram("watchdog.js")})
	r := startCommand(t, []string{w.mirrord, "exec", "-n", w.namespace, "-t", debugged, "--", "node", debugProgram("app.js")}, func(cmd *exec.Cmd) {
		cmd.Env = append(cmd.Env, "TMPDIR="+dir, "NODE_OPTIONS=--require "+debugProgram("bootloader.js"), "VSCODE_INSPECTOR_OPTIONS="+string(options))
	})
	_ = ln.(*net.UnixListener).SetDeadline(time.Now().Add(runTime))
	c, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	var info struct {
		URL string
		PID int
	}
	line, err := bufio.NewReaderSize(c, 16).ReadBytes('\n') // nothing follows before we ask
	if err != nil || json.Unmarshal(line, &info) != nil {
		t.Fatalf("%q, %v", line, err)
	}
	if args, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", info.PID)); err != nil || !strings.Contains(string(args), "app.js") {
		t.Errorf("the program says that it is process %d, which is %q here: %v", info.PID, args, err)
	}
	i := inspect(t, c, info.URL)
	i.hit()
	i.call("Debugger.resume", nil, nil)
	r.waitFor("result 42")
	i.c.Close()
	if code := r.end(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// killTree kills a process with all that it has started, leaves first, as
// editors do.
func killTree(t testing.TB, pid int) {
	t.Helper()
	children := map[int][]int{}
	dirs, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, dir := range dirs {
		var child, parent int
		b, _ := os.ReadFile(dir)
		if open, close := strings.IndexByte(string(b), '('), strings.LastIndexByte(string(b), ')'); open > 0 && close > 0 {
			_, _ = fmt.Sscan(string(b[:open]), &child)
			_, _ = fmt.Sscanf(string(b[close+1:]), " %1s %d", new(string), &parent)
			children[parent] = append(children[parent], child)
		}
	}
	var kill func(int)
	kill = func(pid int) {
		for _, c := range children[pid] {
			kill(c)
		}
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	kill(pid)
}

// processesWith lists the processes that have an argument.
func processesWith(argument string) (list []string) {
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, file := range files {
		if b, err := os.ReadFile(file); err == nil && strings.Contains(string(b), argument) {
			list = append(list, fmt.Sprintf("%s %q", filepath.Base(filepath.Dir(file)), b))
		}
	}
	return list
}
