package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"time"
)

// A connection to the byte server begins with one of these and a number in
// eight bytes, big endian.
const (
	doEcho = 'e' // the number says nothing; all bytes come back
	doDown = 'd' // the server sends that many bytes
	doUp   = 'u' // the server takes that many bytes and then sends one
)

// streamTime bounds a task on a connection: it fails rather than hangs.
const streamTime = 2 * time.Minute

func dial(addr string, what byte, number int) (net.Conn, error) {
	c, err := net.DialTimeout("tcp", addr, 10*time.Second)
	if err != nil {
		return nil, err
	}
	if err := c.SetDeadline(time.Now().Add(streamTime)); err != nil {
		c.Close()
		return nil, err
	}
	if _, err := c.Write(binary.BigEndian.AppendUint64([]byte{what}, uint64(number))); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// serveBytes answers connections until ln is closed.
func serveBytes(ln net.Listener) error {
	for {
		c, err := ln.Accept()
		if err != nil {
			return err
		}
		go func() { // ends with its client, or with the program
			defer c.Close()
			_ = answerBytes(c) // the client knows what it did not get
		}()
	}
}

func answerBytes(c net.Conn) error {
	var head [9]byte
	if _, err := io.ReadFull(c, head[:]); err != nil {
		return err
	}
	number := int64(binary.BigEndian.Uint64(head[1:]))
	switch head[0] {
	case doEcho:
		buf := make([]byte, 64<<10)
		for {
			n, err := c.Read(buf)
			if err != nil {
				return err
			}
			if _, err := c.Write(buf[:n]); err != nil {
				return err
			}
		}
	case doDown:
		buf := make([]byte, 256<<10)
		for number > 0 {
			n, err := c.Write(buf[:min(number, int64(len(buf)))])
			if err != nil {
				return err
			}
			number -= int64(n)
		}
	case doUp:
		if _, err := io.CopyN(io.Discard, c, number); err != nil {
			return err
		}
		_, err := c.Write([]byte{1})
		return err
	}
	return nil
}

// number parses a positive argument.
func number(text string) (int, error) {
	n, err := strconv.Atoi(text)
	if err == nil && n <= 0 {
		err = errors.New("not a positive number")
	}
	if err != nil {
		return 0, fmt.Errorf("%q: %w", text, err)
	}
	return n, nil
}

// Sizes of exchanges in bytes: of the shortest, and of a small request with its
// answer.
const smallExchange, largerExchange = 64, 4 << 10

// roundTrips ADDR N: 64 bytes there and back on one connection. It gives "p50"
// and "p99".
func roundTrips(args []string) (values, error) { return exchanges(args, smallExchange) }

// largerTrips is roundTrips with 4 KiB.
func largerTrips(args []string) (values, error) { return exchanges(args, largerExchange) }

func exchanges(args []string, size int) (values, error) {
	if err := arguments(args, 2); err != nil {
		return nil, err
	}
	n, err := number(args[1])
	if err != nil {
		return nil, err
	}
	c, err := dial(args[0], doEcho, 0)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	buf := make([]byte, size)
	times := make([]float64, n)
	for i := range times {
		begin := time.Now()
		if _, err := c.Write(buf); err != nil {
			return nil, err
		}
		if _, err := io.ReadFull(c, buf); err != nil {
			return nil, err
		}
		times[i] = time.Since(begin).Seconds()
	}
	return quantiles(times), nil
}

// besideBulk ADDR N DIRECTION: largerTrips while another connection carries as
// much as it can, "down" or "up".
func besideBulk(args []string) (values, error) {
	if err := arguments(args, 3); err != nil {
		return nil, err
	}
	const endless, soon = 1 << 40, 500 * time.Millisecond // until its queues are full
	what, ok := map[string]byte{"down": doDown, "up": doUp}[args[2]]
	if !ok {
		return nil, fmt.Errorf("no direction: %s", args[2])
	}
	c, err := dial(args[0], what, endless)
	if err != nil {
		return nil, err
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 256<<10)
		for err := error(nil); err == nil; { // until it is closed
			if what == doDown {
				_, err = c.Read(buf)
			} else {
				_, err = c.Write(buf)
			}
		}
	}()
	time.Sleep(soon)
	v, err := largerTrips(args[:2])
	_ = c.(*net.TCPConn).SetLinger(0) // what is on its way is nobody's
	c.Close()
	<-done
	return v, err
}

// lookups NAME N PAUSE: asks for the IPv4 addresses of a name, one after the other
// with a pause between them. It gives "p50" and "p99".
func lookups(args []string) (values, error) {
	if err := arguments(args, 3); err != nil {
		return nil, err
	}
	n, err := number(args[1])
	if err != nil {
		return nil, err
	}
	pause, err := time.ParseDuration(args[2])
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), streamTime)
	defer cancel()
	times := make([]float64, n)
	for i := range times {
		time.Sleep(pause)
		begin := time.Now()
		if _, err := (&net.Resolver{PreferGo: true}).LookupNetIP(ctx, "ip4", args[0]); err != nil {
			return nil, err
		}
		times[i] = time.Since(begin).Seconds()
	}
	return quantiles(times), nil
}

func quantiles(times []float64) values {
	slices.Sort(times)
	at := func(q float64) float64 { return times[int(q*float64(len(times)-1))] }
	return values{"p50": at(0.5), "p99": at(0.99)}
}

// down ADDR BYTES: receives them on a new connection. It gives "seconds".
func down(args []string) (values, error) {
	return bulk(args, doDown, func(c net.Conn, n int64) error {
		got, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, io.LimitReader(c, n), make([]byte, 256<<10))
		if err == nil && got != n {
			err = fmt.Errorf("%d bytes came instead of %d", got, n)
		}
		return err
	})
}

// up ADDR BYTES: sends them on a new connection and waits for the word that
// all have arrived. It gives "seconds".
func up(args []string) (values, error) {
	return bulk(args, doUp, func(c net.Conn, n int64) error {
		buf := make([]byte, 256<<10)
		for n > 0 {
			m, err := c.Write(buf[:min(n, int64(len(buf)))])
			if err != nil {
				return err
			}
			n -= int64(m)
		}
		_, err := io.ReadFull(c, buf[:1])
		return err
	})
}

func bulk(args []string, what byte, move func(c net.Conn, n int64) error) (values, error) {
	if err := arguments(args, 2); err != nil {
		return nil, err
	}
	n, err := number(args[1])
	if err != nil {
		return nil, err
	}
	return timed(func() error {
		c, err := dial(args[0], what, n)
		if err != nil {
			return err
		}
		defer c.Close()
		return move(c, int64(n))
	})
}

// connections ADDR N: makes N connections one after the other and has one byte
// echoed on each. It gives "seconds".
func connections(args []string) (values, error) {
	if err := arguments(args, 2); err != nil {
		return nil, err
	}
	n, err := number(args[1])
	if err != nil {
		return nil, err
	}
	return timed(func() error {
		for range n {
			if err := greet(args[0]); err != nil {
				return err
			}
		}
		return nil
	})
}

// held are connections on which nothing is said.
type held struct{ conns []net.Conn }

// hold ADDR N: ends those that are held, and makes N that have had one byte echoed.
func (h *held) hold(args []string) (values, error) {
	if err := arguments(args, 2); err != nil {
		return nil, err
	}
	for _, c := range h.conns {
		c.Close()
	}
	h.conns = nil
	n, err := strconv.Atoi(args[1])
	if err != nil {
		return nil, err
	}
	for range n {
		c, err := dial(args[0], doEcho, 0)
		if err != nil {
			return nil, err
		}
		h.conns = append(h.conns, c)
		buf := []byte{'x'}
		if _, err := c.Write(buf); err != nil {
			return nil, err
		}
		if _, err := io.ReadFull(c, buf); err != nil {
			return nil, err
		}
	}
	return nil, nil
}

func greet(addr string) error {
	c, err := dial(addr, doEcho, 0)
	if err != nil {
		return err
	}
	defer c.Close()
	buf := []byte{'x'}
	if _, err := c.Write(buf); err != nil {
		return err
	}
	if _, err = io.ReadFull(c, buf); err != nil {
		return err
	}
	return c.(*net.TCPConn).SetLinger(0) // thousands in TIME_WAIT would slow down the next ones
}
