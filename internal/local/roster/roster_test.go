package roster

import (
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"

	"github.com/mirrord-go/mirrord/internal/leak"
)

func TestMain(m *testing.M) { os.Exit(leak.Main(m)) }

// TestMeeting: a session is found by its id and greets, files pass, and its end
// leaves nothing; also where paths are longer than an address may be.
func TestMeeting(t *testing.T) {
	dirs := []string{filepath.Join(t.TempDir(), strings.Repeat("long", 50), "kept"), "/nowhere"}
	h, err := Open(dirs, "")
	if err != nil {
		t.Fatal(err)
	}
	if got := IDs(dirs); !reflect.DeepEqual(got, []string{h.ID()}) {
		t.Errorf("IDs: got %q, want %q", got, h.ID())
	}
	done := make(chan error, 1)
	go func() {
		c, err := h.Accept()
		if err != nil {
			done <- err
			return
		}
		defer c.Close()
		null, err := os.Open("/dev/null")
		if err == nil {
			err = Greet(c, Greeting{Version: "1.2", Own: true}, null)
			null.Close()
		}
		var word [1]byte
		var f *os.File
		if err == nil {
			f, err = Receive(c, word[:])
		}
		if err == nil {
			_, err = io.Copy(c, f) // and not a byte of what follows the word is lost
			f.Close()
		}
		if err == nil {
			_, err = io.Copy(c, io.LimitReader(c, 4))
		}
		done <- err
	}()
	c, pid, err := Dial(dirs, h.ID())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if pid != os.Getpid() {
		t.Errorf("process: got %d, want %d", pid, os.Getpid())
	}
	g, door, err := Greeted(c)
	if err != nil || g != (Greeting{Version: "1.2", Own: true}) {
		t.Fatalf("greeting: got %+v, %v", g, err)
	}
	if fi, err := door.Stat(); err != nil || fi.Mode()&os.ModeCharDevice == 0 {
		t.Errorf("the file that came is %v, %v, want /dev/null", fi, err)
	}
	door.Close()
	name := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(name, []byte("content,"), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	err = Send(c, []byte{1}, f)
	f.Close()
	if err == nil {
		_, err = c.Write([]byte("more"))
	}
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(c); err != nil || string(got) != "content,more" {
		t.Errorf("got %q, %v, want what was sent", got, err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	if !h.There() {
		t.Error("the session cannot be found")
	}
	if err := h.Close(); err != nil {
		t.Error(err)
	}
	if left, _ := os.ReadDir(dirs[0]); len(left) > 0 || h.There() {
		t.Errorf("after the end there is %v", left)
	}
	if _, _, err := Dial(dirs, h.ID()); !errors.Is(err, ErrNone) {
		t.Errorf("got %v, want %v", err, ErrNone)
	}
}

// TestAnotherIsLeft: who closes does not remove a socket that is another's by now.
func TestAnotherIsLeft(t *testing.T) {
	dirs := []string{t.TempDir() + "/kept"}
	h, err := Open(dirs, "")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(h.path); err != nil {
		t.Fatal(err)
	}
	if h.There() {
		t.Error("a removed socket counts as there")
	}
	if err := os.WriteFile(h.path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	h.Close()
	if _, err := os.Stat(h.path); err != nil {
		t.Error(err)
	}
}

// TestStale: a socket that nobody answers at is removed.
func TestStale(t *testing.T) {
	dirs := []string{t.TempDir() + "/kept"}
	h, err := Open(dirs, "")
	if err != nil {
		t.Fatal(err)
	}
	h.l.Close() // as when it is killed
	if _, _, err := Dial(dirs, h.ID()); !errors.Is(err, ErrNone) {
		t.Errorf("got %v, want %v", err, ErrNone)
	}
	if got := IDs(dirs); len(got) > 0 {
		t.Errorf("left: %q", got)
	}
}

// TestSweepLeavesItsOwn: a session that sweeps does not come to its own door.
func TestSweepLeavesItsOwn(t *testing.T) {
	dirs := []string{filepath.Join(t.TempDir(), Running)}
	h, err := Open(dirs, "")
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	Sweep(dirs, h.ID())
	c, _, err := Dial(dirs, h.ID())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write([]byte{'x'}); err != nil {
		t.Fatal(err)
	}
	first, err := h.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	if n, err := first.Read(make([]byte, 1)); n != 1 {
		t.Errorf("somebody else came first: %v", err)
	}
}

func TestIDsThatAreNone(t *testing.T) {
	for _, id := range []string{"", ".", "..", "../x", "a/b", ".hidden"} {
		if _, _, err := Dial([]string{"/"}, id); !errors.Is(err, ErrNone) {
			t.Errorf("%q: got %v, want %v", id, err, ErrNone)
		}
	}
}

// TestDirectoryOfOthers: where others could put sockets, none is made.
func TestDirectoryOfOthers(t *testing.T) {
	dir := t.TempDir() + "/kept"
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := Open([]string{dir}, ""); err == nil || !strings.Contains(err.Error(), "0700") {
		t.Errorf("mode 0755: got %v, want it refused", err)
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() == 0 {
		if err := os.Chown(dir, 1000, 1000); err != nil {
			t.Fatal(err)
		}
		if _, err := Open([]string{dir}, ""); err == nil || !strings.Contains(err.Error(), "this user's alone") {
			t.Errorf("another's: got %v, want it refused", err)
		}
	}
	if _, err := Open(nil, ""); err == nil {
		t.Error("no directory: got no error")
	}
}

func TestDirs(t *testing.T) {
	own, home := t.TempDir(), t.TempDir()
	get := func(vars ...string) []string {
		return Dirs(func(name string) string {
			for _, v := range vars {
				if value, ok := strings.CutPrefix(v, name+"="); ok {
					return value
				}
			}
			return ""
		}, Kept)
	}
	for _, c := range []struct {
		vars        []string
		first, last string
	}{
		{[]string{"XDG_RUNTIME_DIR=" + own, "HOME=" + home}, own, home + "/.local/state"},
		{[]string{"XDG_RUNTIME_DIR=/nowhere", "HOME=" + home}, "", home + "/.local/state"},
		{[]string{"XDG_RUNTIME_DIR=relative", "XDG_STATE_HOME=/state", "HOME=" + home}, "", "/state"},
		{[]string{"XDG_STATE_HOME=relative", "HOME=" + home}, "", home + "/.local/state"},
	} {
		got := get(c.vars...)
		if len(got) == 0 || c.first != "" && got[0] != c.first+"/mirrord/kept" || got[len(got)-1] != c.last+"/mirrord/kept" {
			t.Errorf("%q: got %q, want %q first and %q last", c.vars, got, c.first, c.last)
		}
	}
}

// FuzzGreeted: whatever comes at the door is a greeting or an error.
func FuzzGreeted(f *testing.F) {
	f.Add([]byte("\x00\x02{}"))
	f.Add([]byte("\x00\x1d{\"version\":\"1.0\",\"own\":true}"))
	f.Add([]byte("\xff\xff{"))
	f.Fuzz(func(t *testing.T, b []byte) {
		fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		theirs := os.NewFile(uintptr(fds[1]), "theirs")
		mine := os.NewFile(uintptr(fds[0]), "ours")
		c, err := net.FileConn(mine)
		mine.Close()
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		go func() {
			defer theirs.Close()
			_, _ = theirs.Write(b)
		}()
		if _, door, err := Greeted(c.(*net.UnixConn)); err == nil {
			t.Errorf("got a greeting without a door (%v)", door)
		}
	})
}
