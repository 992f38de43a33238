package redirect

import (
	"time"

	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"
)

// This file is about an agent that is stopped, as by a signal or a frozen cgroup.
// Nobody accepts what is given to its listeners then, so the program gives it
// nothing that has not shown for a while that it runs: new connections are the
// target's. By nftables there is nothing that could tell.

const (
	// beatTime is how often the agent shows that it runs.
	beatTime = 500 * time.Millisecond
	// silentTime is how long the program believes it: a container that has used up
	// its share of the processor waits for tenths of a second.
	silentTime = 3 * time.Second
)

// beats shows that the agent runs, until Close.
func (r *Redirect) beats(beat func() error) {
	tick := time.NewTicker(beatTime)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-r.quit:
			return
		}
		r.beating.Lock()
		_ = beat() // the map is there until all of this has ended
		r.beating.Unlock()
	}
}

// beat tells the program what time it is.
func (l *lookup) beat() error {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		return err
	}
	return l.last.Put(uint32(0), uint64(now.Nano()))
}

// late is a part of the program: it goes on at the label if the last beat, whose
// key of the map is in R2, is too long ago by the clock of beat (bpf-helpers(7),
// bpf_ktime_get_ns). It changes R0 to R5, and R7.
func (l *lookup) late(label string) asm.Instructions {
	return asm.Instructions{
		asm.LoadMapPtr(asm.R1, l.last.FD()),
		asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, label),
		asm.LoadMem(asm.R7, asm.R0, 0, asm.DWord),
		asm.FnKtimeGetNs.Call(),
		asm.Sub.Reg(asm.R0, asm.R7),
		asm.LoadImm(asm.R1, silentTime.Nanoseconds(), asm.DWord),
		asm.JSGT.Reg(asm.R0, asm.R1, label),
	}
}
