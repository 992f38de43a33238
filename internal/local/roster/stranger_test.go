package roster

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// TestStranger: another user who gets at the socket, since its directories are
// open by mistake, is told nothing and let to nobody; the session's own user is.
func TestStranger(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("to be another user, this test must be root's")
	}
	for _, sort := range []string{Kept, Running} {
		dirs := []string{filepath.Join(t.TempDir(), sort)}
		h, err := Open(dirs, "")
		if err != nil {
			t.Fatal(err)
		}
		for p := h.path; p != os.TempDir() && p != "/"; p = filepath.Dir(p) {
			if err := os.Chmod(p, 0o777); err != nil {
				t.Fatal(err)
			}
		}
		met := make(chan struct{})
		go func() {
			defer close(met)
			for {
				c, err := h.Accept()
				if err != nil {
					return // closed
				}
				_, _ = c.Write([]byte("welcome"))
				c.Close()
			}
		}()
		for _, uid := range []int{1000, 65534} {
			if got, err := said(h.path, uid); err != nil || got != "" {
				t.Errorf("%s, user %d: got %q, %v, want nothing", sort, uid, got, err)
			}
		}
		if got, err := said(h.path, 0); err != nil || got != "welcome" {
			t.Errorf("%s, its own user: got %q, %v, want to be welcome", sort, got, err)
		}
		h.Close()
		<-met
	}
}

// said connects as a user and gives what is said.
func said(path string, uid int) (got string, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never given back: the thread ends with its user
		if _, _, e := unix.RawSyscall(unix.SYS_SETRESUID, uintptr(uid), uintptr(uid), uintptr(uid)); e != 0 {
			err = e
			return
		}
		var fd int
		if fd, err = unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err != nil {
			return
		}
		defer unix.Close(fd)
		if err = unix.Connect(fd, &unix.SockaddrUnix{Name: path}); err != nil {
			return
		}
		buf := make([]byte, 100)
		n, e := unix.Read(fd, buf)
		if err = e; err == unix.ECONNRESET {
			err = nil // told nothing
		}
		got = string(buf[:max(0, n)])
	}()
	<-done
	return got, err
}
