package target

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// OtherUserError says that the target's process belongs to a user that the
// agent is not and may not become. An agent of these ids would do.
type OtherUserError struct {
	UID    uint32 `json:"uid"`
	GID    uint32 `json:"gid"`
	Groups []int  `json:"groups,omitempty"`
}

func (e *OtherUserError) Error() string {
	return fmt.Sprintf("the target runs as user %d, group %d: the agent is user %d, group %d and may not change", e.UID, e.GID, os.Getuid(), os.Getgid())
}

// Become makes this process the user of process pid, whose process list it
// shares: the kernel lets programs of one user look into each other, without
// any capability (ptrace access mode in ptrace(2)). Capabilities that the
// caller has stay permitted; they must be made effective again. An
// *OtherUserError: the runtime must start the agent as that user.
func Become(pid int) error {
	if pid == os.Getpid() {
		return errors.New("the processes of the target are not to be seen: the container runtime does not know targetContainerName")
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return fmt.Errorf("read the target's credentials: %w", err)
	}
	var t Target
	if err := t.parseStatus(status); err != nil {
		return err
	}
	if os.Geteuid() == int(t.UID) && os.Getegid() == int(t.GID) {
		return nil
	}
	groups := t.Groups
	if groups == nil {
		groups = []int{}
	}
	// The flag is each thread's own; the others change all threads.
	_, _, errno := syscall.AllThreadsSyscall(unix.SYS_PRCTL, unix.PR_SET_KEEPCAPS, 1, 0)
	if errno == 0 && syscall.Setgroups(groups) == nil &&
		syscall.Setresgid(int(t.GID), int(t.GID), int(t.GID)) == nil && syscall.Setresuid(int(t.UID), int(t.UID), int(t.UID)) == nil {
		return nil
	}
	return &OtherUserError{t.UID, t.GID, t.Groups}
}

// MissingGroups are groups by which the target may do what this agent may not;
// they cannot be had without CAP_SETGID.
func (t *Target) MissingGroups() []int {
	have, err := unix.Getgroups()
	if err != nil || os.Geteuid() == 0 {
		return nil
	}
	have = append(have, os.Getegid())
	return slices.DeleteFunc(slices.Clone(t.Groups), func(g int) bool { return slices.Contains(have, g) })
}

// explain adds to a refusal to look into process pid why it came, as far as
// that can be told from outside.
func explain(pid int, err error) error {
	if !errors.Is(err, fs.ErrPermission) {
		return err
	}
	var theirs, ours Target
	status, rerr := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	own, oerr := os.ReadFile("/proc/self/status")
	if errors.Join(rerr, oerr) != nil || theirs.parseStatus(status) != nil || ours.parseStatus(own) != nil {
		return err
	}
	var why string
	switch {
	case ours.Caps&(1<<unix.CAP_SYS_PTRACE) != 0:
		return err // a security module's matter
	case theirs.UID != ours.UID || theirs.GID != ours.GID:
		why = fmt.Sprintf("it belongs to user %d, group %d, and this agent to user %d, group %d", theirs.UID, theirs.GID, ours.UID, ours.GID)
	case theirs.permitted&^ours.Caps != 0:
		why = fmt.Sprintf("it has capabilities that this agent has not (%s)", capabilityNames(theirs.permitted&^ours.Caps))
	default:
		why = "it lets nobody look in, as programs do that changed their user after they had been started"
	}
	return fmt.Errorf("%w: %s", err, why)
}

// capabilityNames are those of a set, by number where nobody knows a name.
func capabilityNames(set uint64) string {
	names := strings.Fields(`CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE
		NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT
		SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE
		MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE`) // linux/capability.h, in order
	var all []string
	for i := range 64 {
		switch {
		case set&(1<<i) == 0:
		case i < len(names):
			all = append(all, names[i])
		default:
			all = append(all, fmt.Sprint(i))
		}
	}
	return strings.Join(all, ", ")
}
