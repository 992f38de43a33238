package kin

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// stateListen is TCP_LISTEN (net/tcp_states.h), as /proc/net/tcp shows it.
const stateListen = "0A"

// listening gives the inodes of the sockets of this network namespace that may
// accept a connection to at.
func listening(at netip.AddrPort) (inodes []uint64) {
	for _, name := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		b, _ := os.ReadFile(name) // without IPv6 there is no tcp6
		for line := range strings.Lines(string(b)) {
			if local, inode, ok := parseSocket(line); ok && accepts(local, at) {
				inodes = append(inodes, inode)
			}
		}
	}
	return inodes
}

// parseSocket reads a line of /proc/net/tcp (proc_pid_net(5)); ok is false if
// it is no listener.
func parseSocket(line string) (local netip.AddrPort, inode uint64, ok bool) {
	f := strings.Fields(line)
	if len(f) < 10 || f[3] != stateListen {
		return local, 0, false
	}
	address, port, _ := strings.Cut(f[1], ":")
	b, err := hex.DecodeString(address)
	n, perr := strconv.ParseUint(port, 16, 16)
	inode, ierr := strconv.ParseUint(f[9], 10, 64)
	if err != nil || perr != nil || ierr != nil || len(b)%4 != 0 {
		return local, 0, false
	}
	for i := 0; i < len(b); i += 4 { // each word was printed as a number of this machine
		binary.NativeEndian.PutUint32(b[i:], binary.BigEndian.Uint32(b[i:]))
	}
	ip, ok := netip.AddrFromSlice(b)
	return netip.AddrPortFrom(ip, uint16(n)), inode, ok
}

// accepts reports whether a listener at local gets connections to at. A
// listener on [::] may serve IPv4 too: which of them do is not shown.
func accepts(local, at netip.AddrPort) bool {
	ip := local.Addr()
	switch {
	case local.Port() != at.Port():
		return false
	case ip.IsUnspecified():
		return ip.Is6() || at.Addr().Is4()
	}
	return ip.Unmap() == at.Addr()
}

// processes is the process table; the names of files are told for uid's only.
// Supervisors of other sessions count as children of their fronts.
func processes(uid int) (all []Process) {
	self, _ := os.Executable() // found, or nobody goes by that name
	own := filepath.Base(self)
	names, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range names {
		b, err := os.ReadFile(filepath.Join(dir, "status"))
		if err != nil {
			continue // it has ended
		}
		p, ok := parseStatus(string(b))
		if !ok {
			continue
		}
		p.Name = p.Title
		if p.UID == uid {
			if file, err := os.Readlink(filepath.Join(dir, "exe")); err == nil {
				p.Name = filepath.Base(strings.TrimSuffix(file, " (deleted)"))
			}
			if p.Name == own {
				argv, _ := CommandLine(p.PID)
				if front := frontOf(argv, os.Args[0]); front > 0 && !older(p.PID, front) {
					p.Parent = front
				}
			}
		}
		all = append(all, p)
	}
	return all
}

// frontOf gives whom a process belongs to that goes by our own name: it is the
// supervisor of another session, nobody's child, and names its front. 0: it is
// none.
func frontOf(argv []string, name string) int {
	if len(argv) != 2 || argv[0] != name {
		return 0
	}
	front, _ := strconv.Atoi(argv[1])
	return front
}

// older reports whether a process was started before another one, which has then
// got its id after somebody else.
func older(pid, than int) bool {
	a, aerr := startTicks(pid)
	b, berr := startTicks(than)
	return aerr != nil || berr != nil || a < b
}

func startTicks(pid int) (uint64, error) {
	s, err := startTime(pid)
	if err != nil {
		return 0, err
	}
	return strconv.ParseUint(s, 10, 64)
}

// parseStatus reads /proc/PID/status.
func parseStatus(text string) (p Process, ok bool) {
	p.UID = -1
	for line := range strings.Lines(text) {
		key, value, _ := strings.Cut(line, ":")
		value = strings.TrimSpace(value)
		switch key {
		case "Name":
			p.Title = value
		case "Pid":
			p.PID, _ = strconv.Atoi(value)
		case "PPid":
			p.Parent, _ = strconv.Atoi(value)
		case "Uid": // real, effective, saved, file system
			if f := strings.Fields(value); len(f) > 0 {
				if n, err := strconv.Atoi(f[0]); err == nil {
					p.UID = n
				}
			}
			return p, p.PID > 0 && p.UID >= 0
		}
	}
	return p, false
}

// maxCommandLine bounds what is read of a process's arguments, and of its
// variables, in bytes: what execve(2) takes of both together by default.
const maxCommandLine = 2 << 20

// CommandLine gives the arguments and the variables of a process, as far as it
// has not overwritten them and they may be read.
func CommandLine(pid int) (argv, env []string) {
	read := func(name string) []string {
		f, err := os.Open(fmt.Sprintf("/proc/%d/%s", pid, name))
		if err != nil {
			return nil
		}
		defer f.Close()
		b, _ := io.ReadAll(io.LimitReader(f, maxCommandLine)) // it may end meanwhile
		if len(b) == 0 {
			return nil
		}
		return strings.Split(strings.TrimSuffix(string(b), "\x00"), "\x00")
	}
	return read("cmdline"), read("environ")
}

// startTime is when a process was started, in clock ticks since boot.
func startTime(pid int) (string, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "", err
	}
	// The name, in brackets, may hold anything; starttime is field 22, the
	// name field 2 (proc_pid_stat(5)).
	s := string(b)
	f := strings.Fields(s[strings.LastIndexByte(s, ')')+1:])
	if len(f) < 20 {
		return "", fmt.Errorf("/proc/%d/stat is too short: %q", pid, s)
	}
	return f[19], nil
}

// openSockets gives those of wanted that a process has open.
func openSockets(pid int, wanted map[uint64]bool) map[uint64]bool {
	found := map[uint64]bool{}
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	d, err := os.Open(dir)
	if err != nil {
		return nil
	}
	defer d.Close()
	names, _ := d.Readdirnames(-1) // it may end meanwhile
	for _, n := range names {
		to, err := os.Readlink(filepath.Join(dir, n))
		if err != nil {
			continue
		}
		if text, ok := strings.CutPrefix(to, "socket:["); ok {
			if inode, err := strconv.ParseUint(strings.TrimSuffix(text, "]"), 10, 64); err == nil && wanted[inode] {
				found[inode] = true
			}
		}
	}
	return found
}
