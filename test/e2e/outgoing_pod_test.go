package e2e

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mirrord-go/mirrord/internal/testnet"
)

// handmade is a pod without a cluster: a process of the user's in namespaces of its
// own, and a network namespace that is the rest of its world. What a program
// does in a session can be compared with what it does in the pod itself.
type handmade struct {
	t testing.TB
	families
	pid, world int // processes in the pod and in the world
	dir        string
}

// Addresses of the handmade pod and of its world; nobody has a route to
// nowhere.
const (
	handPod, handPod6         = "10.77.0.2", "fd00:77::2"
	handWorld, handWorld6     = "10.77.0.1", "fd00:77::1"
	handOther, handOther6     = "10.77.0.3", "fd00:77::3"
	handNames                 = "10.77.0.53"                // the name server
	handNobody, handNobody6   = "10.77.0.66", "fd00:77::66" // on the link, where nobody has it
	handNowhere, handNowhere6 = "192.0.2.9", "2001:db8::9"
)

// families of a handmade pod.
type families struct{ four, six bool }

// handmadePod makes one. It has a resolv.conf and a hosts file of its own.
func handmadePod(t testing.TB, f families) *handmade {
	t.Helper()
	p := &handmade{t: t, families: f, dir: t.TempDir()}
	for dir := p.dir; dir != "/tmp" && dir != "/"; dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range map[string]string{
		"resolv.conf": "search shop.svc.cluster.local svc.cluster.local cluster.local\nnameserver " + handNames + "\noptions ndots:5\n",
		"hosts":       "127.0.0.1 localhost\n::1 localhost\n" + handPod + " hand\n10.77.0.99 alias.of.the.pod alias\n",
		"hostname":    "hand\n",
	} {
		if err := os.WriteFile(filepath.Join(p.dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	p.world = testnet.Process(t, syscall.CLONE_NEWNET, os.Environ(), "ip link set lo up")
	p.pid = p.inhabit()
	lines := []string{"link add eth0 netns " + strconv.Itoa(p.world) + " type veth peer name eth0 netns " + strconv.Itoa(p.pid)}
	p.ip(0, lines...)
	for pid, addrs := range map[int][]string{p.world: {handWorld, handOther, handNames, handWorld6, handOther6}, p.pid: {handPod, handPod6}} {
		for _, a := range addrs {
			bits := "/24"
			if strings.Contains(a, ":") {
				bits = "/64 nodad"
			}
			if p.has(a) {
				p.ip(pid, "addr add "+a+bits+" dev eth0")
			}
		}
		// No link-local address: a sandbox has none.
		p.ip(pid, "link set lo up", "link set eth0 addrgenmode none", "link set eth0 up")
	}
	if f.four {
		p.ip(p.pid, "route add default via "+handWorld)
	}
	if f.six {
		p.ip(p.pid, "route add default via "+handWorld6)
	}
	// The world is a router that knows no other networks, and says so each time.
	p.sysctl(p.world, "net/ipv4/ip_forward", "1")
	p.sysctl(p.world, "net/ipv6/conf/all/forwarding", "1")
	p.sysctl(p.world, "net/ipv4/icmp_ratelimit", "0")
	p.sysctl(p.world, "net/ipv6/icmp/ratelimit", "0")
	return p
}

// inhabit starts the pod's process: namespaces that are the user's.
func (p *handmade) inhabit() int {
	p.t.Helper()
	script := fmt.Sprintf(`set -e; hostname hand; mount --make-rprivate /; for f in resolv.conf hosts hostname; do mount --bind %s/$f /etc/$f; done; exec cat`, p.dir)
	cmd := exec.Command("setpriv", "--reuid", strconv.Itoa(user), "--regid", strconv.Itoa(user), "--clear-groups", "--",
		"unshare", "--user", "--map-root-user", "--net", "--mount", "--uts", "sh", "-c", script)
	cmd.Env = append(environment(), "FROM=pod", "HTTP_PROXY=http://proxy.of.the.pod:3128")
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		p.t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { stdin.Close(); _ = cmd.Process.Kill(); _ = cmd.Wait() })
	if _, err := io.WriteString(stdin, "ready\n"); err != nil {
		p.t.Fatal(err)
	}
	if _, err := io.ReadFull(stdout, make([]byte, len("ready\n"))); err != nil {
		p.t.Fatal(err)
	}
	return cmd.Process.Pid
}

// ip runs lines of ip(8) in the network of a process; 0: this one's.
func (p *handmade) ip(pid int, lines ...string) {
	p.t.Helper()
	for _, line := range lines {
		argv := append([]string{"ip"}, strings.Fields(line)...)
		if pid != 0 {
			argv = append([]string{"nsenter", "-t", strconv.Itoa(pid), "--net"}, argv...)
		}
		if out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput(); err != nil {
			p.t.Fatalf("ip %s: %v: %s", line, err, out)
		}
	}
}

// has tells whether the pod's world has an address of its families.
func (p *handmade) has(addr string) bool {
	if strings.Contains(addr, ":") {
		return p.six
	}
	return p.four
}

// resolv gives the pod another resolv.conf.
func (p *handmade) resolv(text string) {
	p.t.Helper()
	// Written in place: the file is a mount there.
	if err := os.WriteFile(filepath.Join(p.dir, "resolv.conf"), []byte(text), 0o644); err != nil {
		p.t.Fatal(err)
	}
}

// same runs a program in a session and in the pod and wants the same lines,
// but for those of cases whose difference is given.
func (p *handmade) same(t *testing.T, differences map[string]string, argv ...string) {
	t.Helper()
	want, got := strings.Split(p.here(t, argv...), "\n"), strings.Split(in(t, p.target(), argv...), "\n")
	if len(got) != len(want) {
		t.Errorf("got %d lines, want %d:\n%s", len(got), len(want), strings.Join(got, "\n"))
	}
	for i := range min(len(got), len(want)) {
		name, _, _ := strings.Cut(want[i], ": ")
		if other, ok := differences[name]; ok {
			want[i] = name + ": " + other
		}
		if got[i] != want[i] {
			t.Errorf("got  %s\nwant %s", got[i], want[i])
		}
	}
	if t.Failed() || testing.Verbose() {
		t.Logf("%v in the pod:\n%s", argv, strings.Join(want, "\n"))
	}
}

// sysctl sets one of the network of a process.
func (p *handmade) sysctl(pid int, name, value string) {
	p.t.Helper()
	if out, err := exec.Command("nsenter", "-t", strconv.Itoa(pid), "--net", "sh", "-c", "echo '"+value+"' >/proc/sys/"+name).CombinedOutput(); err != nil {
		p.t.Fatalf("%s=%s: %v: %s", name, value, err, out)
	}
}

// target is the pod as a session's target.
func (p *handmade) target() string { return fmt.Sprintf("process/%d", p.pid) }

// inhabitant is an ordinary user in the pod: namespaces are their owner's to rule,
// and that is the user.
const inhabitant = user + 1

// here runs a program in the pod's own network and names.
func (p *handmade) here(t testing.TB, argv ...string) string {
	t.Helper()
	cmd := exec.Command("nsenter", append([]string{"-t", strconv.Itoa(p.pid), "--net", "--mount", "--uts", "setpriv", "--reuid", strconv.Itoa(inhabitant), "--regid", strconv.Itoa(inhabitant), "--clear-groups", "--"}, argv...)...)
	cmd.Env = append(environment(), "PATH="+filepath.Join(w.dir, "bin")+":/usr/sbin:/usr/bin:/sbin:/bin")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v in the pod: %v: %s", argv, err, out)
	}
	return strings.TrimSpace(string(out))
}

// within runs f in the network of a process.
func within(t testing.TB, pid int, f func() error) {
	t.Helper()
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with this goroutine
		ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", pid))
		if err == nil {
			defer ns.Close()
			err = unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET)
		}
		if err == nil {
			err = f()
		}
		done <- err
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// tcp serves a port in the network of a process until the test's end.
func (p *handmade) tcp(pid int, addr string, port int, serve func(*net.TCPConn)) {
	p.t.Helper()
	var ln net.Listener
	within(p.t, pid, func() (err error) {
		ln, err = net.Listen("tcp", netip.AddrPortFrom(netip.MustParseAddr(addr), uint16(port)).String())
		return err
	})
	p.t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				serve(c.(*net.TCPConn))
			}()
		}
	}()
}

// udp is the same for datagrams.
func (p *handmade) udp(pid int, addr string, port int, answer func(question []byte, from netip.AddrPort) []byte) {
	p.t.Helper()
	var c net.PacketConn
	within(p.t, pid, func() (err error) {
		c, err = net.ListenPacket("udp", netip.AddrPortFrom(netip.MustParseAddr(addr), uint16(port)).String())
		return err
	})
	p.t.Cleanup(func() { c.Close() })
	u := c.(*net.UDPConn)
	_ = u.SetReadBuffer(1 << 20)
	_ = u.SetWriteBuffer(1 << 20)
	go func() {
		buf := make([]byte, 1<<16)
		for {
			n, from, err := u.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			if b := answer(buf[:n], from); b != nil {
				_, _ = u.WriteToUDPAddrPort(b, from)
			}
		}
	}()
}

// reports keeps how streams ended, by name.
type reports struct {
	mu   sync.Mutex
	cond *sync.Cond
	how  map[string]string
}

func (r *reports) tell(name, how string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.how[name] = how
	r.cond.Broadcast()
}

// ask waits for a stream's end, and forgets it.
func (r *reports) ask(name string) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	late := false
	timer := time.AfterFunc(10*time.Second, func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		late = true
		r.cond.Broadcast()
	})
	defer timer.Stop()
	for r.how[name] == "" && !late {
		r.cond.Wait()
	}
	how := r.how[name]
	delete(r.how, name)
	return how
}

// read takes a line, the stream's name, and reports the rest.
func (r *reports) read(c *net.TCPConn) {
	in := bufio.NewReader(c)
	name, err := in.ReadString('\n')
	var rest []byte
	if err == nil {
		rest, err = io.ReadAll(in)
	}
	how := fmt.Sprintf("%q, then the end", rest)
	if err != nil {
		var errno syscall.Errno
		how = "a reset"
		if !asErrno(err, &errno) || errno != syscall.ECONNRESET {
			how = err.Error()
		}
	}
	r.tell(strings.TrimSpace(name), how)
}

func asErrno(err error, to *syscall.Errno) bool {
	op, ok := err.(*net.OpError)
	if !ok {
		return false
	}
	sys, ok := op.Err.(*os.SyscallError)
	if !ok {
		return false
	}
	*to, ok = sys.Err.(syscall.Errno)
	return ok
}

// serve starts the servers that programs/network talks to.
func (p *handmade) serve() {
	p.t.Helper()
	r := &reports{how: map[string]string{}}
	r.cond = sync.NewCond(&r.mu)
	echo := func(b []byte, _ netip.AddrPort) []byte { return b }
	for _, a := range []string{handWorld, handWorld6, handOther, handOther6} {
		if !p.has(a) {
			continue
		}
		p.udp(p.world, a, 7001, echo)
		p.tcp(p.world, a, 7001, func(c *net.TCPConn) { _, _ = io.Copy(c, c) })
		p.tcp(p.world, a, 7002, func(c *net.TCPConn) { fmt.Fprint(c, "hello\n"); _, _ = io.Copy(io.Discard, c) })
		p.tcp(p.world, a, 7003, func(c *net.TCPConn) { _, _ = c.Read(make([]byte, 1)); _ = c.SetLinger(0) })
		p.tcp(p.world, a, 7004, func(c *net.TCPConn) { fmt.Fprint(c, "done\n"); _ = c.CloseWrite(); r.read(c) })
		p.tcp(p.world, a, 7005, func(c *net.TCPConn) { r.read(c) })
		p.tcp(p.world, a, 7006, func(c *net.TCPConn) {
			name, _ := bufio.NewReader(c).ReadString('\n')
			fmt.Fprintln(c, r.ask(strings.TrimSpace(name)))
		})
	}
	for _, a := range []string{"127.0.0.1", "::1"} {
		p.tcp(p.pid, a, 7000, func(c *net.TCPConn) { fmt.Fprintln(c, "sidecar"); _, _ = io.Copy(io.Discard, c) })
		p.udp(p.pid, a, 7000, func([]byte, netip.AddrPort) []byte { return []byte("sidecar") })
	}
}
