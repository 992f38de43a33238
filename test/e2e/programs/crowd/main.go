// Command crowd is many connections at once, from either end.
//
//	crowd echo ADDRESS      sends back what comes; prints "listening"
//	crowd hold N ADDRESS    opens N connections to an echo, which are all open at the same time;
//	                        prints "N open", then "N intact" when each has carried 64 KiB both ways
//	crowd rate N SECONDS ADDRESS...
//	                        opens N connections a second, to each address in turn, with 64 bytes both ways
//	                        on each; prints "N made" and "slowest MILLISECONDS"
//	crowd stall N ADDRESS   begins N uploads over HTTP and leaves them unfinished;
//	                        prints "N stalled" and waits for the end of its input
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"
)

const (
	dials   = 64 // connections being made at once: more than a server's backlog would only be tried again
	patient = 60 * time.Second
)

func main() {
	// As many descriptors as the system allows: there are thousands.
	var limit syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit) == nil {
		limit.Cur = limit.Max
		_ = syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit)
	}
	if err := run(os.Args[1], os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, "crowd:", err)
		os.Exit(1)
	}
}

func run(what string, args []string) error {
	if what == "echo" {
		return echo(args[0])
	}
	n, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	if what == "rate" {
		seconds, err := strconv.Atoi(args[1])
		if err != nil {
			return err
		}
		return rate(n, seconds, args[2:])
	}
	conns, err := dial(n, args[1])
	if err != nil {
		return err
	}
	if what == "hold" {
		return hold(conns)
	}
	return stall(conns)
}

func echo(address string) error {
	ln, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	fmt.Println("listening")
	for {
		c, err := ln.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer c.Close()
			_, _ = io.Copy(c, c)
		}()
	}
}

func dial(n int, address string) ([]net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patient)
	defer cancel()
	conns, errs := make([]net.Conn, n), make([]error, n)
	slots := make(chan struct{}, dials)
	var wg sync.WaitGroup
	for i := range n {
		slots <- struct{}{}
		wg.Go(func() {
			conns[i], errs[i] = (&net.Dialer{}).DialContext(ctx, "tcp", address)
			<-slots
		})
	}
	wg.Wait()
	return conns, errors.Join(errs...)
}

func hold(conns []net.Conn) error {
	errs := make([]error, len(conns))
	round := func(size int) error {
		var wg sync.WaitGroup
		for i, c := range conns {
			wg.Go(func() { errs[i] = exchange(c, size, uint64(i)) })
		}
		wg.Wait()
		return errors.Join(errs...)
	}
	if err := round(64); err != nil {
		return err
	}
	fmt.Println(len(conns), "open")
	if err := round(64 << 10); err != nil {
		return err
	}
	for _, c := range conns {
		c.Close()
	}
	fmt.Println(len(conns), "intact")
	return nil
}

// exchange sends size bytes of seed and wants them back.
func exchange(c net.Conn, size int, seed uint64) error {
	_ = c.SetDeadline(time.Now().Add(patient))
	data := make([]byte, size)
	random := rand.New(rand.NewPCG(seed, uint64(size)))
	for i := range data {
		data[i] = byte(random.Uint32())
	}
	wrote := make(chan error, 1)
	go func() {
		_, err := c.Write(data)
		wrote <- err
	}()
	got := make([]byte, size)
	if _, err := io.ReadFull(c, got); err != nil {
		return fmt.Errorf("connection %d: %w", seed, err)
	}
	if !bytes.Equal(got, data) {
		return fmt.Errorf("connection %d: other bytes came back", seed)
	}
	return <-wrote
}

// rate makes each connection when it is due, whatever became of those before.
func rate(perSecond, seconds int, addresses []string) error {
	n := perSecond * seconds
	took, errs := make([]time.Duration, n), make([]error, n)
	begin := time.Now()
	var wg sync.WaitGroup
	for i := range n {
		due := begin.Add(time.Duration(i) * time.Second / time.Duration(perSecond))
		time.Sleep(time.Until(due)) // the rate is what is wanted
		wg.Go(func() {
			c, err := net.DialTimeout("tcp", addresses[i%len(addresses)], patient)
			if err == nil {
				err = exchange(c, 64, uint64(i))
				c.Close()
			}
			took[i], errs[i] = time.Since(due), err
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	fmt.Println(n, "made")
	fmt.Println("slowest", slices.Max(took).Milliseconds())
	return nil
}

func stall(conns []net.Conn) error {
	half := bytes.Repeat([]byte("x"), 32<<10)
	var wg sync.WaitGroup
	for _, c := range conns {
		wg.Go(func() { // what the network does not take is just as stalled
			_ = c.SetWriteDeadline(time.Now().Add(patient / 12))
			fmt.Fprintf(c, "POST /stalled HTTP/1.1\r\nHost: x\r\nX-Mine: yes\r\nContent-Length: %d\r\n\r\n", 1<<20)
			_, _ = c.Write(half)
		})
	}
	wg.Wait()
	fmt.Println(len(conns), "stalled")
	_, err := io.Copy(io.Discard, os.Stdin)
	return err
}
