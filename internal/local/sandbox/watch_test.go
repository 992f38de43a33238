package sandbox

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func onPort(port uint16) func(event) bool {
	return func(e event) bool { return e.L.Addr.Port() == port }
}

func withID(id uint64) func(event) bool {
	return func(e event) bool { return e.L.ID == id }
}

// TestListen: the hook runs while listen(2) waits, and learns the real address.
func TestListen(t *testing.T) {
	asBoth(t, func(t *testing.T, uid int) {
		for _, c := range []struct{ addr, want string }{
			{"127.0.0.1:8081", "127.0.0.1:8081"}, {"0.0.0.0:80", "0.0.0.0:80"}, {"10.1.2.3:8081", "10.1.2.3:8081"}, {"127.0.0.1:0", ""},
		} {
			t.Run(c.addr, func(t *testing.T) {
				r := start(t, uid, scenario{Hold: true}.prog(t, "listen-raw", c.addr, "time"))
				l := r.await("listen").L
				if c.want != "" && l.Addr.String() != c.want || l.Addr.Port() == 0 {
					t.Errorf("address: got %s, want %s", l.Addr, c.want)
				}
				if want := c.want == ""; l.AnyPort != want {
					t.Errorf("any port: got %v, want %v", l.AnyPort, want)
				}
				if l.Proto != unix.IPPROTO_TCP || l.ID == 0 {
					t.Errorf("got %+v, want a TCP listener with an ID", l)
				}
				if exe, _ := os.Readlink(fmt.Sprintf("/proc/%d/exe", l.PID)); exe != binaryPath(t) {
					t.Errorf("process %d runs %q, want the program", l.PID, exe)
				}
				if got := r.output.String(); got != "" {
					t.Errorf("listen returned before the hook: %q", got)
				}
				r.order(order{Do: "release"})
				r.prints("first: <nil>")
				r.prints("bound to " + l.Addr.String())
				r.await("closed", withID(l.ID)) // the program closed it, and lives
				unix.Kill(r.cmd.Process.Pid, unix.SIGTERM)
				r.code()
				r.await("done")
			})
		}
	})
}

// readOnlySysctl starts the front where /proc/sys cannot be written, as in
// containers: there is MPTCP in the sandbox, and no port below 1024.
func readOnlySysctl(c *exec.Cmd) {
	script := `mount --bind /proc/sys /proc/sys && mount -o remount,bind,ro /proc/sys && exec "$@"`
	c.Args = []string{"unshare", "-m", "sh", "-c", script, "sh"}
	if cred := c.SysProcAttr.Credential; cred != nil {
		c.Args = append(c.Args, "setpriv", fmt.Sprint("--reuid=", cred.Uid), fmt.Sprint("--regid=", cred.Gid), "--clear-groups", "--")
		c.SysProcAttr.Credential = nil
	}
	c.Args = append(c.Args, c.Path)
	c.Path = "/usr/bin/unshare"
}

// TestListenGo: servers in Go listen with MPTCP where they can; where /proc/sys
// cannot be written, as in containers, that is so in the sandbox too.
func TestListenGo(t *testing.T) {
	for _, c := range []struct {
		name, program, addr string
		how                 []adjust
		proto               int
	}{
		{"dual stack", "listen", ":8082", nil, unix.IPPROTO_TCP},
		{"IPv6 loopback", "listen6", "[::1]:8082", nil, unix.IPPROTO_TCP},
		{"MPTCP", "listen", ":8082", []adjust{readOnlySysctl}, unix.IPPROTO_MPTCP},
		{"port 80 without sysctl", "listen4", "127.0.0.1:80", []adjust{readOnlySysctl}, unix.IPPROTO_MPTCP},
	} {
		t.Run(c.name, func(t *testing.T) {
			asBoth(t, func(t *testing.T, uid int) {
				r := start(t, uid, scenario{}.prog(t, c.program, c.addr), c.how...)
				l := r.await("listen").L
				r.prints(fmt.Sprintf("protocol %d", c.proto))
				for _, src := range []string{"127.0.0.1:0", "127.0.0.9:0", "[::1]:0", "10.1.2.3:0", "[fd00:1::3]:0"} {
					src := netip.MustParseAddrPort(src)
					if c.program == "listen4" && src.Addr().Is6() || c.program == "listen6" && src.Addr() != netip.IPv6Loopback() ||
						strings.HasPrefix(c.addr, "127") && !src.Addr().IsLoopback() {
						continue
					}
					dst := src.Addr()
					if c.program == "listen4" {
						dst = netip.MustParseAddr("127.0.0.1")
					}
					r.order(order{Do: "dial", Src: src, Dst: netip.AddrPortFrom(dst, l.Addr.Port())})
					got := r.await("dialed")
					want := "peer " + strings.TrimSuffix(src.String(), "0")
					if !strings.HasPrefix(got.Text, want) {
						t.Errorf("from %s: got %q, want the start %q", src, got.Text, want)
					}
				}
				r.order(order{Do: "dial", Dst: netip.MustParseAddrPort("127.0.0.1:9")})
				if got := r.await("dialed"); got.Errno != unix.ECONNREFUSED {
					t.Errorf("nobody there: got %+v, want ECONNREFUSED", got)
				}
				unix.Kill(r.cmd.Process.Pid, unix.SIGTERM)
				if got := r.code(); got != 143 {
					t.Errorf("exit code: got %d, want 143", got)
				}
				r.await("closed", withID(l.ID))
				r.await("done")
			})
		})
	}
}

// TestListenAgain: the end of a listener is seen while its program
// goes on.
func TestListenAgain(t *testing.T) {
	r := start(t, userUID, scenario{}.prog(t, "listen-once", "127.0.0.1:8083"))
	first := r.await("listen").L.ID
	r.await("closed", withID(first))
	second := r.await("listen").L.ID
	r.await("closed", withID(second))
	if first == second {
		t.Errorf("two sockets have the ID %d", first)
	}
	if got := r.code(); got != 0 {
		t.Errorf("exit code: got %d, want 0", got)
	}
}

// TestListenRefused: the hook's errno is the call's, and the socket does not
// listen.
func TestListenRefused(t *testing.T) {
	asBoth(t, func(t *testing.T, uid int) {
		sc := scenario{Refuse: map[uint16]syscall.Errno{8084: unix.EADDRINUSE}}
		r := start(t, uid, sc.prog(t, "listen-raw", "127.0.0.1:8084", "retry"))
		r.prints("first: address already in use")
		r.prints("accepting 0")
		r.prints("closed")
		unix.Kill(r.cmd.Process.Pid, unix.SIGTERM)
		r.code()
		r.await("done")
		for _, e := range r.seen {
			if e.Name == "closed" {
				t.Errorf("the end of a refused listener was told: %+v", e)
			}
		}
		// Go's error, on an MPTCP or TCP socket.
		r = start(t, uid, sc.prog(t, "listen", ":8084"))
		if got := r.code(); got != int(unix.EADDRINUSE) {
			t.Errorf("exit code: got %d, want %d; output %s", got, unix.EADDRINUSE, r.output)
		}
	})
}

func TestListenTwiceAndReuseport(t *testing.T) {
	count := func(r *run) (n int) {
		for _, e := range r.seen {
			if e.Name == "listen" {
				n++
			}
		}
		return n
	}
	for what, want := range map[string]int{"twice": 1, "reuseport": 2} {
		t.Run(what, func(t *testing.T) {
			r := start(t, userUID, scenario{}.prog(t, "listen-raw", "127.0.0.1:8085", what))
			r.prints("second: <nil>")
			for range want {
				r.await("closed")
			}
			unix.Kill(r.cmd.Process.Pid, unix.SIGTERM)
			r.code()
			r.await("done")
			if got := count(r); got != want {
				t.Errorf("hook calls: got %d, want %d", got, want)
			}
		})
	}
}

// TestOthersDoNotWait: while one listen(2) is parked, another process binds and
// listens.
func TestOthersDoNotWait(t *testing.T) {
	sc := scenario{Hold: true}.prog(t, "listen-raw", "127.0.0.1:8086", "time")
	sc.Spec.Argv = append([]string{"/bin/sh", "-c", `"$@" & ` + programVar + `=udp "$1" 127.0.0.1:8087 & wait`, "sh"}, sc.Spec.Argv...)
	r := start(t, userUID, sc)
	r.await("listen", onPort(8086))
	r.prints("bound to 127.0.0.1:8087")
	if strings.Contains(r.output.String(), "first") {
		t.Errorf("listen returned before the hook: %q", r.output)
	}
	r.order(order{Do: "release"})
	r.prints("first: <nil>")
	r.order(order{Do: "end"})
	r.code()
	r.await("done")
}

// TestCallerKilledWhileParked: its hook is cancelled, nothing hangs.
func TestCallerKilledWhileParked(t *testing.T) {
	r := start(t, userUID, scenario{Hold: true}.prog(t, "listen-raw", "127.0.0.1:8086", "time"))
	pid := r.await("listen").L.PID
	unix.Kill(pid, unix.SIGKILL)
	r.await("cancelled")
	if got := r.code(); got != 137 {
		t.Errorf("exit code: got %d, want 137", got)
	}
	r.await("done")
}

func TestUDP(t *testing.T) {
	asBoth(t, func(t *testing.T, uid int) {
		sc := scenario{}.prog(t, "udp", "127.0.0.1:53")
		self := sc.Spec.Argv[0]
		sc.Spec.Argv = []string{"/bin/sh", "-c", fmt.Sprintf(`%s 127.0.0.1:53 & read x; %s=send %s 127.0.0.1:53 hello; kill $!`, self, programVar, self)}
		in, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer in.Close()
		defer w.Close()
		r := start(t, uid, sc, func(c *exec.Cmd) { c.Stdin = in })
		l := r.await("udp", onPort(53)).L
		r.prints("bound to")
		w.Write([]byte("\n"))
		r.prints(`answer "answer" from 127.0.0.1:53`)
		r.code()
		r.await("closed", withID(l.ID))
		r.await("done")
	})
}

func TestUDPRefused(t *testing.T) {
	sc := scenario{Refuse: map[uint16]syscall.Errno{5353: unix.EADDRINUSE}}
	r := start(t, userUID, sc.prog(t, "udp", "127.0.0.1:5353"))
	if got := r.code(); got != int(unix.EADDRINUSE) {
		t.Errorf("exit code: got %d, want %d; output %s", got, unix.EADDRINUSE, r.output)
	}
}

// TestRing: bind and listen inside an io_uring pass no filter.
func TestRing(t *testing.T) {
	asBoth(t, func(t *testing.T, uid int) {
		r := start(t, uid, scenario{}.prog(t, "uring"))
		l := r.await("listen", onPort(8087)).L
		r.prints("listening in a ring")
		unix.Kill(r.cmd.Process.Pid, unix.SIGTERM)
		r.code()
		r.await("closed", withID(l.ID))
		r.await("done")
	})
}

// TestPolling: without a filter listeners are found by looking, and so is the
// end of the tree.
func TestPolling(t *testing.T) {
	asBoth(t, func(t *testing.T, uid int) {
		sc := scenario{}.prog(t, "listen", ":8088")
		sc.Spec.Poll = true
		r := start(t, uid, sc)
		l := r.await("listen", onPort(8088)).L
		r.order(order{Do: "dial", Dst: netip.MustParseAddrPort("127.0.0.1:8088")})
		if got := r.await("dialed"); !strings.HasPrefix(got.Text, "peer 127.0.0.1:") {
			t.Errorf("got %+v, want a peer on loopback", got)
		}
		unix.Kill(r.cmd.Process.Pid, unix.SIGTERM)
		r.code()
		r.await("closed", withID(l.ID))
		r.await("done")
	})
}

// TestSandboxInSandbox: the kernel has one listener per tree of filters, so the
// inner supervisor looks for listeners, and the outer one is not confused by a
// listener of another network.
func TestSandboxInSandbox(t *testing.T) {
	asBoth(t, func(t *testing.T, uid int) {
		r := start(t, uid, scenario{}.prog(t, "nested", ":8091"))
		r.prints("inner filter: false")
		r.prints("inner listener [::]:8091")
		r.prints("inner code 137")
		if got := r.code(); got != 0 {
			t.Errorf("exit code: got %d, want 0", got)
		}
		r.await("done")
		for _, e := range r.seen {
			if e.Name == "listen" {
				t.Errorf("the outer sandbox took the inner listener for its own: %+v", e)
			}
		}
	})
}
