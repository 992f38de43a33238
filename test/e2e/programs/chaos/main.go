// Command chaos is a program to be killed, or whose surroundings are, and the
// client that notices.
//
//	chaos serve PORT LOG [load]   answers "local" to every request, whose path it has written to LOG before;
//	                              with load it reads a remote file, talks over a stream and asks for names all the time;
//	                              on SIGUSR1 it ends like a server that was told to
//	chaos ask ADDRESS [PAUSE]     asks all the time, each request on a connection of its own, until its input ends;
//	                              prints NUMBER PORT BEGIN END ANSWER a request: the client's port, milliseconds since 1970
package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	askPause  = 25 * time.Millisecond
	askTime   = 45 * time.Second // what an answer may take
	loadPause = 10 * time.Millisecond
	stopTime  = 300 * time.Millisecond // between Ctrl-C and the end, as a server that says goodbye
	// These bound the requests under way of who asks in a hurry: a machine that
	// cannot keep up is not to be asked for more and more. Others ask on while
	// nobody answers: it is what they look at.
	hurried, others = 64, 4096
)

func main() {
	var err error
	switch os.Args[1] {
	case "serve":
		err = serve(os.Args[2], os.Args[3], len(os.Args) > 4)
	case "ask":
		pause := askPause
		if len(os.Args) > 3 {
			pause, err = time.ParseDuration(os.Args[3])
		}
		if err == nil {
			err = ask(os.Args[2], pause)
		}
	}
	if err != nil {
		fmt.Println("chaos:", err)
		os.Exit(1)
	}
}

func serve(port, path string, load bool) error {
	interrupted := make(chan os.Signal, 1)
	signal.Notify(interrupted, syscall.SIGINT, syscall.SIGUSR1)
	log, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	ln, err := net.Listen("tcp", ":"+port)
	if err != nil {
		return err
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintln(log, r.URL.Path)
		fmt.Fprint(w, "local")
	})}
	go server.Serve(ln)
	if load {
		for _, work := range []func() error{readFile, stream(), lookup} {
			go func() {
				for ; ; time.Sleep(loadPause) {
					if err := work(); err != nil {
						fmt.Println("load:", err)
						return
					}
				}
			}()
		}
	}
	fmt.Println("ready")
	if <-interrupted == syscall.SIGUSR1 {
		return server.Shutdown(context.Background())
	}
	time.Sleep(stopTime)
	os.Exit(128 + int(syscall.SIGINT))
	return nil
}

// readFile reads a file of the target's.
func readFile() error {
	b, err := os.ReadFile("/data/file")
	if err == nil && len(b) != 1_000_000 {
		err = fmt.Errorf("/data/file has %d bytes", len(b))
	}
	return err
}

// stream gives what says something over one connection, and hears it again.
func stream() func() error {
	var c net.Conn
	said, heard := bytes.Repeat([]byte("0123456789abcdef"), 256), make([]byte, 4096)
	return func() (err error) {
		if c == nil {
			if c, err = net.Dial("tcp", "echo:7002"); err != nil {
				return err
			}
		}
		if _, err = c.Write(said); err == nil {
			_, err = io.ReadFull(c, heard)
		}
		if err == nil && !bytes.Equal(said, heard) {
			err = fmt.Errorf("the stream says something else than was said")
		}
		return err
	}
}

func lookup() error {
	ctx, cancel := context.WithTimeout(context.Background(), askTime)
	defer cancel()
	_, err := (&net.Resolver{PreferGo: true}).LookupHost(ctx, "echo")
	if err != nil && strings.Contains(err.Error(), "timeout") {
		err = nil // as without mirrord: a resolver gives up sooner than a link
	}
	return err
}

func ask(address string, pause time.Duration) error {
	over := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		close(over)
	}()
	ctx, cancel := context.WithCancel(context.Background())
	var all sync.WaitGroup
	defer all.Wait()
	defer cancel()
	var mu sync.Mutex
	tick := time.NewTicker(pause)
	askers := others
	if pause < askPause {
		askers = hurried
	}
	places := make(chan struct{}, askers)
	for n := 1; ; n++ {
		select {
		case places <- struct{}{}:
		case <-over:
			return nil
		}
		all.Go(func() {
			defer func() { <-places }()
			begin := time.Now()
			port, answer := one(ctx, address, n)
			mu.Lock()
			defer mu.Unlock()
			fmt.Println(n, port, begin.UnixMilli(), time.Now().UnixMilli(), answer)
		})
		select {
		case <-tick.C:
		case <-over:
			return nil
		}
	}
}

// one request: the port it came from, and the answer's first word, or what went
// wrong.
func one(ctx context.Context, address string, n int) (port int, answer string) {
	limit, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	c, err := (&net.Dialer{}).DialContext(limit, "tcp", address)
	if err != nil {
		return 0, word(ctx, err)
	}
	defer c.Close()
	port = c.LocalAddr().(*net.TCPAddr).Port
	defer context.AfterFunc(limit, func() { c.Close() })()
	if _, err := fmt.Fprintf(c, "GET /%d HTTP/1.1\r\nHost: chaos\r\nConnection: close\r\n\r\n", n); err != nil {
		return port, word(ctx, err)
	}
	reply, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return port, word(ctx, err)
	}
	body, err := io.ReadAll(reply.Body)
	if err != nil {
		return port, word(ctx, err)
	}
	if reply.StatusCode != http.StatusOK {
		return port, "error: " + reply.Status
	}
	return port, strings.Fields(string(body) + " nothing")[0]
}

func word(ctx context.Context, err error) string {
	if ctx.Err() != nil {
		return "open" // when the client was told to end
	}
	return "error: " + err.Error()
}
