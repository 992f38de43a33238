package e2e

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// What port-forward goes through: a link that is cut, a target that is replaced,
// who does not read, its own death.

// echoed is a connection to what sends back what it is told, as it is.
type echoed struct {
	t *testing.T
	net.Conn
}

func dialEcho(t *testing.T, address string) echoed {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(runTime))
	return echoed{t, c}
}

func (c echoed) says(text string) {
	c.t.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		c.t.Fatal(err)
	}
}

func (c echoed) hears(text string) {
	c.t.Helper()
	got := make([]byte, len(text))
	if _, err := io.ReadFull(c, got); err != nil || string(got) != text {
		c.t.Errorf("the answer is %q, %v, want %q", got, err, text)
	}
}

// toEcho is the -L that leads to the pod's port of echoed.
func toEcho(t *testing.T) string { return "0:" + podIP(t, "echo") + ":7002" }

// TestPortForwardLinkCut: what is open survives it, and so does what is opened
// meanwhile.
func TestPortForwardLinkCut(t *testing.T) {
	relay, kubeconfig := newRelay(t)
	r, ready := bareSession(t, "port-forward", "--kubeconfig", kubeconfig, "-L", toEcho(t))
	address := ready.Local[0].Listen[0]
	before := dialEcho(t, address)
	before.says("before")
	before.hears("before")
	relay.set(func() { relay.closes = true })
	r.stderr.waitFor("the link to the agent is lost", runTime)
	before.says("meanwhile")
	meanwhile := dialEcho(t, address)
	meanwhile.says("new")
	relay.set(func() { relay.closes = false })
	before.hears("meanwhile")
	meanwhile.hears("new")
	if !r.stderr.waitFor("the link to the agent is back", runTime) {
		t.Errorf("nothing was said:\n%s", r.stderr)
	}
	interrupt(t, r)
}

// TestPortForwardFollows: ports lead to the target's successor, and the successor's
// come here.
func TestPortForwardFollows(t *testing.T) {
	followable(t)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	here := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "laptop") })}
	var served sync.WaitGroup
	served.Go(func() { _ = here.Serve(ln) })
	t.Cleanup(func() {
		here.Close()
		served.Wait()
	})
	_, port, _ := net.SplitHostPort(ln.Addr().String())
	r, ready := bareSession(t, "port-forward", "-t", "deployment/followed", "--steal", "-R", "8021:"+port, "-L", "0:localhost:8001")
	first := readyPod(t)
	works := func(pod string) {
		t.Helper()
		if got := request(t, "http://"+podIP(t, pod)+":8021/in"); got != "laptop" {
			t.Errorf("%s: the client got %q", pod, got)
		}
		if got := get(t, ready.Local[0].Listen[0]); strings.Contains(got, "http://") {
			t.Errorf("%s: its own port: %s", pod, got)
		}
	}
	works(first)
	kubectl(t, "rollout", "restart", "deployment/followed")
	r.waitForText("the session goes on in ")
	second := readyPod(t)
	if second == first {
		t.Errorf("%s was not replaced", first)
	}
	works(second)
	interrupt(t, r)
}

// readyPod is the one pod of deployment/followed.
func readyPod(t *testing.T) string {
	t.Helper()
	kubectl(t, "rollout", "status", "deployment/followed", "--timeout=28s")
	return ready(t, "app=followed")
}

// waitForText waits until it has been said on stderr.
func (r *run) waitForText(text string) {
	r.t.Helper()
	if !r.stderr.waitFor(text, runTime) {
		r.t.Fatalf("%q was not said:\n%s", text, r.stderr)
	}
}

// TestPortForwardSlowClient: who does not read holds up nobody else, and has all of
// it in the end.
func TestPortForwardSlowClient(t *testing.T) {
	r, ready := bareSession(t, "port-forward", "-L", toEcho(t))
	slow, other := dialEcho(t, ready.Local[0].Listen[0]), dialEcho(t, ready.Local[0].Listen[0])
	// More than all buffers on the way there and back hold.
	const chunks = 128
	chunk := bytes.Repeat([]byte("0123456789abcdef"), 64<<10)
	var sent sync.WaitGroup
	full := make(chan bool, 1)
	sent.Go(func() {
		stuck := false
		for range chunks {
			for rest := chunk; len(rest) > 0; {
				_ = slow.SetWriteDeadline(time.Now().Add(2 * time.Second)) // what stands still for so long is full
				if stuck {
					_ = slow.SetWriteDeadline(time.Now().Add(runTime))
				}
				n, err := slow.Write(rest)
				rest = rest[n:]
				if err != nil && stuck {
					t.Error(err)
					return
				} else if err != nil {
					stuck = true
					full <- true
				}
			}
		}
		if !stuck {
			full <- false
		}
	})
	if !<-full {
		t.Error("everything was taken, though nobody reads")
	}
	other.says("quick")
	other.hears("quick")
	got := make([]byte, len(chunk))
	for i := range chunks {
		if n, err := io.ReadFull(slow, got); err != nil || !bytes.Equal(got, chunk) {
			t.Fatalf("of MiB %d %d bytes came back, %v", i, n, err)
		}
	}
	sent.Wait()
	interrupt(t, r)
}

// TestPortForwardUnreadEvents: a reader of the events that stands still holds up no
// connection, and is told how many it has missed.
func TestPortForwardUnreadEvents(t *testing.T) {
	events, theirs, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer events.Close()
	r := startCommand(t, []string{w.mirrord, "port-forward", "-n", w.namespace, "-q", "-o", "json", "-L", toEcho(t)}, func(c *exec.Cmd) { c.Stdout = theirs })
	theirs.Close()
	lines := bufio.NewScanner(events)
	var e struct {
		Kind, What string
		Count      int
		Local      []struct{ Listen []string }
	}
	next := func() bool {
		e.Kind, e.What, e.Count = "", "", 0
		return lines.Scan() && json.Unmarshal(lines.Bytes(), &e) == nil
	}
	for next() && e.Kind != "ready" {
	}
	if len(e.Local) == 0 {
		t.Fatal("nothing is ready")
	}
	const all = 1500 // two events each, which are more than wait for their reader and fit into the pipe
	for range all {
		c := dialEcho(t, e.Local[0].Listen[0])
		c.says("x")
		c.hears("x")
		c.Close()
	}
	r.signal(syscall.SIGINT)
	seen, missed := 0, 0
	for next() {
		switch {
		case e.Kind == "missed":
			missed += e.Count
		case e.Kind == "connection" && (e.What == "opened" || e.What == "closed"):
			seen++
		}
	}
	if r.end(); missed == 0 || seen+missed < 2*all {
		t.Errorf("%d events were seen and %d missed, of %d", seen, missed, 2*all)
	}
}

// TestPortForwardKilled: nothing of it is left, and the target has its port back.
func TestPortForwardKilled(t *testing.T) {
	url := "http://" + podIP(t, "probed") + ":8001/out"
	r, ready := bareSession(t, "port-forward", "-t", "pod/probed", "--steal", "-R", "8001:1", "-L", toEcho(t), "--agent-resume-window", "10")
	open := dialEcho(t, ready.Local[0].Listen[0])
	open.says("x")
	open.hears("x")
	r.signal(syscall.SIGKILL)
	<-r.done
	if n, err := open.Read(make([]byte, 1)); err == nil {
		t.Errorf("%d bytes came from nobody", n)
	}
	if c, err := net.Dial("tcp", ready.Local[0].Listen[0]); err == nil {
		c.Close()
		t.Error("the port is still open")
	}
	// A request that comes before the agent knows waits for who was killed, as
	// documented: that one is not waited for.
	got := ""
	for end := time.Now().Add(10 * time.Second); !strings.HasPrefix(got, "remote /out") && time.Now().Before(end); {
		got, _ = w.cluster.Kubectl(t.Context(), "-n", w.namespace, "exec", "tools", "--", "curl", "-sS", "--max-time", "2", url)
	}
	if !strings.HasPrefix(got, "remote /out") {
		t.Errorf("the target has not its port back: %s", got)
	}
	if all := shown(t); len(all) != 0 {
		t.Errorf("status shows %+v", all)
	}
	noAgent(t, time.Minute)
}
