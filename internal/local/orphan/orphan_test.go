package orphan

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mirrord-go/mirrord/internal/leak"
)

// parentRole makes this binary a process that starts an orphan.
const parentRole = "ORPHAN_TEST_PARENT"

func TestMain(m *testing.M) {
	if os.Getenv(parentRole) != "" {
		parent()
		return
	}
	os.Exit(leak.Main(m))
}

// run starts a script of sh, and gives what it says.
func run(t *testing.T, script string, stdin *os.File, more ...*os.File) (*Process, *bufio.Reader) {
	t.Helper()
	out, end, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { out.Close() })
	p, err := Start(Program{Path: "/bin/sh", Argv: []string{"a name", "-c", script}, Env: []string{"WORD=hello"}, Dir: "/proc",
		Files: append([]*os.File{stdin, end, nil}, more...)})
	end.Close()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p, bufio.NewReader(out)
}

// stat gives parent, process group and session of a process.
func stat(t *testing.T, pid int) (ids [3]int) {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	for i := range ids {
		ids[i], _ = strconv.Atoi(f[1+i])
	}
	return ids
}

func TestStart(t *testing.T) {
	leak.Check(t)
	in, inEnd, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer inEnd.Close()
	before := children(os.Getpid())
	p, out := run(t, `ulimit -Sn; echo "$0 $WORD $PWD $$"; read line; echo got $line`, in, nil, in)
	in.Close()
	if got := children(os.Getpid()); !slices.Equal(got, before) {
		t.Errorf("the children of this process are %v, before %v", got, before)
	}
	ids := stat(t, p.PID())
	if ids[0] == os.Getpid() {
		t.Error("it is a child of this process")
	}
	if ids[1] != p.PID() || ids[2] != p.PID() {
		t.Errorf("process %d is in group %d, session %d, want its own", p.PID(), ids[1], ids[2])
	}
	limit, err := exec.Command("sh", "-c", "ulimit -Sn").Output() // as Go gives it to programs
	if err != nil {
		t.Fatal(err)
	}
	line, err := out.ReadString('\n')
	if line != string(limit) || err != nil {
		t.Errorf("it may have open %q, %v, want %q", line, err, limit)
	}
	line, err = out.ReadString('\n')
	if want := fmt.Sprintf("a name hello /proc %d\n", p.PID()); line != want || err != nil {
		t.Errorf("it says %q, %v, want %q", line, err, want)
	}
	var files []string
	for fd := range 100 {
		to, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", p.PID(), fd))
		if err != nil {
			continue
		}
		if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); fd > 4 && err == nil && flags&unix.FD_CLOEXEC == 0 {
			continue // these tests have got it themselves
		}
		files = append(files, strings.SplitN(to, ":", 2)[0])
	}
	if want := []string{"pipe", "pipe", "/dev/null", "/dev/null", "pipe"}; !slices.Equal(files, want) {
		t.Errorf("its descriptors are %q, want %q", files, want)
	}
	fmt.Fprintln(inEnd, "this")
	if rest, err := io.ReadAll(out); string(rest) != "got this\n" || err != nil {
		t.Errorf("then it says %q, %v", rest, err)
	}
	p.Kill() // it has ended, which is no news
}

func TestKill(t *testing.T) {
	leak.Check(t)
	p, out := run(t, "echo ready; exec sleep 1000", nil)
	if line, err := out.ReadString('\n'); line != "ready\n" {
		t.Fatal(line, err)
	}
	found := Find(p.PID())
	defer found.Close()
	found.Kill()
	if rest, err := io.ReadAll(out); len(rest) > 0 || err != nil {
		t.Errorf("%q, %v", rest, err)
	}
	Find(0).Kill() // none's
}

func TestCannotStart(t *testing.T) {
	leak.Check(t)
	for _, c := range []struct {
		path, dir string
		want      error
	}{
		{"/nowhere", "/", syscall.ENOENT},
		{"/bin/sh", "/nowhere", syscall.ENOENT},
		{"/proc/self/status", "/", syscall.EACCES},
		{"/bin/\x00sh", "/", syscall.EINVAL},
	} {
		_, err := Start(Program{Path: c.path, Dir: c.dir, Argv: []string{"x"}})
		if err == nil || !strings.HasSuffix(err.Error(), c.want.Error()) {
			t.Errorf("%q in %s: %v, want %v", c.path, c.dir, err, c.want)
		}
	}
}

// parent is a process to be killed with its tree, whatever it was before it was
// executed.
func parent() {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		panic(err)
	}
	signal.Ignore(syscall.SIGCHLD)
	syscall.CloseOnExec(3)
	syscall.CloseOnExec(4)
	out := os.NewFile(3, "out")
	in := os.NewFile(4, "in")
	p, err := Start(Program{Path: "/bin/sh", Argv: []string{"sh", "-c", "echo alive >&3; read line <&4; echo end >&3"}, Dir: "/",
		Files: []*os.File{nil, nil, nil, out, in}})
	if err != nil {
		panic(err)
	}
	runtime.LockOSThread() // the parent-death signal is this thread's
	child := exec.Command("sleep", "1000")
	child.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := child.Start(); err != nil {
		panic(err)
	}
	fmt.Println(p.PID(), child.Process.Pid)
	time.Sleep(time.Minute)
}

// TestTreeKilled: what is started survives the end of the whole tree, found as
// editors do, also where the one who starts it has adopted orphans and waits for
// no child.
func TestTreeKilled(t *testing.T) {
	leak.Check(t)
	out, outEnd, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	in, inEnd, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer inEnd.Close()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), parentRole+"=1")
	cmd.ExtraFiles = []*os.File{outEnd, in}
	cmd.Stderr = os.Stderr
	said, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	outEnd.Close()
	in.Close()
	var pid, child int
	_, scanErr := fmt.Fscan(said, &pid, &child)
	lines := bufio.NewReader(out)
	if line, err := lines.ReadString('\n'); scanErr != nil || line != "alive\n" {
		t.Fatal(scanErr, line, err)
	}
	tree := walk(cmd.Process.Pid)
	if !slices.Contains(tree, child) || slices.Contains(tree, pid) {
		t.Errorf("the tree is %v, with child %d, orphan %d", tree, child, pid)
	}
	for _, p := range tree {
		_ = syscall.Kill(p, syscall.SIGKILL)
	}
	_ = cmd.Wait()
	fmt.Fprintln(inEnd)
	if rest, err := io.ReadAll(lines); string(rest) != "end\n" || err != nil {
		t.Errorf("the orphan says %q, %v", rest, err)
	}
}

// walk gives a process with all that descends from it, leaves first.
func walk(pid int) (list []int) {
	for _, c := range children(pid) {
		list = append(list, walk(c)...)
	}
	return append(list, pid)
}

// children are those of all threads of a process.
func children(pid int) (list []int) {
	files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, file := range files {
		b, _ := os.ReadFile(file)
		for _, f := range strings.Fields(string(b)) {
			if c, err := strconv.Atoi(f); err == nil {
				list = append(list, c)
			}
		}
	}
	slices.Sort(list)
	return list
}
