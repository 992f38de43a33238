package boot

import (
	"os"

	"golang.org/x/sys/unix"

	"github.com/mirrord-go/mirrord/internal/local/sandbox/handoff"
	"github.com/mirrord-go/mirrord/internal/local/sandbox/route"
)

// probe tries each thing that a sandbox needs of the machine, independently of
// the others, in the namespaces and with the capabilities that it would have,
// and what stands in for it where it is missing, and reports each. Nothing of it outlives this process. The change of root,
// after which no path is there any more, and the filter come last.
func (s *setup) probe() *handoff.Error {
	for _, p := range []struct {
		step handoff.Step
		path string
		try  func() error
		// instead is for the error of try: nil where something stands in for what
		// is missing, else what to tell.
		instead func(error) error
	}{
		{handoff.StepTUN, "/dev/net/tun", func() error { return closing(openTUN()) }, func(err error) error {
			fd, _, err := vethFor(err)
			return closing(fd, err)
		}},
		{handoff.StepNFT, "", func() error { return applyRules(nil) }, func(err error) error {
			if missing(err) && tryRoutes() == nil {
				return nil
			}
			return err
		}},
		{handoff.StepFUSE, "/dev/fuse", func() error {
			if err := closing(openFUSE()); err != nil {
				return err
			}
			return unix.Unmount(base, unix.MNT_DETACH)
		}, nil},
		{handoff.StepBind, "", tryBind, nil},
		{handoff.StepMount, "", func() error {
			if err := unix.Mount("mirrord", base, "tmpfs", 0, "size=4k"); err != nil {
				return err
			}
			if err := pivot(base); err != nil {
				return err
			}
			return leave()
		}, nil},
		{handoff.StepSeccomp, "", tryFilter, func(error) error { return nil }},
	} {
		result := &handoff.Error{Step: p.step}
		if err := p.try(); err != nil {
			instead := p.instead != nil
			if instead {
				if none := p.instead(err); none != nil {
					err, instead = none, false
				}
			}
			result = failure(p.step, p.path, err)
			result.Instead = instead
		}
		if err := s.conn.Send(handoff.Message{Kind: handoff.KindProbed, Body: result.Encode()}); err != nil {
			return failure(handoff.StepSpec, "", err)
		}
	}
	return nil
}

// tryRoutes makes the routes and rules that stand in for nftables, with lo in
// the place of the device.
func tryRoutes() error {
	fd, err := route.Socket()
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := route.On(fd).SetLink(loopbackIndex, unix.IFF_UP); err != nil {
		return err
	}
	return routeLoopback(loopbackIndex, nil)
}

// tryBind attaches a copy of a directory, as mounts does.
func tryBind() error {
	fd, err := unix.OpenTree(unix.AT_FDCWD, base, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.MoveMount(fd, "", unix.AT_FDCWD, base, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return err
	}
	return unix.Unmount(base, unix.MNT_DETACH)
}

// tryFilter also tries what the supervisor does with a call that the filter
// sends: it duplicates the caller's descriptor.
func tryFilter() error {
	self, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		return err
	}
	defer unix.Close(self)
	if err := closing(unix.PidfdGetfd(self, self, 0)); err != nil {
		return err
	}
	fd, e := listenerFilter(false)
	if e != 0 {
		return e
	}
	return unix.Close(fd)
}

func closing(fd int, err error) error {
	if err != nil {
		return err
	}
	return unix.Close(fd)
}
