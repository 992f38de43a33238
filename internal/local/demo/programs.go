package demo

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/mirrord-go/mirrord/internal/failure"
)

const (
	// askTimeout bounds one conversation of Ask.
	askTimeout = 10 * time.Second
	// maxAnswer bounds what Ask prints, in bytes.
	maxAnswer = 1 << 20
)

// Serve is `mirrord demo serve PORT`, the local program of the steps that show
// incoming traffic: an HTTP server that prints a line when it listens and one
// per request, until SIGINT or SIGTERM.
func Serve(args []string) error {
	port, err := strconv.ParseUint(strings.Join(args, " "), 10, 16)
	if err != nil {
		return failure.Usage("demo-usage", "demo serve takes a port", "type: mirrord demo serve 80", "got %q", strings.Join(args, " "))
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	return serve(ctx, int(port), os.Stdout)
}

func serve(ctx context.Context, port int, out io.Writer) error {
	var s services
	l, err := s.listen("", port)
	if err != nil {
		return fmt.Errorf("serve: %w", err)
	}
	answer := greet("local", "this machine, process "+strconv.Itoa(os.Getpid()))
	s.http(l, func(w http.ResponseWriter, r *http.Request) {
		// First the line: whoever has the answer finds it printed.
		fmt.Fprintf(out, "local %s %s client %s\n", r.Method, r.URL.RequestURI(), clientOf(r.RemoteAddr))
		answer(w, r)
	})
	fmt.Fprintf(out, "listening on port %d\n", l.Addr().(*net.TCPAddr).Port)
	<-ctx.Done()
	s.close()
	return nil
}

// Ask is `mirrord demo ask URL`, for machines without curl: it prints what an
// http:// URL answers, the first line that a tcp://HOST:PORT says, or the
// addresses of a dns:NAME.
func Ask(args []string) error { return ask(strings.Join(args, " "), os.Stdout) }

func ask(url string, out io.Writer) error {
	ctx, cancel := context.WithTimeout(context.Background(), askTimeout)
	defer cancel()
	if address, ok := strings.CutPrefix(url, "tcp://"); ok {
		var d net.Dialer
		c, err := d.DialContext(ctx, "tcp", address)
		if err != nil {
			return fmt.Errorf("ask: %w", err)
		}
		defer c.Close()
		if err := c.SetDeadline(time.Now().Add(askTimeout)); err != nil {
			return fmt.Errorf("ask: %w", err)
		}
		line, err := bufio.NewReader(io.LimitReader(c, maxAnswer)).ReadString('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("ask: %w", err)
		}
		_, err = io.WriteString(out, line)
		return err
	}
	if name, ok := strings.CutPrefix(url, "dns:"); ok {
		addrs, err := (&net.Resolver{PreferGo: true}).LookupNetIP(ctx, "ip", name)
		if err != nil {
			return fmt.Errorf("ask: %w", err)
		}
		for _, a := range addrs {
			fmt.Fprintf(out, "%s\t%s\n", a.Unmap(), name)
		}
		return nil
	}
	if !strings.HasPrefix(url, "http://") {
		return failure.Usage("demo-usage", "demo ask takes a URL", "type: mirrord demo ask http://catalog/items", "got %q", url)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return fmt.Errorf("ask: %w", err)
	}
	// Without the proxies of this machine's environment: they are not the pod's.
	transport := &http.Transport{DisableKeepAlives: true}
	defer transport.CloseIdleConnections()
	resp, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		return fmt.Errorf("ask: %w", err)
	}
	defer resp.Body.Close()
	_, err = io.Copy(out, io.LimitReader(resp.Body, maxAnswer))
	return err
}
