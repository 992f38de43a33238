package sandbox

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"

	"github.com/mirrord-go/mirrord/internal/failure"
	"github.com/mirrord-go/mirrord/internal/local/sandbox/handoff"
)

// Explain gives an error of Launch or Attach the form for a person: why the
// sandbox could not be made, or the command not be started in it, and what to
// do. Errors that are no *handoff.Error come back as they are.
func Explain(err error) error { return explain(err, sysctl) }

// sysctl reads a setting of the kernel; empty: this kernel does not have it.
func sysctl(name string) string {
	b, err := os.ReadFile("/proc/sys/" + name)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

func explain(err error, sysctl func(name string) string) error {
	var h *handoff.Error
	if !errors.As(err, &h) {
		return err
	}
	f := &failure.Error{Code: "no-sandbox", What: "the sandbox for the command cannot be made here", Why: h.Error(), Cause: err,
		Do: "see docs/errors.md, no-sandbox: what each step of the sandbox needs"}
	denied := h.Errno == syscall.EPERM || h.Errno == syscall.EACCES
	switch h.Step {
	case handoff.StepLookup, handoff.StepExec:
		f.Code, f.Exit = "command-not-started", h.ExitCode()
		f.What = fmt.Sprintf("the command %q cannot be started", h.Path)
		f.Why, f.Do = h.Errno.Error(), "check its name and PATH; a path of the pod can be given in full"
		switch {
		case h.Errno == syscall.ENOENT && h.Step == handoff.StepExec:
			f.Why = "it, or the interpreter that it names, is neither here nor in the pod"
		case h.Errno == syscall.ENOENT:
			f.Why = "there is no such command, neither here nor in the pod"
		}
		return f
	case handoff.StepChdir:
		f.Code = "no-working-directory"
		f.What = fmt.Sprintf("the working directory %q cannot be entered in the sandbox", h.Path)
		f.Why, f.Do = h.Errno.Error(), "cd to a directory of your own, then start the command"
		return f
	}
	// AppArmor lets anybody make the namespace, and takes its capabilities away:
	// what fails is the first step that needs one.
	if h.Step == handoff.StepUserNS || h.Step == handoff.StepMap || denied && sysctl(restrictSetting) == "1" {
		f.Code = "no-user-namespaces"
		f.What = "this machine does not let you make user namespaces"
		why, do := noNamespaces(h, sysctl)
		f.Why, f.Do = f.Why+why, do
		return f
	}
	switch h.Step {
	case handoff.StepTUN:
		f.Code, f.What = "no-tun", "/dev/net/tun cannot be used"
		f.Do = "as root: modprobe tun; mknod -m 0666 /dev/net/tun c 10 200 (or chmod 0666 /dev/net/tun); in a container: --device /dev/net/tun"
	case handoff.StepFUSE:
		f.Code, f.What = "no-fuse", "/dev/fuse cannot be used"
		f.Do = "as root: modprobe fuse; mknod -m 0666 /dev/fuse c 10 229 (or chmod 0666 /dev/fuse); in a container: --device /dev/fuse"
	case handoff.StepNFT:
		f.Code, f.What = "no-nftables", "nftables cannot be used in a namespace of yours"
		f.Do = "as root: modprobe -a nf_tables nft_chain_nat nf_nat"
	case handoff.StepSeccomp:
		f.What = "new listeners cannot be noticed as they are made"
		f.Do = "use Linux 5.0 or newer, outside of another sandbox of mirrord's"
	}
	return f
}

// restrictSetting is AppArmor's restriction (Ubuntu 23.10 and newer).
const restrictSetting = "kernel/apparmor_restrict_unprivileged_userns"

// noNamespaces says which setting forbids user namespaces, and how to change
// it, as far as that can be seen.
func noNamespaces(h *handoff.Error, sysctl func(string) string) (why, do string) {
	switch {
	case sysctl("user/max_user_namespaces") == "0":
		return " (user.max_user_namespaces is 0)", "as root: sysctl -w user.max_user_namespaces=15000"
	case sysctl("kernel/unprivileged_userns_clone") == "0": // Debian's
		return " (kernel.unprivileged_userns_clone is 0)", "as root: sysctl -w kernel.unprivileged_userns_clone=1"
	case sysctl(restrictSetting) == "1":
		return " (kernel.apparmor_restrict_unprivileged_userns is 1: AppArmor lets only programs with a profile)",
			"as root: sysctl -w kernel.apparmor_restrict_unprivileged_userns=0, or an AppArmor profile for mirrord with the line \"userns,\""
	case h.Errno == syscall.ENOSPC:
		return " (the limit of user namespaces is reached, here or in an outer one)", "as root: sysctl -w user.max_user_namespaces=15000, also around this container"
	}
	return "", "in a container, its seccomp profile forbids them: start it with --security-opt seccomp=unconfined --security-opt apparmor=unconfined\n" +
		"else, as root: sysctl -w user.max_user_namespaces=15000 kernel.unprivileged_userns_clone=1"
}
