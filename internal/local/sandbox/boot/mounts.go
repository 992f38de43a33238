package boot

import (
	"fmt"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/mirrord-go/mirrord/internal/local/host"
	"github.com/mirrord-go/mirrord/internal/local/sandbox/handoff"
)

// base is where the FUSE file system is mounted before it becomes the root: the
// one directory that surely exists, since init could not have been started
// without it. What it hides has been copied before.
const base = "/proc"

// mounts makes the FUSE file system the root, with the local directories bound
// over it.
//
// Propagation is left alone: in a new user namespace the copied mounts are
// slaves (mount_namespaces(7)), so nothing that happens here reaches the host,
// and what the host mounts later still appears here.
func (s *setup) mounts() *handoff.Error {
	if !s.spec.FUSE {
		return nil
	}
	old, err := unix.Open("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return failure(handoff.StepMount, "/", err)
	}
	defer unix.Close(old)
	for _, p := range s.spec.Binds { // before anybody has to serve anything
		from, err := source(old, path.Clean("/"+p))
		if err != nil {
			return failure(handoff.StepBind, p, err)
		}
		unix.Close(from)
	}
	if err := s.mountFUSE(); err != nil {
		return failure(handoff.StepFUSE, "/dev/fuse", err)
	}
	if err := pivot(base); err != nil {
		return failure(handoff.StepMount, "/", err)
	}
	for _, p := range s.spec.Binds {
		if err := bind(old, path.Clean("/"+p)); err != nil {
			return failure(handoff.StepBind, p, err)
		}
	}
	if err := leave(); err != nil {
		return failure(handoff.StepMount, "/", err)
	}
	for _, p := range s.spec.Hides {
		err := unix.Mount("mirrord", p, "tmpfs", unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "size=4k,nr_inodes=1,mode=555")
		if err != nil {
			return failure(handoff.StepBind, p, err)
		}
	}
	return nil
}

// bind attaches a copy of p of the old root at p. The path is walked in each of
// both by itself, so that a symbolic link in the target's tree never leads a
// mount out of the new root. Recursive: a copy without the locked submounts is
// refused in a user namespace. One at a time: the caller may have set a low
// limit of open files.
func bind(old int, p string) error {
	from, err := source(old, p)
	if from < 0 {
		return err
	}
	defer unix.Close(from)
	tree, err := unix.OpenTree(from, "", unix.AT_EMPTY_PATH|unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE)
	if err != nil {
		return err
	}
	defer unix.Close(tree)
	return unix.MoveMount(tree, "", unix.AT_FDCWD, p, unix.MOVE_MOUNT_F_EMPTY_PATH)
}

// source opens p of the old root. One that was removed since it was listed, as
// happens in /tmp all the time, is -1 and no error.
func source(old int, p string) (int, error) {
	from, err := below(old, p)
	if err != unix.ENOENT {
		return from, err
	}
	dir, gone := below(old, path.Dir(p))
	if gone != nil {
		return -1, err
	}
	unix.Close(dir)
	return -1, nil
}

// below opens p as if root were the root.
func below(root int, p string) (int, error) {
	return unix.Openat2(root, p, &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT})
}

// keepMounts makes the copied mounts slaves of the host's, which they are by
// themselves only in a new user namespace.
func keepMounts() error { return unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, "") }

// mountFUSE opens the device in the user namespace that mounts it (the kernel
// insists), and hands it to the supervisor, which must serve it from now on.
func (s *setup) mountFUSE() error {
	var options []string
	others := !s.own || s.many && os.Geteuid() == 0 // programs of root may become another user here; the kernel checks modes then
	if s.spec.DefaultPermissions || others {
		options = append(options, "default_permissions")
	}
	if others {
		options = append(options, "allow_other")
	}
	if s.spec.MaxRead > 0 {
		options = append(options, fmt.Sprintf("max_read=%d", s.spec.MaxRead))
	}
	fd, err := openFUSE(options...)
	if err != nil {
		return err
	}
	return s.send(handoff.FUSE, fd)
}

// openFUSE gives the device, mounted at base.
func openFUSE(options ...string) (int, error) {
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	options = append([]string{fmt.Sprintf("fd=%d", fd), "rootmode=40000",
		fmt.Sprintf("user_id=%d", os.Getuid()), fmt.Sprintf("group_id=%d", os.Getgid())}, options...)
	err = unix.Mount("mirrord", base, "fuse.mirrord", unix.MS_NOSUID|unix.MS_NODEV, strings.Join(options, ","))
	if err != nil {
		unix.Close(fd)
		return -1, failure(handoff.StepFUSE, host.MountOf("/dev/fuse"), err)
	}
	return fd, nil
}

// pivot makes the mount at dir the root. The old one is stacked upon it, as
// pivot_root(2) does when both arguments are ".", until leave.
func pivot(dir string) error {
	if err := unix.Chdir(dir); err != nil {
		return err
	}
	return unix.PivotRoot(".", ".")
}

// leave lets go of the old root.
func leave() error {
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return err
	}
	return unix.Chdir("/")
}
