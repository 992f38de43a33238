package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/net/dns/dnsmessage"
	"golang.org/x/sys/unix"
)

const (
	// freshPause is between two beginnings of one kind.
	freshPause = 500 * time.Millisecond
	// freshTime is what is left to new work at a check, before it is said to be
	// pending: longer than it may take.
	freshTime = 25 * time.Second
	// askAgain is when a datagram is taken for lost.
	askAgain = 10 * time.Second
	// longest is how many durations are told: a cut finds one or two of each kind
	// on their way.
	longest = 3
)

// fresh is one kind of new work, begun again and again, whatever became of what
// was begun before.
type fresh struct {
	kind string

	mu       sync.Mutex
	begun    int
	pending  map[int]time.Time      // beginnings
	longest  [longest]time.Duration // the longest ones, longest first
	outcomes map[string]int
}

// newWork begins all kinds.
func newWork(host, peer, dir string) ([]*fresh, error) {
	server, err := nameServer()
	if err != nil {
		return nil, err
	}
	question, err := query(host)
	if err != nil {
		return nil, err
	}
	kinds := map[string]func(n int) (string, error){
		"connect": func(int) (string, error) {
			c, err := net.Dial("tcp", net.JoinHostPort(peer, echoStreams))
			return "ok", errors.Join(err, closed(c, err))
		},
		// Like the question below: on a busy machine the cluster's own network drops
		// some datagrams when a link is back and all speak at once.
		"datagram": func(n int) (string, error) {
			_, err := exchange(net.JoinHostPort(peer, echoDatagrams), fmt.Appendf(nil, "fresh %d", n), askAgain)
			return "ok", err
		},
		"lookup": func(int) (string, error) {
			_, err := (&net.Resolver{PreferGo: true, StrictErrors: true}).LookupHost(context.Background(), host)
			return "ok", err
		},
		// One question, whose asker is more patient than resolvers: it asks again, as
		// they do, since a datagram may be lost, but on the same socket.
		"question": func(n int) (string, error) {
			asked := bytes.Clone(question)
			binary.BigEndian.PutUint16(asked, uint16(n)) // the ID
			answer, err := exchange(server, asked, askAgain)
			if err != nil {
				return "", err
			}
			var p dnsmessage.Parser
			h, err := p.Start(answer)
			if err == nil && h.RCode == dnsmessage.RCodeSuccess {
				return "ok", nil
			}
			return h.RCode.String(), err
		},
		"stat": func(int) (string, error) {
			_, err := os.Stat(filepath.Join(dir, fmt.Sprintf("none-%d", time.Now().UnixNano())))
			if errors.Is(err, os.ErrNotExist) {
				err = nil
			}
			return "ok", err
		},
		"open": func(n int) (string, error) {
			f, err := os.Open(filepath.Join(dir, "many", fmt.Sprint(1+n%1000)))
			return "ok", errors.Join(err, closed(f, err))
		},
		"list": func(int) (string, error) {
			_, err := os.ReadDir(dir)
			return "ok", err
		},
	}
	var all []*fresh
	for _, kind := range slices.Sorted(maps.Keys(kinds)) {
		f := &fresh{kind: kind, pending: map[int]time.Time{}, outcomes: map[string]int{}}
		all = append(all, f)
		go func() {
			for range time.Tick(freshPause) {
				go f.once(kinds[kind])
			}
		}()
	}
	return all, nil
}

func (f *fresh) once(do func(n int) (string, error)) {
	f.mu.Lock()
	f.begun++
	n := f.begun
	begin := time.Now()
	f.pending[n] = begin
	f.mu.Unlock()
	result, err := do(n)
	if err != nil {
		result = outcome(err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.pending, n)
	took := time.Since(begin)
	for i, l := range f.longest {
		if took > l {
			f.longest[i], took = took, l
		}
	}
	f.outcomes[result]++
}

// settle waits for the end of all that was begun, and tells what has become of
// it since it told last.
func (f *fresh) settle() string {
	f.mu.Lock()
	last := f.begun
	f.mu.Unlock()
	pending := 0
	for end := time.Now().Add(freshTime); ; time.Sleep(10 * time.Millisecond) {
		pending = 0
		f.mu.Lock()
		for n := range f.pending {
			if n <= last {
				pending++
			}
		}
		f.mu.Unlock()
		if pending == 0 || time.Now().After(end) {
			break
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	var times []string
	for _, l := range f.longest {
		times = append(times, fmt.Sprintf("%dms", l.Milliseconds()))
	}
	line := fmt.Sprintf("fresh %s longest %s pending %d", f.kind, strings.Join(times, ","), pending)
	for _, what := range slices.Sorted(maps.Keys(f.outcomes)) {
		line += fmt.Sprintf(" %s=%d", what, f.outcomes[what])
	}
	f.longest, f.outcomes = [longest]time.Duration{}, map[string]int{}
	return line
}

// outcome is an error in one word: the errno, for failed lookups what
// getaddrinfo(3) calls them.
func outcome(err error) string {
	var dns *net.DNSError
	var errno syscall.Errno
	switch {
	case errors.As(err, &dns) && dns.IsNotFound:
		return "EAI_NONAME"
	case errors.As(err, &dns) && (dns.IsTemporary || dns.IsTimeout):
		return "EAI_AGAIN"
	case errors.As(err, &errno):
		return unix.ErrnoName(errno)
	}
	return strings.Join(strings.Fields(strings.ReplaceAll(err.Error(), "=", " ")), "_")
}

// closed closes c where it was made.
func closed(c interface{ Close() error }, err error) error {
	if err != nil {
		return nil
	}
	return c.Close()
}

// exchange sends a datagram from a new socket and gives the answer to it. It sends
// it once more each time that nothing has come for so long; 0: never.
func exchange(address string, b []byte, again time.Duration) ([]byte, error) {
	c, err := net.Dial("udp", address)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	raw, err := c.(*net.UDPConn).SyscallConn()
	if err == nil { // to hear of a host that cannot be reached, udp(7)
		family, option := unix.IPPROTO_IP, unix.IP_RECVERR
		if c.RemoteAddr().(*net.UDPAddr).IP.To4() == nil {
			family, option = unix.IPPROTO_IPV6, unix.IPV6_RECVERR
		}
		var set error
		err = raw.Control(func(fd uintptr) { set = unix.SetsockoptInt(int(fd), family, option, 1) })
		err = errors.Join(err, set)
	}
	if err != nil {
		return nil, err
	}
	if _, err := c.Write(b); err != nil {
		return nil, err
	}
	got := make([]byte, 4096)
	for {
		if again > 0 {
			_ = c.SetReadDeadline(time.Now().Add(again))
		}
		n, err := c.Read(got)
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return got[:n], err
		}
		if _, err := c.Write(b); err != nil {
			return nil, err
		}
	}
}

// nameServer is the first that resolv.conf(5) names.
func nameServer() (string, error) {
	text, err := os.ReadFile("/etc/resolv.conf")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == "nameserver" {
			return net.JoinHostPort(f[1], "53"), nil
		}
	}
	return "", errors.New("/etc/resolv.conf names no server")
}

// query asks for the address of a name of the target's namespace.
func query(host string) ([]byte, error) {
	text, err := os.ReadFile("/etc/resolv.conf")
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == "search" {
			host += "." + f[1] + "."
			break
		}
	}
	name, err := dnsmessage.NewName(host)
	if err != nil {
		return nil, err
	}
	m := dnsmessage.Message{Header: dnsmessage.Header{ID: 1, RecursionDesired: true},
		Questions: []dnsmessage.Question{{Name: name, Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}}}
	return m.Pack()
}
