package main

import (
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// server runs serve on a new listener until the test ends.
func server(t *testing.T, serve func(net.Listener) error) (addr string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = serve(ln) // ends with the listener
	}()
	t.Cleanup(func() { ln.Close(); <-done })
	return ln.Addr().String()
}

func TestTasks(t *testing.T) {
	dir := t.TempDir()
	for i := range 2000 {
		if err := os.WriteFile(filepath.Join(dir, strconv.Itoa(i)), []byte("x"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	big := filepath.Join(t.TempDir(), "big")
	if err := os.WriteFile(big, make([]byte, 30*block), 0o644); err != nil {
		t.Fatal(err)
	}
	raw := server(t, serveBytes)
	web := server(t, (&counter{}).serve)
	for _, c := range []struct{ task, figures string }{
		{"cpu", "seconds"},
		{"run 2 true", "seconds"},
		{"stat 1 " + dir, "seconds"},
		{"make 10 " + dir, "seconds"},
		{"read 2 " + dir + "/7", "seconds"},
		{"read 2 " + dir + "/7 forget", "seconds"},
		{"opens 1 " + dir, "seconds"},
		{"random " + big + " 20 4 1", "seconds"},
		{"write " + dir + "/new 3000000", "seconds"},
		{"open " + dir + "/7", "first again"},
		{"walk " + dir, "first again files"},
		{"rtt " + raw + " 10", "p50 p99"},
		{"exchange " + raw + " 10", "p50 p99"},
		{"beside " + raw + " 10 down", "p50 p99"},
		{"beside " + raw + " 10 up", "p50 p99"},
		{"lookup localhost 10 1ms", "p50 p99"},
		{"down " + raw + " 1000000", "seconds"},
		{"up " + raw + " 1000000", "seconds"},
		{"connections " + raw + " 5", "seconds"},
		{"http " + web + " 2 20 0", "rate p50 p99"},
		{"http " + web + " 2 20 1000", "rate p50 p99"},
		{"http2 " + web + " 2 3 20 0 ana", "rate p50 p99"},
		{"http2 " + web + " 1 1 20 1000 ana", "rate p50 p99"},
	} {
		words := strings.Fields(c.task)
		v, err := tasks[words[0]](words[1:])
		if err != nil {
			t.Errorf("%s: %v", c.task, err)
			continue
		}
		for name := range strings.FieldsSeq(c.figures) {
			if v[name] <= 0 {
				t.Errorf("%s: got %v, want %s in it", c.task, v, name)
			}
		}
	}
	if st, err := os.Stat(dir + "/new"); err != nil || st.Size() != 3000000 {
		t.Errorf("written: got %v, %v; want 3000000 bytes", st, err)
	}
	if err := os.Remove(dir + "/new"); err != nil {
		t.Fatal(err)
	}
	if v, err := walk([]string{dir}); err != nil || v["files"] != 2000 {
		t.Errorf("walk: got %v, %v; want 2000 files", v, err)
	}
}

func TestTasksFail(t *testing.T) {
	deaf := server(t, func(ln net.Listener) error {
		for {
			c, err := ln.Accept()
			if err != nil {
				return err
			}
			c.Close()
		}
	})
	for _, task := range []string{
		"run 1 false", "run x true", "run 1", "stat 0 /", "stat 1 /no/such", "make 1 /no/such", "read 1 /no/such", "read 1 / forgot",
		"open /no/such", "opens 1 /no/such", "random /no/such 1 1 1", "random /dev/null 1 1 1", "write /no/such 1", "walk /no/such", "rtt " + deaf + " 1", "down " + deaf + " 10", "up " + deaf + " 10",
		"connections " + deaf + " 1", "http " + deaf + " 1 1 0", "http " + deaf + " 1 1 fast", "rtt",
	} {
		words := strings.Fields(task)
		if v, err := tasks[words[0]](words[1:]); err == nil {
			t.Errorf("%s: got %v, want an error", task, v)
		}
	}
}

func TestCounter(t *testing.T) {
	c := &counter{}
	addr := server(t, func(ln net.Listener) error { return http.Serve(ln, c) })
	if _, err := requests([]string{addr, "3", "30", "0"}); err != nil {
		t.Fatal(err)
	}
	if v, err := c.settled([]string{"1ms"}); err != nil || v["requests"] != 30 {
		t.Errorf("got %v, %v; want 30 requests", v, err)
	}
}

func TestServeProgram(t *testing.T) {
	addr := server(t, func(ln net.Listener) error { return serveProgram(ln, "cat") })
	for range 2 {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := c.Write([]byte("hello")); err != nil {
			t.Fatal(err)
		}
		if err := c.(*net.TCPConn).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(c); err != nil || string(got) != "hello" {
			t.Errorf("got %q, %v", got, err)
		}
	}
}

func TestHold(t *testing.T) {
	addr := server(t, serveBytes)
	var h held
	for _, n := range []string{"3", "0"} {
		if _, err := h.hold([]string{addr, n}); err != nil || strconv.Itoa(len(h.conns)) != n {
			t.Errorf("%d connections, %v, want %s", len(h.conns), err, n)
		}
	}
}
