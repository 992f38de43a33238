package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/mirrord-go/mirrord/internal/local/demo"
	"github.com/mirrord-go/mirrord/internal/local/host"
	"github.com/mirrord-go/mirrord/internal/local/sandbox/boot"
	"github.com/mirrord-go/mirrord/internal/testnet"
)

// These tests take away from this machine what a session needs of it, one by
// one, and run the command line as users would: this binary plays mirrord.

// playVar makes this binary mirrord; its value is what is denied to it before.
const playVar = "CLI_TEST_PLAYS_MIRRORD_WITHOUT"

const nothing = "nothing"

func TestMain(m *testing.M) {
	boot.Main()
	switch what := os.Getenv(playVar); {
	case os.Args[0] == supervisorName, os.Args[0] == demo.Name, what == nothing:
		os.Exit(Main("0.0.0-test", os.Args))
	case what != "":
		env := slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, playVar+"=") })
		fmt.Fprintln(os.Stderr, testnet.Deny(what, "/proc/self/exe", os.Args, append(env, playVar+"="+nothing)))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// hostTest is how mirrord is run.
type hostTest struct {
	denied string // see testnet.Deny
	before string // what root does to the mounts of mirrord alone
	around string // a command before the command
	uid    uint32
}

// mirrord runs a command line in a directory where uid may write.
func (h hostTest) mirrord(t *testing.T, dir string, args ...string) (out string, code int) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Fatal("this test takes devices and rights away: run it as root")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	// A copy that uid can read, wherever the tests were built.
	self := filepath.Join(dir, "mirrord")
	if _, err := os.Stat(self); err != nil {
		program, err := os.ReadFile("/proc/self/exe")
		if err == nil {
			err = os.WriteFile(self, program, 0o755)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	// No ids are set aside for anybody, whatever this machine's files say.
	script := fmt.Sprintf(`mount --bind /dev/null /etc/subuid; mount --bind /dev/null /etc/subgid; %s exec setpriv --reuid %d --regid %[2]d --clear-groups %s "$0" "$@"`, h.before, h.uid, h.around)
	cmd := exec.CommandContext(ctx, "sh", append([]string{"-c", script, self}, args...)...)
	cmd.Dir = dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	denied := h.denied
	if denied == "" {
		denied = nothing
	}
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=" + dir, "GORACE=atexit_sleep_ms=0", playVar + "=" + denied}
	b, err := cmd.CombinedOutput()
	if err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return string(b), cmd.ProcessState.ExitCode()
}

// place is a directory of uid's.
func place(t *testing.T, uid int) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "mirrord-hosts-")
	if err == nil {
		err = os.Chown(dir, uid, uid)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// limited is a user namespace in which no further ones can be made; the
// machine's limit stays.
const limited = `unshare --map-current-user --keep-caps sh -c 'echo 0 >/proc/sys/user/max_user_namespaces; exec setpriv --ambient-caps -all --inh-caps -all "$0" "$@"'`

// What a session cannot do without: doctor and exec name it, with the same
// words, and nothing is started.
func TestMissing(t *testing.T) {
	for _, c := range []struct {
		name   string
		how    hostTest
		code   string
		others bool // of the machine are looked at, and good
		says   []string
	}{
		{"limit of user namespaces", hostTest{around: limited, uid: 1000}, "no-user-namespaces", false,
			[]string{"user.max_user_namespaces is 0", "sysctl -p /etc/sysctl.d/60-mirrord.conf"}},
		{"user namespaces in a container", hostTest{denied: "user namespaces", uid: 1000}, "no-user-namespaces", false,
			[]string{"seccomp profile", "--security-opt=seccomp=unconfined"}},
		{"the profile of Docker", hostTest{denied: "docker", uid: 1000}, "no-user-namespaces", false,
			[]string{"--security-opt=seccomp=unconfined", "mirrord doctor --devcontainer"}},
		{"/dev/net/tun and packet sockets", hostTest{before: "mount -t tmpfs none /dev/net;", denied: "packet sockets", uid: 1000}, "no-tun", true,
			[]string{"/dev/net/tun cannot be used", "there is no veth pair instead (open a packet socket: address family not supported", "no such file"}},
		{"/dev/fuse is another device", hostTest{before: "mount --bind /dev/null /dev/fuse;", uid: 1000}, "no-fuse", true, []string{"the files of the pod cannot be mounted", "invalid argument"}},
		{"/dev/fuse is root's", hostTest{before: "mount -t tmpfs none /mnt; mknod -m 600 /mnt/fuse c 10 229; mount --bind /mnt/fuse /dev/fuse;", uid: 1000}, "no-fuse", true,
			[]string{"/dev/fuse cannot be used", "permission denied"}},
		{"copies of mounts", hostTest{denied: "open_tree", uid: 1000}, "no-sandbox", true, []string{"Linux 5.2 or newer"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			dir := place(t, int(c.how.uid))
			target := fmt.Sprintf("process/%d", os.Getpid())
			said := append(c.says, "("+c.code+", see docs/errors.md)")
			out, code := c.how.mirrord(t, dir, "doctor", "-t", target)
			if code != 1 || strings.Count(out, "✗") != 1 {
				t.Errorf("doctor: exit code %d, want 1 and one cross:\n%s", code, out)
			}
			machine, _, _ := strings.Cut(out, "\ndebuggers\n")
			if c.others && strings.Count(machine, "✓") != 8 {
				t.Errorf("doctor: want 8 ticks:\n%s", out)
			}
			for _, text := range said {
				if !strings.Contains(out, text) {
					t.Errorf("doctor does not say %q:\n%s", text, out)
				}
			}
			// The demo's steps show what exec says.
			out, code = c.how.mirrord(t, dir, "demo")
			if code == 0 || strings.Contains(out, "    blue\n") {
				t.Errorf("demo: exit code %d:\n%s", code, out)
			}
			for _, text := range said {
				if !strings.Contains(out, text) {
					t.Errorf("demo does not say %q:\n%s", text, out)
				}
			}
			beside := exec.Command("sleep", "120")
			beside.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: c.how.uid, Gid: c.how.uid}}
			if err := beside.Start(); err != nil {
				t.Fatal(err)
			}
			defer beside.Wait()
			defer beside.Process.Kill()
			out, code = c.how.mirrord(t, dir, "exec", "-t", fmt.Sprintf("process/%d", beside.Process.Pid), "touch", "started")
			if code == 0 {
				t.Errorf("exec: exit code 0:\n%s", out)
			}
			if _, err := os.Stat(filepath.Join(dir, "started")); err == nil {
				t.Error("the command was started")
			}
			for _, text := range said {
				if !strings.Contains(out, text) {
					t.Errorf("exec does not say %q:\n%s", text, out)
				}
			}
		})
	}
}

// The arguments of a container, for a person and for programs.
func TestDevcontainer(t *testing.T) {
	var text, object bytes.Buffer
	if err := errors.Join(printContainer(&text, false), printContainer(&object, true)); err != nil {
		t.Fatal(err)
	}
	var got struct{ RunArgs []string }
	if err := json.Unmarshal(object.Bytes(), &got); err != nil || len(got.RunArgs) != len(host.RunArguments) {
		t.Fatalf("%v: %s", err, &object)
	}
	for i, a := range host.RunArguments {
		if got.RunArgs[i] != a.Arg {
			t.Errorf("got %q, want %q", got.RunArgs[i], a.Arg)
		}
	}
	_, fragment, _ := strings.Cut(text.String(), "  \"runArgs\": ")
	var list []string
	if err := json.NewDecoder(strings.NewReader(fragment)).Decode(&list); err != nil || !slices.Equal(list, got.RunArgs) {
		t.Errorf("%v: got %q in:\n%s", err, list, &text)
	}
	if want := "docker run " + strings.Join(list, " ") + " IMAGE\n"; !strings.Contains(text.String(), want) {
		t.Errorf("no %q in:\n%s", want, &text)
	}
}

// What a session does without: the demo passes, and each session says once
// what differs.
func TestFallbacks(t *testing.T) {
	for _, c := range []struct {
		name string
		how  hostTest
		says string // doctor's line
		end  string // of the demo
	}{
		{"root without user namespaces", hostTest{denied: "user namespaces"}, "user namespaces", "11 of 11 steps are as they should be.\n"},
		// Stealing is the agent's, which is on this machine too and may not use BPF.
		{"no /dev/net/tun", hostTest{before: "mount -t tmpfs none /dev/net;", uid: 1000}, "/dev/net/tun", "11 of 11 steps are as they should be.\n"},
		{"root without user namespaces and /dev/net/tun", hostTest{before: "mount -t tmpfs none /dev/net;", denied: "user namespaces"}, "/dev/net/tun", "11 of 11 steps are as they should be.\n"},
		{"no nftables", hostTest{denied: "nftables", uid: 1000}, "nftables", "10 of 11 steps are as they should be.\n"},
		{"no seccomp notification", hostTest{denied: "notification", uid: 1000}, "notice of listeners", "11 of 11 steps are as they should be.\n"},
		{"no duplicates of descriptors", hostTest{denied: "pidfd_getfd", uid: 1000}, "notice of listeners", "11 of 11 steps are as they should be.\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			dir := place(t, int(c.how.uid))
			out, code := c.how.mirrord(t, dir, "doctor", "-t", "process/1")
			if code != 0 || !strings.Contains(out, "– "+c.says) || strings.Contains(out, "✗") {
				t.Errorf("doctor: exit code %d, want 0 and a dash at %s:\n%s", code, c.says, out)
			}
			out, _ = c.how.mirrord(t, dir, "demo")
			if !strings.Contains(out, c.end) || c.says == "nftables" && !strings.Contains(out, "localhost:9901/\n    sidecar GET /\n") {
				t.Errorf("the demo does not end with %q:\n%s", c.end, out)
			}
		})
	}
}
