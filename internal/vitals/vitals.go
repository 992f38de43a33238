// Package vitals tells what a process holds, when somebody asks it by SIGUSR1:
// for whoever suspects that it holds more and more. It knows nothing of what
// the process does.
package vitals

import (
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"syscall"
)

// Tell writes a line to w at each SIGUSR1, until the process ends. It is called
// once, by main.
func Tell(w io.Writer) {
	asked := make(chan os.Signal, 1)
	signal.Notify(asked, syscall.SIGUSR1)
	go func() { // lives as long as the process
		for range asked {
			fmt.Fprintln(w, line())
		}
	}()
}

// line is what the process holds now: goroutines by number, memory in bytes. It
// collects garbage first.
func line() string {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return fmt.Sprintf("vitals: goroutines=%d heap=%d stacks=%d", runtime.NumGoroutine(), m.HeapAlloc, m.StackInuse)
}
