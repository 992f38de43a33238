package session

import (
	"sync"

	"github.com/mirrord-go/mirrord/internal/debugger"
	"github.com/mirrord-go/mirrord/internal/local/kin"
)

// debuggers knows which ports of localhost are debuggers'. The zero value knows
// of none. Its methods may be called concurrently.
type debuggers struct {
	kinds []debugger.Kind // nil: all; set before the first call

	mu    sync.Mutex
	ports debugger.Ports
}

// command takes in what the command line of a command of the session's says;
// it holds for all processes, since debuggers of children use the same ports.
func (d *debuggers) command(argv, env []string) {
	found := d.find(argv, env)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.ports.Add(found)
}

func (d *debuggers) find(argv, env []string) debugger.Ports {
	kinds := d.kinds
	if kinds == nil {
		kinds = debugger.Kinds()
	}
	return debugger.Find(argv, env, kinds)
}

// waits gives the kind of debugger that waits on this machine's localhost for
// the program; "" if none does.
func (d *debuggers) waits(port uint16) string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return string(d.ports.DialsTo(port))
}

// listener gives the kind of debugger that a port is for on which a process
// listens; "" if it is none's. A debugger may be deep below the command
// (npm run debug), so the process's own command line counts as well.
func (d *debuggers) listener(pid int, port uint16) string {
	d.mu.Lock()
	kind := d.ports.ListensAt(port)
	d.mu.Unlock()
	if kind != "" || pid == 0 {
		return string(kind)
	}
	own := d.find(kin.CommandLine(pid))
	return string(own.ListensAt(port))
}
