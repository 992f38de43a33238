package kube

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/streaming/pkg/httpstream"
	"k8s.io/streaming/pkg/httpstream/spdy"
)

// ErrGone is wrapped by the errors of Dial when the agent's pod does not exist
// any more, and by those of its pipes when the agent has ended: to try again is
// of no use.
var ErrGone = errors.New("the agent's pod is gone, or has ended")

// closeTime is how long Close waits for the orderly end of a pipe: the last
// bytes, and the word that there are no more, should reach the agent. After it
// the connection is cut.
const closeTime = time.Second

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

// ended reports whether the cluster knows that the agent's container has ended.
// Its pod is watched, not read: that takes no right that its start did not.
func (a *Agent) ended(ctx context.Context) bool {
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
func (c *Cluster) upgrade(ctx context.Context, namespace, pod string) (net.Conn, error) {
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

// A pipe is one forwarded connection as a byte pipe.
type pipe struct {
	conn *framed // below SPDY
	low  *socket // below TLS; nil: there is none
	spdy httpstream.Connection
	data httpstream.Stream
	cut  func() // ends conn without a word

	ended func(context.Context) bool // whether the agent is known to have ended
	life  context.Context            // alive until cut

	once   sync.Once
	closed atomic.Bool // by Close

	watching  bool          // the error stream exists
	fault     error         // what the node said; read it after faultsEnd
	faultsEnd chan struct{} // closed when the error stream has been read
}

// newPipe owns conn.
func newPipe(ctx context.Context, conn net.Conn, port int, ended func(context.Context) bool) (*pipe, error) {
	life, die := context.WithCancel(context.WithoutCancel(ctx))
	p := &pipe{conn: &framed{Conn: conn}, faultsEnd: make(chan struct{}), ended: ended, life: life}
	if t, ok := conn.(*tunnel); ok {
		p.low = t.below
	}
	p.cut = sync.OnceFunc(func() {
		die()
		bottom(conn).Close()
	})
	abandoned := context.AfterFunc(ctx, p.cut) // creating streams has no context of its own
	err := p.open(port)
	if !abandoned() && err == nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		p.Close()
		return nil, err
	}
	return p, nil
}

func (p *pipe) open(port int) error {
	var err error
	// No pings here: the link above has its own, which reach the agent.
	if p.spdy, err = spdy.NewClientConnection(p.conn); err != nil {
		return err
	}
	headers := http.Header{}
	headers.Set(corev1.PortHeader, strconv.Itoa(port))
	headers.Set(corev1.PortForwardRequestIDHeader, "0")
	headers.Set(corev1.StreamType, corev1.StreamTypeError)
	faults, err := p.spdy.CreateStream(headers)
	if err != nil {
		return err
	}
	p.watching = true
	go p.watchFaults(faults)               // Close waits for it
	if err := faults.Close(); err != nil { // we only listen there
		return err
	}
	headers.Set(corev1.StreamType, corev1.StreamTypeData)
	p.data, err = p.spdy.CreateStream(headers)
	return err
}

// maxFault bounds the text of a failed forwarding in bytes.
const maxFault = 4 << 10

// watchFaults ends the pipe when the node says that it cannot forward: "the
// port refuses", for instance, if the agent has ended. The node's words for
// that are its runtime's; what they mean says the pod.
func (p *pipe) watchFaults(faults io.Reader) {
	text, err := io.ReadAll(io.LimitReader(faults, maxFault))
	failed := err == nil && len(text) > 0 // its orderly end says nothing; a cut shows at the data stream
	if failed {
		p.fault = fmt.Errorf("port-forward: %s", text)
		if p.ended(p.life) {
			p.fault = fmt.Errorf("%w: %w", ErrGone, p.fault)
		}
	}
	close(p.faultsEnd) // before the cut, so that who sees the cut sees the reason
	if failed {
		p.cut()
	}
}

func (p *pipe) Read(b []byte) (int, error) {
	n, err := p.data.Read(b)
	return n, p.explained(err)
}

func (p *pipe) Write(b []byte) (int, error) {
	select {
	case <-p.faultsEnd: // what the socket still takes reaches nobody
		if p.fault != nil {
			return 0, p.explained(p.fault)
		}
	default:
	}
	if p.low == nil {
		return p.write(b)
	}
	p.low.Hold()
	n, err := p.write(b)
	if ferr := p.low.Flush(); err == nil && ferr != nil {
		return 0, p.explained(ferr)
	}
	return n, err
}

// write sends b in frames.
func (p *pipe) write(b []byte) (int, error) {
	for n := 0; n < len(b); {
		m, err := p.data.Write(b[n:min(len(b), n+maxFrame)])
		n += m
		if err != nil {
			return n, p.explained(err)
		}
	}
	return len(b), nil
}

// explained puts what the node said in place of the bare end of the data
// stream, which may overtake it.
func (p *pipe) explained(err error) error {
	if err == nil {
		return nil
	}
	if p.closed.Load() {
		return net.ErrClosed
	}
	timer := time.NewTimer(faultTime)
	defer timer.Stop()
	select {
	case <-p.faultsEnd:
		if p.fault != nil {
			return p.fault
		}
	case <-timer.C:
	}
	if p.closed.Load() {
		return net.ErrClosed
	}
	return err
}

func (p *pipe) Close() error {
	p.once.Do(func() {
		p.closed.Store(true)
		// Whatever below blocks on a network that takes nothing ends with this.
		timer := time.AfterFunc(closeTime, p.cut)
		defer timer.Stop()
		if p.data != nil {
			_ = p.data.Close() // the agent sees the end after the last byte
		}
		if p.spdy == nil {
			p.cut()
			return
		}
		_ = p.spdy.Close() // resets the streams and says goodbye, so that Read ends
		_ = p.conn.Close()
		p.cut()
		<-p.spdy.CloseChan()
		if p.watching {
			<-p.faultsEnd
		}
	})
	return nil
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
