package demo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"
)

// neighbourMain is the second process: all that the pod's cluster has besides.
func neighbourMain() error {
	unix.CloseOnExec(mainSocket)
	unix.CloseOnExec(stepsSocket)
	_ = os.WriteFile("/proc/self/comm", []byte(neighbourHost), 0) // as in podMain
	if err := unix.Sethostname([]byte(neighbourHost)); err != nil {
		return fmt.Errorf("set the host name: %w", err)
	}
	f := os.NewFile(stepsSocket, "steps")
	conn, err := net.FileConn(f)
	f.Close()
	if err != nil {
		return fmt.Errorf("open the socket of steps: %w", err)
	}
	s := steps{conn}
	if err := s.done(); err != nil { // started: the root may go
		return err
	}
	if err := s.wait(); err != nil { // the device is there
		return err
	}
	n, err := openNetwork()
	if err != nil {
		return err
	}
	have, err := n.configure(gatewayHost, dnsHost, dbHost, catalogHost, echoHost)
	n.close()
	if err != nil {
		return err
	}
	var all services
	for _, a := range have {
		if err := all.neighbours(a); err != nil {
			return fmt.Errorf("start the services of %s: %w", a, err)
		}
	}
	defer all.close()
	if err := s.done(); err != nil { // the services answer
		return err
	}
	return serveCalls(os.NewFile(mainSocket, "calls"), func(ctx context.Context, c call) (answer, error) {
		switch {
		case c.Op == opRequest && c.Request != nil:
			return request(ctx, *c.Request)
		case c.Op == opExchange && c.Exchange != nil:
			return c.Exchange.do(ctx)
		}
		return answer{}, fmt.Errorf("%q: %w", c.Op, syscall.EOPNOTSUPP)
	})
}

// neighbours starts the services of one address.
func (s *services) neighbours(a netip.Addr) error {
	switch {
	case slices.Contains(dnsHost.addrs(), a):
		records := newRecords()
		c, err := s.packet(a.String(), dnsPort)
		if err != nil {
			return err
		}
		s.udp(c, func(q []byte) []byte { return records.answer(q, true) })
		l, err := s.listen(a.String(), dnsPort)
		if err != nil {
			return err
		}
		s.tcp(l, records.serveTCP)
	case slices.Contains(dbHost.addrs(), a):
		l, err := s.listen(a.String(), dbPort)
		if err != nil {
			return err
		}
		s.tcp(l, database)
	case slices.Contains(catalogHost.addrs(), a):
		l, err := s.listen(a.String(), httpPort)
		if err != nil {
			return err
		}
		s.http(l, greet("catalog", "catalog"))
	case slices.Contains(echoHost.addrs(), a):
		c, err := s.packet(a.String(), echoPort)
		if err != nil {
			return err
		}
		s.udp(c, slices.Clone)
		l, err := s.listen(a.String(), echoPort)
		if err != nil {
			return err
		}
		s.tcp(l, func(c net.Conn) { _, _ = io.Copy(c, c) }) // until either side ends
	}
	return nil
}

// request makes a Request on a connection of its own.
func request(ctx context.Context, r Request) (answer, error) {
	req, err := http.NewRequestWithContext(ctx, r.Method, r.URL, bytes.NewReader(r.Body))
	if err != nil {
		return answer{}, err
	}
	for name, values := range r.Header {
		req.Header[name] = values
		if name == "Host" && len(values) > 0 {
			req.Host = values[0]
		}
	}
	d := net.Dialer{Resolver: resolver()}
	transport := &http.Transport{DialContext: d.DialContext, DisableKeepAlives: true, MaxResponseHeaderBytes: maxHeader}
	defer transport.CloseIdleConnections()
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	body, err := atMost(resp.Body)
	if err != nil {
		return answer{}, err
	}
	return answer{Response: &Response{resp.StatusCode, resp.Header, body}}, nil
}

func (e exchange) do(ctx context.Context) (a answer, err error) {
	d := net.Dialer{Resolver: resolver()}
	c, err := d.DialContext(ctx, e.Network, e.Address)
	if err != nil {
		return answer{}, err
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.Close() })()
	defer func() {
		if ctx.Err() != nil && errors.Is(err, net.ErrClosed) {
			err = ctx.Err()
		}
	}()
	if _, err := c.Write(e.Data); err != nil {
		return answer{}, err
	}
	if t, ok := c.(*net.TCPConn); ok {
		if err := t.CloseWrite(); err != nil {
			return answer{}, err
		}
		b, err := atMost(t)
		return answer{Data: b}, err
	}
	buf := make([]byte, maxBody)
	n, err := c.Read(buf)
	return answer{Data: buf[:n]}, err
}

// atMost reads all, if it is no more than maxBody.
func atMost(r io.Reader) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, maxBody+1))
	if err == nil && len(b) > maxBody {
		err = fmt.Errorf("more than %d bytes came back: %w", maxBody, syscall.EMSGSIZE)
	}
	return b, err
}
