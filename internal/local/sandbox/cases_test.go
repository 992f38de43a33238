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

// Listeners as programs make them otherwise than by bind and listen once.

// socketsProgram makes sockets as its arguments say, one after another, and
// waits for SIGTERM: "ADDRESS" listens there; "mptcp:", "v6only:" and "shared:"
// (SO_REUSEPORT) before it make it such a socket; "unbound" listens without
// bind; "bound" only binds, to any port; "close" closes the oldest; "fork"
// leaves all to a child and ends; "exec" goes on as another program; "retry"
// listens again with the last.
func socketsProgram(args []string) error {
	var fds []int
	for i := 3; i < 64; i++ { // what another program left us
		if v, err := unix.GetsockoptInt(i, unix.SOL_SOCKET, unix.SO_ACCEPTCONN); err == nil && v == 1 {
			fds = append(fds, i)
		}
	}
	for i, a := range args {
		var err error
		switch a {
		case "close":
			err = unix.Close(fds[0])
			fds = fds[1:]
		case "exec", "fork":
			rest := append([]string{os.Args[0]}, args[i+1:]...)
			if a == "exec" {
				return unix.Exec(os.Args[0], rest, os.Environ())
			}
			attr := &syscall.ProcAttr{Env: os.Environ(), Files: []uintptr{0, 1, 2}}
			for _, fd := range fds {
				attr.Files = append(attr.Files, uintptr(fd))
			}
			_, err = syscall.ForkExec(os.Args[0], rest, attr)
			fmt.Println("left to a child:", err)
			return err
		case "retry":
			err = unix.Listen(fds[len(fds)-1], 5)
		default:
			var fd int
			fd, err = makeSocket(a)
			fds = append(fds, fd)
		}
		fmt.Println(a+":", err)
	}
	wait()
	return nil
}

func makeSocket(a string) (int, error) {
	kind, rest, _ := strings.Cut(a, ":")
	addr, proto := a, unix.IPPROTO_TCP
	switch kind {
	case "mptcp":
		proto, addr = unix.IPPROTO_MPTCP, rest
	case "v6only", "shared":
		addr = rest
	case "unbound", "bound":
		addr = "0.0.0.0:0"
	}
	ap := netip.MustParseAddrPort(addr)
	family := unix.AF_INET
	if ap.Addr().Is6() {
		family = unix.AF_INET6
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM, proto) // stays open over exec
	if err == nil && kind == "v6only" {
		err = unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1)
	}
	if err == nil && kind == "shared" {
		err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
	}
	if err == nil && kind != "unbound" {
		err = unix.Bind(fd, sockaddr(ap))
	}
	if err == nil && kind != "bound" {
		err = unix.Listen(fd, 5)
	}
	return fd, err
}

// listens waits for the listeners that a test wants, in their order.
func (r *run) listens(want ...string) (all []Listener) {
	r.t.Helper()
	for _, w := range want {
		l := r.await("listen").L
		if got := l.Addr.String(); w != "" && got != w {
			r.t.Errorf("listener: got %s, want %s", got, w)
		}
		all = append(all, l)
	}
	return all
}

// none checks that a kind of event has not come (again).
func (r *run) none(name string) {
	r.t.Helper()
	for i, e := range r.seen {
		if e.Name == name && !r.used[i] {
			r.t.Errorf("unexpected: %+v", e)
		}
	}
}

// terminate ends a program that waits, and sees to it that every listener's
// end was told.
func (r *run) terminate(listeners ...Listener) {
	r.t.Helper()
	unix.Kill(r.cmd.Process.Pid, unix.SIGTERM)
	r.code()
	for _, l := range listeners {
		r.await("closed", withID(l.ID))
	}
	r.await("done")
	r.none("listen")
	r.none("closed")
}

func TestAnyPort(t *testing.T) {
	for _, c := range []struct {
		name string
		args []string
		want []bool
	}{
		{"bind to port 0", []string{"127.0.0.1:0"}, []bool{true}},
		{"bind to port 0, IPv6", []string{"[::]:0"}, []bool{true}},
		{"bind to port 0, MPTCP", []string{"mptcp:0.0.0.0:0"}, []bool{true}},
		{"listen without bind", []string{"unbound"}, []bool{true}},
		{"a number, while others are bound to any", []string{"bound", "0.0.0.0:8100", "bound", "0.0.0.0:0"}, []bool{false, true}},
		{"a number of the kernel's range", []string{"0.0.0.0:40000"}, []bool{false}},
		{"listen twice", []string{"0.0.0.0:0", "retry"}, []bool{true}},
	} {
		t.Run(c.name, func(t *testing.T) {
			asBoth(t, func(t *testing.T, uid int) {
				var how []adjust
				if strings.Contains(c.name, "MPTCP") {
					how = append(how, readOnlySysctl)
				}
				r := start(t, uid, scenario{}.prog(t, append([]string{"sockets"}, c.args...)...), how...)
				var all []Listener
				for _, want := range c.want {
					l := r.await("listen").L
					if l.AnyPort != want || l.Addr.Port() == 0 {
						t.Errorf("got %+v, want any port %v", l, want)
					}
					all = append(all, l)
				}
				r.prints(c.args[len(c.args)-1] + ": <nil>")
				r.terminate(all...)
			})
		})
	}
}

// TestAnyPortsAreBounded: what is remembered, however many clients bind.
func TestAnyPortsAreBounded(t *testing.T) {
	var a anyPorts
	for cookie := range uint64(3 * maxAnyPorts) {
		a.put(cookie)
	}
	if got := len(a.of); got != maxAnyPorts {
		t.Errorf("remembered: got %d, want %d", got, maxAnyPorts)
	}
	last := uint64(3*maxAnyPorts - 1)
	if !a.take(last) || a.take(last) || a.take(1<<40) {
		t.Error("the last one is remembered once, an unknown one not at all")
	}
}

func TestKindsOfListeners(t *testing.T) {
	for _, c := range []struct {
		name string
		args []string
		want []string
		ends int // of these, how many have ended before the program has
	}{
		{"IPv6 only beside IPv4", []string{"v6only:[::]:8101", "0.0.0.0:8101"}, []string{"[::]:8101", "0.0.0.0:8101"}, 0},
		{"IPv6 only", []string{"v6only:[::]:8101"}, []string{"[::]:8101"}, 0},
		{"::1 only", []string{"[::1]:8101"}, []string{"[::1]:8101"}, 0},
		{"two addresses of a port", []string{"127.0.0.1:8101", "10.1.2.3:8101", "close"}, []string{"127.0.0.1:8101", "10.1.2.3:8101"}, 1},
		{"an IPv4 address of an IPv6 socket", []string{"[::ffff:127.0.0.1]:8101"}, []string{"127.0.0.1:8101"}, 0},
		{"a group", []string{"shared:0.0.0.0:8101", "shared:0.0.0.0:8101", "shared:0.0.0.0:8101", "close"}, []string{"0.0.0.0:8101", "0.0.0.0:8101", "0.0.0.0:8101"}, 1},
		{"a privileged port", []string{"0.0.0.0:443"}, []string{"0.0.0.0:443"}, 0},
		{"the next one before the last has gone", []string{"shared:0.0.0.0:8101", "shared:0.0.0.0:8101", "close"}, []string{"0.0.0.0:8101", "0.0.0.0:8101"}, 1},
		{"close and listen at once", []string{"0.0.0.0:8101", "close", "0.0.0.0:8101", "close", "0.0.0.0:8101"}, []string{"0.0.0.0:8101", "0.0.0.0:8101", "0.0.0.0:8101"}, 2},
		{"inherited over exec", []string{"0.0.0.0:8101", "exec", "retry", "0.0.0.0:8102"}, []string{"0.0.0.0:8101", "0.0.0.0:8102"}, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			asBoth(t, func(t *testing.T, uid int) {
				r := start(t, uid, scenario{}.prog(t, append([]string{"sockets"}, c.args...)...))
				all := r.listens(c.want...)
				r.prints(c.args[len(c.args)-1] + ": <nil>")
				for _, l := range all[:c.ends] {
					r.await("closed", withID(l.ID))
				}
				r.none("closed")
				r.terminate(all[c.ends:]...)
			})
		})
	}
}

// TestListenerOutlivesItsMaker: a listener that a child has taken over goes on
// when the parent has ended, and ends with the child.
func TestListenerOutlivesItsMaker(t *testing.T) {
	asBoth(t, func(t *testing.T, uid int) {
		r := start(t, uid, scenario{}.prog(t, "sockets", "0.0.0.0:8103", "fork", "0.0.0.0:8104"))
		l := r.await("listen", onPort(8103)).L
		child := r.await("listen", onPort(8104)).L
		if got := r.code(); got != 0 {
			t.Errorf("exit code: got %d, want 0", got)
		}
		r.await("front-done")
		r.none("closed")
		if child.PID == l.PID {
			t.Errorf("process %d has two lives", l.PID)
		}
		unix.Kill(child.PID, unix.SIGTERM)
		for _, id := range []uint64{l.ID, child.ID} {
			r.await("closed", withID(id))
		}
		r.await("done")
	})
}

// TestForeignNetwork: what a program does in a network namespace of its own,
// as docker does, is none of our affair: neither its ports nor its calls.
func TestForeignNetwork(t *testing.T) {
	asBoth(t, func(t *testing.T, uid int) {
		sc := scenario{}.prog(t, "sockets", "0.0.0.0:8105", "0.0.0.0:80", "0.0.0.0:0")
		sc.Spec.Argv = append([]string{"unshare", "-Urn", "--"}, sc.Spec.Argv...)
		r := start(t, uid, sc)
		r.prints("0.0.0.0:0: <nil>")
		for _, text := range []string{"0.0.0.0:8105: <nil>", "0.0.0.0:80: <nil>"} {
			r.prints(text)
		}
		r.terminate()
	})
}

// TestReloader: the next process binds while the last one is dying, as a
// reloader does it that does not wait.
func TestReloader(t *testing.T) {
	sc := scenario{}.prog(t, "sockets", "shared:0.0.0.0:8106")
	sc.Spec.Argv = []string{"/bin/sh", "-c", `for i in 1 2 3; do "$@" & [ -z "$old" ] || kill $old; old=$!; read x; done; kill $old; wait`, "sh", sc.Spec.Argv[0], sc.Spec.Argv[1]}
	in, keys, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	defer keys.Close()
	r := start(t, userUID, sc, func(c *exec.Cmd) { c.Stdin = in })
	var last Listener
	for i := range 3 {
		l := r.await("listen").L
		if i > 0 {
			r.await("closed", withID(last.ID))
		}
		last = l
		fmt.Fprintln(keys, i)
	}
	r.await("closed", withID(last.ID))
	r.code()
	r.await("done")
	r.none("listen")
}
