package main

import (
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/mirrord-go/mirrord/internal/agent/confine"
	"github.com/mirrord-go/mirrord/internal/agent/server"
	"github.com/mirrord-go/mirrord/internal/agent/target"
	"github.com/mirrord-go/mirrord/internal/protocol"
)

// allFeatures is what an agent may be started for.
const allFeatures = "network,files,write,unix,mirror,steal,drain,mesh"

// confined gives up, for good and on all threads, what was needed only to get
// at the target, and what the wanted features do not need. What stays is for
// traffic, and, where the target is root itself, for doing with files what it
// may do. In the target's own pod it is told what could not be had.
func confined(t *target.Target, wanted []string, inPod bool) (server.Lacks, error) {
	wants := func(feature string) bool { return slices.Contains(wanted, feature) }
	var keep []int
	if wants("mirror") || wants("drain") {
		keep = append(keep, unix.CAP_NET_RAW)
	}
	if wants("steal") {
		keep = append(keep, unix.CAP_NET_ADMIN, unix.CAP_BPF)
	}
	if wants("mesh") && !wants("steal") {
		keep = append(keep, unix.CAP_NET_ADMIN)
	}
	if t != nil && t.UID == 0 {
		keep = append(keep, forFiles(t.Caps, inPod, wants("files"), wants("write"))...)
		if wants("unix") && t.Caps&(1<<unix.CAP_DAC_OVERRIDE) != 0 { // other users' sockets
			keep = append(keep, unix.CAP_DAC_OVERRIDE)
		}
	}
	left, err := confine.Capabilities(keep...)
	if err != nil {
		return server.Lacks{}, err
	}
	// Where another filter or the kernel forbids that, the agent serves without.
	if err := confine.SystemCalls(wants("steal")); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOSYS) && !errors.Is(err, unix.EPERM) {
		return server.Lacks{}, err
	}
	if t == nil || !inPod {
		return server.Lacks{}, nil
	}
	return lacks(left, t.MissingGroups()), nil
}

// forFiles are the capabilities with which a target that is root uses its files,
// of those it has.
func forFiles(has uint64, inPod, files, write bool) (keep []int) {
	may := func(c int) bool { return has&(1<<c) != 0 }
	switch {
	case !files:
		return nil
	case may(unix.CAP_DAC_OVERRIDE) && (write || inPod && !may(unix.CAP_DAC_READ_SEARCH)): // no runtime gives the weaker one by itself
		keep = append(keep, unix.CAP_DAC_OVERRIDE, unix.CAP_DAC_READ_SEARCH)
	case may(unix.CAP_DAC_OVERRIDE), may(unix.CAP_DAC_READ_SEARCH):
		keep = append(keep, unix.CAP_DAC_READ_SEARCH)
	}
	for _, c := range []int{unix.CAP_FOWNER, unix.CAP_CHOWN} {
		if write && may(c) {
			keep = append(keep, c)
		}
	}
	return keep
}

// lacks says what an agent with the capabilities left cannot do.
func lacks(left uint64, groups []int) server.Lacks {
	l := server.Lacks{Modes: map[uint8]string{}}
	if left&(1<<unix.CAP_NET_RAW) == 0 {
		l.Modes[protocol.ModeMirror] = "the cluster gives the agent in the target's pod no NET_RAW, without which traffic cannot be copied"
	}
	if left&(1<<unix.CAP_NET_ADMIN) == 0 {
		l.Modes[protocol.ModeSteal] = "the cluster gives the agent in the target's pod no NET_ADMIN, without which ports cannot be taken"
	}
	if len(groups) > 0 {
		l.Else = append(l.Else, fmt.Sprintf("the target is in groups that its agent is not in (%v): files that it uses by them only cannot be used", groups))
	}
	return l
}
