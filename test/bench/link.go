package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"
)

// A link is a way to the cluster's API server: whoever uses its kubeconfig
// takes it. This is the place for links that are slow or lose something.
type link struct{ kubeconfig string }

// direct is the link as it is.
func (w *world) direct() link { return link{w.at("kubeconfig")} }

// delayed is a link whose bytes arrive later, each way; it ends with the area.
func (w *world) delayed(ctx context.Context, delay time.Duration) (link, error) {
	config, err := os.ReadFile(w.at("kubeconfig"))
	if err != nil {
		return link{}, err
	}
	server, err := w.cluster.Kubectl(ctx, "config", "view", "-o", "jsonpath={.clusters[0].cluster.server}")
	if err != nil {
		return link{}, err
	}
	to, err := url.Parse(server)
	if err != nil {
		return link{}, err
	}
	r, err := startRelay(to.Host, delay)
	if err != nil {
		return link{}, err
	}
	// Sessions remove their agents after the command has ended, over this link.
	w.later(func() error {
		quiet, cancel := context.WithTimeout(context.Background(), tearDownTime)
		defer cancel()
		return errors.Join(w.quiet(quiet, agents), r.close())
	})
	through := fmt.Sprintf("https://%s\n    tls-server-name: %s", r.ln.Addr(), to.Hostname())
	text := strings.Replace(string(config), server, through, 1)
	if text == string(config) {
		return link{}, fmt.Errorf("the kubeconfig does not name %s", server)
	}
	l := link{w.at(fmt.Sprintf("kubeconfig-%v", delay))}
	return l, errors.Join(os.WriteFile(l.kubeconfig, []byte(text), 0o600), os.Chown(l.kubeconfig, user, user))
}

const (
	// relayChunk is the most that travels as one, in bytes.
	relayChunk = 64 << 10
	// relayQueue is how many chunks may be on the way in one direction of a
	// connection: with more waiting, the sender is held up.
	relayQueue = 1024
)

// A relay passes connections on and holds back what they carry.
type relay struct {
	ln    net.Listener
	to    string
	delay time.Duration
	wg    sync.WaitGroup

	mu     sync.Mutex
	closed bool
	open   map[net.Conn]bool
}

func startRelay(to string, delay time.Duration) (*relay, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	r := &relay{ln: ln, to: to, delay: delay, open: map[net.Conn]bool{}}
	r.wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			r.wg.Go(func() { r.pass(c) })
		}
	})
	return r, nil
}

// close cuts all connections and returns when nothing runs any more.
func (r *relay) close() error {
	err := r.ln.Close()
	r.mu.Lock()
	r.closed = true
	for c := range r.open {
		c.Close()
	}
	r.mu.Unlock()
	r.wg.Wait()
	return err
}

// own has close cut c; it reports whether there is still time for that.
func (r *relay) own(c net.Conn) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.open[c] = true
	return !r.closed
}

// pass owns near. When one side is done with sending, the other hears of it in
// its time; when both are, the connections are closed.
func (r *relay) pass(near net.Conn) {
	defer near.Close()
	far, err := net.Dial("tcp", r.to)
	if err != nil {
		return // whoever dialed sees the end
	}
	defer far.Close()
	if !r.own(near) || !r.own(far) {
		return
	}
	defer func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.open, near)
		delete(r.open, far)
	}()
	var wg sync.WaitGroup
	wg.Go(func() { late(far, near, r.delay) })
	wg.Go(func() { late(near, far, r.delay) })
	wg.Wait()
}

// chunk is what arrived, and when it is due.
type chunk struct {
	bytes []byte
	due   time.Time
}

// late copies from src to dst until the end of either, each byte after delay.
func late(dst, src net.Conn, delay time.Duration) {
	under := make(chan chunk, relayQueue)
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		var err error
		for c := range under {
			if err != nil {
				continue // until src is at its end, which it is once it is closed
			}
			time.Sleep(time.Until(c.due)) // the delay itself is what is wanted
			if _, err = dst.Write(c.bytes); err != nil {
				src.Close()
			}
		}
		if end, ok := dst.(interface{ CloseWrite() error }); ok {
			_ = end.CloseWrite() // it may be closed already
		}
	})
	defer close(under)
	for {
		buf := make([]byte, relayChunk)
		n, err := src.Read(buf)
		if n > 0 {
			under <- chunk{buf[:n], time.Now().Add(delay)}
		}
		if err != nil {
			if !errors.Is(err, io.EOF) {
				dst.Close() // a reset is no orderly end
			}
			return
		}
	}
}
