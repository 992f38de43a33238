package resume

import (
	"time"

	"golang.org/x/sys/unix"
)

// suspended is how long this machine has been suspended since it started:
// CLOCK_BOOTTIME counts that time, CLOCK_MONOTONIC does not
// (clock_gettime(2)). Go's timers run by the latter.
func suspended() time.Duration {
	var boot, mono unix.Timespec
	if unix.ClockGettime(unix.CLOCK_MONOTONIC, &mono) != nil || unix.ClockGettime(unix.CLOCK_BOOTTIME, &boot) != nil {
		return 0 // a kernel without BOOTTIME: heartbeats must do
	}
	return time.Duration(boot.Nano() - mono.Nano())
}
