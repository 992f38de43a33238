package demo

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	httpPort    = 80
	dbPort      = 5432
	echoPort    = 7001
	dnsPort     = 53
	sidecarPort = 9901

	// maxConns bounds the connections of one service at once, so that a wild
	// program ends at a full queue and not in the machine's memory.
	maxConns = 2048
	// breather is the pause after a failed accept, mostly for a limit on open
	// files: there is no event to wait for when one is free again.
	breather = 10 * time.Millisecond
	// maxLine bounds a line to the database, in bytes.
	maxLine = 4 << 10
	// headTimeout is for HTTP clients that never say anything.
	headTimeout = 10 * time.Second
)

// services are servers of one process.
type services struct {
	wg      sync.WaitGroup
	closers []io.Closer
}

func (s *services) close() {
	for _, c := range slices.Backward(s.closers) {
		_ = c.Close() // listeners: nothing is lost
	}
	s.wg.Wait()
}

// listen opens a TCP port; an empty host is all addresses.
func (s *services) listen(host string, port int) (net.Listener, error) {
	l, err := net.Listen("tcp", net.JoinHostPort(host, fmt.Sprint(port)))
	if err != nil {
		return nil, err
	}
	l = &limited{l, make(chan struct{}, maxConns)}
	s.closers = append(s.closers, l)
	return l, nil
}

// packet opens a UDP port; an empty host is all addresses.
func (s *services) packet(host string, port int) (*net.UDPConn, error) {
	c, err := net.ListenPacket("udp", net.JoinHostPort(host, fmt.Sprint(port)))
	if err != nil {
		return nil, err
	}
	s.closers = append(s.closers, c)
	return c.(*net.UDPConn), nil
}

func (s *services) http(l net.Listener, h http.HandlerFunc) {
	server := &http.Server{Handler: h, ReadHeaderTimeout: headTimeout}
	s.closers = append(s.closers, server)
	s.wg.Go(func() { _ = server.Serve(l) }) // ends by Close
}

// tcp serves each connection with handle, which need not close it.
func (s *services) tcp(l net.Listener, handle func(net.Conn)) {
	s.wg.Go(func() {
		for {
			c, err := l.Accept()
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err != nil {
				time.Sleep(breather)
				continue
			}
			go func() { // the process ends with the pod; a slow client shall not hold it up
				defer c.Close()
				handle(c)
			}()
		}
	})
}

// udp answers each datagram with what answer makes of it, if anything.
func (s *services) udp(c *net.UDPConn, answer func([]byte) []byte) {
	s.wg.Go(func() {
		buf := make([]byte, 64<<10) // the longest datagram
		for {
			n, from, err := c.ReadFromUDPAddrPort(buf)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err != nil { // such as ECONNREFUSED for an earlier answer
				time.Sleep(breather)
				continue
			}
			if b := answer(buf[:n]); b != nil {
				_, _ = c.WriteToUDPAddrPort(b, from) // datagrams may be lost
			}
		}
	})
}

// limited is a listener with maxConns connections at once.
type limited struct {
	net.Listener
	slots chan struct{}
}

func (l *limited) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	l.slots <- struct{}{}
	return &limitedConn{Conn: c, free: sync.OnceFunc(func() { <-l.slots })}, nil
}

type limitedConn struct {
	net.Conn
	free func()
}

func (c *limitedConn) Close() error {
	defer c.free()
	return c.Conn.Close()
}

// podServices starts those of the pod itself and returns what ends them.
func podServices() (func(), error) {
	var s services
	l, err := s.listen("", httpPort)
	if err != nil {
		return nil, fmt.Errorf("start the pod's HTTP service: %w", err)
	}
	s.http(l, greet("remote", Hostname))
	echo, err := s.packet("", echoPort)
	if err != nil {
		return nil, fmt.Errorf("start the pod's echo service: %w", err)
	}
	s.udp(echo, slices.Clone)
	for _, loopback := range []string{"127.0.0.1", "::1"} {
		l, err := s.listen(loopback, sidecarPort)
		if loopback == "::1" && errors.Is(err, syscall.EADDRNOTAVAIL) {
			continue // no IPv6 here
		}
		if err != nil {
			return nil, fmt.Errorf("start the pod's sidecar: %w", err)
		}
		s.http(l, greet("sidecar", Hostname))
	}
	return s.close, nil
}

// greet is an HTTP service that says who answers what to whom.
func greet(what, who string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.Header().Set("Served-By", who)
		n, err := io.Copy(io.Discard, http.MaxBytesReader(w, r.Body, 1<<30))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		fmt.Fprintf(w, "%s %s %s\nserved by %s\nclient %s\nbody %d bytes\n", what, r.Method, r.URL.RequestURI(), who, clientOf(r.RemoteAddr), n)
	}
}

// clientOf is the address without port, as IPv4 if it is one.
func clientOf(remote string) string {
	a, err := netip.ParseAddrPort(remote)
	if err != nil {
		return remote
	}
	return a.Addr().Unmap().String()
}

// database speaks first, then answers a line with a line, until "quit" or the
// client's end.
func database(c net.Conn) {
	if _, err := fmt.Fprintf(c, "demo-db ready, you are %s\n", clientOf(c.RemoteAddr().String())); err != nil {
		return
	}
	lines := bufio.NewScanner(c)
	lines.Buffer(make([]byte, 0, 256), maxLine)
	rows := 0
	for lines.Scan() {
		line := strings.TrimSpace(lines.Text())
		if line == "quit" {
			return
		}
		rows++
		if _, err := fmt.Fprintf(c, "%d: %s\n", rows, line); err != nil {
			return
		}
	}
}
