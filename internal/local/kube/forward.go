package kube

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/streaming/pkg/httpstream"
)

// ErrGone is wrapped by the errors of Dial when the agent's pod does not exist
// any more, and by those of its pipes when the agent has ended: to try again is
// of no use.
var ErrGone = errors.New("the agent's pod is gone, or has ended")

// closeTime is how long Close waits for the orderly end of a pipe: the last
// bytes, and the word that there are no more, should reach the agent. After it
// the connection is cut.
const closeTime = time.Second

// openTime bounds the opening of a pipe on a connection.
const openTime = 30 * time.Second

// faultTime is how long the end of a pipe waits for the reason on the error
// stream: both are sent together, and the cluster is asked what it means.
const faultTime = endedTime + time.Second

// endedTime bounds the question whether the agent has ended, whose answer the
// API server has at hand.
const endedTime = time.Second

// Dial opens a fresh byte pipe to the agent's port: a port-forward with a
// connection of its own, since all streams of one port-forward stop when one
// of them is full. ctx bounds the opening only. It can be called again and
// again, also while older pipes are open.
//
// The pipe's Read and Write may be called concurrently with each other and
// with Close. Close ends both, within about a second, and returns when nothing
// of the pipe is left. There is no half-close. Read returns io.EOF when the
// agent closed its side, net.ErrClosed after Close, and another error if the
// forwarding failed.
//
// Codes of the failures: those of any request; forbidden names pods/portforward.
func (a *Agent) Dial(ctx context.Context) (io.ReadWriteCloser, error) {
	conn, err := a.cluster.upgrade(ctx, a.Namespace, a.Pod)
	if err != nil {
		return nil, err
	}
	p, err := newPipe(ctx, conn, a.port, a.ended)
	if err != nil {
		if err := ended(ctx); err != nil {
			return nil, err
		}
		return nil, fmt.Errorf("forward port %d of pod %s: %w", a.port, a.Pod, err)
	}
	return p, nil
}

const (
	// refusalTime is how long the agent's port must have refused for that to mean
	// that the agent has ended: it listens from its beginning to its end, but its
	// node may take a quarter of a minute to say so. refusalGap is how far two
	// refusals are apart at most to be one: the link is tried for more often.
	refusalTime = 3 * time.Second
	refusalGap  = 15 * time.Second
)

// refusals are those of the agent's port, as its node tells them. The zero value
// is ready.
type refusals struct {
	mu          sync.Mutex
	first, last time.Time
}

// note reports whether the port has refused for long enough.
func (r *refusals) note(now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if now.Sub(r.last) > refusalGap {
		r.first = now
	}
	r.last = now
	return now.Sub(r.first) >= refusalTime
}

// refusedBy reports whether a node's words for a failed forwarding say that
// nobody listens at a port of the pod: those of containerd, CRI-O and socat. Other
// runtimes' do not count; nor do refusals of the node's own services.
func refusedBy(words string, port int) bool {
	words = strings.ToLower(words)
	return strings.Contains(words, "connection refused") && slices.ContainsFunc([]string{"127.0.0.1", "localhost", "[::1]"}, func(host string) bool {
		return strings.Contains(words, fmt.Sprintf("%s:%d", host, port))
	})
}

// ended reports whether the agent has ended, after its node has failed to forward
// its port, with these words: the port refuses, or the cluster knows that the
// container has ended. Its pod is watched, not read: that takes no right that its
// start did not.
func (a *Agent) ended(ctx context.Context, words string) bool {
	if refusedBy(words, a.port) && a.refusals.note(time.Now()) {
		return true
	}
	ctx, cancel := context.WithTimeout(ctx, endedTime)
	defer cancel()
	w, err := a.cluster.core.Get().Namespace(a.Namespace).Resource("pods").VersionedParams(&metav1.ListOptions{
		FieldSelector: "metadata.name=" + a.Pod, Watch: true}, a.cluster.words.parameters).Watch(ctx)
	if err != nil {
		return false
	}
	defer w.Stop()
	select {
	case e := <-w.ResultChan():
		p, ok := e.Object.(*corev1.Pod)
		return ok && p.Name == a.Pod && terminated(p, cmp.Or(a.ref.Container, agentContainer)) != nil
	case <-ctx.Done():
		return false
	}
}

// upgrade opens a connection to the API server that carries SPDY to the pod:
// over WebSocket first, which is what API servers want today and proxies let
// through, and bare where that is refused.
func (c *Cluster) upgrade(ctx context.Context, namespace, pod string) (carrier, error) {
	url := c.core.Post().Namespace(namespace).Resource("pods").Name(pod).SubResource("portforward").URL()
	var refusal error
	if !c.overSPDY.Load() {
		conn, err := c.overWebSocket(ctx, url)
		if err == nil {
			return conn, nil
		}
		refused, ok := errors.AsType[*httpstream.UpgradeFailureError](err)
		if ok {
			err = refused.Cause // it does not unwrap by itself
		}
		switch {
		case apierrors.IsNotFound(err):
			return nil, fmt.Errorf("%w: %w", ErrGone, err)
		case ended(ctx) != nil, !ok && !httpstream.IsHTTPSProxyError(err):
			return nil, c.explain(ctx, err, "get and create", "pods/portforward", namespace)
		}
		refusal = err
	}
	conn, err := c.overBareSPDY(ctx, url)
	switch {
	case err == nil:
		c.overSPDY.Store(true)
		return conn, nil
	case apierrors.IsNotFound(err):
		return nil, fmt.Errorf("%w: %w", ErrGone, err)
	case refusal != nil && !apierrors.IsForbidden(err):
		err = fmt.Errorf("%w; over WebSocket: %w", err, refusal)
	}
	return nil, c.explain(ctx, err, "get and create", "pods/portforward", namespace)
}

// bottom is the socket below all layers of c. Closing an upper layer may block
// as writing to it does; closing the socket never does.
func bottom(c net.Conn) net.Conn {
	for {
		upper, ok := c.(interface{ NetConn() net.Conn })
		if !ok {
			return c
		}
		c = upper.NetConn()
	}
}
