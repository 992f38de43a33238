// Command probe asks the kernel and Go's own resolver what a session looks
// like from inside: a static Go program.
//
//	probe read FILE | env NAME | hostname | lookup NAME | srv NAME
//	probe connect ADDRESS          prints "connected" or the errno's name
//	probe tcp ADDRESS TEXT         sends a line, prints the answer
//	probe udp ADDRESS TEXT         connected socket
//	probe udpto ADDRESS TEXT       unconnected socket
//	probe parallel N ADDRESS       N connections at once, 100 kB echoed on each
package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

func main() {
	if err := run(os.Args[1], os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, "probe:", err)
		os.Exit(1)
	}
}

func run(what string, args []string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	switch what {
	case "read":
		b, err := os.ReadFile(args[0])
		os.Stdout.Write(b)
		return err
	case "env":
		fmt.Println(os.Getenv(args[0]))
	case "hostname":
		name, err := os.Hostname()
		fmt.Println(name)
		return err
	case "lookup":
		r := &net.Resolver{PreferGo: true}
		addrs, err := r.LookupHost(ctx, args[0])
		for _, a := range addrs {
			fmt.Println(a)
		}
		return err
	case "srv":
		r := &net.Resolver{PreferGo: true}
		_, all, err := r.LookupSRV(ctx, "", "", args[0])
		for _, s := range all {
			fmt.Println(s.Port, s.Target)
		}
		return err
	case "connect":
		c, err := net.DialTimeout("tcp", args[0], 20*time.Second)
		var e syscall.Errno
		if errors.As(err, &e) {
			fmt.Println(unix.ErrnoName(e))
			return nil
		}
		if err != nil {
			return err
		}
		c.Close()
		fmt.Println("connected")
	case "tcp", "udp":
		c, err := net.DialTimeout(what, args[0], 10*time.Second)
		if err != nil {
			return err
		}
		defer c.Close()
		return ask(c, args[1])
	case "unix":
		c, err := net.DialTimeout("unix", args[0], 10*time.Second)
		if err != nil {
			return err
		}
		defer c.Close()
		if _, err := fmt.Fprintf(c, "%s\r\n\r\n", args[1]); err != nil {
			return err
		}
		b, err := io.ReadAll(c)
		fmt.Println(string(b[bytes.LastIndexByte(b, '\n')+1:]))
		return err
	case "udpto":
		addr, err := net.ResolveUDPAddr("udp", args[0])
		if err != nil {
			return err
		}
		c, err := net.ListenUDP("udp", nil)
		if err != nil {
			return err
		}
		c.SetDeadline(time.Now().Add(10 * time.Second))
		if _, err := c.WriteTo([]byte(args[1]+"\n"), addr); err != nil {
			return err
		}
		buf := make([]byte, 2048)
		n, from, err := c.ReadFrom(buf)
		fmt.Printf("%s from %s\n", bytes.TrimSpace(buf[:n]), from)
		return err
	case "parallel":
		n, err := strconv.Atoi(args[0])
		if err != nil {
			return err
		}
		return parallel(n, args[1])
	default:
		return fmt.Errorf("unknown probe %q", what)
	}
	return nil
}

func ask(c net.Conn, text string) error {
	c.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := fmt.Fprintln(c, text); err != nil {
		return err
	}
	line, err := bufio.NewReader(c).ReadString('\n')
	fmt.Print(line)
	return err
}

func parallel(n int, addr string) error {
	data := bytes.Repeat([]byte("0123456789"), 10_000)
	errs := make([]error, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			c, err := net.Dial("tcp", addr)
			if err != nil {
				errs[i] = err
				return
			}
			defer c.Close()
			go func() {
				c.Write(data)
				c.(*net.TCPConn).CloseWrite()
			}()
			got, err := io.ReadAll(c)
			if err == nil && !bytes.Equal(got, data) {
				err = fmt.Errorf("%d bytes came back, not the %d sent", len(got), len(data))
			}
			errs[i] = err
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	fmt.Println(n, "intact")
	return nil
}
