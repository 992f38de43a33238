package process

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/mirrord-go/mirrord/internal/failure"
)

// A target is what is known about the process before it is entered.
type target struct {
	pid  int
	name string
	uid  int // its owner
	inside
}

// inside compares the target's namespaces with those of this process.
type inside struct {
	user, net bool    // it has its own
	uids      []idMap // of its user namespace
	setgroups bool    // its user namespace permits setgroups(2)
}

// An idMap is a line of /proc/PID/uid_map, seen from this user namespace.
type idMap struct{ inside, outside, count int }

// look finds out about a process, or says why it can be no target.
func look(pid int) (target, error) {
	t := target{pid: pid}
	proc := fmt.Sprintf("/proc/%d", pid)
	info, err := os.Stat(proc)
	if err != nil || pid <= 0 {
		return t, t.absent("there is no process %d", pid)
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		t.uid = int(st.Uid)
	}
	stat, err := os.ReadFile(proc + "/stat")
	if err != nil {
		return t, t.absent("process %d has just ended", pid)
	}
	name, state, err := parseStat(string(stat))
	if err != nil {
		return t, err
	}
	t.name = strings.ReplaceAll(name, "\n", " ") // a name may hold anything; ours are lines
	if state == 'Z' || state == 'X' {
		return t, t.absent("process %d (%s) has ended and only waits for its parent to notice", pid, name)
	}
	if _, err := os.Readlink(proc + "/exe"); errors.Is(err, syscall.ENOENT) {
		return t, t.absent("%d (%s) is a thread of the kernel, not a program", pid, name)
	}
	for _, ns := range []struct {
		name string
		own  *bool
	}{{"user", &t.user}, {"net", &t.net}} {
		theirs, err := os.Readlink(proc + "/ns/" + ns.name)
		if err != nil {
			return t, t.denied(err)
		}
		ours, err := os.Readlink("/proc/self/ns/" + ns.name)
		if err != nil {
			return t, fmt.Errorf("look at the own %s namespace: %w", ns.name, err)
		}
		*ns.own = theirs != ours
	}
	if t.user {
		uids, err := os.ReadFile(proc + "/uid_map")
		if err != nil {
			return t, t.denied(err)
		}
		if t.uids, err = parseIDMap(string(uids)); err != nil {
			return t, err
		}
		setgroups, err := os.ReadFile(proc + "/setgroups")
		t.setgroups = err == nil && strings.TrimSpace(string(setgroups)) == "allow"
	}
	return t, nil
}

// parseStat takes the name and the state from /proc/PID/stat (proc_pid_stat(5)).
// The name may hold anything, so it ends at the last bracket.
func parseStat(stat string) (name string, state byte, err error) {
	open, end := strings.IndexByte(stat, '('), strings.LastIndex(stat, ") ")
	if open < 0 || end < open || end+2 >= len(stat) {
		return "", 0, fmt.Errorf("read the state of a process: %q", stat)
	}
	return stat[open+1 : end], stat[end+2], nil
}

func parseIDMap(text string) ([]idMap, error) {
	var list []idMap
	for line := range strings.Lines(text) {
		var n [3]int
		fields := strings.Fields(line)
		if len(fields) != len(n) {
			return nil, fmt.Errorf("read an id map: %q", line)
		}
		for i, f := range fields {
			var err error
			if n[i], err = strconv.Atoi(f); err != nil || n[i] < 0 {
				return nil, fmt.Errorf("read an id map: %q", line)
			}
		}
		list = append(list, idMap{n[0], n[1], n[2]})
	}
	return list, nil
}

// root is the uid, seen from here, of root in the namespace; -1: it has none.
func (i inside) root() int {
	for _, m := range i.uids {
		if m.inside == 0 && m.count > 0 {
			return m.outside
		}
	}
	return -1
}

// tools are the programs that enter namespaces; empty: not installed.
type tools struct {
	nsenter, setpriv string
	keepCaps         bool // nsenter knows --keep-caps (util-linux 2.39)
}

// knows reports whether a program's help names an option: busybox's programs
// of the same names have fewer.
func knows(ctx context.Context, program, option string) bool {
	ctx, cancel := context.WithTimeout(ctx, endTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, "--help")
	cmd.WaitDelay = endTimeout
	help, _ := cmd.CombinedOutput() // busybox's ends with 1
	return strings.Contains(string(help), option)
}

// enter is the beginning of a command line that runs the rest of it in the
// target's namespaces; empty if they are those of this process.
func (t target) enter(ctx context.Context) ([]string, error) {
	if !t.user && !t.net {
		return nil, nil
	}
	var tool tools
	var err error
	if tool.nsenter, err = exec.LookPath("nsenter"); err != nil {
		return nil, &failure.Error{
			Code:  "nsenter-missing",
			What:  fmt.Sprintf("the namespaces of process %d (%s) cannot be entered", t.pid, t.name),
			Why:   "the program nsenter is not there: " + err.Error(),
			Do:    "install util-linux, for example: apt-get install util-linux",
			Cause: err,
		}
	}
	if t.user {
		if setpriv, err := exec.LookPath("setpriv"); err == nil && knows(ctx, setpriv, "--pdeathsig") {
			tool.setpriv = setpriv
		}
		tool.keepCaps = t.root() < 0 && knows(ctx, tool.nsenter, "--keep-caps")
	}
	return t.inside.command(t.pid, os.Geteuid(), tool), nil
}

// command makes the command line for a caller with the user id euid. The short
// options are those that busybox's nsenter has as well.
func (i inside) command(pid, euid int, tool tools) []string {
	argv := []string{tool.nsenter, "-t", strconv.Itoa(pid)}
	if i.net {
		argv = append(argv, "-n")
	}
	if i.user {
		argv = append(argv, "-U")
		switch root := i.root(); {
		case root == euid:
			// We are root in there by coming in. Without the option nsenter would
			// call setgroups(2), which an unprivileged namespace forbids.
			argv = append(argv, "--preserve-credentials")
		case root >= 0 && i.setgroups: // becomes root, as is nsenter's habit
		case root >= 0:
			argv = append(argv, "--preserve-credentials", "--setuid", "0")
		default:
			// No root in there: whoever is not loses all capabilities at execve
			// (capabilities(7)), but for ambient ones.
			argv = append(argv, "--preserve-credentials")
			if tool.keepCaps {
				argv = append(argv, "--keep-caps")
			}
		}
	}
	argv = append(argv, "--")
	if i.user && tool.setpriv != "" {
		argv = append(argv, tool.setpriv, "--pdeathsig", "KILL", "--")
	}
	return argv
}

func (t target) absent(why string, args ...any) error {
	return failure.New("process-absent", fmt.Sprintf("process/%d is no target", t.pid), "see what runs: ps -eo pid,user,args", why, args...)
}

// denied is for a process that this user may not look into.
func (t target) denied(err error) error {
	if errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.ESRCH) {
		return t.absent("process %d (%s) has just ended", t.pid, t.name)
	}
	return &failure.Error{
		Code:  "process-denied",
		What:  fmt.Sprintf("process %d (%s) does not let you in", t.pid, t.name),
		Why:   fmt.Sprintf("it belongs to %s and you are %s: %v", userName(t.uid), userName(os.Geteuid()), err),
		Do:    fmt.Sprintf("run the same command as %s, or as root with sudo", userName(t.uid)),
		Cause: err,
	}
}

// notStarted says why there is no agent although the process is there.
func (t target) notStarted(err error, entered bool) error {
	f := &failure.Error{
		Code: "agent-start", What: fmt.Sprintf("no agent could be started for process %d (%s)", t.pid, t.name),
		Why: err.Error(), Do: "try again; if it stays, see docs/errors.md, agent-start", Cause: err,
	}
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		f.Why = "it said nothing in time: " + f.Why
	case entered && (strings.Contains(f.Why, unix.EPERM.Error()) || strings.Contains(f.Why, "Operation not permitted")):
		f.Code, f.What = "process-denied", fmt.Sprintf("process %d (%s) does not let you in", t.pid, t.name)
		f.Do = fmt.Sprintf("run the same command as %s, or as root with sudo", userName(t.uid))
	}
	return f
}

// userName is the name that goes with a uid, or the number.
func userName(uid int) string {
	if u, err := user.LookupId(strconv.Itoa(uid)); err == nil {
		return u.Username
	}
	return fmt.Sprintf("uid %d", uid)
}

// openPath opens what a path names without opening it in the sense of its kind
// (O_PATH): a socket, too.
func openPath(path string) (*os.File, error) {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return os.NewFile(uintptr(fd), path), nil
}

// inMemory puts a program where it can be executed by its descriptor, without
// any file system that could forbid it (noexec) or keep it.
func inMemory(program []byte) (*os.File, error) {
	const name = "mirrord-agent"
	// What is open for writing anywhere cannot be executed (ETXTBSY), and a
	// process that another goroutine starts now would have it open until it has
	// executed its own program. Starting one takes ForkLock.
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_EXEC)
	if errors.Is(err, syscall.EINVAL) { // before Linux 6.3 there was no choice
		fd, err = unix.MemfdCreate(name, unix.MFD_CLOEXEC)
	}
	if err != nil {
		return nil, fmt.Errorf("make a file in memory: %w", err)
	}
	w := os.NewFile(uintptr(fd), name)
	defer w.Close()
	if _, err := w.Write(program); err != nil {
		return nil, fmt.Errorf("write the program: %w", err)
	}
	r, err := os.Open(fmt.Sprintf("/proc/self/fd/%d", fd))
	if err != nil {
		return nil, fmt.Errorf("open the program: %w", err)
	}
	return r, nil
}
