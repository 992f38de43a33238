package process

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
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

	"github.com/mirrord-go/mirrord/internal/failure"
	"github.com/mirrord-go/mirrord/internal/leak"
)

// roleParent starts an agent, prints its pid and waits to be killed.
const roleParent = "process-test-parent"

func TestMain(m *testing.M) {
	switch {
	case len(os.Args) > 1 && os.Args[1] == "--key":
		standIn()
	case os.Args[0] == roleParent:
		parent()
	default:
		os.Exit(leak.Main(m))
	}
}

// A report is what the stand-in agent says about itself on each connection.
type report struct {
	UID, PID             int
	User, Net, Mnt, Caps string
	Args                 []string
}

// standIn is an agent that announces itself and reports. The session's name
// makes it misbehave.
func standIn() {
	session := os.Args[4]
	switch {
	case strings.HasPrefix(session, "dies"):
		fmt.Fprintln(os.Stderr, "first line\nthe target has no name")
		os.Exit(3)
	case session == "chatters":
		fmt.Println("hello")
	case session == "hangs":
		fmt.Fprintln(os.Stderr, "still thinking")
		time.Sleep(time.Hour)
	case session == "forks": // leaves somebody behind who holds its output
		if os.Getenv("ORPHAN") == "" {
			cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
			cmd.Env = []string{"ORPHAN=1"}
			cmd.Stdout = os.Stdout
			if err := cmd.Start(); err != nil {
				fmt.Fprintln(os.Stderr, err)
				os.Exit(1)
			}
			os.Args[2] = fmt.Sprint(cmd.Process.Pid) // the test finds it in the key
		} else {
			time.Sleep(time.Hour)
		}
	case session == "stubborn":
		signal.Ignore(syscall.SIGTERM)
	}
	fmt.Println(`{"mirrord-agent":"1.0","key":"KEY of ` + os.Args[2] + `","port":0}`)
	l, err := net.FileListener(os.NewFile(listenerFD, "listener"))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	for {
		c, err := l.Accept()
		if err != nil {
			os.Exit(1)
		}
		r := report{UID: os.Getuid(), PID: os.Getpid(), Args: os.Args[1:]}
		for name, to := range map[string]*string{"user": &r.User, "net": &r.Net, "mnt": &r.Mnt} {
			*to, _ = os.Readlink("/proc/self/ns/" + name)
		}
		status, _ := os.ReadFile("/proc/self/status")
		_, caps, _ := strings.Cut(string(status), "CapEff:")
		r.Caps = strings.Fields(caps)[0]
		_ = json.NewEncoder(c).Encode(r)
		line, _ := bufio.NewReader(c).ReadString('\n')
		if line == "end\n" {
			fmt.Fprintln(os.Stderr, "told to end")
			os.Exit(4)
		}
		fmt.Fprint(c, line)
		c.Close()
	}
}

func parent() {
	pid, err := strconv.Atoi(os.Args[1])
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	a, err := Start(context.Background(), pid, Spec{Agent: own(), SessionID: "stubborn"}, func(string) {})
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println(a.PID())
	<-a.Done()
}

// own is this test's executable, the stand-in.
func own() []byte {
	b, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		panic(err)
	}
	return b
}

// TestAsUser runs the tests of this package again as an ordinary user.
func TestAsUser(t *testing.T) {
	if os.Getuid() != 0 {
		t.Logf("these tests run as uid %d already", os.Getuid())
		return
	}
	cmd := exec.Command("/proc/self/exe", "-test.v", "-test.skip", "^TestAsUser$|^Fuzz|^TestAsRoot")
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=/tmp", "TMPDIR=/tmp"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 1000, Gid: 1000}}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("as uid 1000: %v\n%s", err, out)
	}
}

// sleeper starts a process to be a target, with attr.
func sleeper(t *testing.T, attr syscall.SysProcAttr) int {
	t.Helper()
	cmd := exec.Command("cat") // ends with its stdin
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	attr.Pdeathsig = syscall.SIGKILL
	cmd.SysProcAttr = &attr
	runtime.LockOSThread() // for the signal; the test's goroutine ends it
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stdin.Close()
		_ = cmd.Wait()
	})
	return cmd.Process.Pid
}

// userNamespace maps the id inside to the caller.
func userNamespace(inside int) syscall.SysProcAttr {
	return syscall.SysProcAttr{
		Cloneflags:  unix.CLONE_NEWUSER | unix.CLONE_NEWNET,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: inside, HostID: os.Geteuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: inside, HostID: os.Getegid(), Size: 1}},
	}
}

// leavesNothing checks at the test's end that this process holds no more than
// now, and that no directory of a socket is left.
func leavesNothing(t *testing.T) {
	t.Helper()
	leak.Check(t)
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	t.Cleanup(func() {
		if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
			t.Errorf("left in the directory for temporary files: %v, %v", left, err)
		}
	})
}

func start(t *testing.T, pid int, session string) *Agent {
	t.Helper()
	a, err := Start(t.Context(), pid, Spec{Agent: own(), PublicKey: "PUBLIC", SessionID: session}, func(string) {})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := a.Close(context.Background()); err != nil {
			t.Error(err)
		}
		if err := syscall.Kill(a.PID(), 0); !errors.Is(err, syscall.ESRCH) {
			t.Errorf("agent %d after Close: %v, want ESRCH", a.PID(), err)
		}
	})
	return a
}

// ask connects, takes the report and checks that bytes come back.
func ask(t *testing.T, a *Agent) (r report) {
	t.Helper()
	c, err := a.Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.(net.Conn).SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewReader(c)
	first, err := lines.ReadBytes('\n')
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(first, &r); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintln(c, "over")
	if got, err := lines.ReadString('\n'); got != "over\n" {
		t.Errorf("echo: got %q, %v", got, err)
	}
	return r
}

func namespace(t *testing.T, pid any, kind string) string {
	t.Helper()
	s, err := os.Readlink(fmt.Sprintf("/proc/%v/ns/%s", pid, kind))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// checkInside compares a report with where the agent should be.
func checkInside(t *testing.T, r report, pid int) {
	t.Helper()
	if want := namespace(t, pid, "user"); r.User != want {
		t.Errorf("user namespace: got %s, want %s", r.User, want)
	}
	if want := namespace(t, pid, "net"); r.Net != want {
		t.Errorf("network namespace: got %s, want %s", r.Net, want)
	}
	if want := namespace(t, "self", "mnt"); r.Mnt != want {
		t.Errorf("mount namespace: got %s, want ours, %s", r.Mnt, want)
	}
}

// has reports whether a capability set has the capability n.
func has(t *testing.T, caps string, n uint) bool {
	t.Helper()
	var set uint64
	if _, err := fmt.Sscanf(caps, "%x", &set); err != nil {
		t.Fatal(err)
	}
	return set>>n&1 == 1
}

func TestBesideOrdinaryProcess(t *testing.T) {
	leavesNothing(t)
	pid := sleeper(t, syscall.SysProcAttr{})
	var said []string
	a, err := Start(t.Context(), pid, Spec{Agent: own(), PublicKey: "PUBLIC", SessionID: "s1"}, func(s string) { said = append(said, s) })
	if err != nil {
		t.Fatal(err)
	}
	if got, want := a.Announced().Key, "KEY of PUBLIC"; got != want {
		t.Errorf("key: got %q, want %q", got, want)
	}
	if want := []string{fmt.Sprintf("starting the agent beside process %d (cat)", pid)}; !slices.Equal(said, want) {
		t.Errorf("progress: got %q, want %q", said, want)
	}
	r := ask(t, a)
	checkInside(t, r, pid)
	if r.UID != os.Getuid() || r.PID != a.PID() {
		t.Errorf("got uid %d, pid %d, want %d, %d", r.UID, r.PID, os.Getuid(), a.PID())
	}
	want := []string{"--key", "PUBLIC", "--session", "s1", "--pid", fmt.Sprint(pid), "--listen-fd", "3"}
	if !slices.Equal(r.Args, want) {
		t.Errorf("arguments: got %q, want %q", r.Args, want)
	}
	for range 20 { // again and again
		ask(t, a)
	}
	select {
	case <-a.Done():
		t.Error("the agent has ended")
	default:
	}
	if err := a.Close(t.Context()); err != nil {
		t.Error(err)
	}
	<-a.Done()
	if _, err := a.Dial(t.Context()); err == nil {
		t.Error("dialled an agent that is closed")
	}
	if err := a.Close(t.Context()); err != nil {
		t.Errorf("closed again: %v", err)
	}
}

func TestInItsNamespaces(t *testing.T) {
	leavesNothing(t)
	pid := sleeper(t, userNamespace(0))
	a := start(t, pid, "s")
	r := ask(t, a)
	checkInside(t, r, pid)
	if r.UID != 0 {
		t.Errorf("uid inside: got %d, want 0", r.UID)
	}
	for name, n := range map[string]uint{"NET_ADMIN": unix.CAP_NET_ADMIN, "NET_RAW": unix.CAP_NET_RAW, "SYS_ADMIN": unix.CAP_SYS_ADMIN, "SYS_PTRACE": unix.CAP_SYS_PTRACE} {
		if !has(t, r.Caps, n) {
			t.Errorf("the agent lacks CAP_%s: it has %s", name, r.Caps)
		}
	}
}

// TestWithoutRootInside: nobody is root in the target's namespace, so the
// agent gets in, but without capabilities unless nsenter can keep them.
func TestWithoutRootInside(t *testing.T) {
	leavesNothing(t)
	pid := sleeper(t, userNamespace(1234))
	r := ask(t, start(t, pid, "s"))
	checkInside(t, r, pid)
	if r.UID != 1234 {
		t.Errorf("uid inside: got %d, want 1234", r.UID)
	}
}

func TestAsRootForOthers(t *testing.T) {
	leavesNothing(t)
	if os.Getuid() != 0 {
		t.Fatal("this test is about root: run it as root")
	}
	const owner = 1000
	of := func(c uintptr, first, size int) syscall.SysProcAttr {
		a := syscall.SysProcAttr{Cloneflags: c, GidMappingsEnableSetgroups: true}
		if c&unix.CLONE_NEWUSER != 0 {
			a.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: first, Size: size}}
			a.GidMappings = a.UidMappings
			a.Credential = &syscall.Credential{Uid: 0, Gid: 0}
		} else {
			a.Credential = &syscall.Credential{Uid: owner, Gid: owner}
		}
		return a
	}
	for name, c := range map[string]struct {
		attr syscall.SysProcAttr
		uid  int
	}{
		"plain":              {of(0, 0, 0), 0},
		"network only":       {of(unix.CLONE_NEWNET, 0, 0), 0},
		"subordinate ids":    {of(unix.CLONE_NEWUSER|unix.CLONE_NEWNET, 100000, 65536), 0},
		"user but not net":   {of(unix.CLONE_NEWUSER, 100000, 65536), 0},
		"another user's map": {of(unix.CLONE_NEWUSER|unix.CLONE_NEWNET, owner, 1), 0},
	} {
		t.Run(name, func(t *testing.T) {
			pid := sleeper(t, c.attr)
			r := ask(t, start(t, pid, "s"))
			checkInside(t, r, pid)
			if r.UID != c.uid || !has(t, r.Caps, unix.CAP_NET_ADMIN) {
				t.Errorf("got uid %d, capabilities %s, want uid %d with CAP_NET_ADMIN", r.UID, r.Caps, c.uid)
			}
		})
	}
}

func TestFailures(t *testing.T) {
	leavesNothing(t)
	// A child that has ended and is not waited for yet.
	zombie := exec.Command("true")
	if err := zombie.Start(); err != nil {
		t.Fatal(err)
	}
	if err := unix.Waitid(unix.P_PID, zombie.Process.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = zombie.Wait() }()
	type want struct{ code, text string }
	check := func(name string, err error, w want) {
		t.Helper()
		f, ok := errors.AsType[*failure.Error](err)
		if !ok || f.Code != w.code || !strings.Contains(f.Error(), w.text) || f.Do == "" {
			t.Errorf("%s: got %#v, want code %q and %q", name, err, w.code, w.text)
		}
	}
	attempt := func(pid int, session string) error {
		a, err := Start(t.Context(), pid, Spec{Agent: own(), SessionID: session}, func(string) {})
		if err == nil {
			_ = a.Close(t.Context())
		}
		return err
	}
	const noPID = 1 << 30 // above any pid_max
	check("no process", attempt(noPID, "s"), want{"process-absent", "there is no process 1073741824"})
	check("negative", attempt(-1, "s"), want{"process-absent", "there is no process -1"})
	check("zombie", attempt(zombie.Process.Pid, "s"), want{"process-absent", "has ended"})
	pid := sleeper(t, syscall.SysProcAttr{})
	check("agent dies", attempt(pid, "dies"), want{"agent-start", "the target has no name"})
	check("agent chatters", attempt(pid, "chatters"), want{"agent-start", `announcement "hello\n"`})
	apart := sleeper(t, userNamespace(0))
	check("agent dies inside", attempt(apart, "dies"), want{"agent-start", "the target has no name"})
	if os.Getuid() != 0 {
		check("another's", attempt(1, "s"), want{"process-denied", "it belongs to root"})
	}
	if stat, err := os.ReadFile("/proc/2/stat"); err == nil && strings.HasPrefix(string(stat), "2 (kthreadd)") && os.Getuid() == 0 {
		check("kernel", attempt(2, "s"), want{"process-absent", "thread of the kernel"})
	}
	short, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	_, err := Start(short, pid, Spec{Agent: own(), SessionID: "hangs"}, func(string) {})
	check("agent hangs", err, want{"agent-start", "it said nothing in time"})
	gaveUp, giveUp := context.WithCancel(t.Context())
	giveUp()
	if _, err = Start(gaveUp, pid, Spec{Agent: own(), SessionID: "s"}, func(string) {}); !errors.Is(err, context.Canceled) {
		t.Errorf("given up: got %v, want %v", err, context.Canceled)
	}
	t.Setenv("TMPDIR", filepath.Join(t.TempDir(), strings.Repeat("long/", 40)))
	if err := os.MkdirAll(os.TempDir(), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := attempt(pid, "s"); err != nil {
		t.Errorf("with a long TMPDIR: %v", err)
	}
	_, err = Start(t.Context(), pid, Spec{Agent: []byte("no program")}, func(string) {})
	check("no program", err, want{"agent-start", "exec format error"})
	t.Setenv("PATH", "/nowhere")
	check("no nsenter", attempt(apart, "s"), want{"nsenter-missing", "nsenter"})
}

func TestAgentEndsByItself(t *testing.T) {
	leavesNothing(t)
	a := start(t, sleeper(t, userNamespace(0)), "s")
	if err := a.Err(); err != nil {
		t.Errorf("while it runs: %v", err)
	}
	c, err := a.Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprintln(c, "end")
	<-a.Done()
	if err := a.Err(); err == nil || !strings.Contains(err.Error(), "exit status 4") || !strings.Contains(err.Error(), "told to end") {
		t.Errorf("got %v, want exit status 4 and its last words", err)
	}
	if _, err := a.Dial(t.Context()); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("dial after it: got %v, want ECONNREFUSED", err)
	}
}

func TestCloseIsSure(t *testing.T) {
	leavesNothing(t)
	a := start(t, sleeper(t, syscall.SysProcAttr{}), "stubborn")
	ask(t, a)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := a.Close(ctx); err != nil {
		t.Error(err)
	}
	if err := a.Err(); err == nil || !strings.Contains(err.Error(), "killed") {
		t.Errorf("got %v, want killed", err)
	}
}

// TestCloseIsBounded: who holds the agent's stdout does not hold up Close.
func TestCloseIsBounded(t *testing.T) {
	leavesNothing(t)
	a := start(t, sleeper(t, syscall.SysProcAttr{}), "forks")
	var orphan int
	if _, err := fmt.Sscanf(a.Announced().Key, "KEY of %d", &orphan); err != nil {
		t.Fatalf("key %q: %v", a.Announced().Key, err)
	}
	defer func() {
		if err := syscall.Kill(orphan, syscall.SIGKILL); err != nil {
			t.Errorf("the orphan, which should still hold the output: %v", err)
		}
	}()
	began := time.Now()
	if err := a.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if took := time.Since(began); took > endTimeout+time.Second {
		t.Errorf("closed after %v, want at most %v", took, endTimeout)
	}
	if _, err := a.Dial(t.Context()); err == nil {
		t.Error("dialled an agent that is closed")
	}
}

// TestKnows: an old or small setpriv is as good as none.
func TestKnows(t *testing.T) {
	program := filepath.Join(t.TempDir(), "setpriv")
	if err := os.WriteFile(program, []byte("#!/bin/sh\necho 'setpriv [-d] PROG' >&2; exit 1\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	if knows(t.Context(), program, "--pdeathsig") {
		t.Error("takes a small setpriv for a full one")
	}
	if full, err := exec.LookPath("setpriv"); err != nil || !knows(t.Context(), full, "--pdeathsig") {
		t.Errorf("setpriv of util-linux (%v) does not know --pdeathsig", err)
	}
	if knows(t.Context(), "/nowhere/setpriv", "--pdeathsig") {
		t.Error("takes a missing one for a full one")
	}
}

// TestParentKilled: kill -9 of whoever started the agent ends it.
func TestParentKilled(t *testing.T) {
	for name, attr := range map[string]syscall.SysProcAttr{"plain": {}, "inside": userNamespace(0)} {
		t.Run(name, func(t *testing.T) { parentKilled(t, sleeper(t, attr)) })
	}
}

// TestAsRootParentKilled enters a namespace of other ids, where the kernel
// forgets the parent-death signal.
func TestAsRootParentKilled(t *testing.T) {
	if os.Getuid() != 0 {
		t.Fatal("this test is about root: run it as root")
	}
	ids := []syscall.SysProcIDMap{{ContainerID: 0, HostID: 100000, Size: 65536}}
	parentKilled(t, sleeper(t, syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWUSER | unix.CLONE_NEWNET, UidMappings: ids, GidMappings: ids,
		GidMappingsEnableSetgroups: true, Credential: &syscall.Credential{},
	}))
}

func parentKilled(t *testing.T, target int) {
	cmd := &exec.Cmd{Path: "/proc/self/exe", Args: []string{roleParent, fmt.Sprint(target)}, Env: os.Environ()}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, _ := bufio.NewReader(out).ReadString('\n')
	var pid int
	if _, err := fmt.Sscan(line, &pid); err != nil {
		t.Fatal(line)
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // killed
	n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 10_000)
	if n != 1 {
		_ = unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
		t.Errorf("agent %d is still there 10 s later (%v)", pid, err)
	}
}
