package sandbox

import (
	"fmt"
	"os"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/mirrord-go/mirrord/internal/local/sandbox/handoff"
)

// Enter is Launch for a sandbox that is there already and is kept: its first
// process enters the namespaces of the process that door is a pidfd of, the
// helper (Box.Door). own says that the sandbox has a user namespace. What Launch
// says of descriptors, of the end of this process and of Wait holds here too.
//
// The socket is for Box.Join. Nothing is entered that this user's processes have
// not made.
func Enter(door *os.File, own bool) (*Process, *os.File, error) {
	ours, theirs, err := handoff.Pair()
	if err != nil {
		return nil, nil, err
	}
	defer theirs.Close()
	exe, err := os.Open("/proc/self/exe")
	if err != nil {
		ours.Close()
		return nil, nil, err
	}
	defer exe.Close()
	p := newProcess()
	close(p.mapped) // the sandbox has its ids
	if err := p.run(func() error { return p.enter(door, exe, theirs, own) }); err != nil {
		ours.Close()
		return nil, nil, err
	}
	return p, ours, nil
}

// enter runs on the thread that stays.
func (p *Process) enter(door, exe, sock *os.File, own bool) error {
	inherited, err := inheritedFiles()
	if err != nil {
		return fmt.Errorf("find the caller's descriptors: %w", err)
	}
	// Go has raised the limit of open files for this process, and would give the
	// command the caller's by its own ways only (syscall.Exec). One that fails does
	// so too.
	_ = syscall.Exec("", nil, nil)
	e := &entering{spaces: unix.CLONE_NEWNS | unix.CLONE_NEWNET | unix.CLONE_NEWUTS, envp: []*byte{nil}}
	if own {
		e.spaces |= unix.CLONE_NEWUSER
		if e.caps, err = capabilities(false); err != nil {
			return err
		}
		e.head.Version = unix.LINUX_CAPABILITY_VERSION_3
		for _, c := range e.caps {
			e.state[c/32].Inheritable |= 1 << (c % 32)
		}
		// All that there are: root needs them over its last execve.
		for i := range e.state {
			e.state[i].Permitted, e.state[i].Effective = ^uint32(0), ^uint32(0)
		}
	}
	err = control(door, func(fd int) error {
		e.door = fd
		return control(exe, func(fd int) error {
			e.exe = fd
			return control(sock, func(fd int) error {
				e.keep = []int{fd}
				for _, a := range []string{handoff.JoinName, strconv.Itoa(fd)} {
					s, err := syscall.BytePtrFromString(a)
					if err != nil {
						return err
					}
					e.argv = append(e.argv, s)
				}
				e.argv = append(e.argv, nil)
				p.pid, p.pidfd, err = e.start()
				return err
			})
		})
	})
	if err != nil {
		return fmt.Errorf("enter the sandbox: %w", err)
	}
	for _, n := range inherited {
		unix.Close(n)
	}
	p.openSpace(own)
	return nil
}
