package confine

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/mirrord-go/mirrord/internal/leak"
)

// Roles that the test's program plays when it is started again: what it gives
// up, it gives up for good.
var roles = map[string]func() error{
	"calls":        func() error { return afterFilter(false) },
	"calls-bpf":    func() error { return afterFilter(true) },
	"capabilities": afterDrop,
	"undumpable":   Undumpable,
}

const roleVariable = "CONFINE_ROLE"

func TestMain(m *testing.M) {
	if role := os.Getenv(roleVariable); role != "" {
		err := roles[role]()
		if err == nil && role == "undumpable" {
			fmt.Println("ready")
			_, _ = os.Stdin.Read(make([]byte, 1))
		}
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(leak.Main(m))
}

// shipped is the test's program as the agent is shipped, without cgo: with it
// the runtime knows not all threads (syscall.AllThreadsSyscall). Other users
// may run it.
func shipped(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "confine-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	built := filepath.Join(dir, "program")
	build := exec.Command("go", "test", "-c", "-o", built, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the program: %v: %s", err, out)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return built
}

// again starts the test's program in a role, as uid.
func again(program, role string, uid int) *exec.Cmd {
	cmd := exec.Command(program)
	cmd.Env = append(os.Environ(), roleVariable+"="+role)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}}
	return cmd
}

// parked starts threads that exist before what is tried.
func parked() (end func()) {
	var wg, up sync.WaitGroup
	quit := make(chan struct{})
	for range 4 {
		up.Add(1)
		wg.Go(func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			up.Done()
			<-quit
		})
	}
	up.Wait()
	return func() { close(quit); wg.Wait() }
}

// onThreads runs f on a thread that was there before prepare and on a new one.
func onThreads(prepare func() error, f func() error) error {
	work, results := make(chan func() error), make(chan error)
	go func() {
		runtime.LockOSThread()
		for w := range work {
			results <- w()
		}
	}()
	defer close(work)
	work <- func() error { return nil } // it runs
	<-results
	if err := prepare(); err != nil {
		return err
	}
	work <- f
	if err := <-results; err != nil {
		return fmt.Errorf("on an older thread: %w", err)
	}
	fresh := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked
		fresh <- f()
	}()
	if err := <-fresh; err != nil {
		return fmt.Errorf("on a newer thread: %w", err)
	}
	return nil
}

// afterFilter makes each forbidden call, with arguments that would do nothing.
func afterFilter(withBPF bool) error {
	defer parked()()
	const bad = ^uintptr(0) // no address, no descriptor, no flags
	return onThreads(func() error { return SystemCalls(withBPF) }, func() error {
		for _, call := range slices.Concat(never, legacy) {
			if _, _, errno := unix.RawSyscall6(uintptr(call), bad, bad, bad, bad, bad, bad); errno != unix.EPERM {
				return fmt.Errorf("call %d: %v, want EPERM", call, errno)
			}
		}
		_, _, bpf := unix.RawSyscall(unix.SYS_BPF, bad, 0, 0)
		if (bpf == unix.EPERM) == withBPF && os.Getuid() == 0 {
			return fmt.Errorf("bpf: %v, allowed: %v", bpf, withBPF)
		}
		if _, _, errno := unix.RawSyscall(unix.SYS_CLONE, uintptr(unix.SIGCHLD)|unix.CLONE_NEWUSER, 0, 0); errno != unix.EPERM {
			return fmt.Errorf("clone of a process: %v, want EPERM", errno)
		}
		if _, _, errno := unix.RawSyscall(unix.SYS_CLONE3, bad, 0, 0); errno != unix.ENOSYS {
			return fmt.Errorf("clone3: %v, want ENOSYS", errno)
		}
		if runtime.GOARCH == "amd64" { // getpid of x32
			if _, _, errno := unix.RawSyscall(0x40000000+unix.SYS_GETPID, 0, 0, 0); errno != unix.EPERM {
				return fmt.Errorf("getpid of x32: %v, want EPERM", errno)
			}
		}
		if err := exec.Command("/bin/true").Run(); !errors.Is(err, unix.EPERM) {
			return fmt.Errorf("a program: %v, want EPERM", err)
		}
		if _, err := os.ReadFile("/proc/self/status"); err != nil {
			return fmt.Errorf("what is not forbidden: %w", err)
		}
		return nil
	})
}

// Every call of the list fails with EPERM, on all threads, as root and not;
// the others work.
func TestSystemCalls(t *testing.T) {
	program := shipped(t)
	for _, role := range []string{"calls", "calls-bpf"} {
		for _, uid := range []int{0, 1000} {
			t.Run(fmt.Sprintf("%s as %d", role, uid), func(t *testing.T) {
				if out, err := again(program, role, uid).CombinedOutput(); err != nil {
					t.Errorf("%v: %s", err, out)
				}
			})
		}
	}
}

// afterDrop keeps one capability, of which all threads must tell.
func afterDrop() error {
	defer parked()()
	return onThreads(func() error {
		left, err := Capabilities(unix.CAP_NET_RAW, unix.CAP_CHECKPOINT_RESTORE)
		if want := uint64(1)<<unix.CAP_NET_RAW | 1<<unix.CAP_CHECKPOINT_RESTORE; err == nil && left != want {
			err = fmt.Errorf("left is %x, want %x", left, want)
		}
		return err
	}, func() error {
		tasks, _ := filepath.Glob("/proc/self/task/*/status")
		for _, task := range tasks {
			b, err := os.ReadFile(task)
			if err != nil {
				return err
			}
			for line := range strings.Lines(string(b)) {
				set, value, _ := strings.Cut(line, ":")
				got, _ := strconv.ParseUint(strings.TrimSpace(value), 16, 64)
				want := uint64(1)<<unix.CAP_NET_RAW | 1<<unix.CAP_CHECKPOINT_RESTORE
				if (set == "CapPrm" || set == "CapEff") && got != want || (set == "CapInh" || set == "CapAmb") && got != 0 {
					return fmt.Errorf("%s: %s", task, line)
				}
			}
		}
		return nil
	})
}

func TestCapabilities(t *testing.T) {
	if out, err := again(shipped(t), "capabilities", 0).CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}

// Who runs as the same user cannot look in.
func TestUndumpable(t *testing.T) {
	cmd := again(shipped(t), "undumpable", 1000)
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
	defer cmd.Wait()
	defer stdin.Close()
	if _, err := out.Read(make([]byte, 16)); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{"mem", "environ", "root", "fd", "maps"} {
		look := exec.Command("ls", "-l", fmt.Sprintf("/proc/%d/%s/", cmd.Process.Pid, file))
		if file == "mem" || file == "environ" || file == "maps" {
			look = exec.Command("head", "-c1", fmt.Sprintf("/proc/%d/%s", cmd.Process.Pid, file))
		}
		look.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 1000, Gid: 1000}}
		if out, err := look.CombinedOutput(); err == nil || !strings.Contains(string(out), "ermission denied") {
			t.Errorf("%s: %v %s", file, err, out)
		}
	}
}
