package control

import (
	"os"
	"syscall"
	"testing"
)

// FuzzReceive: whatever comes on the socket is a message or an error.
func FuzzReceive(f *testing.F) {
	f.Add([]byte(`{"start":{"argv":["x"],"env":["A=b"],"uid":1}}` + "\n" + `{"exited":{"code":3}}`))
	f.Add([]byte(`{"event":{"level":"info","facts":{"a":"b"}}}{"owned":[1,{}]}{"failed":{"code":"x"}}`))
	f.Add([]byte(`{"owned":` + "[[[[[[[["))
	f.Fuzz(func(t *testing.T, b []byte) {
		fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		theirs := os.NewFile(uintptr(fds[1]), "theirs")
		ours, err := Open(os.NewFile(uintptr(fds[0]), "ours"))
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			defer theirs.Close()
			_, _ = theirs.Write(b)
		}()
		for range 100 {
			if _, err := ours.Receive(); err != nil {
				break
			}
		}
		ours.Close()
	})
}
