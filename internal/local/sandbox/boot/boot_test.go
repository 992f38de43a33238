package boot

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func TestMainReturnsAtOnce(t *testing.T) {
	Main() // in any other role
}

func TestLookPath(t *testing.T) {
	a, b := t.TempDir(), t.TempDir()
	for file, mode := range map[string]os.FileMode{a + "/plain": 0o644, a + "/both": 0o644, b + "/both": 0o755, b + "/tool": 0o755} {
		if err := os.WriteFile(file, nil, mode); err != nil {
			t.Fatal(err)
		}
	}
	os.Mkdir(filepath.Join(a, "tool"), 0o755)
	env := []string{"OTHER=x", "PATH=" + a + ":/nowhere:" + b, "PATH=/later"}
	t.Chdir(b)
	for _, c := range []struct {
		name string
		env  []string
		want string
		err  error
	}{
		{"tool", env, b + "/tool", nil},
		{"both", env, b + "/both", nil},
		{"plain", env, "", unix.EACCES},
		{"none", env, "", unix.ENOENT},
		{"", env, "", unix.ENOENT},
		{"./none", env, "./none", nil},
		{"tool", []string{"PATH=:" + a}, "./tool", nil},
		{"sh", nil, "/bin/sh", nil},
	} {
		got, err := lookPath(c.name, c.env)
		if got != c.want || !errors.Is(err, c.err) {
			t.Errorf("%q in %v: got %q, %v; want %q, %v", c.name, c.env, got, err, c.want, c.err)
		}
	}
}

// evaluate runs a filter as the kernel does (the few instructions that it has).
func evaluate(t *testing.T, p []unix.SockFilter, nr, arch uint32, args ...uint32) uint32 {
	t.Helper()
	var acc uint32
	for pc := 0; pc < len(p); pc++ {
		switch i := p[pc]; i.Code {
		case unix.BPF_LD | unix.BPF_W | unix.BPF_ABS:
			if acc = map[uint32]uint32{offsetNR: nr, offsetArch: arch}[i.K]; i.K >= offsetDomain {
				acc = args[(i.K-offsetDomain)/8]
			}
		case unix.BPF_ALU | unix.BPF_AND | unix.BPF_K:
			acc &= i.K
		case unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K:
			if acc == i.K {
				pc += int(i.Jt)
			} else {
				pc += int(i.Jf)
			}
		case unix.BPF_RET | unix.BPF_K:
			return i.K
		default:
			t.Fatalf("instruction %#x", i.Code)
		}
	}
	t.Fatal("the filter does not return")
	return 0
}

func TestFilter(t *testing.T) {
	const (
		x86, i386, arm64, arm = unix.AUDIT_ARCH_X86_64, unix.AUDIT_ARCH_I386, unix.AUDIT_ARCH_AARCH64, unix.AUDIT_ARCH_ARM
		yes, no               = uint32(retUserNotif), uint32(retAllow)
	)
	for _, c := range []struct {
		goarch   string
		nr, arch uint32
		want     uint32
	}{
		{"amd64", 50, x86, yes}, {"amd64", 49, x86, yes}, {"amd64", 425, x86, yes}, {"amd64", 0x40000032, x86, yes},
		{"amd64", 0, x86, no}, {"amd64", 42, x86, no}, {"amd64", 102, x86, no}, {"amd64", 363, x86, no},
		{"amd64", 102, i386, yes}, {"amd64", 363, i386, yes}, {"amd64", 50, i386, no}, {"amd64", 425, i386, no},
		{"arm64", 201, arm64, yes}, {"arm64", 200, arm64, yes}, {"arm64", 425, arm64, yes}, {"arm64", 50, arm64, no},
		{"arm64", 284, arm, yes}, {"arm64", 201, arm, no}, {"arm64", 203, arm64, no}, {"arm64", 203, arm, no}, {"amd64", 42, i386, no},
	} {
		for _, connects := range []bool{false, true} {
			want := c.want
			if connects && (c.nr == 42 && c.arch == x86 || c.nr == 203 && c.arch == arm64) {
				want = yes
			}
			if got := evaluate(t, filter(c.goarch, connects), c.nr, c.arch); got != want {
				t.Errorf("%s: call %d of architecture %#x, connects %v: got %#x, want %#x", c.goarch, c.nr, c.arch, connects, got, want)
			}
		}
	}
}

// Of sockets the filter sends what no session carries.
func TestFilterOfSockets(t *testing.T) {
	const cloexec = unix.SOCK_CLOEXEC | unix.SOCK_NONBLOCK
	for _, c := range []struct {
		domain, typ, protocol uint32
		want                  bool
	}{
		{unix.AF_INET, unix.SOCK_STREAM, 0, false}, {unix.AF_INET6, unix.SOCK_DGRAM | cloexec, unix.IPPROTO_UDP, false},
		{unix.AF_INET, unix.SOCK_STREAM | cloexec, unix.IPPROTO_MPTCP, false}, {unix.AF_INET6, unix.SOCK_STREAM, unix.IPPROTO_TCP, false},
		{unix.AF_INET, unix.SOCK_DGRAM, unix.IPPROTO_ICMP, false}, {unix.AF_INET6, unix.SOCK_DGRAM, unix.IPPROTO_ICMPV6, false},
		{unix.AF_UNIX, unix.SOCK_SEQPACKET, 0, false}, {unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_ROUTE, false}, {unix.AF_ALG, unix.SOCK_SEQPACKET, 0, false},
		{unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_ICMP, true}, {unix.AF_INET6, unix.SOCK_RAW | cloexec, 0, true}, {unix.AF_PACKET, unix.SOCK_DGRAM, 0, true},
		{unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_SCTP, true}, {unix.AF_INET, unix.SOCK_SEQPACKET, 0, true}, {unix.AF_INET6, unix.SOCK_DGRAM, unix.IPPROTO_UDPLITE, true},
		{unix.AF_VSOCK, unix.SOCK_STREAM, 0, true}, {unix.AF_BLUETOOTH, unix.SOCK_RAW, 1, true},
	} {
		for goarch, at := range map[string][2]uint32{"amd64": {41, unix.AUDIT_ARCH_X86_64}, "arm64": {198, unix.AUDIT_ARCH_AARCH64}} {
			got := evaluate(t, filter(goarch, false), at[0], at[1], c.domain, c.typ, c.protocol) == retUserNotif
			if got != c.want {
				t.Errorf("%s: socket(%d, %#x, %d): sent %v, want %v", goarch, c.domain, c.typ, c.protocol, got, c.want)
			}
		}
	}
}

// Of the options of sockets it sends those that mean something to this machine's
// kernel only.
func TestFilterOfOptions(t *testing.T) {
	for _, c := range []struct {
		level, option uint32
		want          bool
	}{
		{unix.SOL_SOCKET, unix.SO_MARK, true}, {unix.SOL_IP, unix.IP_TRANSPARENT, true}, {unix.SOL_IPV6, unix.IPV6_TRANSPARENT, true},
		{unix.SOL_SOCKET, unix.SO_REUSEADDR, false}, {unix.SOL_IP, unix.SO_MARK, false}, {unix.SOL_SOCKET, unix.IP_TRANSPARENT, false}, {unix.SOL_TCP, unix.TCP_NODELAY, false},
	} {
		for goarch, at := range map[string][2]uint32{"amd64": {54, unix.AUDIT_ARCH_X86_64}, "arm64": {208, unix.AUDIT_ARCH_AARCH64}} {
			if got := evaluate(t, filter(goarch, false), at[0], at[1], 3, c.level, c.option) == retUserNotif; got != c.want {
				t.Errorf("%s: setsockopt(3, %d, %d): sent %v, want %v", goarch, c.level, c.option, got, c.want)
			}
		}
	}
}
