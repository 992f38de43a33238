package front

import (
	"net"
	"os"
	"runtime"

	"github.com/mirrord-go/mirrord/internal/failure"
	"github.com/mirrord-go/mirrord/internal/local/control"
	"github.com/mirrord-go/mirrord/internal/local/orphan"
	"github.com/mirrord-go/mirrord/internal/local/roster"
	"github.com/mirrord-go/mirrord/internal/local/sandbox"
)

// Door is the way into a session that is kept, as it has let in.
type Door struct {
	Conn       *net.UnixConn
	Inside     *os.File // what sandbox.Enter needs
	Own        bool     // the same
	Supervisor int      // its process id
}

// Join runs the command in a session that is kept; see Run. It owns what is in
// door.
func Join(o Options, door Door) (int, error) {
	// The parent-death signal of the command belongs to this thread.
	runtime.LockOSThread()
	f := newFront(o)
	defer f.beats.Stop()
	defer door.Inside.Close()
	f.supervisor = orphan.Find(door.Supervisor)
	defer f.supervisor.Close()
	f.joined = true
	process, initSocket, err := sandbox.Enter(door.Inside, door.Own)
	if err != nil {
		door.Conn.Close()
		return 0, failure.Wrap(err, "session-not-entered", "the session's sandbox cannot be entered",
			"join from where the session was started: not from another container, and not from inside of a session")
	}
	// A session that is just ending takes nothing; then attend hears of its end.
	_ = roster.Send(door.Conn, []byte{1}, initSocket)
	initSocket.Close()
	f.control = control.On(door.Conn)
	_ = f.control.Send(control.Message{Start: &control.Start{Argv: o.Argv, Env: o.Env, Dir: o.Dir}})
	return f.attend(process)
}
