package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	opReady     = "ready"     // answered when all services do
	opRequest   = "request"   // HTTP, by the neighbour
	opExchange  = "exchange"  // bytes over TCP or UDP, by the neighbour
	opInventory = "inventory" // by the main process

	// maxBody bounds what Request and Exchange carry, in bytes: in base64 and
	// with headers (maxHeader) it fits the packet below.
	maxBody = 64 << 10
	// maxHeader bounds an HTTP response's header, in bytes.
	maxHeader = 16 << 10
	// maxPacket is the longest message in bytes. A packet must fit the socket's
	// send buffer, net.core.wmem_default: 208 KiB unless somebody changed it.
	maxPacket = 160 << 10
	// maxCalls is how many calls a process of the pod works on at once; more
	// wait in the socket.
	maxCalls = 64
	// callTimeout is the longest that the pod works on a call: more than any
	// test of a session waits for.
	callTimeout = 30 * time.Second
)

// call is one message to a process of the pod: a packet of JSON.
type call struct {
	ID       uint64
	Op       string
	Timeout  time.Duration
	Request  *Request  `json:",omitempty"`
	Exchange *exchange `json:",omitempty"`
}

type exchange struct {
	Network, Address string
	Data             []byte
}

// answer is the reply to the call of the same ID.
type answer struct {
	ID        uint64
	Error     string        `json:",omitempty"`
	Errno     syscall.Errno `json:",omitempty"`
	Response  *Response     `json:",omitempty"`
	Data      []byte        `json:",omitempty"`
	Inventory []string      `json:",omitempty"`
	Addresses []netip.Addr  `json:",omitempty"`
}

// callError is what a process of the pod answered, its errno kept.
type callError struct {
	text  string
	errno syscall.Errno // 0: none
}

func (e *callError) Error() string { return e.text }
func (e *callError) Unwrap() error {
	if e.errno == 0 {
		return nil
	}
	return e.errno
}

// errPodEnded answers calls to a pod that is gone.
var errPodEnded = errors.New("the pod has ended")

// caller is this end of a socket to a process of the pod. Calls may be
// concurrent and are answered in any order.
type caller struct {
	conn net.Conn
	turn chan struct{}  // held while writing, for the deadline is the socket's
	wg   sync.WaitGroup // the reader

	mu      sync.Mutex // all below
	last    uint64
	waiting map[uint64]chan answer
	ended   bool
}

// newCaller also gives the other end, for the process of the pod.
func newCaller() (*caller, *os.File, error) {
	// Packets, not a stream: a call that was given up leaves no half message.
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("make a socket pair: %w", err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "pod"), os.NewFile(uintptr(fds[1]), "pod")
	defer ours.Close() // FileConn makes a copy
	conn, err := net.FileConn(ours)
	if err != nil {
		theirs.Close()
		return nil, nil, fmt.Errorf("open the socket to the pod: %w", err)
	}
	c := &caller{conn: conn, turn: make(chan struct{}, 1), waiting: map[uint64]chan answer{}}
	c.wg.Go(c.read)
	return c, theirs, nil
}

func (c *caller) read() {
	buf := make([]byte, maxPacket)
	for {
		n, err := c.conn.Read(buf)
		if err != nil {
			break
		}
		var a answer
		if json.Unmarshal(buf[:n], &a) != nil {
			break
		}
		c.mu.Lock()
		if ch := c.waiting[a.ID]; ch != nil {
			ch <- a // has room for it
			delete(c.waiting, a.ID)
		}
		c.mu.Unlock()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ended = true
	for id, ch := range c.waiting {
		close(ch)
		delete(c.waiting, id)
	}
}

func (c *caller) call(ctx context.Context, m call) (answer, error) {
	m.Timeout = callTimeout
	if deadline, ok := ctx.Deadline(); ok {
		m.Timeout = min(m.Timeout, time.Until(deadline))
	}
	ch := make(chan answer, 1)
	c.mu.Lock()
	if c.ended {
		c.mu.Unlock()
		return answer{}, errPodEnded
	}
	c.last++
	m.ID = c.last
	c.waiting[m.ID] = ch
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		delete(c.waiting, m.ID)
		c.mu.Unlock()
	}()

	b, err := json.Marshal(m)
	if err != nil {
		return answer{}, err
	}
	if len(b) > maxPacket {
		return answer{}, fmt.Errorf("a call of %d bytes: %w", len(b), syscall.EMSGSIZE)
	}
	if err := c.send(ctx, b); err != nil {
		return answer{}, err
	}
	select {
	case <-ctx.Done():
		return answer{}, ctx.Err()
	case a, ok := <-ch:
		switch {
		case !ok:
			return answer{}, errPodEnded
		case a.Error != "":
			return answer{}, &callError{a.Error, a.Errno}
		}
		return a, nil
	}
}

// send writes a packet, which waits while the pod has maxCalls to work on, or
// hangs. It gives up when ctx ends or after callTimeout.
func (c *caller) send(ctx context.Context, packet []byte) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	select {
	case c.turn <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	interrupted := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(interrupted)
		_ = c.conn.SetWriteDeadline(time.Now()) // fails when it is closed: so does Write
	})
	_, err := c.conn.Write(packet) // all or nothing
	if !stop() {
		<-interrupted
		_ = c.conn.SetWriteDeadline(time.Time{}) // fails when it is closed
	}
	<-c.turn
	switch {
	case errors.Is(err, syscall.EPIPE), errors.Is(err, syscall.ECONNRESET):
		return errPodEnded
	case errors.Is(err, os.ErrDeadlineExceeded):
		return ctx.Err()
	}
	return err
}

// close ends the socket; calls that wait are answered with errPodEnded.
func (c *caller) close() {
	c.conn.Close()
	c.wg.Wait()
}

// serveCalls answers the calls that arrive on f, in the pod, until the other
// end is closed. It owns f.
func serveCalls(f *os.File, do func(context.Context, call) (answer, error)) error {
	conn, err := net.FileConn(f)
	f.Close()
	if err != nil {
		return fmt.Errorf("open the socket of calls: %w", err)
	}
	defer conn.Close()
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	slots := make(chan struct{}, maxCalls)
	buf := make([]byte, maxPacket)
	for {
		n, err := conn.Read(buf)
		if errors.Is(err, io.EOF) || n == 0 && err == nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read a call: %w", err)
		}
		var m call
		if err := json.Unmarshal(buf[:n], &m); err != nil {
			return fmt.Errorf("read a call: %w", err)
		}
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			ctx, cancel := context.WithTimeout(ctx, m.Timeout)
			defer cancel()
			a, err := do(ctx, m)
			if err != nil {
				a = answer{Error: err.Error()}
				_ = errors.As(err, &a.Errno) // stays 0 without one
			}
			a.ID = m.ID
			b, err := json.Marshal(a)
			if err != nil || len(b) > maxPacket {
				b, _ = json.Marshal(answer{ID: m.ID, Error: syscall.EMSGSIZE.Error(), Errno: syscall.EMSGSIZE})
			}
			_, _ = conn.Write(b) // fails when the caller is gone: nobody to tell
		})
	}
}
