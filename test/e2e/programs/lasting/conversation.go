package main

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// report does something with all conversations and gives how many are intact.
func report(what string, all []*conversation, do func(*conversation) error) string {
	var wg sync.WaitGroup
	var intact, bytes atomic.Int64
	for i, c := range all {
		wg.Go(func() {
			if err := do(c); err != nil {
				fmt.Printf("conversation %d: %v\n", i, err)
				return
			}
			intact.Add(1)
			bytes.Add(c.heard.Load())
		})
	}
	wg.Wait()
	return fmt.Sprintf("%s %d of %d intact, %d bytes\n", what, intact.Load(), len(all), bytes.Load())
}

// conversation is one connection: what is said is random, and is heard again.
type conversation struct {
	c net.Conn
	r io.Reader // what is heard on it
	pace

	talking sync.Mutex // held while something is said; for good by who wants silence
	words   *rand.ChaCha8
	said    atomic.Int64
	heard   atomic.Int64

	done  chan struct{} // closed when the others are set
	err   error
	ended time.Time
}

// pace is how often how much is said.
type pace struct {
	every time.Duration
	size  int
}

var paces = []pace{{500 * time.Millisecond, 256}, {2 * time.Second, 16 << 10}, {5 * time.Second, 64}, {250 * time.Millisecond, 7}}

func newConversation(c net.Conn, r io.Reader, p pace) *conversation {
	return &conversation{c: c, r: r, pace: p, words: source(c), done: make(chan struct{})}
}

// source gives the bytes that are said on c, from the beginning.
func source(c net.Conn) *rand.ChaCha8 {
	return rand.NewChaCha8(sha256.Sum256([]byte(c.LocalAddr().String())))
}

func (c *conversation) speak() {
	time.Sleep(rand.N(c.every))
	for c.say() == nil {
		time.Sleep(c.every)
	}
}

func (c *conversation) say() error {
	c.talking.Lock()
	defer c.talking.Unlock()
	b := make([]byte, c.size)
	c.words.Read(b)
	n, err := c.c.Write(b)
	c.said.Add(int64(n))
	return err
}

// hear compares what comes back.
func (c *conversation) hear() {
	defer close(c.done)
	defer func() { c.ended = time.Now() }()
	words := source(c.c)
	got, want := make([]byte, 64<<10), make([]byte, 64<<10)
	for {
		n, err := c.r.Read(got)
		words.Read(want[:n])
		for i := range n {
			if got[i] != want[i] {
				c.err = fmt.Errorf("byte %d is %x, not %x: something was lost or doubled", c.heard.Load()+int64(i), got[i], want[i])
				return
			}
		}
		c.heard.Add(int64(n))
		if err != nil {
			if !errors.Is(err, io.EOF) {
				c.err = err
			}
			return
		}
	}
}

// settle waits in silence until all has come back.
func (c *conversation) settle(speak bool) error {
	if speak {
		if err := c.say(); err != nil {
			return err
		}
	}
	c.talking.Lock()
	defer c.talking.Unlock()
	return c.complete()
}

func (c *conversation) complete() error {
	for end := time.Now().Add(30 * time.Second); c.heard.Load() < c.said.Load(); time.Sleep(10 * time.Millisecond) {
		select {
		case <-c.done:
			return fmt.Errorf("ended after %d of %d bytes: %w", c.heard.Load(), c.said.Load(), errors.Join(io.EOF, c.err))
		default:
		}
		if time.Now().After(end) {
			return fmt.Errorf("only %d of %d bytes came back", c.heard.Load(), c.said.Load())
		}
	}
	return nil
}

// end says the last word and hears all that is left.
func (c *conversation) end() error {
	c.talking.Lock() // for good
	if err := c.complete(); err != nil {
		return err
	}
	if err := c.c.(*net.TCPConn).CloseWrite(); err != nil {
		return err
	}
	<-c.done
	if c.err == nil && c.heard.Load() != c.said.Load() {
		return fmt.Errorf("%d bytes came back of %d", c.heard.Load(), c.said.Load())
	}
	return c.err
}
