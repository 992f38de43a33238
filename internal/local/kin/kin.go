// Package kin finds out who listens on a port of this machine's localhost, and
// whether it is a relative of a process: one of its ancestors or what those
// have started.
//
// A debugger's adapter listens on localhost and has started, directly or
// through other processes, the program that connects back to it. What merely
// runs in the same login is no relative: ancestors count only below the first
// shell, terminal, session manager or process of another user.
//
// The session asks when a connection needs it. It reads /proc and needs no
// privilege: of other users' processes it only knows that they are there.
package kin

import (
	"maps"
	"net/netip"
	"os"
	"slices"
	"sync"
)

// maxOwners bounds what is remembered of listeners. Beyond it all is
// forgotten, which costs another search.
const maxOwners = 256

// Listener is who listens.
type Listener struct {
	Program  string // name of its file; empty: it belongs to another user
	PID      int
	Relative bool
}

// Family is the relatives of a process. Its methods may be called
// concurrently.
type Family struct {
	pid   int
	start string // when pid was started, in the kernel's words: ids are used again
	uid   int
	self  int

	mu     sync.Mutex
	owners map[uint64]Listener // by the inode of their socket
}

// Of is the family of process pid, as long as that lives; then there is none.
// This process is not part of it.
func Of(pid int) *Family {
	start, _ := startTime(pid)
	return &Family{pid: pid, start: start, uid: os.Getuid(), self: os.Getpid(), owners: map[uint64]Listener{}}
}

// Listener finds who accepts TCP connections to at, an address of localhost.
// This process does not count. Of several listeners a relative is given first.
func (f *Family) Listener(at netip.AddrPort) (l Listener, ok bool) {
	sockets := listening(at)
	if len(sockets) == 0 {
		return Listener{}, false
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	// A program that waits for a port asks often: one search a socket.
	if slices.ContainsFunc(sockets, func(inode uint64) bool { _, known := f.owners[inode]; return !known }) {
		f.search(sockets)
	}
	for _, inode := range sockets {
		switch o := f.owners[inode]; {
		case o.PID == f.self:
		case o.Relative:
			return o, true
		case !ok:
			l, ok = o, true
		}
	}
	return l, ok
}

// search finds the owners of sockets.
func (f *Family) search(sockets []uint64) {
	if len(f.owners)+len(sockets) > maxOwners {
		clear(f.owners)
	}
	wanted := map[uint64]bool{}
	for _, inode := range sockets {
		f.owners[inode] = Listener{} // another user's, or closed just now
		wanted[inode] = true
	}
	all := processes(f.uid)
	var relatives map[int]bool
	if start, err := startTime(f.pid); err == nil && start == f.start {
		relatives = Relatives(all, f.pid, f.uid)
	}
	for _, p := range all {
		if p.UID != f.uid {
			continue
		}
		for inode := range openSockets(p.PID, wanted) {
			l := Listener{Program: p.Name, PID: p.PID, Relative: relatives[p.PID] && p.PID != f.self}
			// A socket that several hold is a relative's if one of them is.
			if known := f.owners[inode]; known.PID == 0 || l.Relative && !known.Relative {
				f.owners[inode] = l
			}
		}
	}
}

// Process is one line of the process table.
type Process struct {
	PID, Parent, UID int
	Name             string // of its file; where that cannot be told, Title
	Title            string // what it calls itself
}

// strangers are shells, terminals and managers of sessions and services, by the
// names of their files and by what they call themselves. They start whatever a
// user asks for, so what they start has nothing to do with each other.
var strangers = map[string]bool{
	"sh": true, "bash": true, "rbash": true, "dash": true, "ash": true, "busybox": true, "zsh": true, "ksh": true, "ksh93": true, "mksh": true,
	"fish": true, "csh": true, "tcsh": true, "nu": true, "elvish": true, "xonsh": true, "pwsh": true,

	"gnome-terminal-server": true, "gnome-terminal-": true, "kgx": true, "ptyxis": true, "ptyxis-agent": true, "konsole": true, "yakuake": true,
	"xfce4-terminal": true, "mate-terminal": true, "lxterminal": true, "qterminal": true, "terminator": true, "tilix": true, "guake": true,
	"xterm": true, "urxvt": true, "rxvt": true, "st": true, "alacritty": true, "kitty": true, "foot": true, "footclient": true, "ghostty": true,
	"wezterm-gui": true, "wezterm-mux-server": true, "tmux": true, "tmux: server": true, "screen": true, "zellij": true, "script": true,

	"init": true, "systemd": true, "login": true, "su": true, "sudo": true, "sshd": true, "sshd-session": true, "mosh-server": true, "cron": true,
	"crond": true, "atd": true, "dbus-daemon": true, "dbus-broker": true, "gnome-session-binary": true, "gnome-session-b": true,
	"gnome-session": true, "gnome-shell": true, "plasmashell": true, "ksmserver": true, "plasma_session": true, "xfce4-session": true,
	"mate-session": true, "lxsession": true, "cinnamon-session": true, "i3": true, "sway": true, "Hyprland": true, "xinit": true, "Xorg": true,
	"runit": true, "runsvdir": true, "s6-svscan": true, "openrc-init": true, "tini": true, "docker-init": true, "containerd-shim": true,
	"containerd-shim-runc-v2": true, "conmon": true, "supervisord": true,
}

// Relatives gives the relatives of process pid of user uid among all: its
// ancestors, and what they have started. It is one of them itself.
func Relatives(all []Process, pid, uid int) map[int]bool {
	byPID, children := map[int]Process{}, map[int][]int{}
	for _, p := range all {
		byPID[p.PID] = p
		children[p.Parent] = append(children[p.Parent], p.PID)
	}
	oldest := 0
	seen := map[int]bool{} // a table is not read in one moment: there may be circles in it
	for at := pid; at > 1 && !seen[at]; at = byPID[at].Parent {
		p, ok := byPID[at]
		if !ok || p.UID != uid || strangers[p.Name] || strangers[p.Title] {
			break
		}
		oldest, seen[at] = at, true
	}
	relatives := map[int]bool{}
	if oldest == 0 {
		return relatives
	}
	for next := []int{oldest}; len(next) > 0; {
		at := next[0]
		next = next[1:]
		if relatives[at] {
			continue
		}
		relatives[at] = true
		next = append(next, children[at]...)
	}
	maps.DeleteFunc(relatives, func(pid int, _ bool) bool { return byPID[pid].UID != uid })
	return relatives
}
