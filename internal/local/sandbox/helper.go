package sandbox

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mirrord-go/mirrord/internal/local/sandbox/tree"
)

const (
	// helperBeat is how often the helper is asked for a sign of life: while it is
	// stopped it makes no sockets, and would not end the tree if this process
	// died.
	helperBeat = 2 * time.Second
	// answerTime is what the helper may take to answer, a matter of microseconds,
	// before anybody looks whether it is stopped.
	answerTime = time.Second
	// wakeTime is what it may take after that: the machine may be very busy.
	wakeTime = 10 * time.Second
)

// ErrHelperLost says that there is nobody in the sandbox any more who makes
// sockets there and guards the tree. A new helper cannot be started: nobody but
// the sandbox's own processes can enter it.
var ErrHelperLost = errors.New("the helper in the sandbox has ended")

// helper is the supervisor's end of it.
type helper struct {
	conn  *os.File // the Box's
	proc  *os.File // the same
	pid   int
	pidfd *os.File

	slot  chan struct{} // one request at a time
	woken chan struct{} // it was stopped, and continued; capacity 1
}

func newHelper(conn, proc *os.File, pid int) (*helper, error) {
	fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("hold the helper: %w", err)
	}
	return &helper{conn: conn, proc: proc, pid: pid, pidfd: os.NewFile(uintptr(fd), "helper"),
		slot: make(chan struct{}, 1), woken: make(chan struct{}, 1)}, nil
}

// Keep sees to it that the helper serves, until ctx ends (nil) or it is gone
// (ErrHelperLost). One that was stopped is continued, of which stopped is told.
// It is called once.
func (b *Box) Keep(ctx context.Context, stopped func()) error {
	h := b.helper
	ended := make(chan struct{})
	go func() { // waited for below
		defer close(ended)
		_ = waitReadable(h.pidfd)
	}()
	defer func() {
		_ = h.pidfd.SetReadDeadline(time.Unix(1, 0))
		<-ended
	}()
	beat := time.NewTicker(helperBeat)
	defer beat.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ended:
			if ctx.Err() != nil {
				return nil
			}
			return ErrHelperLost
		case <-h.woken:
			stopped()
		case <-beat.C:
			// No family: it answers with an errno. What else goes wrong shows as its
			// end.
			if f, err := h.request(0, 0); err == nil {
				f.Close()
			}
		}
	}
}

// request asks the helper for a socket.
func (h *helper) request(family, typ int) (*os.File, error) {
	h.slot <- struct{}{}
	defer func() { <-h.slot }()
	rc, err := h.conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	req := binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(nil, uint32(family)), uint32(typ))
	var result error
	err = rc.Write(func(fd uintptr) bool {
		result = unix.Send(int(fd), req, unix.MSG_NOSIGNAL)
		return !errors.Is(result, unix.EAGAIN)
	})
	if err = errors.Join(err, result); err != nil {
		return nil, fmt.Errorf("ask for a socket inside: %w", err)
	}
	_ = h.conn.SetReadDeadline(time.Now().Add(answerTime))
	f, err := h.answer(rc)
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		return f, err
	}
	h.wake()
	_ = h.conn.SetReadDeadline(time.Now().Add(wakeTime))
	if f, err = h.answer(rc); errors.Is(err, os.ErrDeadlineExceeded) {
		// A late answer would be taken for that of the next request.
		h.signal(unix.SIGKILL)
	}
	return f, err
}

// wake continues the helper if it is stopped: nobody has a reason to want that.
func (h *helper) wake() {
	stat, err := readAt(h.proc, strconv.Itoa(h.pid)+"/stat", 512)
	if err != nil || tree.State(stat) != 'T' {
		return
	}
	h.signal(unix.SIGCONT)
	select {
	case h.woken <- struct{}{}:
	default:
	}
}

// signal sends s; the helper may have ended.
func (h *helper) signal(s unix.Signal) {
	_ = control(h.pidfd, func(fd int) error { return unix.PidfdSendSignal(fd, s, nil, 0) })
}

// readAt reads up to size bytes of a file below a directory of /proc.
func readAt(dir *os.File, name string, size int) ([]byte, error) {
	var b []byte
	err := control(dir, func(at int) error {
		fd, err := unix.Openat(at, name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		b = make([]byte, size)
		n, err := unix.Read(fd, b)
		b = b[:max(n, 0)]
		return err
	})
	return b, err
}

func (h *helper) answer(rc syscall.RawConn) (*os.File, error) {
	answer, oob := make([]byte, 4), make([]byte, unix.CmsgSpace(4))
	var n, oobn int
	var result error
	err := rc.Read(func(fd uintptr) bool {
		n, oobn, _, _, result = unix.Recvmsg(int(fd), answer, oob, unix.MSG_CMSG_CLOEXEC)
		return !errors.Is(result, unix.EAGAIN)
	})
	if err = errors.Join(err, result); err != nil {
		return nil, fmt.Errorf("receive a socket from inside: %w", err)
	}
	if n == 0 {
		return nil, fmt.Errorf("receive a socket from inside: %w", ErrHelperLost)
	}
	if e := syscall.Errno(binary.BigEndian.Uint32(answer)); e != 0 {
		return nil, fmt.Errorf("make a socket inside: %w", e)
	}
	msgs, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil || len(msgs) != 1 {
		return nil, errors.New("receive a socket from inside: there is none")
	}
	fds, err := unix.ParseUnixRights(&msgs[0])
	if err != nil || len(fds) != 1 {
		return nil, errors.New("receive a socket from inside: there is none")
	}
	return os.NewFile(uintptr(fds[0]), "inside"), nil
}
