// Package profile takes what Go's profiler sees of this process, for whoever
// looks for what is slow or large in it. It knows nothing of what the process does.
package profile

import (
	"bytes"
	"context"
	"fmt"
	"runtime"
	"runtime/pprof"
	"syscall"
	"time"
)

// Kinds of profiles, by the names that go tool pprof asks for.
const (
	CPU       = "profile"   // where the processors' time goes
	Heap      = "heap"      // what memory is held, after a collection of garbage
	Allocs    = "allocs"    // what has been allocated since the process began
	Goroutine = "goroutine" // what every goroutine waits for
)

// Kinds are all of them.
func Kinds() []string { return []string{CPU, Heap, Allocs, Goroutine} }

// MaxTime is how long a profile of the processors' time may look, at most.
const MaxTime = 2 * time.Minute

// Take takes a profile of a kind, compressed as pprof reads it
// (github.com/google/pprof, proto/profile.proto). One of the processors' time looks
// for d, or until ctx ends; there can be one at a time. Errors: EINVAL for a kind
// that there is not and for a time beyond MaxTime, EBUSY.
func Take(ctx context.Context, kind string, d time.Duration) ([]byte, error) {
	var b bytes.Buffer
	switch kind {
	case CPU:
		if d <= 0 || d > MaxTime {
			return nil, fmt.Errorf("a profile of %v: %w", d, syscall.EINVAL)
		}
		if err := pprof.StartCPUProfile(&b); err != nil {
			return nil, fmt.Errorf("%w: %w", err, syscall.EBUSY)
		}
		timer := time.NewTimer(d)
		select {
		case <-timer.C:
		case <-ctx.Done():
		}
		timer.Stop()
		pprof.StopCPUProfile()
	case Heap, Allocs, Goroutine:
		if kind == Heap {
			runtime.GC()
		}
		if err := pprof.Lookup(kind).WriteTo(&b, 0); err != nil {
			return nil, err
		}
	default:
		return nil, fmt.Errorf("a profile of kind %.20q: %w", kind, syscall.EINVAL)
	}
	return b.Bytes(), nil
}
