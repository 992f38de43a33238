// Package boot is the code that runs inside a sandbox: as its init, which
// prepares the fresh namespaces and then becomes the user's command by execve,
// and as its helper, which stays.
//
// main calls Main before anything else. Init is the re-executed binary
// (/proc/self/exe) with its own user, mount, network and UTS namespace, a child
// of the front, with the caller's stdio and descriptors; its capabilities count
// in its user namespace only. Its one partner is the supervisor, at the other
// end of a socket (package handoff); every failure is told there, with the step
// and the errno.
//
// Hazards:
//   - The id maps, the parent-death signal, capabilities and the seccomp filter
//     belong to the thread: init runs on one locked thread from begin to exec.
//   - From the mount of the FUSE root on, looking up any path may need the
//     supervisor. What must work without it (helper, /proc) is opened before.
//   - Init keeps no copy of the FUSE descriptor: with one, the end of the
//     supervisor would leave init waiting for an answer for ever.
//   - After the filter is installed nothing may call a filtered system call:
//     the supervisor does not serve them yet.
//   - Root as a caller regains all capabilities by execve. Would that be more
//     than init had, the kernel would clear the parent-death signal
//     (commit_creds), so such an init is started with all of them.
package boot

import (
	"errors"
	"os"
	"runtime"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/mirrord-go/mirrord/internal/local/ids"
	"github.com/mirrord-go/mirrord/internal/local/sandbox/handoff"
)

// Main becomes init or helper if that is what this process was started as, and
// then does not return. Otherwise it returns at once, having done nothing.
func Main() {
	switch os.Args[0] {
	case handoff.InitName:
		runtime.LockOSThread()
		exit(runInit())
	case handoff.JoinName:
		runtime.LockOSThread()
		exit(runJoin())
	case handoff.HelperName:
		exit(runHelper())
	}
}

// exit is not os.Exit: there are no exit hooks but the race detector's, which in
// a test's binary would hold up for a second whoever waits for this process.
func exit(code int) { syscall.Exit(code) }

// setup is init's work.
type setup struct {
	conn *handoff.Conn
	spec *handoff.Spec
	own  bool // there is a user namespace of its own
	many bool // with more ids than the caller's

	routed bool // there are no nftables, routes do their work

	helperReady int // the reading end of a pipe, on which the helper says so
}

// runInit returns, with an exit code, only if the command could not be run.
func runInit() int {
	if len(os.Args) != 3 {
		return handoff.CodeBroken
	}
	fd, err := strconv.Atoi(os.Args[1])
	if err != nil {
		return handoff.CodeBroken
	}
	unix.CloseOnExec(fd)
	wait, err := strconv.Atoi(os.Args[2])
	if err != nil {
		return handoff.CodeBroken
	}
	awaitEnd(wait)
	conn, err := handoff.NewConn(os.NewFile(uintptr(fd), "supervisor"))
	if err != nil {
		return handoff.CodeBroken
	}
	s := &setup{conn: conn}
	return s.end(s.run())
}

// end tells the supervisor what has failed and gives the exit code.
func (s *setup) end(failed *handoff.Error) int {
	if failed == nil {
		return 0
	}
	// A supervisor that is gone needs no explanation.
	_ = s.conn.Send(handoff.Message{Kind: handoff.KindError, Body: failed.Encode()})
	return failed.ExitCode()
}

// run takes the steps one after another. It returns nil only after a probe, and
// where there is no command.
func (s *setup) run() *handoff.Error {
	if s.own = os.Getenv(handoff.EnvUID) != ""; s.own {
		if err := mapIDs(); err != nil {
			return failure(handoff.StepMap, "", err)
		}
		text, _ := os.ReadFile("/proc/self/uid_map")
		s.many = ids.Parse(string(text)).Many()
	} else if err := keepMounts(); err != nil {
		return failure(handoff.StepMount, "/", err)
	}
	m, err := s.conn.Receive()
	if err == nil && m.Kind == handoff.KindProbe {
		return s.probe()
	}
	if err != nil || m.Kind != handoff.KindSpec {
		return failure(handoff.StepSpec, "", err)
	}
	if s.spec, err = handoff.DecodeSpec(m.Body); err != nil {
		return failure(handoff.StepSpec, "", err)
	}
	if err := s.sendPath(handoff.Space, "/proc/self/ns/"+s.space()); err != nil {
		return failure(handoff.StepSockets, "", err)
	}
	if s.spec.Hostname != "" {
		if err := unix.Sethostname([]byte(s.spec.Hostname)); err != nil {
			return failure(handoff.StepHostname, s.spec.Hostname, err)
		}
	}
	for _, step := range []func() *handoff.Error{s.startHelper, s.network, s.sockets, s.awaitHelper, s.mounts} {
		if err := step(); err != nil {
			return err
		}
	}
	return s.command()
}

// space is the kind of namespace by which the sandbox's processes are known.
func (s *setup) space() string {
	if s.own {
		return "user"
	}
	return "net"
}

// awaitEnd returns when the pipe has ended, and closes it.
func awaitEnd(pipe int) {
	defer unix.Close(pipe)
	for {
		if _, err := unix.Read(pipe, make([]byte, 1)); !errors.Is(err, unix.EINTR) {
			return
		}
	}
}

// mapIDs maps the caller onto itself, so that id(1) and the owners of the
// caller's files are unchanged, unless the front has had that done and more. Any
// process may map its own user and group, with setgroups(2) denied
// (user_namespaces(7)). Init does it, not its parent, so that a host which forbids
// it (AppArmor) is told from one that forbids the namespace.
func mapIDs() error {
	// The ids as the parent namespace has them: until they are mapped, getuid
	// knows only the overflow id. The front passes them by the environment.
	uid, gid := os.Getenv(handoff.EnvUID), os.Getenv(handoff.EnvGID)
	for _, w := range [][3]string{
		{"uid_map", "uid_map", uid + " 1"}, {"gid_map", "setgroups", "deny"}, {"gid_map", "gid_map", gid + " 1"},
	} {
		if there, err := os.ReadFile("/proc/self/" + w[0]); err != nil || len(there) > 0 {
			continue
		}
		if err := os.WriteFile("/proc/self/"+w[1], []byte(w[2]), 0); err != nil {
			return err
		}
	}
	return nil
}

// failure gives err the form for the supervisor.
func failure(step handoff.Step, path string, err error) *handoff.Error {
	var already *handoff.Error
	if errors.As(err, &already) {
		return already
	}
	e := &handoff.Error{Step: step, Path: path}
	if errors.As(err, &e.Errno) {
		return e
	}
	e.Text = "the supervisor sent something else"
	if err != nil {
		e.Text = err.Error()
	}
	return e
}

// send hands a descriptor to the supervisor and closes it here.
func (s *setup) send(label handoff.Label, fd int, body ...byte) error {
	f := os.NewFile(uintptr(fd), "descriptor")
	defer f.Close()
	return s.conn.Send(handoff.Message{Kind: handoff.KindFile, Body: append([]byte{byte(label)}, body...), File: f})
}

func (s *setup) sendPath(label handoff.Label, path string) error {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	return s.send(label, fd)
}

// command waits for the supervisor's word and becomes the command.
func (s *setup) command() *handoff.Error {
	if err := os.Chdir(s.spec.Dir); err != nil {
		return failure(handoff.StepChdir, s.spec.Dir, err)
	}
	if len(s.spec.Argv) == 0 {
		return s.ready()
	}
	name := s.spec.Argv[0]
	path, err := lookPath(name, s.spec.Env)
	if err != nil {
		return failure(handoff.StepLookup, name, err)
	}
	if failed := s.ready(); failed != nil {
		return failed
	}
	// The signal was set for the thread that init began as; execve keeps that
	// of the calling thread.
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0); err != nil {
		return failure(handoff.StepExec, name, err)
	}
	// execve gives the command no capability of the sandbox's namespaces
	// (unless it is root, who has them all); this thread keeps its own until
	// then, which is why the filter needs no no_new_privs.
	if err := clearInheritable(); err != nil {
		return failure(handoff.StepExec, name, err)
	}
	if s.many && os.Geteuid() != 0 {
		if err := clearBounding(); err != nil {
			return failure(handoff.StepExec, name, err)
		}
	}
	if s.spec.NoIPv6 {
		if err := forbidIPv6(); err != nil {
			return failure(handoff.StepSeccomp, "", err)
		}
	}
	if err := s.installFilter(); err != nil {
		return failure(handoff.StepSeccomp, "", err)
	}
	err = syscall.Exec(path, s.spec.Argv, s.spec.Env)
	if errors.Is(err, unix.ENOEXEC) { // a script without "#!": as shells and execvp(3) do
		err = syscall.Exec("/bin/sh", append([]string{"sh", path}, s.spec.Argv[1:]...), s.spec.Env)
	}
	return failure(handoff.StepExec, path, err)
}

// ready says so and waits for the supervisor's word.
func (s *setup) ready() *handoff.Error {
	if err := s.conn.Send(handoff.Message{Kind: handoff.KindReady}); err != nil {
		return failure(handoff.StepSpec, "", err)
	}
	if m, err := s.conn.Receive(); err != nil || m.Kind != handoff.KindGo {
		return failure(handoff.StepSpec, "", err)
	}
	return nil
}

// clearBounding keeps the command from capabilities of the sandbox's namespaces
// for good: with more ids than the caller's, a set-user-id program of one of them
// (in the store of a rootless container engine there are such) would be root
// inside. Namespaces that the command makes have all again (user_namespaces(7)).
func clearBounding() error {
	for c := uintptr(0); ; c++ {
		err := unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0)
		if errors.Is(err, unix.EINVAL) && c > 0 { // beyond the last one
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// clearInheritable empties the thread's inheritable capabilities, and with them
// the ambient ones (capabilities(7)).
func clearInheritable() error {
	head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&head, &data[0]); err != nil {
		return err
	}
	data[0].Inheritable, data[1].Inheritable = 0, 0
	return unix.Capset(&head, &data[0])
}
