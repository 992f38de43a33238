// Package rights takes descriptors that came over a unix socket (SCM_RIGHTS,
// unix(7)). It reads no socket: who has read one brings the control messages.
package rights

import (
	"os"

	"golang.org/x/sys/unix"
)

// Received gives the first descriptor of control messages, which the caller
// owns, and closes any others, or this process would keep what a peer sends in
// excess. nil: there is none.
func Received(oob []byte) (f *os.File) {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil
	}
	for _, m := range messages {
		fds, err := unix.ParseUnixRights(&m)
		if err != nil {
			continue
		}
		for _, fd := range fds {
			if f == nil {
				f = os.NewFile(uintptr(fd), "received")
			} else {
				unix.Close(fd)
			}
		}
	}
	return f
}
