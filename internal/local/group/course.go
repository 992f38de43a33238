package group

import (
	"fmt"
	"syscall"
)

// course is how a group ends. Nothing of it waits.
//
//	all run ── one ends, or the user wants it ──> ending ── again, or late ──> killed
type course struct {
	running int
	code    int // decided with ending
	ending  bool
	asked   bool // by the user
	hinted  bool // a terminal told all, it seems
	killed  bool
}

// action is what is to be done. The zero value is nothing.
type action struct {
	signal syscall.Signal // for all that run; 0: none
	ending bool           // it begins: the time runs
	say    string
}

// ended is that of a member.
func (c *course) ended(name string, code int) action {
	c.running--
	if c.ending {
		return action{}
	}
	c.ending, c.code = true, code
	say := fmt.Sprintf("%s has ended with code %d", name, code)
	if code > 128 && code <= 128+64 {
		say = fmt.Sprintf("%s was ended by signal %d (%v)", name, code-128, syscall.Signal(code-128))
	}
	if c.running == 0 {
		return action{say: say}
	}
	return action{signal: syscall.SIGTERM, ending: true, say: say + "; the others are told to end"}
}

// told is a signal for this process. terminal says that Ctrl-C and Ctrl-\ come
// from a terminal, which has told all.
func (c *course) told(s syscall.Signal, terminal bool) action {
	terminal = terminal && (s == syscall.SIGINT || s == syscall.SIGQUIT)
	switch {
	case !c.asked:
		c.asked = true
		c.code = 128 + int(s) // also when a member was faster than its parent
		if c.ending {
			return action{}
		}
		c.ending, c.hinted = true, terminal
		does := action{ending: true, say: "all are told to end; Ctrl-C again kills them"}
		if !terminal {
			does.signal = s
		}
		return does
	case s == syscall.SIGHUP, c.killed: // a terminal that closes says several things at once
		return action{}
	}
	return c.kill("killed")
}

// hint is the time for those that have not heard the terminal.
func (c *course) hint() action {
	if !c.hinted || c.killed {
		return action{}
	}
	return action{signal: syscall.SIGTERM}
}

// late is the end of the time that all have.
func (c *course) late() action {
	if c.killed {
		return action{}
	}
	return c.kill(fmt.Sprintf("not all have ended within %v; the rest is killed", graceTime))
}

func (c *course) kill(say string) action {
	c.killed = true
	return action{signal: syscall.SIGKILL, say: say}
}
