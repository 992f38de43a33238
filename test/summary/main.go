// Command summary runs go test with the given arguments, shows what fails and
// what is skipped and why, and adds the counts to a file, so that the last
// line of a whole run can cover all its parts.
//
//	summary -counts FILE -- go test ARGS...
//	summary -counts FILE            # prints "N passed, N failed, N skipped"
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"strings"
)

// testEvent is a line of go test -json (see: go doc test2json).
type testEvent struct {
	Action, Package, Test, Output string
	Elapsed                       float64
}

type counts struct{ Passed, Failed, Skipped int }

func main() {
	file := flag.String("counts", "", "file that holds the counts of all parts")
	flag.Parse()
	var total counts
	if b, err := os.ReadFile(*file); err == nil {
		_ = json.Unmarshal(b, &total)
	}
	if flag.NArg() == 0 {
		fmt.Printf("%d passed, %d failed, %d skipped\n", total.Passed, total.Failed, total.Skipped)
		if total.Failed > 0 || total.Passed == 0 {
			os.Exit(1)
		}
		return
	}
	part, err := run(flag.Args())
	total.Passed += part.Passed
	total.Failed += part.Failed
	total.Skipped += part.Skipped
	if err != nil && part.Failed == 0 { // did not even build
		total.Failed++
	}
	b, _ := json.Marshal(total)
	if werr := os.WriteFile(*file, b, 0o644); werr != nil {
		fmt.Fprintln(os.Stderr, "summary:", werr)
		os.Exit(1)
	}
	fmt.Printf("%d passed, %d failed, %d skipped in this part\n", part.Passed, part.Failed, part.Skipped)
	if err != nil {
		fmt.Println("summary:", err)
		os.Exit(1)
	}
}

// run shows the events of one go test -json.
func run(args []string) (n counts, err error) {
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return n, err
	}
	if err := cmd.Start(); err != nil {
		return n, err
	}
	logs := map[string]*strings.Builder{}
	in := bufio.NewReader(out)
	for {
		line, rerr := in.ReadBytes('\n')
		if len(line) > 0 {
			show(line, logs, &n)
		}
		if rerr != nil {
			break
		}
	}
	return n, cmd.Wait()
}

func show(line []byte, logs map[string]*strings.Builder, n *counts) {
	var e testEvent
	if json.Unmarshal(line, &e) != nil {
		os.Stdout.Write(line) // a build error
		return
	}
	id := e.Package + " " + e.Test
	switch e.Action {
	case "output", "build-output":
		if logs[id] == nil {
			logs[id] = &strings.Builder{}
		}
		logs[id].WriteString(e.Output)
		return
	case "pass", "fail", "skip":
	case "build-fail":
		fmt.Print(logs[id].String())
		return
	default:
		return
	}
	log := logs[id]
	delete(logs, id)
	if e.Test == "" && e.Action == "skip" { // a package without tests
		return
	}
	if e.Test == "" { // a package
		fmt.Printf("%-5s %s %.1fs\n", e.Action, e.Package, e.Elapsed)
		if e.Action == "fail" && log != nil {
			fmt.Print(log.String())
		}
		return
	}
	switch e.Action {
	case "pass":
		n.Passed++
	case "fail":
		n.Failed++
	case "skip":
		n.Skipped++
	}
	if e.Action != "pass" && log != nil {
		fmt.Print(log.String())
	}
}
