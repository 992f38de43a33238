// Package host knows what a session needs of the machine it runs on: each
// piece, why it is needed, what is wrong when it fails, the commands that mend
// it, and what differs where a session does without.
//
// The sandbox explains its failures with it, `mirrord doctor` its checks, so
// both say the same. Look reads what can be seen of the machine and changes
// nothing; everything else is a pure function of what it has seen and of how a
// step of the sandbox failed. Nothing here runs a command: Cure.Commands are
// values for whoever may.
package host

import (
	"errors"
	"fmt"
	"strings"
	"syscall"

	"github.com/mirrord-go/mirrord/internal/failure"
	"github.com/mirrord-go/mirrord/internal/local/sandbox/handoff"
)

// A Piece is something that a session needs of this machine.
type Piece struct {
	Step handoff.Step // that fails without it
	Name string
	Why  string // what it is for
	// Without says what differs in a session that does without, where it can;
	// empty: there is none.
	Without string
}

// Pieces are all of them, in the order in which the sandbox needs them. Each
// is a row of docs/hosts.md, which a test keeps true.
var Pieces = []Piece{
	{handoff.StepUserNS, "user namespaces", "the command gets network, files and host name of its own without root",
		"root's own rights make the sandbox: the command keeps them, and what it starts in a network namespace of its own is not ended with it"},
	{handoff.StepTUN, "/dev/net/tun", "the network device of the sandbox",
		"a veth pair stands in for it: the network is slower by about a third, and takes 17 MiB more memory"},
	{handoff.StepNFT, "nftables", "localhost is the pod's, except for ports that the command serves",
		"localhost of the pod is there by IPv4 only, so programs that try ::1 first are refused and go on with 127.0.0.1"},
	{handoff.StepFUSE, "/dev/fuse", "the files of the pod", ""},
	{handoff.StepBind, "mounts", "directories of this machine at full speed among the files of the pod", ""},
	{handoff.StepMount, "change of root", "the files of the pod are the root of the command", ""},
	{handoff.StepSeccomp, "notice of listeners", "a port is served before listen() returns",
		"they are looked for instead and found some 10 ms after listen(), which cannot fail for a reason of the pod's"},
	{handoff.StepOwners, "owners of files", "the files of the pod are shown with their owners and groups", "every file of the pod is shown as your own"},
}

// Explain gives an error of the sandbox the form for a person, and what mends
// it. Errors that are no *handoff.Error come back as they are, with no cure.
func Explain(err error, f Facts) (error, Cure) {
	h, ok := errors.AsType[*handoff.Error](err)
	if !ok {
		return err, Cure{}
	}
	if e := ofCommand(h); e != nil {
		e.Cause = err
		return e, Cure{}
	}
	e := &failure.Error{Code: "no-sandbox", What: "the sandbox for the command cannot be made here", Why: h.Error(), Cause: err}
	cure := f.cure(h, e)
	e.Do = cure.text(f)
	return e, cure
}

// ofCommand is for failures that are not this machine's.
func ofCommand(h *handoff.Error) *failure.Error {
	switch h.Step {
	case handoff.StepLookup, handoff.StepExec:
		e := &failure.Error{Code: "command-not-started", Exit: h.ExitCode(), What: fmt.Sprintf("the command %q cannot be started", h.Path),
			Why: h.Errno.Error(), Do: "check its name and PATH; a path of the pod can be given in full"}
		switch {
		case h.Errno == syscall.ENOENT && h.Step == handoff.StepExec:
			e.Why = "it, or the interpreter that it names, is neither here nor in the pod"
		case h.Errno == syscall.ENOENT:
			e.Why = "there is no such command, neither here nor in the pod"
		}
		return e
	case handoff.StepChdir:
		return &failure.Error{Code: "no-working-directory", What: fmt.Sprintf("the working directory %q cannot be entered in the sandbox", h.Path),
			Why: h.Errno.Error(), Do: "cd to a directory of your own, then start the command"}
	}
	return nil
}

// cure decides what is missing, completes e with that, and says what mends it.
func (f Facts) cure(h *handoff.Error, e *failure.Error) Cure {
	denied := h.Errno == syscall.EPERM || h.Errno == syscall.EACCES
	// AppArmor lets anybody make the namespace, and takes its capabilities away:
	// what fails is the first step that needs one.
	if h.Step == handoff.StepUserNS || h.Step == handoff.StepMap || denied && f.restricted() {
		e.Code, e.What = "no-user-namespaces", "this machine does not let you make user namespaces"
		return f.namespaces(h, e)
	}
	inside := f.Container != ""
	switch h.Step {
	case handoff.StepTUN:
		e.Code, e.What = "no-tun", "/dev/net/tun cannot be used"
		return f.device(h, "/dev/net/tun", 200, "tun")
	case handoff.StepFUSE:
		e.Code, e.What = "no-fuse", "/dev/fuse cannot be used"
		if h.Path == MountOf("/dev/fuse") {
			e.What = "the files of the pod cannot be mounted"
			if denied && inside {
				return Cure{Run: f.unconfined()}
			}
		}
		return f.device(h, "/dev/fuse", 229, "fuse")
	case handoff.StepNFT:
		e.Code, e.What = "no-nftables", "nftables cannot be used in a namespace of yours"
		return f.modules("nf_tables", "nft_chain_nat", "nf_nat")
	case handoff.StepOwners:
		e.What = "ids for the owners of files cannot be mapped"
		switch e.Why = h.Text; {
		case f.Owners.Missing() != "":
			e.Why = f.Owners.Missing()
		case inside:
			return Cure{Else: "start the container without no-new-privileges, and with the capabilities SETUID and SETGID"}
		}
		return f.Owners.cure()
	case handoff.StepBind, handoff.StepMount:
		if h.Errno == syscall.ENOSYS {
			return Cure{Else: fmt.Sprintf("use Linux 5.2 or newer; this is %s", f.Release)}
		}
		if denied && (inside || f.Filtered) {
			e.Why += ": " + f.guard()
			return Cure{Run: f.unconfined()}
		}
	case handoff.StepSeccomp:
		e.What = "new listeners cannot be noticed as they are made"
		if denied && (inside || f.Filtered) {
			e.Why += ": " + f.guard()
			return Cure{Run: f.unconfined()}
		}
		return Cure{Else: "use Linux 5.6 or newer, outside of another sandbox of mirrord's"}
	}
	return Cure{Else: "see docs/hosts.md: what each step of the sandbox needs"}
}

// MountOf is the Path of an error of mounting a device's file system, rather
// than of opening the device.
func MountOf(device string) string { return device + " (mount)" }

// capSetFCap is the number of CAP_SETFCAP (capabilities(7)).
const capSetFCap = 31

// namespaces says which setting forbids them, as far as that can be seen.
func (f Facts) namespaces(h *handoff.Error, e *failure.Error) Cure {
	switch {
	case h.Errno == syscall.EAGAIN:
		e.Why += fmt.Sprintf(" (the limit of processes is reached: ulimit -u says %s)", limit(f.Processes))
		return Cure{Else: "end some processes, or raise the limit: ulimit -u unlimited"}
	case f.WSL == 1:
		e.Why += " (WSL 1 has no Linux kernel)"
		return Cure{Else: "in Windows: wsl --set-version " + f.distribution() + " 2"}
	}
	if c := f.settings(); len(c.Commands) > 0 && (h.Step == handoff.StepUserNS) {
		var zero []string
		for _, s := range f.zero() {
			zero = append(zero, s.name+" is 0")
		}
		e.Why += " (" + strings.Join(zero, ", ") + ")"
		return c
	}
	switch {
	case h.Step == handoff.StepMap && f.UID == 0 && f.CapBound&(1<<capSetFCap) == 0:
		e.Why += " (root may map itself with CAP_SETFCAP only, user_namespaces(7))"
		return Cure{Run: []string{"--cap-add=SETFCAP"}}
	case f.restricted():
		e.Why += " (" + restrictSetting + " is 1: AppArmor lets only programs with a profile)"
		return f.profile()
	case h.Errno == syscall.ENOSPC:
		e.Why += " (the limit of user namespaces is reached, here or in an outer one)"
		return Cure{Else: "as root, also around this container or sandbox: sysctl -w user.max_user_namespaces=" + manyNamespaces}
	case f.Container != "" || f.Filtered && h.Step == handoff.StepUserNS:
		e.Why += ": " + f.guard()
		return Cure{Run: f.unconfined()}
	case f.AppArmor && (h.Step != handoff.StepUserNS || h.Errno == syscall.EACCES || f.confined()):
		e.Why += fmt.Sprintf(" (AppArmor, profile %s)", f.Label)
		return f.profile()
	case h.Errno == syscall.EINVAL || h.Errno == syscall.ENOSYS:
		e.Why += " (this kernel is built without them: CONFIG_USER_NS)"
		return Cure{Else: "use the kernel of a distribution; this is " + f.Release}
	case h.Errno == syscall.EPERM && h.Step == handoff.StepUserNS:
		return Cure{Else: "no setting forbids it: leave the chroot, if this is one (clone(2), EPERM), or ask who set up this machine"}
	}
	return Cure{Else: "see docs/hosts.md: user namespaces"}
}

func limit(n uint64) string {
	if n == ^uint64(0) {
		return "unlimited"
	}
	return fmt.Sprint(n)
}

// guard names what most likely stands in the way in a container.
func (f Facts) guard() string {
	name := f.Container
	if name == "" {
		name = "container or sandbox"
	}
	if f.Filtered {
		return "the seccomp profile of this " + name + " forbids it"
	}
	return "this " + name + " forbids it"
}
