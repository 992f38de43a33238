package sandbox

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// terminal is a pseudo-terminal with a shell with job control on it, which
// starts the front.
func terminal(t *testing.T, uid int, sc scenario, script string) (*run, *os.File) {
	t.Helper()
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	master := os.NewFile(uintptr(fd), "/dev/ptmx")
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	path := fmt.Sprintf("/dev/pts/%d", n)
	if err := os.Chown(path, uid, uid); err != nil {
		t.Fatal(err)
	}
	tty, err := os.OpenFile(path, os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer tty.Close()
	r := start(t, uid, sc, func(c *exec.Cmd) {
		c.Args = []string{"bash", "--norc", "--noprofile", "-i"}
		c.Env = append(c.Env, "FRONT="+c.Path, "PS1=> ", "HISTFILE=")
		c.Path = "/bin/bash"
		c.Stdin, c.Stdout, c.Stderr = tty, tty, tty
		c.SysProcAttr.Setsid, c.SysProcAttr.Setctty = true, true
	})
	done := make(chan struct{})
	go func() {
		defer close(done)
		if _, err := io.Copy(r.output, master); err != nil && !errors.Is(err, unix.EIO) && !errors.Is(err, os.ErrClosed) {
			t.Log(err)
		}
	}()
	t.Cleanup(func() { master.Close(); <-done })
	r.prints("> ")
	fmt.Fprintln(master, script)
	return r, master
}

// TestTerminal: Ctrl-C arrives exactly once, Ctrl-Z and fg work, a new window
// size is seen.
func TestTerminal(t *testing.T) {
	asBoth(t, func(t *testing.T, uid int) {
		r, keys := terminal(t, uid, scenario{}.prog(t, "count-signals"), `"$FRONT"`)
		r.prints("ready")
		fmt.Fprint(keys, "\x03")
		r.prints("SIGINT 1")
		if err := control(keys, func(fd int) error {
			return unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: 10, Col: 70})
		}); err != nil {
			t.Fatal(err)
		}
		r.prints("SIGWINCH 1")
		fmt.Fprint(keys, "\x1a")
		r.prints("Stopped")
		fmt.Fprintln(keys, `fg; echo "la""st $?"; exit`)
		front := r.await("front").N
		r.continued(keys, front)
		fmt.Fprint(keys, "\x03")
		r.prints("SIGINT 2")
		unix.Kill(front, unix.SIGTERM)
		r.prints("last 7")
		r.code()
		if got := r.output.String(); strings.Contains(got, "SIGINT 3") {
			t.Errorf("Ctrl-C came more than once: %q", got)
		}
		r.await("done")
	})
}

// continued waits until the shell has given the terminal back to the front's
// group, and nobody in the sandbox is stopped.
func (r *run) continued(terminal *os.File, front int) {
	r.t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		group := 0
		err := control(terminal, func(fd int) (err error) {
			group, err = unix.IoctlGetInt(fd, unix.TIOCGPGRP)
			return err
		})
		stopped := false
		for _, pid := range append(inNamespace(r.ns), front) {
			stat, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
			stopped = stopped || strings.Contains(string(stat), ") T ")
		}
		if own, _ := unix.Getpgid(front); err == nil && group == own && !stopped {
			return
		}
		if time.Now().After(end) {
			r.t.Fatalf("the job is not continued: %v", err)
		}
	}
}

// TestSelfStop: a command that stops itself is a stopped job of the shell.
func TestSelfStop(t *testing.T) {
	asBoth(t, func(t *testing.T, uid int) {
		r, keys := terminal(t, uid, scenario{}.prog(t, "stop"), `"$FRONT"; echo "co""de $?"`)
		r.prints("Stopped")
		r.prints("code 147") // 128 + SIGSTOP
		fmt.Fprintln(keys, `fg; echo "la""st $?"; exit`)
		r.prints("continued")
		r.prints("last 5")
		r.code()
		r.await("done")
	})
}

// TestStopWithoutTerminal: nobody would continue the front, so it goes on.
func TestStopWithoutTerminal(t *testing.T) {
	r := start(t, userUID, scenario{}.prog(t, "stop"), func(c *exec.Cmd) { c.SysProcAttr.Setsid = true })
	r.await("running")
	var pid int
	for end := time.Now().Add(patience); pid == 0 && time.Now().Before(end); time.Sleep(time.Millisecond) {
		for _, p := range inNamespace(r.ns) {
			stat, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p))
			if strings.Contains(string(stat), ") T ") {
				pid = p
			}
		}
	}
	if pid == 0 {
		t.Fatal("the command does not stop")
	}
	unix.Kill(pid, syscall.SIGCONT) // as a debugger does
	if got := r.code(); got != 5 {
		t.Errorf("exit code: got %d, want 5", got)
	}
	r.await("done")
}
