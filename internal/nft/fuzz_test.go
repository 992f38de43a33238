package nft

import (
	"encoding/binary"
	"testing"

	"golang.org/x/sys/unix"
)

// FuzzAnswers: what is read as the kernel's answer is understood or refused.
func FuzzAnswers(f *testing.F) {
	answer := func(seq uint32, errno int32) []byte {
		b := binary.NativeEndian.AppendUint32(nil, unix.NLMSG_HDRLEN+4)
		b = binary.NativeEndian.AppendUint16(b, unix.NLMSG_ERROR)
		b = binary.NativeEndian.AppendUint16(b, 0)
		b = binary.NativeEndian.AppendUint32(b, seq)
		b = binary.NativeEndian.AppendUint32(b, 0)
		return binary.NativeEndian.AppendUint32(b, uint32(errno))
	}
	f.Add(answer(3, 0))
	f.Add(append(answer(2, -int32(unix.ENOENT)), answer(3, -int32(unix.EPERM))...))
	f.Add(answer(3, -1<<31)[:18])
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0})
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { unix.Close(fds[0]); unix.Close(fds[1]) })
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > 16<<10 || unix.Send(fds[1], b, 0) != nil {
			return
		}
		_ = answers(fds[0], 1, 3, []Change{{what: "one"}, {what: "two"}})
		for { // what was not read must not be the next one's
			if _, _, err := unix.Recvfrom(fds[0], make([]byte, 1), unix.MSG_DONTWAIT); err != nil {
				return
			}
		}
	})
}
