// Package testnet gives tests connections and a network namespace of their own.
//
// Only tests import it. What it makes ends with the test that asked for it.
package testnet

import (
	"io"
	"net"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"testing"
)

// Pair is the two ends of a TCP connection on loopback.
func Pair(t testing.TB) (a, b *net.TCPConn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	c, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	s, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(); s.Close() })
	return c.(*net.TCPConn), s.(*net.TCPConn)
}

// Process starts a shell in new namespaces (CLONE_… flags) and gives its id
// once the script has run there. It needs root.
func Process(t testing.TB, flags uintptr, env []string, script string) (pid int) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("this test makes namespaces: run it as root")
	}
	cmd := exec.Command("sh", "-c", script+"; exec cat")
	cmd.Env = env
	// No parent-death signal: it belongs to the thread, and threads that have
	// entered another namespace end. The process ends with its stdin.
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: flags}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stdin.Close(); _ = cmd.Process.Kill(); _ = cmd.Wait() })
	// Only cat answers: the shell's last execve is over then.
	if _, err := io.WriteString(stdin, "ready\n"); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(out, make([]byte, len("ready\n"))); err != nil {
		t.Fatal(err)
	}
	return cmd.Process.Pid
}

// Addressed is a script for Process that gives a new network namespace the
// addresses 192.0.2.7 and 2001:db8::7 on its loopback (RFC 5737, RFC 3849). The
// kernel makes the routes of IPv6 a moment later.
const Addressed = "ip link set lo up; ip addr add 192.0.2.7/24 dev lo; ip -6 addr add 2001:db8::7/64 dev lo nodad; " +
	"for a in ::1 2001:db8::7; do until ip -6 route get $a 2>&1 | grep -q ^local; do :; done; done"

// Serve gives each connection of ln to handle, which owns it, until the test's
// end. It owns ln, and waits then for those who handle.
func Serve(t testing.TB, ln net.Listener, handle func(net.Conn)) {
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { handle(c) })
		}
	})
	t.Cleanup(func() { ln.Close(); wg.Wait() })
}

// Opened is what open makes of a process, until the test's end.
func Opened[T io.Closer](t testing.TB, open func(pid int) (T, error), pid int) T {
	t.Helper()
	opened, err := open(pid)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { opened.Close() })
	return opened
}
