package kube

import (
	"bytes"
	"io"
	"net"
	"sync/atomic"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/mirrord-go/mirrord/internal/gather"
)

// counted counts Writes.
type counted struct {
	net.Conn
	n atomic.Int32
}

func (c *counted) Write(b []byte) (int, error) {
	c.n.Add(1)
	return c.Conn.Write(b)
}

// TestOneWriteBelow: what a frame of the link becomes, frames of SPDY, messages of
// WebSocket, records of TLS, goes to the socket at once.
func TestOneWriteBelow(t *testing.T) {
	a := &api{agent: []corev1.Pod{agentRuns()}, log: readyLog, serve: echo}
	agent, err := a.start(t, Options{}).StartAgent(t.Context(), target, AgentSpec{Session: "s1", PublicKey: "KEY"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	p := dial(t, agent).(*pipe)
	below := &counted{Conn: p.low.Conn}
	p.low.Writer = gather.New(below, socketHeld)
	sent := bytes.Repeat([]byte("0123456789abcde\n"), 64<<10/16)
	for i := range int32(3) {
		if n, err := p.Write(sent); n != len(sent) || err != nil {
			t.Fatalf("Write = %d, %v", n, err)
		}
		if n := below.n.Load(); n != i+1 {
			t.Errorf("after %d writes of %d bytes the socket had %d", i+1, len(sent), n)
		}
		got := make([]byte, len(sent))
		if _, err := io.ReadFull(p, got); err != nil || !bytes.Equal(got, sent) {
			t.Fatalf("other bytes come back, %v", err)
		}
	}
	if n, err := p.Write(nil); n != 0 || err != nil || below.n.Load() != 3 {
		t.Errorf("Write of nothing = %d, %v, %d writes below; want none", n, err, below.n.Load()-3)
	}
}
