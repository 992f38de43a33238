package target

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mirrord-go/mirrord/internal/testnet"
)

const id = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

func TestInContainer(t *testing.T) {
	for _, c := range []struct {
		name, groups string
		want         bool
	}{
		{"v1 cgroupfs", "8:pids:/kubepods/burstable/pod1234/" + id + "\n1:name=systemd:/x\n", true},
		{"v2 cgroupfs", "0::/kubepods/besteffort/pod1234/" + id, true},
		{"v2 containerd, systemd", "0::/kubepods.slice/kubepods-pod1.slice/cri-containerd-" + id + ".scope", true},
		{"v2 cri-o", "0::/kubepods.slice/crio-" + id + ".scope", true},
		{"v2 cri-o, group below", "0::/kubepods.slice/crio-" + id + ".scope/container", true},
		{"cri-o's monitor", "0::/kubepods.slice/crio-conmon-" + id + ".scope", false},
		{"docker", "12:cpu:/docker/" + id, true},
		{"docker, systemd", "0::/system.slice/docker-" + id + ".scope", true},
		{"systemd driver without systemd", "0::/system.slice:cri-containerd:" + id, true},
		{"seen from a cgroup namespace", "0::/../../pod1/" + id, true},
		{"another container", "0::/kubepods/pod1/" + strings.Repeat("f", 64), false},
		{"longer name", "0::/kubepods/x" + id, false},
		{"prefix of a name", "0::/kubepods/" + id + "0", false},
		{"id as a pod", "0::/", false},
		{"garbage", "no colons here", false},
		{"empty", "", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := inContainer(c.groups, id); got != c.want {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
}

func TestFindTakesTheFirst(t *testing.T) {
	proc := t.TempDir()
	add := func(pid, group, stat string) {
		t.Helper()
		dir := filepath.Join(proc, pid)
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		os.WriteFile(filepath.Join(dir, "cgroup"), []byte(group), 0o644)
		os.WriteFile(filepath.Join(dir, "stat"), []byte(stat), 0o644)
	}
	fields := strings.Repeat(" 0", 18) + " " // 4 to 21
	ours := "0::/kubepods/pod1/" + id
	add("10", ours, "10 (a) b) S"+fields+"900 0")
	add("20", ours, "20 (sh) S"+fields+"500 0")
	add("30", ours, "30 (dead) Z"+fields+"100 0")
	add("40", "0::/other", "40 (x) S"+fields+"1 0")
	add("50", ours, "50 (cut")
	os.Mkdir(filepath.Join(proc, "net"), 0o755)
	if got, err := Find(proc, id); got != 20 || err != nil {
		t.Errorf("got %d, %v, want 20", got, err)
	}
	if _, err := Find(proc, strings.Repeat("e", 64)); !errors.Is(err, ErrNotFound) {
		t.Errorf("got %v, want ErrNotFound", err)
	}
	if _, err := Find(proc, "abc"); err == nil {
		t.Error("a short id was looked for")
	}
}

func TestSYNRetries(t *testing.T) {
	for _, want := range [][2]uint8{{1, 0}, {2, 3}} {
		script := fmt.Sprintf("cd /proc/sys/net/ipv4; echo %d >tcp_syn_retries; echo %d >tcp_syn_linear_timeouts", want[0], want[1])
		tg, err := Open(testnet.Process(t, syscall.CLONE_NEWNET, os.Environ(), script))
		if err != nil {
			t.Fatal(err)
		}
		defer tg.Close()
		if retries, linear := tg.SYNRetries(); retries != want[0] || linear != want[1] {
			t.Errorf("got %d and %d, want %v", retries, linear, want)
		}
	}
}

func FuzzParsers(f *testing.F) {
	f.Add("0::/kubepods/pod1/"+id, "1 (x) S 0", "Uid:\t1\t1\t1\t1\nGroups:\t1 2\n")
	f.Fuzz(func(t *testing.T, groups, stat, status string) {
		inContainer(groups, id)
		startTime(stat)
		_ = new(Target).parseStatus([]byte(status))
	})
}

// child is a process in namespaces of its own.
func child(t *testing.T) int {
	t.Helper()
	return testnet.Process(t, syscall.CLONE_NEWNET|syscall.CLONE_NEWUTS, []string{"COLOR=blue", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "EMPTY="},
		"hostname pod-0; "+testnet.Addressed)
}

func TestOpen(t *testing.T) {
	pid := child(t)
	tg, err := Open(pid)
	if err != nil {
		t.Fatal(err)
	}
	defer tg.Close()
	if name, err := tg.Hostname(); name != "pod-0" || err != nil {
		t.Errorf("hostname is %q, %v", name, err)
	}
	env, err := tg.Environ()
	env = slices.DeleteFunc(env, func(kv string) bool { return strings.HasPrefix(kv, "PWD=") }) // some shells export it
	if err != nil || !slices.Equal(env, []string{"COLOR=blue", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "EMPTY="}) {
		t.Errorf("environment is %q, %v", env, err)
	}
	addrs, err := tg.Addrs()
	if want := []netip.Prefix{netip.MustParsePrefix("192.0.2.7/24"), netip.MustParsePrefix("2001:db8::7/64")}; err != nil || !slices.Equal(addrs, want) {
		t.Errorf("addresses are %v, %v, want %v", addrs, err, want)
	}
	if tg.HostNetwork() {
		t.Error("a namespace of its own is taken for the machine's")
	}
	select {
	case <-tg.Done():
		t.Fatal("done although it runs")
	default:
	}
	syscall.Kill(pid, syscall.SIGKILL)
	select {
	case <-tg.Done():
	case <-time.After(10 * time.Second):
		t.Error("not done although it ended")
	}
}

// TestGivenHostname: what a target that means harm puts in place of its name is
// not waited for, has an end, and does not lead out of it.
func TestGivenHostname(t *testing.T) {
	for name, c := range map[string]struct {
		put  func(path string) error
		want string // empty: an error
	}{
		"a name":      {func(p string) error { return os.WriteFile(p, []byte("pod-1\n"), 0o644) }, "pod-1"},
		"lines":       {func(p string) error { return os.WriteFile(p, []byte("pod-1\nevil\n"), 0o644) }, "pod-1"},
		"large":       {func(p string) error { return os.WriteFile(p, bytes.Repeat([]byte("x"), 1<<20), 0o644) }, strings.Repeat("x", 64)},
		"nothing":     {func(string) error { return nil }, ""},
		"pipe":        {func(p string) error { return unix.Mkfifo(p, 0o666) }, ""},
		"device":      {func(p string) error { return unix.Mknod(p, unix.S_IFCHR|0o666, int(unix.Mkdev(1, 5))) }, ""},
		"link out":    {func(p string) error { return os.Symlink("../../../../../../../../proc/sys/kernel/ostype", p) }, ""},
		"link within": {func(p string) error { return os.Symlink("/name", p) }, "pod-2"},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			if err := errors.Join(os.Mkdir(filepath.Join(root, "etc"), 0o755), os.WriteFile(filepath.Join(root, "name"), []byte("pod-2"), 0o644), c.put(filepath.Join(root, "etc/hostname"))); err != nil {
				t.Fatal(err)
			}
			dir, err := os.Open(root)
			if err != nil {
				t.Fatal(err)
			}
			defer dir.Close()
			got, err := (&Target{Root: dir}).givenHostname()
			if got != c.want || (err == nil) != (c.want != "") {
				t.Errorf("got %q, %v, want %q", got, err, c.want)
			}
		})
	}
}

func TestDial(t *testing.T) {
	tg, err := Open(child(t))
	if err != nil {
		t.Fatal(err)
	}
	defer tg.Close()
	var ln net.Listener
	var udp net.PacketConn
	err = tg.Do(func() (err error) {
		if ln, err = net.Listen("tcp", "127.0.0.1:0"); err == nil {
			udp, err = net.ListenPacket("udp", "[::1]:0")
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	defer udp.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()

	c, err := tg.Dial(ctx, "tcp", netip.MustParseAddrPort(ln.Addr().String()))
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	for _, x := range []struct {
		network, addr string
		want          syscall.Errno
	}{
		{"tcp", "127.0.0.1:1", syscall.ECONNREFUSED},
		{"tcp", "[::1]:1", syscall.ECONNREFUSED},
		{"tcp", "203.0.113.1:80", syscall.ENETUNREACH},
	} {
		if _, err := tg.Dial(ctx, x.network, netip.MustParseAddrPort(x.addr)); !errors.Is(err, x.want) {
			t.Errorf("%s %s: got %v, want %v", x.network, x.addr, err, x.want)
		}
	}
	u, err := tg.Dial(ctx, "udp", netip.MustParseAddrPort(udp.LocalAddr().String()))
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	u.Write([]byte("hi"))
	buf := make([]byte, 8)
	if n, _, err := udp.ReadFrom(buf); err != nil || string(buf[:n]) != "hi" {
		t.Errorf("the peer got %q, %v", buf[:n], err)
	}
	if _, err := udp.WriteTo(nil, u.LocalAddr()); err != nil {
		t.Fatal(err)
	}
	u.SetDeadline(time.Now().Add(5 * time.Second))
	if n, err := u.Read(buf); n != 0 || err != nil {
		t.Errorf("an empty datagram: got %d, %v", n, err)
	}
	if got := u.RemoteAddr().String(); got != udp.LocalAddr().String() {
		t.Errorf("the peer is %s, want %s", got, udp.LocalAddr())
	}
	udp.Close()
	u.SetDeadline(time.Now().Add(5 * time.Second))
	u.Write([]byte("again"))
	if _, err := u.Read(buf); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("closed port: got %v, want ECONNREFUSED", err)
	}
}

func TestSelf(t *testing.T) {
	tg, err := Self()
	if err != nil {
		t.Fatal(err)
	}
	defer tg.Close()
	if !tg.Targetless() {
		t.Error("the agent's own process is taken for a target")
	}
	want, _ := os.Hostname()
	if got, err := tg.Hostname(); got != want || err != nil {
		t.Errorf("hostname is %q, %v, want %q", got, err, want)
	}
}

func TestOpenOfNobody(t *testing.T) {
	if _, err := Open(1 << 22); !errors.Is(err, syscall.ESRCH) && !errors.Is(err, syscall.EINVAL) {
		t.Errorf("got %v, want ESRCH", err)
	}
}

// Who is in the target's container is told by control groups: with the
// container's id, and where the target is the first of the process list.
func TestHolds(t *testing.T) {
	own, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	group := "" // a name, if this machine has one for us
	for line := range strings.Lines(string(own)) {
		if name := path.Base(strings.TrimSpace(line[strings.LastIndexByte(line, ':')+1:])); name != "/" {
			group = name
		}
	}
	first, err := os.ReadFile("/proc/1/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		t    *Target
		pid  int
		want bool
	}{
		{"of another container", &Target{PID: 50, container: strings.Repeat("f", 64)}, os.Getpid(), false},
		{"of the container", &Target{PID: 50, container: group}, os.Getpid(), group != ""},
		{"a process outside containers", &Target{PID: os.Getpid()}, os.Getpid(), false},
		{"with the first process", &Target{PID: 1}, 1, true},
		{"beside the first process", &Target{PID: 1}, os.Getpid(), bytes.Equal(own, first)},
		{"nobody", &Target{PID: 1}, 1 << 30, false},
	} {
		if got := c.t.Holds(c.pid); got != c.want {
			t.Errorf("%s: got %v, want %v", c.name, got, c.want)
		}
	}
}
