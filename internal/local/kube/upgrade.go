package kube

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"

	"github.com/gorilla/websocket"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/streaming/pkg/httpstream"
	"k8s.io/streaming/pkg/httpstream/spdy"

	"github.com/mirrord-go/mirrord/internal/quiet"
)

// tunnelPrefix marks, among WebSocket's subprotocols, SPDY inside WebSocket
// (KEP-4006).
const tunnelPrefix = "SPDY/3.1+"

// overWebSocket asks for a port-forward by a WebSocket upgrade. A refusal by
// the API server is an UpgradeFailureError.
func (c *Cluster) overWebSocket(ctx context.Context, to *url.URL) (carrier, error) {
	tls, err := rest.TLSConfigFor(c.config)
	if err != nil {
		return nil, err
	}
	proxy := c.config.Proxy
	if proxy == nil {
		proxy = utilnet.NewProxierWithNoProxyCIDR(http.ProxyFromEnvironment)
	}
	up := &webSocket{c: c, tls: tls, proxy: proxy}
	transport, err := rest.HTTPWrappersForConfig(c.config, up)
	if err != nil {
		return nil, err
	}
	r, err := http.NewRequestWithContext(impatient(ctx), http.MethodGet, to.String(), nil)
	if err != nil {
		return nil, err
	}
	if _, err := transport.RoundTrip(r); err != nil { // an answer has no body
		return nil, err
	}
	return up.conn, nil
}

const (
	// webSocketRead is what the library reads ahead at most, in bytes: a message's
	// header and what comes with it. The rest of a message, which is more than that,
	// it reads to where it is wanted.
	webSocketRead = 512
	// webSocketWrite is what it makes a message in, in bytes: one of ours.
	webSocketWrite = 33 << 10
)

// webSocket is the transport below the login: it does what the round tripper of
// client-go does, over a socket that gathers.
type webSocket struct {
	c     *Cluster
	tls   *tls.Config
	proxy func(*http.Request) (*url.URL, error)
	conn  *tunnel // after an answer of 101
}

func (w *webSocket) RoundTrip(r *http.Request) (*http.Response, error) {
	var below *socket
	protocol := tunnelPrefix + portforward.PortForwardProtocolV1Name
	dialer := websocket.Dialer{Proxy: w.proxy, TLSClientConfig: w.tls, Subprotocols: []string{protocol},
		ReadBufferSize: webSocketRead, WriteBufferSize: webSocketWrite,
		NetDialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			conn, err := (&net.Dialer{}).DialContext(ctx, network, addr)
			if err != nil {
				return nil, err
			}
			if tcp, ok := conn.(*net.TCPConn); ok {
				conn = quiet.New(tcp)
			}
			below = newSocket(conn)
			return below, nil
		}}
	to := *r.URL
	to.Scheme = map[string]string{"https": "wss", "http": "ws"}[to.Scheme]
	ws, resp, err := dialer.DialContext(r.Context(), to.String(), r.Header)
	switch {
	case errors.Is(err, websocket.ErrBadHandshake):
		return nil, &httpstream.UpgradeFailureError{Cause: w.c.answered(resp)}
	case err != nil:
		return nil, err
	case ws.Subprotocol() != protocol:
		ws.Close()
		return nil, &httpstream.UpgradeFailureError{Cause: fmt.Errorf("the API server speaks %q over WebSocket, not %q", ws.Subprotocol(), protocol)}
	}
	w.conn = &tunnel{ws: ws, below: below}
	return resp, nil
}

// overBareSPDY asks for a port-forward by an upgrade of HTTP/1.1 to SPDY.
func (c *Cluster) overBareSPDY(ctx context.Context, to *url.URL) (carrier, error) {
	tls, err := rest.TLSConfigFor(c.config)
	if err != nil {
		return nil, err
	}
	dialer, err := spdy.NewRoundTripperWithConfig(spdy.RoundTripperConfig{TLS: tls, Proxier: c.config.Proxy})
	if err != nil {
		return nil, err
	}
	up := &upgrader{dialer: dialer}
	transport, err := rest.HTTPWrappersForConfig(c.config, up)
	if err != nil {
		return nil, err
	}
	r, err := http.NewRequestWithContext(impatient(ctx), http.MethodPost, to.String(), nil)
	if err != nil {
		return nil, err
	}
	r.Header.Set(httpstream.HeaderProtocolVersion, portforward.PortForwardProtocolV1Name)
	resp, err := transport.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusSwitchingProtocols {
		return &bare{Conn: up.conn}, nil
	}
	return nil, c.answered(resp)
}

// upgrader is the transport below the login: it does what the round tripper of
// client-go does, and gives away the connection, which that one keeps.
type upgrader struct {
	dialer *spdy.SpdyRoundTripper
	conn   net.Conn // after an answer of 101; nobody else closes it
}

func (u *upgrader) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set(httpstream.HeaderConnection, httpstream.HeaderUpgrade)
	r.Header.Set(httpstream.HeaderUpgrade, spdy.HeaderSpdy31)
	conn, err := u.dialer.Dial(r)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(r.Context(), func() { bottom(conn).Close() })
	defer stop()
	in := bufio.NewReader(conn)
	resp, err := http.ReadResponse(in, r)
	if err != nil {
		conn.Close()
		return nil, err
	}
	if resp.StatusCode == http.StatusSwitchingProtocols {
		if in.Buffered() > 0 { // the client speaks first in SPDY
			conn.Close()
			return nil, errors.New("the API server spoke before it was asked")
		}
		u.conn = conn
		return resp, nil
	}
	resp.Body = &endingBody{resp.Body, func() { conn.Close() }}
	return resp, nil
}

// maxRefusal bounds what is read of a refusal, in bytes.
const maxRefusal = 64 << 10

// answered is the error that a refused upgrade stands for.
func (c *Cluster) answered(resp *http.Response) error {
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxRefusal))
	if err != nil {
		return fmt.Errorf("the API server answers %s: %w", resp.Status, err)
	}
	status := &metav1.Status{}
	if _, _, err := c.words.codecs.UniversalDeserializer().Decode(text, nil, status); err == nil && status.Message != "" {
		return &apierrors.StatusError{ErrStatus: *status}
	}
	return fmt.Errorf("the API server answers %s: %s", resp.Status, strings.TrimSpace(string(text)))
}
