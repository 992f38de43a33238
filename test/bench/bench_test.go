package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mirrord-go/mirrord/internal/leak"
	"github.com/mirrord-go/mirrord/test/bench/measure"
)

func TestMain(m *testing.M) { os.Exit(leak.Main(m)) }

func TestChoose(t *testing.T) {
	for names, want := range map[string]string{
		"":                                 "start local files stack outgoing dns link incoming scale",
		"files":                            "files",
		"incoming,start":                   "incoming start",
		"start, local":                     "start local",
		"files/small":                      "files(small)",
		"files/a b,start,files/c, start/d": "files(a b|c) start",
		"files/a,files":                    "files",
	} {
		list, err := choose(names)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, c := range list {
			name := c.name
			if len(c.words) > 0 {
				name += "(" + strings.Join(c.words, "|") + ")"
			}
			got = append(got, name)
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%q: got %q, want %q", names, got, want)
		}
	}
	if _, err := choose("start,speed"); err == nil || !strings.Contains(err.Error(), `"speed"`) {
		t.Errorf("an unknown area: got %v", err)
	}
}

func TestChoiceOf(t *testing.T) {
	rows := []measure.Row{{Name: "read 50 MB", Against: "sshfs"}, {Name: "write 50 MB"}, {Name: "walk"}}
	for words, want := range map[string]string{
		"":           "read 50 MB, write 50 MB, walk",
		"50 MB":      "read 50 MB, write 50 MB",
		"walk|read":  "read 50 MB, walk",
		"read|50 MB": "read 50 MB, write 50 MB",
		"MB sshfs":   "read 50 MB",
		"MB write":   "write 50 MB",
	} {
		c := choice{words: strings.FieldsFunc(words, func(r rune) bool { return r == '|' })}
		list, err := c.of(rows)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, row := range list {
			got = append(got, row.Name)
		}
		if strings.Join(got, ", ") != want {
			t.Errorf("%q: got %q, want %q", words, got, want)
		}
	}
	if _, err := (choice{words: []string{"walk", "run"}}).of(rows); err == nil || !strings.Contains(err.Error(), `"run"`) {
		t.Errorf("words of no row: got %v", err)
	}
}

func TestWrite(t *testing.T) {
	path := filepath.Join(t.TempDir(), "new", "latest.json")
	for _, machine := range []string{"first", "second"} {
		if err := write(path, measure.Report{Machine: machine}.JSON); err != nil {
			t.Fatal(err)
		}
		if b, err := os.ReadFile(path); err != nil || !strings.Contains(string(b), machine) {
			t.Errorf("got %q, %v; want %s in it", b, err, machine)
		}
	}
	if list, err := os.ReadDir(filepath.Dir(path)); err != nil || len(list) != 1 {
		t.Errorf("got %v, %v; want the one file", list, err)
	}
}

func TestBegun(t *testing.T) {
	for text, want := range map[string]bool{
		`{"object": {"status": {}}}`: false,
		`{"object": {"status": {"containerStatuses": [{"state": {"waiting": {"reason": "ContainerCreating"}}}]}}}`: false,
		`{"object": {"status": {"containerStatuses": [{"state": {"running": {"startedAt": "x"}}}]}}}`:              true,
		`{"object": {"status": {"containerStatuses": [{"state": {"terminated": {"exitCode": 0}}}]}}}`:              true,
	} {
		var e podEvent
		if err := json.Unmarshal([]byte(text), &e); err != nil {
			t.Fatal(err)
		}
		if got := e.begun(); got != want {
			t.Errorf("%s: got %v, want %v", text, got, want)
		}
	}
}

// The pods of a crowd are pods, of different names, and no scheduler takes them.
func TestCrowd(t *testing.T) {
	var list struct {
		Items []struct {
			Kind     string
			Metadata struct{ Name string }
			Spec     struct{ SchedulerName string }
		}
	}
	if err := json.Unmarshal([]byte(crowdList(crowdSize)), &list); err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	for _, p := range list.Items {
		names[p.Metadata.Name] = true
		if p.Kind != "Pod" || p.Spec.SchedulerName != "nobody" {
			t.Errorf("got %+v", p)
		}
	}
	if len(names) != crowdSize {
		t.Errorf("got %d names, want %d", len(names), crowdSize)
	}
}

func TestLastWords(t *testing.T) {
	l := &lastWords{}
	for i := range 2000 {
		fmt.Fprintln(l, "line", i)
	}
	if got := l.String(); len(got) > keptErrors || !strings.HasSuffix(got, "line 1999") {
		t.Errorf("got %d bytes that end with %q", len(got), got[max(0, len(got)-20):])
	}
}

func TestProcessorTime(t *testing.T) {
	before, err := cpuTime(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	for begin := time.Now(); time.Since(begin) < 50*time.Millisecond; {
		_ = machine()
	}
	after, err := cpuTime(os.Getpid())
	if err != nil || after <= before {
		t.Errorf("got %v after %v, %v", after, before, err)
	}
	if _, err := cpuTime(os.Getpid(), 1<<30); err == nil {
		t.Error("a process that is not there has processor time")
	}
}

func TestProcess(t *testing.T) {
	p, err := start(exec.Command("cat"))
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintln(p.stdin, "hello")
	if got, err := p.line(t.Context(), 5*time.Second); err != nil || got != "hello" {
		t.Errorf("got %q, %v", got, err)
	}
	if _, err := p.line(t.Context(), time.Millisecond); err == nil {
		t.Error("a line that was never said")
	}
	fmt.Fprint(p.stdin, strings.Repeat("more\n", 100)) // which nobody reads
	if err := p.close(); err != nil {
		t.Error(err)
	}
	deaf, err := start(exec.Command("sleep", "1000"))
	if err != nil {
		t.Fatal(err)
	}
	if err := deaf.kill(); err != nil {
		t.Error(err)
	}
	if _, err := hire(t.Context(), exec.Command("sh", "-c", "echo wrong >&2")); err == nil || !strings.Contains(err.Error(), "wrong") {
		t.Errorf("a worker that ends at once: got %v", err)
	}
}

// dialRelay connects to an echo server through a relay, which ends with the
// test if not before.
func dialRelay(t *testing.T, as line) (*net.TCPConn, *relay) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() { // ends with ln
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				_, _ = io.Copy(c, c)
			}()
		}
	}()
	r, err := startRelay(ln.Addr().String(), as)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.close() }) // a second time is an error
	c, err := net.Dial("tcp", r.ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c.(*net.TCPConn), r
}

func TestRelay(t *testing.T) {
	c, _ := dialRelay(t, line{})
	sent := bytes.Repeat([]byte("0123456789abcdef"), 1<<17)
	done := make(chan error, 1)
	go func() {
		_, err := c.Write(sent)
		done <- errors.Join(err, c.CloseWrite())
	}()
	got, err := io.ReadAll(c)
	if err := errors.Join(err, <-done); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, sent) {
		t.Errorf("got %d bytes, want the %d sent", len(got), len(sent))
	}
}

func TestRelayDelays(t *testing.T) {
	const delay = 20 * time.Millisecond
	c, _ := dialRelay(t, line{delay: delay})
	begin := time.Now()
	// What is sent at once also arrives at once: the delay is no rate.
	for range 10 {
		fmt.Fprint(c, "x")
	}
	if _, err := io.ReadFull(c, make([]byte, 10)); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(begin); took < 2*delay || took > 8*delay {
		t.Errorf("a round trip took %v, want about %v", took, 2*delay)
	}
}

func TestRelayShapes(t *testing.T) {
	const rate, amount = 25_000_000, 5_000_000
	// Both ways at once, by two connections: each direction has the rate to
	// itself, connections share it.
	_, r := dialRelay(t, line{delay: 20 * time.Millisecond, rate: rate})
	var wg sync.WaitGroup
	begin := time.Now()
	for range 2 {
		c, err := net.Dial("tcp", r.ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		wg.Go(func() {
			if _, err := c.Write(make([]byte, amount/2)); err != nil {
				t.Error(err)
			}
		})
		wg.Go(func() {
			if _, err := io.ReadFull(c, make([]byte, amount/2)); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	took, want := time.Since(begin), time.Duration(float64(amount)/rate*float64(time.Second))
	if took < want || took > 3*want {
		t.Errorf("%d bytes there and back took %v, want a round trip more than %v", amount, took, want)
	}
}

func TestLane(t *testing.T) {
	l := lane{rate: 1000}
	begin := time.Now()
	for n, want := range []time.Duration{100 * time.Millisecond, 200 * time.Millisecond, 300 * time.Millisecond} {
		if got := l.leave(100).Sub(begin); got < want || got > want+50*time.Millisecond {
			t.Errorf("%d: 100 bytes leave after %v, want %v", n, got, want)
		}
	}
	if got := (&lane{}).leave(1 << 40); time.Until(got) > 0 {
		t.Errorf("without a rate: leave at %v, want now", got)
	}
}

// close must not wait for who is silent.
func TestRelayCloses(t *testing.T) {
	c, r := dialRelay(t, line{})
	fmt.Fprint(c, "x")
	if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	if err := r.close(); err != nil {
		t.Error(err)
	}
	if err := c.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if n, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("after close: got %d bytes, %v; want the end", n, err)
	}
}
