package kube

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/streaming/pkg/httpstream"
)

func echo(_ *api, s httpstream.Stream) { io.Copy(s, s) }

// bothWays runs test once over WebSocket and once where only SPDY is allowed.
func bothWays(t *testing.T, serve func(*api, httpstream.Stream), test func(t *testing.T, a *api, agent *Agent)) {
	for _, name := range []string{"websocket", "spdy"} {
		t.Run(name, func(t *testing.T) {
			a := &api{agent: []corev1.Pod{agentRuns()}, log: readyLog, serve: serve}
			if name == "spdy" {
				a.forbid = map[string]bool{"get pods/portforward": true}
			}
			c := a.start(t, Options{})
			agent, err := c.StartAgent(context.Background(), target, AgentSpec{Session: "s1", PublicKey: "KEY"}, nil)
			if err != nil {
				t.Fatal(err)
			}
			test(t, a, agent)
			if got, want := c.overSPDY.Load(), name == "spdy"; got != want {
				t.Errorf("went over SPDY: %v, want %v", got, want)
			}
		})
	}
}

func dial(t *testing.T, a *Agent) io.ReadWriteCloser {
	t.Helper()
	p, err := a.Dial(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

func TestDial(t *testing.T) {
	bothWays(t, echo, func(t *testing.T, a *api, agent *Agent) {
		sent := make([]byte, 1<<20+7)
		rand.Read(sent)
		for range 2 { // again and again
			p := dial(t, agent)
			wrote := make(chan error, 1)
			go func() { _, err := p.Write(sent); wrote <- err }()
			got := make([]byte, len(sent))
			if _, err := io.ReadFull(p, got); err != nil || !bytes.Equal(got, sent) {
				t.Errorf("echo of %d bytes: %v, equal: %v", len(sent), err, bytes.Equal(got, sent))
			}
			if err := <-wrote; err != nil {
				t.Error(err)
			}
			p.Close()
		}
		// After the first refusal nobody asks for WebSocket again.
		if got := a.count("get pods/portforward"); a.forbid != nil && got != 1 {
			t.Errorf("asked %d times for WebSocket, want once", got)
		}
	})
}

func TestDialTwoAtOnce(t *testing.T) {
	bothWays(t, echo, func(t *testing.T, _ *api, agent *Agent) {
		one, two := dial(t, agent), dial(t, agent)
		for _, p := range []io.ReadWriteCloser{two, one} {
			if _, err := p.Write([]byte("ping")); err != nil {
				t.Fatal(err)
			}
			b := make([]byte, 4)
			if _, err := io.ReadFull(p, b); err != nil || string(b) != "ping" {
				t.Errorf("echo = %q, %v", b, err)
			}
		}
		one.Close()
		if _, err := two.Write([]byte("x")); err != nil {
			t.Errorf("the second pipe ended with the first: %v", err)
		}
	})
}

// TestAgentCloses: what it sent before arrives, then io.EOF.
func TestAgentCloses(t *testing.T) {
	bothWays(t, func(_ *api, s httpstream.Stream) { io.WriteString(s, "bye") }, func(t *testing.T, _ *api, agent *Agent) {
		p := dial(t, agent)
		if got, err := io.ReadAll(p); string(got) != "bye" || err != nil {
			t.Errorf("read %q, %v; want bye and the end", got, err)
		}
	})
}

// TestLastWordsArrive: Close does not overtake what was written.
func TestLastWordsArrive(t *testing.T) {
	heard := make(chan string, 1)
	listen := func(_ *api, s httpstream.Stream) {
		b, _ := io.ReadAll(s)
		heard <- string(b)
	}
	bothWays(t, listen, func(t *testing.T, _ *api, agent *Agent) {
		p := dial(t, agent)
		words := strings.Repeat("goodbye ", 10000)
		if _, err := io.WriteString(p, words); err != nil {
			t.Fatal(err)
		}
		p.Close()
		if got := <-heard; got != words {
			t.Errorf("the agent heard %d bytes of %d", len(got), len(words))
		}
	})
}

// TestPortRefuses: the agent has ended but its pod is still there.
func TestPortRefuses(t *testing.T) {
	bothWays(t, nil, func(t *testing.T, _ *api, agent *Agent) {
		p := dial(t, agent)
		_, err := p.Read(make([]byte, 1))
		if err == nil || !strings.Contains(err.Error(), "connection refused") {
			t.Errorf("Read: %v; want what the node said", err)
		}
		if _, err := p.Write([]byte("x")); err == nil || !strings.Contains(err.Error(), "connection refused") {
			t.Errorf("Write: %v; want what the node said", err)
		}
	})
}

func TestNodeClosesWithoutAWord(t *testing.T) {
	bothWays(t, nil, func(t *testing.T, a *api, agent *Agent) {
		a.wordless = true
		if n, err := dial(t, agent).Read(make([]byte, 1)); n != 0 || err != io.EOF {
			t.Errorf("Read = %d, %v; want EOF", n, err)
		}
	})
}

// TestCloseEndsReadAndWrite, also where nobody takes what is written.
func TestCloseEndsReadAndWrite(t *testing.T) {
	silent := func(a *api, s httpstream.Stream) {
		<-a.ends
		io.Copy(io.Discard, s)
	}
	bothWays(t, silent, func(t *testing.T, _ *api, agent *Agent) {
		p := dial(t, agent)
		results := make(chan error, 2)
		go func() { _, err := p.Read(make([]byte, 1)); results <- err }()
		go func() { _, err := p.Write(make([]byte, 64<<20)); results <- err }()
		time.Sleep(100 * time.Millisecond) // both wait now, as a rule; the test holds in any case
		begin := time.Now()
		p.Close()
		if took := time.Since(begin); took > 2*closeTime {
			t.Errorf("Close took %v", took)
		}
		for range 2 {
			if err := <-results; !errors.Is(err, net.ErrClosed) {
				t.Errorf("error %v, want %v", err, net.ErrClosed)
			}
		}
		if _, err := p.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
			t.Errorf("Read after Close: %v", err)
		}
		p.Close()
	})
}

func TestDialFails(t *testing.T) {
	gone := status(404, metav1.StatusReasonNotFound, `pods "x" not found`)
	for _, c := range []struct {
		name   string
		change func(a *api)
		check  func(t *testing.T, err error)
	}{
		{"forbidden", func(a *api) {
			a.forbid = map[string]bool{"get pods/portforward": true, "create pods/portforward": true}
		}, func(t *testing.T, err error) {
			expect(t, err, "forbidden", "you may not create pods/portforward", "the verb create on pods/portforward")
		}},
		{"gone, says WebSocket", func(a *api) { a.refuse = map[string]*metav1.Status{"get pods/portforward": gone} }, func(t *testing.T, err error) {
			if !errors.Is(err, ErrGone) {
				t.Errorf("error %v, want %v", err, ErrGone)
			}
		}},
		{"gone, says SPDY", func(a *api) {
			a.forbid = map[string]bool{"get pods/portforward": true}
			a.refuse = map[string]*metav1.Status{"create pods/portforward": gone}
		}, func(t *testing.T, err error) {
			if !errors.Is(err, ErrGone) {
				t.Errorf("error %v, want %v", err, ErrGone)
			}
		}},
		{"server is ill", func(a *api) {
			ill := status(500, metav1.StatusReasonInternalError, "the kubelet is away")
			a.refuse = map[string]*metav1.Status{"get pods/portforward": ill, "create pods/portforward": ill}
		}, func(t *testing.T, err error) {
			expect(t, err, "cluster-error", "the kubelet is away")
		}},
		{"no answer", func(a *api) { a.hang = map[string]bool{"get pods/portforward": true} }, func(t *testing.T, err error) {
			if !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("error %v, want %v", err, context.DeadlineExceeded)
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := &api{agent: []corev1.Pod{agentRuns()}, log: readyLog}
			c.change(a)
			cl := a.start(t, Options{})
			agent, err := cl.StartAgent(context.Background(), target, AgentSpec{Session: "s1", PublicKey: "KEY"}, nil)
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			defer cancel()
			p, err := agent.Dial(ctx)
			if p != nil || err == nil {
				t.Fatalf("Dial = %v, %v; want an error", p, err)
			}
			c.check(t, err)
		})
	}
}

// TestRefusals: a port that refuses for some seconds is that of an agent that has
// ended.
func TestRefusals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &Agent{port: 38199}
		const words = `error forwarding port 38199 to pod 0f64, uid : failed to execute portforward in network namespace "/var/run/netns/cni-25b5": failed to connect to localhost:38199 inside namespace "0f64", IPv4: dial tcp4 127.0.0.1:38199: connect: connection refused`
		for i, want := range []bool{false, false, false, true, true} {
			if got := refusedBy(words, a.port) && a.refusals.note(time.Now()); got != want {
				t.Errorf("after %d seconds: %v", i, got)
			}
			time.Sleep(time.Second)
		}
		time.Sleep(refusalGap)
		if a.refusals.note(time.Now()) {
			t.Error("it counts what was long ago")
		}
	})
	for words, want := range map[string]bool{
		"socat[12] E connect(5, AF=2 127.0.0.1:38199, 16): Connection refused":                                true,
		"dial tcp [::1]:38199: connect: connection refused":                                                   true,
		"dial tcp 127.0.0.1:3819: connect: connection refused":                                                false,
		"error forwarding port 38199: dial unix /run/containerd/containerd.sock: connect: connection refused": false,
		"read tcp4 127.0.0.1:59998->127.0.0.1:38199: read: connection reset by peer":                          false,
		"error forwarding port 38199 to pod 0f64, uid : network namespace for sandbox \"0f64\" is closed":     false,
		"error dialing backend: dial tcp 10.98.0.2:10250: connect: connection refused":                        false,
	} {
		if got := refusedBy(words, 38199); got != want {
			t.Errorf("%s: %v", words, got)
		}
	}
}

// TestAgentEnded: a port that refuses once means nothing, unless the cluster knows
// that the agent's container has ended.
func TestAgentEnded(t *testing.T) {
	ended := agentPod(func(_ *corev1.Pod, s *corev1.ContainerStatus) {
		s.State.Terminated = &corev1.ContainerStateTerminated{ExitCode: 137, Reason: "OOMKilled"}
	})
	for _, c := range []struct {
		name string
		now  corev1.Pod
		want bool
	}{{"it runs", agentRuns(), false}, {"it has ended", ended, true}} {
		t.Run(c.name, func(t *testing.T) {
			a := &api{agent: []corev1.Pod{agentRuns()}, log: readyLog}
			cl := a.start(t, Options{})
			agent, err := cl.StartAgent(context.Background(), target, AgentSpec{Session: "s1", PublicKey: "KEY"}, nil)
			if err != nil {
				t.Fatal(err)
			}
			c.now.Name = agent.Pod
			a.mu.Lock()
			a.agent = []corev1.Pod{c.now}
			a.mu.Unlock()
			p := dial(t, agent)
			defer p.Close()
			if _, err := p.Read(make([]byte, 1)); errors.Is(err, ErrGone) != c.want {
				t.Errorf("read: %v; want %v: %v", err, ErrGone, c.want)
			}
		})
	}
}

// TestNoDescriptorsLeft: pipes that came and went leave no socket behind.
func TestNoDescriptorsLeft(t *testing.T) {
	bothWays(t, echo, func(t *testing.T, _ *api, agent *Agent) {
		p := dial(t, agent)
		p.Close()
		before := descriptors(t)
		for range 5 {
			dial(t, agent).Close()
		}
		for end := time.Now().Add(2 * time.Second); descriptors(t) > before; time.Sleep(5 * time.Millisecond) { // the server's ends close a moment later
			if time.Now().After(end) {
				t.Fatalf("%d descriptors, %d before", descriptors(t), before)
			}
		}
	})
}

func descriptors(t *testing.T) int {
	t.Helper()
	all, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}
