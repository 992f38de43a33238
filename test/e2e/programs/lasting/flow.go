package main

import (
	"fmt"
	"net"
	"sync"
	"time"
)

const flowPause = 250 * time.Millisecond // between two datagrams

// flow is a socket's datagrams to one server, which tells of each from where and
// how often it came. Some may be lost, none may come twice, and the server must
// see one sender.
type flow struct {
	c net.Conn

	mu       sync.Mutex
	said     int
	answers  map[int]int
	newest   int    // of those that were answered
	sender   string // as the server sees it
	senders  int    // one after another
	mistakes []string
}

func newFlow(address string) (*flow, error) {
	c, err := net.Dial("udp", address)
	if err != nil {
		return nil, err
	}
	f := &flow{c: c, answers: map[int]int{}}
	go f.hear()
	return f, nil
}

func (f *flow) speak() {
	for range time.Tick(flowPause) {
		f.say()
	}
}

func (f *flow) say() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.said++
	if _, err := fmt.Fprintf(f.c, "%d", f.said); err != nil {
		f.mistakes = append(f.mistakes, err.Error())
	}
}

func (f *flow) hear() {
	b := make([]byte, 4096)
	for {
		size, err := f.c.Read(b)
		f.mu.Lock()
		var n, times int
		var sender string
		switch _, bad := fmt.Sscanf(string(b[:size]), "%d from %s times %d", &n, &sender, &times); {
		case err != nil:
			f.mistakes = append(f.mistakes, err.Error())
		case bad != nil:
			f.mistakes = append(f.mistakes, fmt.Sprintf("%q was answered", b[:size]))
		default:
			f.answers[n]++
			f.newest = max(f.newest, n)
			if sender != f.sender {
				f.sender = sender
				f.senders++
			}
			if times != 1 || f.answers[n] != 1 {
				f.mistakes = append(f.mistakes, fmt.Sprintf("datagram %d came %d times, its answer %d times", n, times, f.answers[n]))
			}
		}
		f.mu.Unlock()
	}
}

// settle waits for an answer to what is said from now on, and tells how the flow
// is.
func (f *flow) settle() string {
	f.mu.Lock()
	before := f.said
	f.mu.Unlock()
	for end := time.Now().Add(20 * time.Second); ; {
		f.say()
		time.Sleep(flowPause)
		f.mu.Lock()
		on := f.newest > before
		f.mu.Unlock()
		if on || time.Now().After(end) {
			break
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.newest <= before:
		return fmt.Sprintf("flow has ended: nothing after %d of %d was answered, %q", f.newest, f.said, f.mistakes)
	case len(f.mistakes) > 0:
		return fmt.Sprintf("flow is wrong: %q", f.mistakes)
	}
	return fmt.Sprintf("flow goes on from %d senders, %d of %d answered", f.senders, len(f.answers), f.said)
}
