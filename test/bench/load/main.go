// Command load is what the bench runs on both sides of every comparison: in a
// session's sandbox, directly on the machine, and in pods. It measures where it
// stands and reports figures, so that the way to ask it costs nothing.
//
//	load clock         prints the monotonic clock as its first act, and at its end
//	load worker        does what the lines of stdin say, until stdin ends
//	load serve         the servers of a pod: bytes, HTTP and SFTP
//
// A line is a JSON array of strings, a task and its arguments; the answer is an
// object {"values": {"name": number}} or {"error": "text"}. Times are in
// seconds. It is static: what it measures is the kernel's and mirrord's work.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "load:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) != 1 {
		return errors.New("usage: load clock|worker|serve")
	}
	switch args[0] {
	case "clock":
		begin := clock()
		fmt.Println(begin, clock())
		return nil
	case "worker":
		return work()
	case "serve":
		return serve()
	}
	return fmt.Errorf("unknown: %s", args[0])
}

// clock is the clock that all processes of a machine share, in nanoseconds.
func clock() int64 {
	var t unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &t) // cannot fail for this clock
	return t.Nano()
}

// values are the figures of a task by name.
type values map[string]float64

// answer is what a task gives.
type answer struct {
	Values values `json:"values,omitempty"`
	Error  string `json:"error,omitempty"`
}

// tasks is what a worker can do.
var tasks = map[string]func(args []string) (values, error){
	"hello": func([]string) (values, error) { return nil, nil },
	"cpu":   cpu, "run": runProgram,
	"stat": statFiles, "opens": openFiles, "make": makeFiles,
	"read": readFile, "random": randomReads, "write": writeFile, "open": openTwice, "walk": walk,
	"rtt": roundTrips, "exchange": largerTrips, "beside": besideBulk, "lookup": lookups, "down": down, "up": up, "connections": connections,
	"http": requests, "http2": streams,
}

func work() error {
	in, out := bufio.NewScanner(os.Stdin), json.NewEncoder(os.Stdout)
	web, kept := &counter{}, &held{}
	for in.Scan() {
		var words []string
		if err := json.Unmarshal(in.Bytes(), &words); err != nil || len(words) == 0 {
			return fmt.Errorf("no task: %q", in.Text())
		}
		task := tasks[words[0]]
		switch words[0] {
		case "listen":
			task = web.listen
		case "settled":
			task = web.settled
		case "hold":
			task = kept.hold
		}
		var a answer
		if task == nil {
			a.Error = "there is no task " + words[0]
		} else if v, err := task(words[1:]); err != nil {
			a.Error = err.Error()
		} else {
			a.Values = v
		}
		if err := out.Encode(a); err != nil {
			return err
		}
	}
	return in.Err()
}

// arguments gives exactly n of them.
func arguments(args []string, n int) error {
	if len(args) != n {
		return fmt.Errorf("got %d arguments, want %d", len(args), n)
	}
	return nil
}
