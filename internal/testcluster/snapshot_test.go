package testcluster

import (
	"context"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"

	"github.com/mirrord-go/mirrord/internal/netns"
)

// The main thread cannot end: a goroutine that is locked to it, as those of
// netns.Do are, would leave it behind in the namespace. So main keeps it.
func init() { runtime.LockOSThread() }

// hold starts a process in a network namespace of its own and returns its
// number. It ends with the test.
func hold(t *testing.T) int {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("needs root, as the cluster does: it makes network namespaces and loads a BPF program")
	}
	// It says that it is in there before it waits for its input to end.
	cmd := exec.Command("unshare", "--net", "sh", "-c", "ip link set lo up && echo up && exec cat")
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stdin.Close()
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	})
	if _, err := io.ReadFull(stdout, make([]byte, len("up\n"))); err != nil {
		t.Fatal(err)
	}
	return cmd.Process.Pid
}

func snapshot(t *testing.T, pid int) Snapshot {
	t.Helper()
	s, err := NetnsOf(t.Context(), pid)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestNetnsOf leaves one thing of each kind in a network namespace and takes
// it away again: it must show, and then no longer.
func TestNetnsOf(t *testing.T) {
	pid := hold(t)
	ns, err := netns.Open(pid)
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	if got := len(snapshot(t, pid)["sysctl"]); got < 100 {
		t.Errorf("got %d sysctls, want some hundred", got)
	}
	shell := func(command string) func(*testing.T) {
		return func(t *testing.T) {
			if out, err := exec.Command("nsenter", "-t", strconv.Itoa(pid), "--net", "sh", "-c", command).CombinedOutput(); err != nil {
				t.Fatalf("%s: %v: %s", command, err, out)
			}
		}
	}
	var left io.Closer
	listen := func(network, address string) func(*testing.T) {
		return func(t *testing.T) {
			if err := netns.Do(ns, func() (err error) {
				left, err = net.Listen(network, address)
				return err
			}); err != nil {
				t.Fatal(err)
			}
		}
	}
	closeIt := func(t *testing.T) {
		if err := left.Close(); err != nil {
			t.Error(err)
		}
	}
	var guest *exec.Cmd

	for _, test := range []struct {
		name     string
		do, undo func(*testing.T)
		want     string
	}{
		{"nft", shell("nft add table inet left"), shell("nft delete table inet left"), "nft: + table inet left {"},
		{"rule", shell("ip -6 rule add fwmark 7 table 9"), shell("ip -6 rule delete fwmark 7 table 9"), "from all fwmark 0x7 lookup 9"},
		{"route", shell("ip route add local 198.51.100.0/24 dev lo table 9"), shell("ip route flush table 9"),
			"route: + local 198.51.100.0/24 dev lo table 9"},
		{"addr", shell("ip addr add 192.0.2.1/32 dev lo"), shell("ip addr delete 192.0.2.1/32 dev lo"), "inet 192.0.2.1/32"},
		{"link", shell("ip link add left type veth peer name right"), shell("ip link delete left"), ": left@right:"},
		{"qdisc", shell("tc qdisc add dev lo clsact"), shell("tc qdisc delete dev lo clsact"), "qdisc: + qdisc clsact"},
		{"sysctl", shell("echo 1 >/proc/sys/net/ipv4/conf/lo/route_localnet"), shell("echo 0 >/proc/sys/net/ipv4/conf/lo/route_localnet"),
			"sysctl: + /proc/sys/net/ipv4/conf/lo/route_localnet:1"},
		{"listen", listen("tcp", "127.0.0.1:8123"), closeIt, "listen: + tcp 127.0.0.1:8123 0.0.0.0:*"},
		{"unix", listen("unix", "@left"), closeIt, "unix: + @left"},
		{"process", func(t *testing.T) {
			// nsenter has entered when it has become the program that answers.
			guest = exec.Command("nsenter", "-t", strconv.Itoa(pid), "--net", "sh", "-c", "echo; exec sleep 3600")
			out, err := guest.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := guest.Start(); err != nil {
				t.Fatal(err)
			}
			if _, err := out.Read(make([]byte, 1)); err != nil {
				t.Fatal(err)
			}
		}, func(t *testing.T) {
			if err := guest.Process.Kill(); err != nil {
				t.Error(err)
			}
			_ = guest.Wait() // it was killed
		}, "process: + s"}, // sh, or sleep already
		{"bpf", func(t *testing.T) {
			program, err := ebpf.NewProgram(&ebpf.ProgramSpec{Name: "left", Type: ebpf.SkLookup, AttachType: ebpf.AttachSkLookup,
				License: "GPL", Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 1), asm.Return()}})
			if err != nil {
				t.Fatal(err)
			}
			defer program.Close() // the link keeps it
			if left, err = link.AttachNetNs(int(ns.Fd()), program); err != nil {
				t.Fatal(err)
			}
		}, closeIt, "bpf: + sk_lookup program "},
		// The last one: its tables stay, empty, as long as the namespace.
		{"iptables", shell("iptables-legacy -t nat -A OUTPUT -p tcp --dport 99 -j REDIRECT"), shell("iptables-legacy -t nat -F"),
			"iptables: + -A OUTPUT -p tcp -m tcp --dport 99 -j REDIRECT"},
	} {
		t.Run(test.name, func(t *testing.T) {
			before := snapshot(t, pid)
			test.do(t)
			if got := before.Diff(snapshot(t, pid)); !strings.Contains(got, test.want) {
				t.Errorf("got %q, want a line with %q", got, test.want)
			}
			test.undo(t)
			if test.name == "iptables" {
				if got := before.Diff(snapshot(t, pid)); strings.Contains(got, test.want) {
					t.Errorf("after taking it away: got %q", got)
				}
				return
			}
			// A thread of this test may take a moment to leave.
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			if err := NetnsUnchanged(ctx, pid, before); err != nil {
				t.Errorf("after taking it away: %v", err)
			}
		})
	}
}
