package sandbox

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/mirrord-go/mirrord/internal/unixsock"
)

// remoteMark is in the names of sockets that the supervisor of these tests dials.
// Its far ends are: an errno's name, "hold" for one that never answers, "count"
// for one that reads and says nothing, else an echo of all that was said.
const remoteMark = "far-away"

var unixErrnos = map[string]syscall.Errno{"ENOENT": unix.ENOENT, "ECONNREFUSED": unix.ECONNREFUSED, "EACCES": unix.EACCES, "EPROTOTYPE": unix.EPROTOTYPE, "EAGAIN": unix.EAGAIN, "ETIMEDOUT": unix.ETIMEDOUT}

// unixRole is the supervisor's part.
func unixRole(r *reporter, sc scenario) *Unix {
	if !sc.Spec.Connects {
		return nil
	}
	return &Unix{
		Remote: func(name string) bool { return strings.Contains(name, remoteMark) },
		Dial: func(ctx context.Context, d UnixDial) (Far, error) {
			last := d.Name[strings.LastIndexByte(d.Name, '/')+1:]
			if e := unixErrnos[last]; e != 0 {
				return nil, fmt.Errorf("as asked: %w", e)
			}
			if last == "hold" {
				r.say(event{Name: "dialing", N: d.PID})
				<-ctx.Done()
				r.say(event{Name: "cancelled"})
				return nil, ctx.Err()
			}
			if last == "unknown" {
				return nil, errors.New("no errno")
			}
			return &farEnd{r: r, d: d}, nil
		},
		Missed: func(m Missed) { r.say(event{Name: "missed", N: int(m.Why), Text: m.Name}) },
	}
}

// farEnd answers for a server.
type farEnd struct {
	r *reporter
	d UnixDial
}

func (f *farEnd) Drop() { f.r.say(event{Name: "dropped"}) }

func (f *farEnd) Carry(ctx context.Context, near *unixsock.Conn) {
	defer near.Close()
	stop := context.AfterFunc(ctx, func() { near.Close() })
	defer stop()
	near.Dropped = func() { f.r.say(event{Name: "descriptors"}) }
	reply := fmt.Sprintf("%q wait=%v packet=%v: ", strings.Trim(f.d.Name, "\x00"), f.d.Wait, f.d.Packet)
	if f.d.Packet {
		n := 0
		for {
			err := near.Receive(func(p []byte) error { n++; return near.Send(fmt.Appendf(nil, "%s%d bytes", reply, len(p))) })
			if err != nil {
				f.r.say(event{Name: "carried", N: n})
				return
			}
		}
	}
	said, _ := io.ReadAll(near)
	f.r.say(event{Name: "carried", N: len(said)})
	if !strings.HasSuffix(f.d.Name, "/count") {
		_, _ = near.Write(append([]byte(reply), said...))
	}
}

// sunPath makes what a test writes the bytes of an address: @ for an abstract
// name; + at the end for NULs up to the end of sun_path; * for a path of its
// whole length.
func sunPath(text string) []byte {
	b := binary.NativeEndian.AppendUint16(nil, unix.AF_UNIX)
	path, padded := strings.CutSuffix(text, "+")
	path, whole := strings.CutSuffix(path, "*")
	b = append(b, path...)
	switch {
	case strings.HasPrefix(path, "@"):
		b[2] = 0
	case !padded && !whole:
		return append(b, 0)
	}
	for padded && len(b) < 2+unixsock.MaxName {
		b = append(b, 0)
	}
	for whole && len(b) < 2+unixsock.MaxName {
		b = append(b, 'x')
	}
	return b
}

// unixProgram connects by raw calls, as a static program does, to each of
// TYPE[n]:ADDRESS (s, q or d; n: not blocking) and prints what came of it.
func unixProgram(args []string) error {
	for _, arg := range args {
		kind, address, _ := strings.Cut(arg, ":")
		fmt.Println(arg, "->", unixOnce(kind, address))
	}
	return nil
}

func unixOnce(kind, address string) string {
	typ := map[byte]int{'s': unix.SOCK_STREAM, 'q': unix.SOCK_SEQPACKET, 'd': unix.SOCK_DGRAM}[kind[0]]
	fd, err := unix.Socket(unix.AF_UNIX, typ|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err.Error()
	}
	defer unix.Close(fd)
	unblock := strings.HasSuffix(kind, "n")
	if err := unix.SetNonblock(fd, unblock); err != nil {
		return err.Error()
	}
	name := sunPath(address)
	if err := rawConnect(fd, name); err != nil {
		return unix.ErrnoName(err.(syscall.Errno))
	}
	if again := rawConnect(fd, name); again != unix.EISCONN && typ != unix.SOCK_DGRAM {
		return fmt.Sprint("a second connect: ", again)
	}
	if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0); err != nil || flags&unix.O_NONBLOCK != 0 != unblock {
		return fmt.Sprintf("flags are %#x, %v", flags, err)
	}
	_ = unix.SetNonblock(fd, false)
	if _, err := unix.Write(fd, []byte("hello")); err != nil {
		return err.Error()
	}
	if strings.HasSuffix(address, "/count") {
		return "written"
	}
	if err := unix.Shutdown(fd, unix.SHUT_WR); err != nil {
		return err.Error()
	}
	var all []byte
	b := make([]byte, 1000)
	for {
		n, err := unix.Read(fd, b)
		if err != nil {
			return err.Error()
		}
		if n == 0 {
			return string(all)
		}
		all = append(all, b[:n]...)
	}
}

func rawConnect(fd int, address []byte) error {
	// A blocking call; the runtime starts another thread meanwhile.
	_, _, e := unix.Syscall(unix.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(&address[0])), uintptr(len(address)))
	if e != 0 {
		return e
	}
	return nil
}

// unixMany connects so many times at once.
func unixMany(times string) error {
	n, err := strconv.Atoi(times)
	if err != nil {
		return err
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	bad := map[string]int{}
	for i := range n {
		wg.Go(func() {
			name := fmt.Sprintf("/%s/%d", remoteMark, i)
			if got := unixOnce("s", name); !strings.Contains(got, fmt.Sprintf("%q", name)) || !strings.HasSuffix(got, ": hello") {
				mu.Lock()
				bad[got]++
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	fmt.Println(n, "done, wrong:", bad)
	return nil
}

// unixMix has both kinds in one process: what is the supervisor's, and what is
// not its affair.
func unixMix(dir string) error {
	ln, err := net.Listen("unix", dir+"/own")
	if err != nil {
		return err
	}
	defer ln.Close()
	fmt.Println("own:", unixOnceClosed(ln, dir+"/own"))
	abstract, err := net.Listen("unix", "@own")
	if err != nil {
		return err
	}
	defer abstract.Close()
	fmt.Println("abstract:", unixOnceClosed(abstract, "@own"))
	tcp, err := net.Listen("tcp", "127.0.0.1:8099")
	if err != nil {
		return err
	}
	defer tcp.Close()
	c, err := net.Dial("tcp", tcp.Addr().String())
	if err == nil {
		c.Close()
	}
	fmt.Println("tcp:", err)
	for _, name := range []string{dir + "/none", "@none"} {
		fmt.Println("nobody:", unixOnce("s", name))
	}
	pair, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		return err
	}
	defer unix.Close(pair)
	for text, address := range map[string][]byte{"no name": {1, 0}, "family 0": {0, 0, 0}, "too long": append(sunPath("/"+remoteMark+"*"), 0, 0), "inet": sunPathOfFamily(unix.AF_INET)} {
		fmt.Printf("%s: %v\n", text, rawConnect(pair, address))
	}
	_, _, e := unix.Syscall(unix.SYS_CONNECT, uintptr(pair), 8, 20)
	fmt.Println("no memory:", e)
	fmt.Println("no socket:", rawConnect(0, sunPath("/"+remoteMark+"/x")))
	fmt.Println("not open:", rawConnect(999, sunPath("/"+remoteMark+"/x")))
	return nil
}

func sunPathOfFamily(family uint16) []byte {
	b := sunPath("/" + remoteMark)
	binary.NativeEndian.PutUint16(b, family)
	return b
}

func unixOnceClosed(ln net.Listener, name string) string {
	go func() {
		if c, err := ln.Accept(); err == nil {
			b, _ := io.ReadAll(c)
			_, _ = c.Write(append([]byte("me: "), b...))
			c.Close()
		}
	}()
	return unixOnce("s", name)
}

// connects is a scenario whose supervisor sees connect(2).
func connects() (sc scenario) {
	sc.Spec.Connects = true
	return sc
}

// finish waits for the program's end and gives what it has printed, by lines.
func (r *run) finish() []string {
	r.t.Helper()
	if code := r.code(); code != 0 {
		r.t.Errorf("exit code %d", code)
	}
	<-r.printed
	r.await("done")
	return strings.Split(strings.TrimSpace(r.output.String()), "\n")
}

func TestConnectUnix(t *testing.T) {
	whole := "/" + remoteMark + "/" + strings.Repeat("x", unixsock.MaxName-2-len(remoteMark))
	wants := [][2]string{
		{"s:/far-away/a", `"/far-away/a" wait=true packet=false: hello`},
		{"sn:/far-away/a", `"/far-away/a" wait=false packet=false: hello`},
		{"q:/far-away/a", `"/far-away/a" wait=true packet=true: 5 bytes`},
		{"qn:/far-away/a", `"/far-away/a" wait=false packet=true: 5 bytes`},
		{"s:@far-away", `"far-away" wait=true packet=false: hello`},
		{"s:@far-away+", `"far-away" wait=true packet=false: hello`},
		{"s:/far-away/a+", `"/far-away/a" wait=true packet=false: hello`},
		{"s:/far-away/*", fmt.Sprintf(`%q wait=true packet=false: hello`, whole)},
		{"s:far-away/a", `"/tmp/far-away/a" wait=true packet=false: hello`},
		{"s:../far-away/./a", `"/far-away/a" wait=true packet=false: hello`},
		{"s:/far-away/ENOENT", "ENOENT"},
		{"sn:/far-away/ECONNREFUSED", "ECONNREFUSED"},
		{"s:/far-away/EACCES", "EACCES"},
		{"q:/far-away/EPROTOTYPE", "EPROTOTYPE"},
		{"sn:/far-away/EAGAIN", "EAGAIN"},
		{"s:/far-away/ETIMEDOUT", "ETIMEDOUT"},
		{"s:/far-away/unknown", "EIO"},
		{"d:/far-away/a", "ENOENT"}, // this machine's
		{"s:/near-by/a", "ENOENT"},
		{"s:@near-by", "ECONNREFUSED"},
	}
	asBoth(t, func(t *testing.T, uid int) {
		args := []string{"unix"}
		var want []string
		for _, w := range wants {
			args, want = append(args, w[0]), append(want, w[0]+" -> "+w[1])
		}
		sc := connects()
		sc.Spec.Dir = "/tmp"
		r := start(t, uid, sc.prog(t, args...))
		if got := r.finish(); !slices.Equal(got, want) {
			for i := range max(len(got), len(want)) {
				if i >= len(got) || i >= len(want) || got[i] != want[i] {
					t.Errorf("line %d: got %q, want %q", i, append(got, make([]string, i+1)...)[i], append(want, make([]string, i+1)...)[i])
				}
			}
		}
		if m := r.await("missed"); m.N != int(MissedDatagram) || m.Text != "/far-away/a" {
			t.Errorf("missed %+v, want the datagram", m)
		}
	})
}

// Others are not disturbed.
func TestConnectUnixLeavesOthers(t *testing.T) {
	asBoth(t, func(t *testing.T, uid int) {
		dir, err := os.MkdirTemp("", "sandbox-unix-")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.RemoveAll(dir) })
		if err := os.Chmod(dir, 0o777); err != nil {
			t.Fatal(err)
		}
		got := start(t, uid, connects().prog(t, "unix-mix", dir)).finish()
		slices.Sort(got)
		want := []string{"abstract: me: hello", "family 0: invalid argument", "inet: invalid argument", "no memory: bad address", "no name: invalid argument", "no socket: socket operation on non-socket",
			"nobody: ECONNREFUSED", "nobody: ENOENT", "not open: bad file descriptor", "own: me: hello", "tcp: <nil>", "too long: invalid argument"}
		if !slices.Equal(got, want) {
			t.Errorf("got  %q\nwant %q", got, want)
		}
	})
}

func TestConnectUnixManyAtOnce(t *testing.T) {
	asBoth(t, func(t *testing.T, uid int) {
		if got := start(t, uid, connects().prog(t, "unix-many", "200")).finish(); !slices.Equal(got, []string{"200 done, wrong: map[]"}) {
			t.Errorf("got %q", got)
		}
	})
}

// A program that is killed while it waits leaves nothing, and holds up nobody.
func TestConnectUnixKilled(t *testing.T) {
	asBoth(t, func(t *testing.T, uid int) {
		exe := binaryPath(t)
		sc := connects()
		sc.Spec.Env = append(sc.Spec.Env, programVar+"=unix")
		r := start(t, uid, sc.sh(exe+" s:/far-away/hold & wait $!; echo killed: $?; exec "+exe+" s:/far-away/a"))
		e := r.await("dialing")
		if err := unix.Kill(e.N, unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
		r.await("cancelled")
		if got := r.finish(); !slices.Contains(got, "killed: 137") || !strings.Contains(got[len(got)-1], "hello") {
			t.Errorf("got %q", got)
		}
	})
}

// Ordinary signals, of which Go programs send themselves many, do not end the
// call; the end of the process does (Linux 5.19).
func TestConnectUnixUnderSignals(t *testing.T) {
	asBoth(t, func(t *testing.T, uid int) {
		r := start(t, uid, connects().prog(t, "unix", "s:/far-away/hold"))
		e := r.await("dialing")
		for range 5 {
			if err := unix.Kill(e.N, unix.SIGURG); err != nil {
				t.Fatal(err)
			}
		}
		if err := unix.Kill(e.N, unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
		r.await("cancelled")
		r.code()
		r.await("done")
		if n := countOf(r.seen, "dialing"); n != 1 {
			t.Errorf("dialed %d times, want once", n)
		}
	})
}

func countOf(all []event, name string) (n int) {
	for _, e := range all {
		if e.Name == name {
			n++
		}
	}
	return n
}

// What a program writes before its end arrives.
func TestConnectUnixLastWords(t *testing.T) {
	asBoth(t, func(t *testing.T, uid int) {
		r := start(t, uid, connects().prog(t, "unix", "s:/far-away/count"))
		r.finish()
		if e := r.await("carried"); e.N != len("hello") {
			t.Errorf("%d bytes arrived, want %d", e.N, len("hello"))
		}
	})
}

// A ring is told of: what it connects nobody sees.
func TestConnectUnixByRing(t *testing.T) {
	r := start(t, userUID, connects().prog(t, "uring"))
	if m := r.await("missed"); m.N != int(MissedRing) {
		t.Errorf("missed %+v, want the ring", m)
	}
	r.await("listen")
	unix.Kill(r.cmd.Process.Pid, unix.SIGTERM)
	r.code()
	r.await("done")
}

// A container that the command has started has files of its own.
func TestConnectUnixInAnotherView(t *testing.T) {
	for name, command := range map[string]string{"mounts": "unshare -Urm", "network": "unshare -Urn"} {
		t.Run(name, func(t *testing.T) {
			sc := connects()
			sc.Spec.Env = append(sc.Spec.Env, programVar+"=unix")
			got := start(t, userUID, sc.sh(command+" "+binaryPath(t)+" s:/far-away/a")).finish()
			if !slices.Equal(got, []string{"s:/far-away/a -> ENOENT"}) {
				t.Errorf("got %q", got)
			}
		})
	}
}

// Where nobody sees calls, all sockets are this machine's.
func TestConnectUnixWithoutNotification(t *testing.T) {
	for _, uid := range []int{0, userUID} {
		r := start(t, uid, connects().prog(t, "unix", "s:/far-away/a"), func(c *exec.Cmd) { c.Env = append(c.Env, denyVar+"=notification") })
		if got := r.finish(); !slices.Equal(got, []string{"s:/far-away/a -> ENOENT"}) {
			t.Errorf("got %q", got)
		}
	}
}

// Programs in other languages.
func TestConnectUnixLanguages(t *testing.T) {
	const python = `
import array, asyncio, os, socket
s = socket.socket(socket.AF_UNIX)
s.settimeout(10)
s.connect("/far-away/python")
s.sendmsg([b"sent"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0]))])
s.shutdown(socket.SHUT_WR)
print("blocking:", s.makefile().read())
async def main():
    r, w = await asyncio.open_unix_connection("/far-away/asyncio")
    w.write(b"sent")
    w.write_eof()
    print("asyncio:", (await r.read()).decode())
    assert w.get_extra_info("peername").endswith("/unix"), w.get_extra_info("peername")
    w.close()
asyncio.run(main())`
	t.Run("python", func(t *testing.T) {
		if _, err := os.Stat("/usr/bin/python3"); err != nil {
			t.Fatal(err)
		}
		sc := connects()
		sc.Spec.Argv = []string{"/usr/bin/python3", "-c", python}
		r := start(t, userUID, sc)
		want := []string{`blocking: "/far-away/python" wait=false packet=false: sent`, `asyncio: "/far-away/asyncio" wait=false packet=false: sent`}
		if got := r.finish(); !slices.Equal(got, want) {
			t.Errorf("got  %q\nwant %q", got, want)
		}
		r.await("descriptors")
	})
	t.Run("static C", func(t *testing.T) {
		const source = `
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
int main(void) {
	struct sockaddr_un a = {AF_UNIX, "/far-away/c"};
	struct epoll_event e = {EPOLLIN | EPOLLRDHUP};
	char b[200];
	int s = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0), p = epoll_create1(0), n;
	if (epoll_ctl(p, EPOLL_CTL_ADD, s, &e)) return 1; /* before there is a connection */
	if (connect(s, (void *)&a, sizeof a)) { perror("connect"); return 1; }
	if (write(s, "sent", 4) != 4 || shutdown(s, SHUT_WR)) return 1;
	do n = epoll_wait(p, &e, 1, 10000); while (n == 1 && !(e.events & EPOLLIN));
	if ((n = read(s, b, sizeof b)) < 0) { perror("read"); return 1; }
	printf("%.*s\n", n, b);
	return 0;
}`
		gcc, err := exec.LookPath("gcc")
		if err != nil {
			t.Fatal(err)
		}
		program := filepath.Join(filepath.Dir(binaryPath(t)), "static-c")
		cc := exec.Command(gcc, "-static", "-x", "c", "-o", program, "-")
		cc.Stdin = strings.NewReader(source)
		if out, err := cc.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		sc := connects()
		sc.Spec.Argv = []string{program}
		if got, want := start(t, userUID, sc).finish(), []string{`"/far-away/c" wait=false packet=false: sent`}; !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	})
}

// Nobody reaches the listener by a name, and nothing of it is left.
func TestMeeting(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	t.Setenv("XDG_RUNTIME_DIR", "")
	for _, dir := range []string{os.Getenv("TMPDIR"), "/proc/self/fd", filepath.Join(os.Getenv("TMPDIR"), strings.Repeat("d", 120))} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		t.Setenv("TMPDIR", dir) // where there is no place, another is taken
		var m meetings
		defer m.close()
		fds, begin := countFDs(), time.Now()
		for _, typ := range []int{unix.SOCK_STREAM, unix.SOCK_SEQPACKET, unix.SOCK_STREAM} {
			fd, err := unix.Socket(unix.AF_UNIX, typ|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				t.Fatal(err)
			}
			near, err := m.connect(fd, typ)
			if err != nil {
				t.Fatal(err)
			}
			if typ == unix.SOCK_STREAM {
				_, err = near.Write([]byte("x"))
			} else {
				err = near.Send([]byte("x"))
			}
			b := make([]byte, 2)
			if n, rerr := unix.Read(fd, b); err != nil || rerr != nil || !bytes.Equal(b[:n], []byte("x")) {
				t.Errorf("got %q, %v, %v", b[:n], err, rerr)
			}
			if err := rawConnect(fd, sunPath("/x")); err == nil {
				t.Error("connected twice")
			}
			unix.Close(fd)
			near.Close()
		}
		if left, err := filepath.Glob(dir + "/mirrord-*"); err != nil || len(left) > 0 {
			t.Errorf("left in the directory: %v, %v", left, err)
		}
		m.close()
		if got := settled(countFDs, fds); got > fds {
			t.Errorf("%d descriptors more after %v", got-fds, time.Since(begin))
		}
	}
}

func TestUnixName(t *testing.T) {
	for _, c := range []struct {
		addr string
		name string
		ok   bool
	}{
		{"", "", false}, {"\x01", "", false}, {"\x01\x00", "", false}, {"\x02\x00/x", "", false},
		{"\x01\x00/x", "/x", true}, {"\x01\x00/x\x00", "/x", true}, {"\x01\x00/x\x00y", "/x", true},
		{"\x01\x00\x00", "\x00", true}, {"\x01\x00\x00x", "\x00x", true}, {"\x01\x00\x00x\x00y\x00", "\x00x\x00y\x00", true},
		{"\x01\x00" + strings.Repeat("x", 108), strings.Repeat("x", 108), true}, {"\x01\x00" + strings.Repeat("x", 109), "", false},
	} {
		if name, ok := unixName([]byte(c.addr)); name != c.name || ok != c.ok {
			t.Errorf("%q: got %q, %v, want %q, %v", c.addr, name, ok, c.name, c.ok)
		}
	}
}

func FuzzUnixName(f *testing.F) {
	f.Add([]byte("\x01\x00/x\x00"))
	f.Add([]byte("\x01\x00\x00x"))
	f.Fuzz(func(t *testing.T, addr []byte) {
		if name, ok := unixName(addr); ok && (name == "" || len(name) > unixsock.MaxName || name[0] != 0 && strings.ContainsRune(name, 0)) {
			t.Errorf("%q is %q", addr, name)
		}
	})
}
