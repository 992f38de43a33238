package boot

import (
	"context"
	"encoding/binary"
	"errors"
	"os"
	"os/signal"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/mirrord-go/mirrord/internal/local/sandbox/handoff"
	"github.com/mirrord-go/mirrord/internal/local/sandbox/tree"
)

// The helper is a small process inside the sandbox's namespaces. It makes
// sockets there for the supervisor, which cannot enter them (setns(2) wants a
// single-threaded program), and when the supervisor is gone, however that
// came, it ends what is left of the tree and itself.
//
// The command must not notice it: it is a child of the front (CLONE_PARENT),
// since a command that waits for all its children must not find a stranger; it
// has a session of its own, so the terminal's signals pass it by; and it holds
// none of the caller's descriptors, or a pipe would never end.

// Descriptors of the helper.
const (
	helperSocket = 3 // to the supervisor
	helperProc   = 4 // /proc, opened before the FUSE root
	helperReady  = 5 // a pipe, on which it says that it serves
)

func (s *setup) startHelper() *handoff.Error {
	err := s.tryStartHelper()
	if err != nil {
		return failure(handoff.StepHelper, "", err)
	}
	return nil
}

func (s *setup) tryStartHelper() error {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(pair[1])
	ours := true
	defer func() {
		if ours {
			unix.Close(pair[0])
		}
	}()
	null, err := unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(null)
	proc, err := unix.Open("/proc", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(proc)
	var ready [2]int
	if err := unix.Pipe2(ready[:], unix.O_CLOEXEC); err != nil {
		return err
	}
	defer unix.Close(ready[1])
	s.helperReady = ready[0]
	n := uintptr(null)
	caps := []uintptr{unix.CAP_SYS_PTRACE, unix.CAP_KILL}
	if !s.own {
		caps = nil // root has what there is by execve
	}
	pid, _, err := syscall.StartProcess("/proc/self/exe", []string{handoff.HelperName, s.space()}, &syscall.ProcAttr{
		Dir: "/", Env: []string{"GOMAXPROCS=1"}, Files: []uintptr{n, n, n, uintptr(pair[1]), uintptr(proc), uintptr(ready[1])},
		Sys: &syscall.SysProcAttr{Setsid: true, Cloneflags: unix.CLONE_PARENT, AmbientCaps: caps},
	})
	if err != nil {
		return err
	}
	if err := unix.SetNonblock(pair[0], true); err != nil { // for the supervisor's poller
		return err
	}
	ours = false
	return s.send(handoff.Helper, pair[0], binary.BigEndian.AppendUint32(nil, uint32(pid))...)
}

// awaitHelper waits until the helper serves. Before that its program is still
// being loaded, from the root that the mounts are about to replace.
func (s *setup) awaitHelper() *handoff.Error {
	defer unix.Close(s.helperReady)
	var word [1]byte
	for {
		n, err := unix.Read(s.helperReady, word[:])
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err == nil && n == 0:
			err = unix.ESRCH // it has ended
		}
		if err != nil {
			return failure(handoff.StepHelper, "", err)
		}
		return nil
	}
}

// runHelper returns when the supervisor is gone and the tree is ended.
func runHelper() int {
	signal.Ignore(unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGTERM, unix.SIGTSTP, unix.SIGPIPE)
	unix.CloseOnExec(helperSocket)
	unix.CloseOnExec(helperProc)
	unix.CloseOnExec(helperReady)
	proc := os.NewFile(helperProc, "/proc")
	if len(os.Args) != 2 {
		return handoff.CodeBroken
	}
	own, err := openAt(proc, "self/ns/"+os.Args[1])
	if err != nil {
		return handoff.CodeBroken
	}
	all, err := tree.New(proc, own)
	own.Close()
	if err != nil {
		return handoff.CodeBroken
	}
	closeInherited(proc)
	if _, err := unix.Write(helperReady, []byte{1}); err != nil {
		return handoff.CodeBroken
	}
	unix.Close(helperReady)
	for serveSocket(helperSocket) {
	}
	if err := all.End(context.Background()); err != nil {
		return 1
	}
	return 0
}

// closeInherited closes what the front's caller left open: everything of ours
// is close-on-exec.
func closeInherited(proc *os.File) {
	dir, err := openAt(proc, "self/fd")
	if err != nil {
		return
	}
	defer dir.Close()
	names, _ := dir.Readdirnames(-1)
	for _, name := range names {
		fd, err := strconv.Atoi(name)
		if err != nil || fd <= helperProc {
			continue
		}
		if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err == nil && flags&unix.FD_CLOEXEC == 0 {
			unix.Close(fd)
		}
	}
}

func openAt(dir *os.File, name string) (*os.File, error) {
	fd, err := unix.Openat(int(dir.Fd()), name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}

// serveSocket answers one request: family and type, four bytes each. The answer
// is an errno of four bytes, with the socket if that is 0. It returns false
// when the supervisor is gone.
func serveSocket(conn int) bool {
	var req [8]byte
	n, err := unix.Read(conn, req[:])
	if errors.Is(err, unix.EINTR) {
		return true
	}
	if err != nil || n != len(req) {
		return false
	}
	family, typ := binary.BigEndian.Uint32(req[:]), binary.BigEndian.Uint32(req[4:])
	fd, err := unix.Socket(int(family), int(typ)|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	var errno unix.Errno
	var rights []byte
	if errors.As(err, &errno) {
		fd = -1
	} else {
		rights = unix.UnixRights(fd)
	}
	err = unix.Sendmsg(conn, binary.BigEndian.AppendUint32(nil, uint32(errno)), rights, nil, unix.MSG_NOSIGNAL)
	if fd >= 0 {
		unix.Close(fd)
	}
	return err == nil || errors.Is(err, unix.EINTR)
}
