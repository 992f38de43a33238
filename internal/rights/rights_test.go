package rights

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// send passes descriptors over a pair of sockets and gives the control messages
// that come.
func send(t *testing.T, fds ...int) []byte {
	t.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pair[0])
	defer unix.Close(pair[1])
	var oob []byte
	if len(fds) > 0 {
		oob = unix.UnixRights(fds...)
	}
	if err := unix.Sendmsg(pair[0], []byte("x"), oob, nil, 0); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, unix.CmsgSpace(4*8))
	_, n, _, _, err := unix.Recvmsg(pair[1], make([]byte, 1), got, unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	return got[:n]
}

func open(t *testing.T) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

func TestReceived(t *testing.T) {
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	fd := int(null.Fd())
	before := open(t)
	if f := Received(send(t)); f != nil {
		t.Errorf("of none: got %v", f.Name())
	}
	if f := Received([]byte("no control message")); f != nil {
		t.Errorf("of nonsense: got %v", f.Name())
	}
	f := Received(send(t, fd, fd, fd))
	if f == nil {
		t.Fatal("the first of three is lost")
	}
	var got, want unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &got); err != nil {
		t.Fatal(err)
	}
	if err := unix.Fstat(fd, &want); err != nil || got.Rdev != want.Rdev {
		t.Errorf("got device %d, want %d, %v", got.Rdev, want.Rdev, err)
	}
	f.Close()
	if after := open(t); after != before {
		t.Errorf("%d descriptors are left open", after-before)
	}
}
