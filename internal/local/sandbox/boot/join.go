package boot

import (
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/mirrord-go/mirrord/internal/local/ids"
	"github.com/mirrord-go/mirrord/internal/local/sandbox/handoff"
)

// An init that joins has entered the namespaces of a sandbox that is kept, and
// has nothing to prepare but what is its command's own.

// runJoin returns, with an exit code, only if the command could not be run.
func runJoin() int {
	if len(os.Args) != 2 {
		return handoff.CodeBroken
	}
	fd, err := strconv.Atoi(os.Args[1])
	if err != nil {
		return handoff.CodeBroken
	}
	unix.CloseOnExec(fd)
	conn, err := handoff.NewConn(os.NewFile(uintptr(fd), "supervisor"))
	if err != nil {
		return handoff.CodeBroken
	}
	s := &setup{conn: conn}
	return s.end(s.join())
}

func (s *setup) join() *handoff.Error {
	text, _ := os.ReadFile("/proc/self/uid_map")
	s.many = ids.Parse(string(text)).Many()
	m, err := s.conn.Receive()
	if err != nil || m.Kind != handoff.KindSpec {
		return failure(handoff.StepSpec, "", err)
	}
	if s.spec, err = handoff.DecodeSpec(m.Body); err != nil {
		return failure(handoff.StepSpec, "", err)
	}
	// A copy, with the same hostname: the processes of this command are known by
	// it. /proc/thread-self, since this thread alone has it.
	if err := unix.Unshare(unix.CLONE_NEWUTS); err != nil {
		return failure(handoff.StepJoin, "", err)
	}
	if err := s.sendPath(handoff.Space, "/proc/thread-self/ns/uts"); err != nil {
		return failure(handoff.StepJoin, "", err)
	}
	return s.command()
}
