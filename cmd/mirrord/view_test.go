package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// view is a mirrord on a terminal.
type view struct {
	t      *testing.T
	cmd    *exec.Cmd
	master *os.File
	read   chan struct{} // closed when all was read that was written

	mu     sync.Mutex
	screen []byte // all that was written
	more   chan struct{}
}

// openView starts it on a terminal of that size.
func openView(t *testing.T, home string, env []string, rows, columns uint16, args ...string) *view {
	t.Helper()
	return onTerminal(t, home, env, rows, columns, append([]string{"status", "--watch"}, args...)...)
}

// onTerminal starts mirrord on a terminal of that size.
func onTerminal(t *testing.T, home string, env []string, rows, columns uint16, args ...string) *view {
	t.Helper()
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	v := &view{t: t, master: os.NewFile(uintptr(fd), "/dev/ptmx"), read: make(chan struct{}), more: make(chan struct{}, 1)}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
	}
	if err == nil {
		err = unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: columns})
	}
	if err != nil {
		t.Fatal(err)
	}
	tty, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer tty.Close()
	v.cmd = mirrordCommand(home, args...)
	v.cmd.Env = append(v.cmd.Env, env...)
	v.cmd.Stdin, v.cmd.Stdout, v.cmd.Stderr = tty, tty, tty
	v.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := v.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(v.read)
		buf := make([]byte, 4096)
		for {
			n, err := v.master.Read(buf)
			if err != nil {
				if !errors.Is(err, unix.EIO) && !errors.Is(err, os.ErrClosed) && err != io.EOF {
					t.Log(err)
				}
				return
			}
			v.mu.Lock()
			v.screen = append(v.screen, buf[:n]...)
			v.mu.Unlock()
			select {
			case v.more <- struct{}{}:
			default:
			}
		}
	}()
	t.Cleanup(func() { _ = v.cmd.Process.Kill(); v.master.Close(); <-v.read })
	return v
}

// mirrordCommand is this very program as mirrord.
func mirrordCommand(home string, args ...string) *exec.Cmd {
	c := exec.Command("/proc/self/exe", args...)
	c.Args[0] = "mirrord-view"
	c.Env = append(os.Environ(), "HOME="+home, "XDG_RUNTIME_DIR="+home, "XDG_STATE_HOME="+filepath.Join(home, "state"), "KUBECONFIG=/nowhere", "GORACE=atexit_sleep_ms=0")
	return c
}

var controls = regexp.MustCompile(`\x1b\[[0-9;?]*[A-Za-z]`)

// shows waits until the screen, as it is now, has a text, or has it no more.
func (v *view) shows(text string, yes bool) string {
	v.t.Helper()
	limit := time.After(20 * time.Second)
	for {
		v.mu.Lock()
		all := v.screen
		if i := bytes.LastIndex(all, []byte("\x1b[H")); i >= 0 {
			all = all[i:]
		}
		now := controls.ReplaceAllString(string(all), "")
		v.mu.Unlock()
		// The last line is drawn last.
		if strings.Contains(now, text) == yes && (strings.Contains(now, "q quit") || strings.Contains(now, "filter: ") || strings.Contains(now, "Esc cancels")) {
			return now
		}
		select {
		case <-v.more:
		case <-limit:
			v.t.Fatalf("%q: want it shown: %v; the screen is\n%s", text, yes, now)
		}
	}
}

func (v *view) types(keys string) {
	v.t.Helper()
	if _, err := io.WriteString(v.master, keys); err != nil {
		v.t.Fatal(err)
	}
}

// wait waits for its end, and for the last of what it has written.
func (v *view) wait() error {
	v.t.Helper()
	err := v.cmd.Wait()
	select {
	case <-v.read:
	case <-time.After(20 * time.Second):
		v.t.Error("somebody has the terminal open still")
	}
	return err
}

// all is what the terminal has got.
func (v *view) all() string {
	v.mu.Lock()
	defer v.mu.Unlock()
	return string(v.screen)
}

// TestLiveView: on a terminal, what goes on in a session is seen, found with a
// filter, and the terminal given back as it was.
func TestLiveView(t *testing.T) {
	home := t.TempDir()
	target := exec.Command("sleep", "1000")
	if err := target.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = target.Process.Kill(); _ = target.Wait() })
	v := openView(t, home, []string{"NO_COLOR="}, 20, 120)
	v.shows("no session is running yet", true)

	session := mirrordCommand(home, "exec", "-q", "-t", fmt.Sprintf("process/%d", target.Process.Pid), "--", "sh", "-c",
		`while read -r name; do cat "/etc/$name" 2>/dev/null; done`)
	session.Dir = home
	words, err := session.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := session.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { words.Close(); _ = session.Wait() })
	v.shows(fmt.Sprintf("process/%d", target.Process.Pid), true)
	fmt.Fprintln(words, "hosts")
	v.shows("opened /etc/hosts (remote)", true)
	fmt.Fprintln(words, "no-such-\x1b]0;title\x07file")
	v.shows("missing /etc/no-such-\uFFFD]0;title\uFFFDfile", true)

	v.types("/what=missing")
	v.shows("filter: what=missing", true)
	v.types("\r")
	if got := v.shows("opened /etc/hosts", false); !strings.Contains(got, "missing /etc/no-such-") {
		t.Errorf("the filter leaves out what it means:\n%s", got)
	}
	v.types("\x1b[A") // an arrow means nothing
	v.types("p")
	v.shows("[paused]", true)
	v.types("p")
	v.shows("[filter: what=missing", true)
	v.shows("[paused]", false)
	v.types("\x1b")
	v.shows("opened /etc/hosts", true)
	v.types(" ")
	v.shows("[paused]", true)
	fmt.Fprintln(words, "resolv.conf")
	v.types(" ")
	v.shows("opened /etc/resolv.conf (remote)", true)

	if err := unix.IoctlSetWinsize(int(v.master.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 6, Col: 40}); err != nil {
		t.Fatal(err)
	}
	v.shows("…", true) // lines are cut now
	v.types("q")
	if err := v.wait(); err != nil {
		t.Errorf("q: %v", err)
	}
	all := v.all()
	for _, want := range []string{"\x1b[?1049h", "\x1b[2m", "\x1b[1m"} {
		if !strings.Contains(all, want) {
			t.Errorf("%q was not written", want)
		}
	}
	if !strings.HasSuffix(all, "\x1b[?7h\x1b[?25h\x1b[?1049l") {
		t.Errorf("the terminal is not given back: %q", all[max(0, len(all)-100):])
	}
	if strings.Contains(all, "\x1b]0;") {
		t.Error("a stranger's name steers the terminal")
	}
}

// TestLiveViewPlain: without colours, of one session, until its end.
func TestLiveViewPlain(t *testing.T) {
	home := t.TempDir()
	v := openView(t, home, []string{"NO_COLOR=1"}, 20, 120)
	v.shows("no session is running yet", true)
	v.types("\x03")
	if err := v.wait(); err != nil {
		t.Errorf("Ctrl-C: %v", err)
	}
	if m := regexp.MustCompile(`\x1b\[[0-9;]*m`).FindString(v.all()); m != "" {
		t.Errorf("with NO_COLOR there is %q", m)
	}
}
