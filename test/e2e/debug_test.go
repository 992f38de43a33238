package e2e

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Debuggers: what they need of a session, and each of them at work, spoken to in
// its own protocol as an editor does. A breakpoint is hit, a variable read, and
// what is stopped leaves nothing.

// debugged is the target of these tests.
const debugged = "pod/app"

// python is Debian's, which has Debian's debugpy.
const python = "/usr/bin/python3"

// debugProgram gives the path of a program to be debugged.
func debugProgram(name string) string { return filepath.Join(w.dir, "bin", "debug", name) }

// freePort is a port that nobody uses here. The target uses none of that range.
func freePort(t testing.TB) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	_, port, _ := net.SplitHostPort(ln.Addr().String())
	return port
}

// published waits until the session has opened a port here, for a debugger.
func (r *run) published(port string) {
	r.t.Helper()
	for _, text := range []string{"port " + port + " is local only: it is a debugger's port", "open here at 127.0.0.1:" + port} {
		if !r.stderr.waitFor(text, runTime) {
			r.t.Fatalf("stderr never had %q", text)
		}
	}
}

// outside makes a command that runs on this machine, as the user, outside of any
// session.
func outside(argv ...string) *exec.Cmd {
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Dir = filepath.Join(w.dir, "work")
	cmd.Env = environment()
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: user, Gid: user}}
	return cmd
}

// dap is a client of a debug adapter (Debug Adapter Protocol).
type dap struct {
	t     testing.TB
	to    io.Writer
	mu    sync.Mutex
	cond  *sync.Cond
	seq   int
	got   []dapMessage
	err   error
	asked func(command string, arguments json.RawMessage) any // answers the adapter's own requests
}

type dapMessage struct {
	Seq        int             `json:"seq"`
	Type       string          `json:"type"`
	Command    string          `json:"command,omitempty"`
	Event      string          `json:"event,omitempty"`
	RequestSeq int             `json:"request_seq,omitempty"`
	Success    bool            `json:"success"`
	Message    string          `json:"message,omitempty"`
	Body       json.RawMessage `json:"body,omitempty"`
	Arguments  any             `json:"arguments,omitempty"`
}

// newDAP speaks with an adapter until from ends.
func newDAP(t testing.TB, from io.Reader, to io.Writer) *dap {
	d := &dap{t: t, to: to}
	d.cond = sync.NewCond(&d.mu)
	go func() { // ends with from
		r := bufio.NewReader(from)
		for {
			m, raw, err := readDAP(r)
			d.mu.Lock()
			if err != nil {
				d.err = err
				d.cond.Broadcast()
				d.mu.Unlock()
				return
			}
			d.got = append(d.got, m)
			asked := d.asked
			d.cond.Broadcast()
			d.mu.Unlock()
			if m.Type == "request" && asked != nil {
				d.send(dapMessage{Type: "response", Command: m.Command, RequestSeq: m.Seq, Success: true, Body: marshal(asked(m.Command, raw))})
			}
		}
	}()
	return d
}

func readDAP(r *bufio.Reader) (m dapMessage, arguments json.RawMessage, err error) {
	length := 0
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return m, nil, err
		}
		if line = strings.TrimSpace(line); line == "" {
			break
		}
		if v, ok := strings.CutPrefix(line, "Content-Length: "); ok {
			length, _ = strconv.Atoi(v)
		}
	}
	b := make([]byte, length)
	if _, err := io.ReadFull(r, b); err != nil {
		return m, nil, err
	}
	raw := struct{ Arguments json.RawMessage }{}
	if err := json.Unmarshal(b, &raw); err != nil {
		return m, nil, err
	}
	return m, raw.Arguments, json.Unmarshal(b, &m)
}

func marshal(v any) json.RawMessage {
	b, _ := json.Marshal(v)
	return b
}

func (d *dap) send(m dapMessage) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.seq++
	m.Seq = d.seq
	b := marshal(m)
	if _, err := fmt.Fprintf(d.to, "Content-Length: %d\r\n\r\n%s", len(b), b); err != nil && d.err == nil {
		d.err = err
	}
	return m.Seq
}

// wait waits for a message.
func (d *dap) wait(what string, is func(dapMessage) bool) dapMessage {
	d.t.Helper()
	late := time.AfterFunc(runTime, func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.err = fmt.Errorf("nothing for %v", runTime)
		d.cond.Broadcast()
	})
	defer late.Stop()
	d.mu.Lock()
	defer d.mu.Unlock()
	for i := 0; ; i++ {
		for i >= len(d.got) {
			if d.err != nil {
				d.t.Fatalf("wait for %s: %v; so far:\n%s", what, d.err, marshal(d.got))
			}
			d.cond.Wait()
		}
		if is(d.got[i]) {
			return d.got[i]
		}
	}
}

func (d *dap) event(name string) dapMessage {
	d.t.Helper()
	return d.wait("the event "+name, func(m dapMessage) bool { return m.Event == name })
}

// request sends a request and gives the body of the answer.
func (d *dap) request(command string, arguments any, body any) {
	d.t.Helper()
	seq := d.send(dapMessage{Type: "request", Command: command, Arguments: arguments})
	m := d.wait("the answer to "+command, func(m dapMessage) bool { return m.Type == "response" && m.RequestSeq == seq })
	if !m.Success {
		d.t.Fatalf("%s: %s %s", command, m.Message, m.Body)
	}
	if body != nil {
		if err := json.Unmarshal(m.Body, body); err != nil {
			d.t.Fatal(err)
		}
	}
}

type fields = map[string]any

// hit starts (launch or attach with arguments), stops at a line of file, and
// reads n and result there.
func (d *dap) hit(request string, arguments fields, file string, line int) {
	d.t.Helper()
	d.request("initialize", fields{"clientID": "e2e", "adapterID": "e2e", "pathFormat": "path", "linesStartAt1": true, "columnsStartAt1": true, "supportsRunInTerminalRequest": true}, nil)
	started := d.send(dapMessage{Type: "request", Command: request, Arguments: arguments})
	refused := func(m dapMessage) bool { return m.Type == "response" && m.RequestSeq == started && !m.Success }
	if m := d.wait("initialized", func(m dapMessage) bool { return m.Event == "initialized" || refused(m) }); refused(m) {
		d.t.Fatalf("%s: %s %s", request, m.Message, m.Body)
	}
	d.request("setBreakpoints", fields{"source": fields{"path": file}, "breakpoints": []fields{{"line": line}}}, nil)
	d.request("configurationDone", fields{}, nil)
	stopped := struct {
		Reason   string
		ThreadID int `json:"threadId"`
	}{}
	if err := json.Unmarshal(d.event("stopped").Body, &stopped); err != nil || stopped.Reason != "breakpoint" {
		d.t.Fatalf("stopped: %+v, %v", stopped, err)
	}
	stack := struct {
		StackFrames []struct {
			ID   int
			Line int
		} `json:"stackFrames"`
	}{}
	d.request("stackTrace", fields{"threadId": stopped.ThreadID}, &stack)
	if stack.StackFrames[0].Line != line {
		d.t.Errorf("stopped in line %d, want %d", stack.StackFrames[0].Line, line)
	}
	value := struct{ Result string }{}
	d.request("evaluate", fields{"expression": "n", "frameId": stack.StackFrames[0].ID, "context": "watch"}, &value)
	if value.Result != "41" {
		d.t.Errorf("n is %q, want 41", value.Result)
	}
}

// finish lets the program go on to its end and leaves the adapter.
func (d *dap) finish() {
	d.t.Helper()
	d.request("continue", fields{"threadId": 1}, nil)
	d.event("terminated")
	d.request("disconnect", fields{}, nil)
}

// dialDAP connects to an adapter that listens.
func dialDAP(t testing.TB, port string) *dap {
	t.Helper()
	c, err := net.Dial("tcp", "127.0.0.1:"+port)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return newDAP(t, c, c)
}
