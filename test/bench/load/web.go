package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Ports of the servers.
const (
	bytesPort = ":7000"
	filePort  = ":7001"
	webPort   = ":8080"
)

// counter is a web server that counts its requests.
type counter struct{ requests atomic.Int64 }

// ServeHTTP implements http.Handler.
func (c *counter) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	c.requests.Add(1)
	_, _ = io.WriteString(w, reply)
}

// reply is the whole body of every answer.
const reply = "this is what the server answers\n"

// serve serves HTTP/1 and HTTP/2 in the clear.
func (c *counter) serve(ln net.Listener) error {
	s := &http.Server{Handler: c, Protocols: both()}
	s.HTTP2 = &http.HTTP2Config{MaxConcurrentStreams: 1024}
	return s.Serve(ln)
}

func both() *http.Protocols {
	var p http.Protocols
	p.SetHTTP1(true)
	p.SetUnencryptedHTTP2(true)
	return &p
}

// listen ADDR: serves until the program ends. When it has answered, connections
// are taken.
func (c *counter) listen(args []string) (values, error) {
	if err := arguments(args, 1); err != nil {
		return nil, err
	}
	ln, err := net.Listen("tcp", args[0])
	if err != nil {
		return nil, err
	}
	go c.serve(ln) // ends with the program
	return nil, nil
}

// settled DURATION: waits until no request has come for so long, and gives
// "requests", all so far.
func (c *counter) settled(args []string) (values, error) {
	if err := arguments(args, 1); err != nil {
		return nil, err
	}
	calm, err := time.ParseDuration(args[0])
	if err != nil {
		return nil, err
	}
	for before := int64(-1); ; time.Sleep(calm) {
		now := c.requests.Load()
		if now == before {
			return values{"requests": float64(now)}, nil
		}
		before = now
	}
}

func serve() error {
	raw, err := net.Listen("tcp", bytesPort)
	if err != nil {
		return err
	}
	web, err := net.Listen("tcp", webPort)
	if err != nil {
		return err
	}
	files, err := net.Listen("tcp", filePort)
	if err != nil {
		return err
	}
	ended := make(chan error, 3)
	go func() { ended <- serveBytes(raw) }()
	go func() { ended <- (&counter{}).serve(web) }()
	go func() { ended <- serveProgram(files, "/load/sftp-server") }()
	return <-ended
}

// serveProgram runs the program for each connection, on it, until ln is closed.
func serveProgram(ln net.Listener, program string) error {
	for {
		c, err := ln.Accept()
		if err != nil {
			return err
		}
		go func() { // ends with the program that it runs
			defer c.Close()
			f, err := c.(*net.TCPConn).File() // the socket itself, with TCP_NODELAY as package net sets it: no copying here
			if err != nil {
				return
			}
			defer f.Close()
			cmd := exec.Command(program)
			cmd.Stdin, cmd.Stdout = f, f
			_ = cmd.Run() // the client sees its end
		}()
	}
}

// requests ADDR CONNECTIONS N RATE: N requests on lasting connections, each
// as fast as answers come, or all together RATE a second if that is not 0. It
// gives "rate" (requests a second), "p50" and "p99" of the answer times. At a
// fixed rate these count from when the request was due, so that a server that
// stands still is not excused.
func requests(args []string) (values, error) {
	if err := arguments(args, 4); err != nil {
		return nil, err
	}
	conns, err := number(args[1])
	if err != nil {
		return nil, err
	}
	n, err := number(args[2])
	if err != nil {
		return nil, err
	}
	var rate int
	if args[3] != "0" {
		if rate, err = number(args[3]); err != nil {
			return nil, err
		}
	}
	return repeat(conns, n, rate, func(_ int, use func(request func() error) error) error { return ask(args[0], use) })
}

// streams ADDR CONNECTIONS STREAMS N RATE USER is requests by HTTP/2, of which each
// connection has STREAMS at once, with the header x-user: USER.
func streams(args []string) (values, error) {
	if err := arguments(args, 6); err != nil {
		return nil, err
	}
	var numbers [4]int
	for i := range numbers {
		if args[1+i] == "0" {
			continue
		}
		n, err := number(args[1+i])
		if err != nil {
			return nil, err
		}
		numbers[i] = n
	}
	conns, each, n, rate := numbers[0], numbers[1], numbers[2], numbers[3]
	var clients []*http.Client
	for range conns {
		var h2 http.Protocols
		h2.SetUnencryptedHTTP2(true)
		t := &http.Transport{Protocols: &h2}
		defer t.CloseIdleConnections()
		clients = append(clients, &http.Client{Transport: t, Timeout: streamTime})
	}
	one := func(c *http.Client) error {
		q, err := http.NewRequest("GET", "http://"+args[0]+"/", nil)
		if err != nil {
			return err
		}
		q.Header.Set("x-user", args[5])
		r, err := c.Do(q)
		if err != nil {
			return err
		}
		defer r.Body.Close()
		if n, err := io.Copy(io.Discard, r.Body); r.StatusCode != http.StatusOK || n != int64(len(reply)) || err != nil {
			return fmt.Errorf("answer %s with %d bytes: %v", r.Status, n, err)
		}
		return nil
	}
	for _, c := range clients { // there is a connection
		if err := one(c); err != nil {
			return nil, err
		}
	}
	return repeat(conns*each, n, rate, func(i int, use func(request func() error) error) error {
		return use(func() error { return one(clients[i%conns]) })
	})
}

// repeat makes n requests by so many askers, each of which has its own way to make one.
func repeat(askers, n, rate int, ask func(i int, use func(request func() error) error) error) (values, error) {
	times, errs := make([]float64, n), make([]error, askers)
	var next atomic.Int64
	var wg sync.WaitGroup
	begin := time.Now()
	for i := range askers {
		wg.Go(func() {
			errs[i] = ask(i, func(request func() error) error {
				for {
					k := int(next.Add(1)) - 1
					if k >= n {
						return nil
					}
					due := time.Now()
					if rate > 0 {
						due = begin.Add(time.Duration(float64(k) / float64(rate) * float64(time.Second)))
						time.Sleep(time.Until(due))
					}
					if err := request(); err != nil {
						return fmt.Errorf("request %d: %w", k, err)
					}
					times[k] = time.Since(due).Seconds()
				}
			})
		})
	}
	wg.Wait()
	seconds := time.Since(begin).Seconds()
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	v := quantiles(times)
	v["rate"] = float64(n) / seconds
	return v, nil
}

// ask opens a connection and lets use make requests on it. The client is as
// small as can be: it shares the processors with what it measures.
func ask(addr string, use func(request func() error) error) error {
	c, err := net.DialTimeout("tcp", addr, 10*time.Second)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(streamTime)); err != nil {
		return err
	}
	text := []byte("GET / HTTP/1.1\r\nHost: bench\r\n\r\n")
	in := bufio.NewReader(c)
	return use(func() error {
		if _, err := c.Write(text); err != nil {
			return err
		}
		return readReply(in)
	})
}

// readReply takes one answer of our server: a head, and the one body.
func readReply(in *bufio.Reader) error {
	first := true
	for {
		line, err := in.ReadSlice('\n')
		if err != nil {
			return err
		}
		if first && !bytes.HasPrefix(line, []byte("HTTP/1.1 200 ")) {
			return fmt.Errorf("answer %q", strings.TrimSpace(string(line)))
		}
		first = false
		if len(bytes.TrimRight(line, "\r\n")) == 0 {
			break
		}
	}
	_, err := in.Discard(len(reply))
	return err
}
