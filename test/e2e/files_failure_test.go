package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Who waits for a file of the target's can be ended, stopped and goes on; the
// target is a process of this machine: the cluster adds nothing, and its agent
// can be stopped and killed in a moment.

const (
	// letGo bounds the end of who waits for an answer and is told to end: a second
	// of patience, and a busy machine.
	letGo = 4 * time.Second
	// readerSize is what the files have that are read here, in bytes: more than
	// is ever on its way or remembered.
	readerSize = 64 << 20
)

// waiting is a session whose program reads a file of the target's.
type waiting struct {
	*run
	dir   string // of the file
	agent int
}

// reads starts a shell script in a session, in a directory of the target's with
// the file "large"; it is begun when it says ready.
func reads(t *testing.T, script string) *waiting {
	t.Helper()
	name := "waits-" + strings.ReplaceAll(filepath.Base(t.Name()), ",", "")
	s := &waiting{dir: ownDir(t, name)}
	if err := os.WriteFile(filepath.Join(s.dir, "large"), slices.Repeat([]byte("0123456789abcde\n"), readerSize/16), 0o644); err != nil {
		t.Fatal(err)
	}
	target := target(t)
	args := seeing(t, target, map[string]any{"mode": "write", "read_write": []string{"^" + s.dir + "(/|$)"}})
	s.run = startCommand(t, append(append([]string{w.mirrord, "exec"}, args...), "bash", "-c", "cd "+s.dir+"; "+script), nil)
	s.waitFor("ready")
	_, pid, _ := strings.Cut(target, "/")
	lines, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, path := range lines {
		line, _ := os.ReadFile(path)
		if strings.Contains(string(line), "\x00--pid\x00"+pid+"\x00") {
			if _, err := fmt.Sscanf(path, "/proc/%d/", &s.agent); err != nil {
				t.Fatal(err)
			}
		}
	}
	if s.agent == 0 {
		t.Fatal("there is no agent")
	}
	return s
}

// hold stops the agent and waits until each of the processes waits for it.
func (s *waiting) hold(t *testing.T, pids ...int) {
	t.Helper()
	if err := syscall.Kill(s.agent, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Kill(s.agent, syscall.SIGCONT) })
	for _, pid := range pids {
		for begin := time.Now(); ; time.Sleep(10 * time.Millisecond) {
			stack, err := os.ReadFile(fmt.Sprintf("/proc/%d/stack", pid))
			if strings.Contains(string(stack), "fuse") {
				break
			}
			if time.Since(begin) > 10*time.Second {
				t.Fatalf("process %d does not wait for the target: %v\n%s", pid, err, stack)
			}
		}
	}
}

// pids reads the process ids that the script says as "NAME PID".
func (s *waiting) pids(t *testing.T, names ...string) (pids []int) {
	t.Helper()
	for _, name := range names {
		s.waitFor("\n" + name + " ")
		_, rest, _ := strings.Cut(s.stdout.String(), "\n"+name+" ")
		var pid int
		if _, err := fmt.Sscan(rest, &pid); err != nil {
			t.Fatal(err)
		}
		pids = append(pids, pid)
	}
	return pids
}

func TestFilesFailure(t *testing.T) {
	t.Run("kill -9 of who waits", func(t *testing.T) {
		kinds := map[string]string{
			"reads":   "while :; do cat large >/dev/null; done",
			"maps":    `exec python3 -c "import mmap; [mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ)[:] for f in iter(lambda: open(\"large\", \"rb\"), 0)]"`,
			"writes":  "exec dd if=/dev/zero of=out bs=100k oflag=dsync status=none",
			"lists":   "while :; do ls -l . >/dev/null; done",
			"asks":    "i=0; while :; do i=$((i+1)); [ -e x$i ]; done",
			"renames": "while :; do echo >a$BASHPID; mv a$BASHPID b$BASHPID; done",
			"locks":   "while :; do flock large cat large >/dev/null; done",
		}
		script := ""
		var names []string
		for name, text := range kinds {
			names = append(names, name)
			script += fmt.Sprintf("bash -c '%s' & echo; echo %s $!; ", text, name)
		}
		s := reads(t, script+"echo ready; wait; echo all are gone; rm -f out a* b*; md5sum <large; cat large | wc -c")
		pids := s.pids(t, names...)
		time.Sleep(200 * time.Millisecond) // they are at work
		if err := syscall.Kill(s.agent, syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		time.Sleep(500 * time.Millisecond) // and now they wait
		began := time.Now()
		for _, pid := range pids {
			for _, p := range append(children(pid), pid) {
				if err := syscall.Kill(p, syscall.SIGKILL); err != nil && err != syscall.ESRCH {
					t.Error(err)
				}
			}
		}
		if !s.stdout.waitFor("all are gone", letGo) {
			t.Errorf("after %v there are still some", letGo)
		}
		t.Logf("gone after %v", time.Since(began))
		_ = syscall.Kill(s.agent, syscall.SIGCONT)
		if code := s.end(); code != 0 || !strings.HasSuffix(s.stdout.String(), fmt.Sprintln(readerSize)) {
			t.Errorf("the session does not go on: exit code %d, %s", code, s.stdout)
		}
	})
	t.Run("Ctrl-C", func(t *testing.T) {
		s := reads(t, "echo; echo reader $$; echo ready; while :; do cat large; done >/dev/null")
		s.pids(t, "reader")
		s.hold(t)
		time.Sleep(500 * time.Millisecond)
		began := time.Now()
		for _, p := range append(children(s.pids(t, "reader")[0]), s.cmd.Process.Pid) { // as a terminal would
			_ = syscall.Kill(p, syscall.SIGINT)
		}
		select {
		case <-s.done:
		case <-time.After(letGo):
			t.Fatalf("the session goes on after %v", letGo)
		}
		if code := shellCode(s.cmd.ProcessState); code != 130 {
			t.Errorf("exit code %d", code)
		}
		t.Logf("ended after %v", time.Since(began))
	})
	t.Run("stopped and continued", func(t *testing.T) {
		s := reads(t, `exec python3 -u -c '
import hashlib, os, time
f, h = open("large", "rb"), hashlib.md5()
print("\nreader", os.getpid(), "\nready")
while b := f.read(1 << 20):
    h.update(b)
    time.sleep(0.02)
print(h.hexdigest())'`)
		reader := s.pids(t, "reader")[0]
		for range 3 {
			time.Sleep(200 * time.Millisecond)
			_ = syscall.Kill(reader, syscall.SIGSTOP)
			time.Sleep(300 * time.Millisecond)
			_ = syscall.Kill(reader, syscall.SIGCONT)
		}
		want, err := exec.Command("md5sum", filepath.Join(s.dir, "large")).Output()
		if err != nil {
			t.Fatal(err)
		}
		if code := s.end(); code != 0 || !strings.HasSuffix(s.stdout.String(), "\n"+string(want[:32])+"\n") {
			t.Errorf("exit code %d, %s", code, s.stdout)
		}
	})
	// Who waits for the target can be stopped (Ctrl-Z), and frozen as all programs
	// are when the machine is suspended; afterwards nothing is missing.
	for name, still := range map[string]func(t *testing.T, pid int) (goOn func()){"stopped while it waits": stop, "frozen while it waits": freeze} {
		t.Run(name, func(t *testing.T) {
			s := reads(t, `exec python3 -u -c '
import hashlib, os
f, h = open("large", "rb", 0), hashlib.md5()
print("\nreader", os.getpid(), "\nready")
while b := f.read(1 << 16):
    h.update(b)
print(h.hexdigest())'`)
			reader := s.pids(t, "reader")[0]
			s.hold(t, reader)
			began := time.Now()
			goOn := still(t, reader)
			t.Logf("still after %v", time.Since(began))
			_ = syscall.Kill(s.agent, syscall.SIGCONT)
			goOn()
			out, err := exec.Command("md5sum", filepath.Join(s.dir, "large")).Output()
			if err != nil {
				t.Fatal(err)
			}
			if code := s.end(); code != 0 || !strings.HasSuffix(s.stdout.String(), "\n"+string(out[:32])+"\n") {
				t.Errorf("exit code %d, %s", code, s.stdout)
			}
		})
	}
	t.Run("the agent is gone", func(t *testing.T) {
		s := reads(t, `exec python3 -u -c '
import errno, os, time
f = os.open("large", os.O_RDONLY)
print("\nreader", os.getpid(), "\nready")
open("written", "w").write("x")
def tell(what, do):
    try:
        while do(): pass
    except OSError as e:
        print(what, errno.errorcode[e.errno], flush=True)
off = [0]
def random():
    off[0] = (off[0] + 7654321) % (60 << 20)
    return os.pread(f, 1 << 20, off[0])
tell("read", random)
tell("read again", random)
tell("stat", lambda: os.stat("another"))
tell("list", lambda: os.listdir("."))
tell("open", lambda: open("one more"))
tell("create", lambda: open("made", "w"))
time.sleep(100)'`)
		s.hold(t, s.pids(t, "reader")...)
		began := time.Now()
		if err := syscall.Kill(s.agent, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		for _, what := range []string{"read", "read again", "stat", "list", "open", "create"} {
			if !s.stdout.waitFor("\n"+what+" EIO", letGo) {
				t.Errorf("%s has not failed with EIO after %v:\n%s", what, time.Since(began), s.stdout)
				break
			}
		}
		t.Logf("told after %v", time.Since(began))
		select {
		case <-s.done:
		case <-time.After(goneTime):
			t.Fatal("the session goes on without an agent")
		}
		if code := s.end(); code != 1 || !strings.Contains(s.stderr.String(), "agent-lost") {
			t.Errorf("exit code %d:\n%s", code, s.stderr)
		}
	})
}

// stop stops a process, as Ctrl-Z does.
func stop(t *testing.T, pid int) (goOn func()) {
	t.Helper()
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	await(t, func() string {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err == nil && strings.Contains(string(b), ") T ") {
			return ""
		}
		return fmt.Sprintf("the process runs on: %s, %v", b, err)
	})
	return func() { _ = syscall.Kill(pid, syscall.SIGCONT) }
}

// freeze freezes a process, by the freezer of either version of control groups;
// the older one is the one by which the kernel suspends a machine.
func freeze(t *testing.T, pid int) (goOn func()) {
	t.Helper()
	name := fmt.Sprintf("mirrord-test-%d", pid)
	dir, file, frozen, thawed, state, is := "/sys/fs/cgroup/freezer/"+name, "freezer.state", "FROZEN", "THAWED", "freezer.state", "FROZEN\n"
	if _, err := os.Stat(filepath.Dir(dir)); err != nil {
		dir, file, frozen, thawed, state, is = "/sys/fs/cgroup/"+name, "cgroup.freeze", "1", "0", "cgroup.events", "frozen 1\n"
	}
	set := func(file, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		set(file, thawed)
		await(t, func() string { // the process has ended by then, or it does now
			_ = os.WriteFile(filepath.Join(dir, "../cgroup.procs"), []byte(fmt.Sprint(pid)), 0o644)
			if err := os.Remove(dir); err != nil && !os.IsNotExist(err) {
				return err.Error()
			}
			return ""
		})
	})
	set("cgroup.procs", fmt.Sprint(pid))
	set(file, frozen)
	await(t, func() string {
		b, err := os.ReadFile(filepath.Join(dir, state))
		if strings.Contains(string(b), is) {
			return ""
		}
		return fmt.Sprintf("the process is not frozen: %s, %v", b, err)
	})
	return func() { set(file, thawed) }
}

// await waits until nothing is wrong any more, as long as who waits for an answer
// may take to let go.
func await(t *testing.T, wrong func() string) {
	t.Helper()
	for end := time.Now().Add(letGo); ; time.Sleep(10 * time.Millisecond) {
		text := wrong()
		if text == "" {
			return
		}
		if time.Now().After(end) {
			t.Fatal(text)
		}
	}
}

// children are a process's, and theirs.
func children(pid int) (all []int) {
	out, _ := exec.Command("pgrep", "-P", fmt.Sprint(pid)).Output()
	for f := range strings.FieldsSeq(string(out)) {
		var child int
		if _, err := fmt.Sscan(f, &child); err == nil {
			all = append(append(all, child), children(child)...)
		}
	}
	return all
}
