package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/mirrord-go/mirrord/internal/leak"
	"github.com/mirrord-go/mirrord/internal/link/seal"
	"github.com/mirrord-go/mirrord/internal/testnet"
)

func TestMain(m *testing.M) { os.Exit(leak.Main(m)) }

// built is the agent as it is shipped, without cgo, where other users may run
// it.
func built(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "agent-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	program := filepath.Join(dir, "mirrord-agent")
	build := exec.Command("go", "build", "-o", program, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the agent: %v: %s", err, out)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return program
}

// In the process list of its target the agent becomes the target's user and
// keeps what the wanted features need; where it may not, it says who it must
// be, and where it may not look in, why.
func TestInPod(t *testing.T) {
	program := built(t)
	pod := func(privileges, command string) string {
		return fmt.Sprint(testnet.Process(t, 0, []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}, "exec setpriv "+privileges+" "+command+"; :"))
	}
	ordinary := pod("--reuid 1234 --regid 99 --groups 50", "sh -c cat")
	root := pod("--bounding-set -all,+chown --inh-caps -all", "sh -c cat")
	key, err := seal.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	const none = "0000000000000000"
	for _, c := range []struct {
		name, privileges, target, features string
		want                               string   // in what it prints
		status                             []string // of the process that serves
	}{
		{"the same user", "--reuid 1234 --regid 99 --groups 50", ordinary, "files", `"key"`, []string{"Uid:\t1234\t1234\t1234\t1234", "Gid:\t99\t99\t99\t99", "CapPrm:\t" + none, "Seccomp:\t2"}},
		{"another group", "--reuid 1234 --regid 7 --clear-groups", ordinary, "files", `"as":{"uid":1234,"gid":99,"groups":[50]}`, nil},
		{"nobody", "--reuid 65534 --regid 0 --clear-groups", ordinary, "files", `"as":{"uid":1234,"gid":99,"groups":[50]}`, nil},
		{"root that may change", "--bounding-set -all,+setuid,+setgid,+net_raw,+kill --inh-caps -all", ordinary, "files,mirror", `"key"`,
			[]string{"Uid:\t1234\t1234\t1234\t1234", "Gid:\t99\t99\t99\t99", "Groups:\t50 ", "CapPrm:\t0000000000002000", "CapEff:\t0000000000002000", "Seccomp:\t2"}},
		{"root that wants nothing", "--bounding-set -all,+setuid,+setgid,+net_raw --inh-caps -all", ordinary, "files", `"key"`, []string{"CapPrm:\t" + none}},
		{"root that may not change", "--bounding-set -all,+net_raw --inh-caps -all", ordinary, "mirror", `"as":{"uid":1234,"gid":99,"groups":[50]}`, nil},
		{"root for root", "--bounding-set -all,+chown --inh-caps -all", root, "files", `"key"`, []string{"Uid:\t0\t0\t0\t0", "CapPrm:\t" + none}},
		{"root for root, to write", "--bounding-set -all,+chown,+fowner --inh-caps -all", root, "files,write", `"key"`, []string{"CapPrm:\t0000000000000001", "CapEff:\t0000000000000001"}},
		{"root with less than the target", "--bounding-set -all --inh-caps -all", root, "files", "it has capabilities that this agent has not (CHOWN)", nil},
		{"for root", "--reuid 1234 --regid 99 --clear-groups", root, "files", `"as":{"uid":0,"gid":0}`, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			cmd := exec.Command("setpriv", slices.Concat(strings.Fields(c.privileges), []string{program, "-in-pod", "-pid", c.target,
				"-key", seal.PublicKey(key), "-session", "s", "-features", c.features})...)
			out, in, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer out.Close()
			cmd.Stdout, cmd.Stderr = in, in
			if err := errors.Join(cmd.Start(), in.Close()); err != nil {
				t.Fatal(err)
			}
			defer cmd.Wait()
			defer cmd.Process.Signal(syscall.SIGTERM)
			line, err := bufio.NewReader(out).ReadString('\n')
			if err != nil || !strings.Contains(line, c.want) {
				t.Fatalf("it says %q (%v), want %q", line, err, c.want)
			}
			if c.status == nil {
				return
			}
			tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", cmd.Process.Pid))
			if err != nil || len(tasks) < 2 {
				t.Fatalf("threads %v: %v", tasks, err)
			}
			for _, task := range tasks {
				status, err := os.ReadFile(task)
				for _, want := range c.status {
					if err == nil && !strings.Contains(string(status), want) {
						t.Errorf("%s has no line %q:\n%s", task, want, status)
					}
				}
			}
		})
	}
}
