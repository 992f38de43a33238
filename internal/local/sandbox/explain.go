package sandbox

import (
	"errors"
	"fmt"
	"syscall"

	"github.com/mirrord-go/mirrord/internal/failure"
	"github.com/mirrord-go/mirrord/internal/local/sandbox/handoff"
)

// Explain gives an error of Launch or Attach the form for a person: why the
// sandbox could not be made, or the command not be started in it, and what to
// do. Errors that are no *handoff.Error come back as they are.
func Explain(err error) error {
	var h *handoff.Error
	if !errors.As(err, &h) {
		return err
	}
	f := &failure.Error{Code: "no-sandbox", What: "the sandbox for the command cannot be made here", Why: h.Error(), Cause: err,
		Do: "see docs/errors.md, no-sandbox: what each step of the sandbox needs"}
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
	case handoff.StepChdir:
		f.Code = "no-working-directory"
		f.What = fmt.Sprintf("the working directory %q cannot be entered in the sandbox", h.Path)
		f.Why, f.Do = h.Errno.Error(), "cd to a directory of your own, then start the command"
	case handoff.StepUserNS, handoff.StepMap:
		f.Code = "no-user-namespaces"
		f.What = "this machine does not let you make user namespaces"
		f.Do = "as root: sysctl -w user.max_user_namespaces=15000 kernel.unprivileged_userns_clone=1\n" +
			"on Ubuntu 23.10 and newer: sysctl -w kernel.apparmor_restrict_unprivileged_userns=0, or an AppArmor profile for mirrord"
	case handoff.StepTUN:
		f.Code, f.What = "no-tun", "/dev/net/tun cannot be used"
		f.Do = "as root: modprobe tun; mknod -m 0666 /dev/net/tun c 10 200 (or chmod 0666 /dev/net/tun)"
	case handoff.StepFUSE:
		f.Code, f.What = "no-fuse", "/dev/fuse cannot be used"
		f.Do = "as root: modprobe fuse; mknod -m 0666 /dev/fuse c 10 229 (or chmod 0666 /dev/fuse)"
	case handoff.StepNFT:
		f.Code, f.What = "no-nftables", "nftables cannot be used in a namespace of yours"
		f.Do = "as root: modprobe -a nf_tables nft_chain_nat nf_nat"
	}
	return f
}
