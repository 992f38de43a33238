// Package roster is where sessions, and those who look for them, find each other:
// unix sockets in directories of the user's, named by the sessions' ids. One of
// Kept lets commands join, one of Running, which every session has, shows what
// goes on.
//
// Both ends make sure that the other one is the same user's. There is nothing
// else on the disk: what a session is, it says itself when it is asked, and a
// socket that nobody answers at is that of a session that was killed; whoever
// meets it removes it.
//
// Hazard: what a user is logged in for takes his runtime directory along when it
// ends (systemd-logind(8)), and with it the sockets. A session that is not There
// any more should end, since nobody can reach it.
package roster

import (
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	// idLetters is how long an id is: 5 bits a letter, so that the sessions of a
	// user do not meet, and one can be typed.
	idLetters = 6
	// tries is how often another id is taken when one is in use.
	tries = 8
)

// Errors of Dial.
var (
	// ErrNone says that there is no session of that id.
	ErrNone = errors.New("there is no such session")
	// ErrStranger says that the other end is another user's.
	ErrStranger = errors.New("the process at the other end is another user's")
)

// Sorts of sockets.
const (
	Kept    = "kept"    // of sessions that commands can join
	Running = "running" // of all sessions, for who looks at them
)

// Dirs are the directories in which sockets of a sort may be, by the environment that
// lookup reads; new ones are made in the first: below $XDG_RUNTIME_DIR, the
// place where a login has such a directory, which is looked at also where the
// variable is missing (cron, sudo), and the directory of state, by
// $XDG_STATE_HOME or ~/.local/state (XDG Base Directory Specification).
func Dirs(lookup func(string) string, sort string) (dirs []string) {
	add := func(base string) {
		if dir := filepath.Join(base, "mirrord"); filepath.IsAbs(base) && !slices.Contains(dirs, dir) {
			dirs = append(dirs, dir)
		}
	}
	for _, base := range []string{lookup("XDG_RUNTIME_DIR"), "/run/user/" + strconv.Itoa(os.Getuid())} {
		if ours(base) {
			add(base)
		}
	}
	state := lookup("XDG_STATE_HOME")
	if home := lookup("HOME"); !filepath.IsAbs(state) && filepath.IsAbs(home) {
		state = filepath.Join(home, ".local", "state")
	}
	add(state)
	for i := range dirs {
		dirs[i] = filepath.Join(dirs[i], sort)
	}
	return dirs
}

// ours tells whether dir is a directory of this user's.
func ours(dir string) bool {
	fi, err := os.Stat(dir)
	if err != nil || !fi.IsDir() {
		return false
	}
	st, ok := fi.Sys().(*syscall.Stat_t)
	return ok && int(st.Uid) == os.Geteuid()
}

// Host is the door of a session. Its methods may be called concurrently.
type Host struct {
	id   string
	path string
	ino  uint64
	l    *net.UnixListener
}

// NewID gives an id that no other session has.
func NewID() string { return strings.ToLower(rand.Text()[:idLetters]) }

// Open makes the door of a session in the first of dirs where that is possible;
// an empty id stands for a new one.
func Open(dirs []string, id string) (*Host, error) {
	err := errors.New("there is neither a runtime directory (XDG_RUNTIME_DIR) nor a home")
	for _, dir := range dirs {
		var h *Host
		if h, err = open(dir, id); err == nil {
			return h, nil
		}
	}
	return nil, fmt.Errorf("make a socket for the session: %w", err)
}

func open(dir, id string) (*Host, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	fi, err := os.Lstat(dir)
	if err != nil {
		return nil, err
	}
	if !fi.IsDir() || !ours(dir) || fi.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("%s is not a directory of this user's alone (mode 0700)", dir)
	}
	for range tries {
		h := &Host{id: id}
		if id == "" {
			h.id = NewID()
		}
		h.path = filepath.Join(dir, h.id)
		h.l, err = listen(dir, h.id)
		if errors.Is(err, syscall.EADDRINUSE) || errors.Is(err, syscall.EEXIST) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if h.ino, err = inode(h.path); err != nil {
			h.l.Close()
			return nil, err
		}
		return h, nil
	}
	return nil, err
}

// at runs do with an address of a socket in dir: by a descriptor of dir, since
// an address holds 107 bytes only (unix(7)).
func at(dir, id string, do func(*net.UnixAddr) error) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return do(&net.UnixAddr{Net: "unix", Name: fmt.Sprintf("/proc/self/fd/%d/%s", f.Fd(), id)})
}

// listen makes the socket. It gets its name when it listens: between bind(2) and
// listen(2) it would be taken for that of a session that was killed.
func listen(dir, id string) (l *net.UnixListener, err error) {
	err = at(dir, "."+id, func(a *net.UnixAddr) (err error) {
		if l, err = net.ListenUnix("unix", a); err != nil {
			return err
		}
		l.SetUnlinkOnClose(false) // it knows the other name
		if err = os.Chmod(a.Name, 0o600); err != nil {
			return err
		}
		return unix.Renameat2(unix.AT_FDCWD, filepath.Join(dir, "."+id), unix.AT_FDCWD, filepath.Join(dir, id), unix.RENAME_NOREPLACE)
	})
	if errors.Is(err, syscall.EEXIST) {
		_ = os.Remove(filepath.Join(dir, "."+id))
	}
	if err != nil && l != nil {
		l.Close()
	}
	return l, err
}

func inode(path string) (uint64, error) {
	var st unix.Stat_t
	err := unix.Lstat(path, &st)
	return st.Ino, err
}

// ID is the session's.
func (h *Host) ID() string { return h.id }

// There reports whether the socket can still be found.
func (h *Host) There() bool {
	ino, err := inode(h.path)
	return err == nil && ino == h.ino
}

// Accept waits for somebody of this user's; others are turned away. It fails
// after Close.
func (h *Host) Accept() (*net.UnixConn, error) {
	for {
		c, err := h.l.AcceptUnix()
		if err != nil {
			return nil, err
		}
		if _, err := Peer(c); err == nil {
			return c, nil
		}
		c.Close()
	}
}

// Close takes the door away. It may be called again.
func (h *Host) Close() error {
	if h.There() {
		_ = os.Remove(h.path)
	}
	return h.l.Close()
}

// Peer is the process at the other end; it fails if that is another user's.
func Peer(c *net.UnixConn) (pid int, err error) {
	rc, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	var who *unix.Ucred
	if cerr := rc.Control(func(fd uintptr) { who, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); cerr != nil {
		return 0, cerr
	}
	if err != nil {
		return 0, err
	}
	if int(who.Uid) != os.Geteuid() {
		return 0, ErrStranger
	}
	return int(who.Pid), nil
}

// Dial connects to the session id, which is in one of dirs, and gives the
// process id of its supervisor. ErrNone: there is none. A socket of one that was
// killed is removed.
func Dial(dirs []string, id string) (c *net.UnixConn, supervisor int, err error) {
	if id == "" || strings.ContainsAny(id, "/.") {
		return nil, 0, ErrNone
	}
	for _, dir := range dirs {
		err := at(dir, id, func(a *net.UnixAddr) (err error) {
			c, err = net.DialUnix("unix", nil, a)
			return err
		})
		switch {
		case errors.Is(err, syscall.ECONNREFUSED):
			_ = os.Remove(filepath.Join(dir, id))
			continue
		case errors.Is(err, syscall.ENOENT), errors.Is(err, syscall.ENOTDIR):
			continue
		case err != nil:
			return nil, 0, fmt.Errorf("meet the session: %w", err)
		}
		if supervisor, err = Peer(c); err != nil {
			c.Close()
			return nil, 0, err
		}
		return c, supervisor, nil
	}
	return nil, 0, ErrNone
}

// Sweep removes the sockets of sessions that were killed, as Dial does with the
// one that it meets. Nobody may ever look at others. It leaves the caller's own, mine,
// alone: to come there would take a looker's place.
func Sweep(dirs []string, mine string) {
	for _, id := range IDs(dirs) {
		if id == mine {
			continue
		}
		if c, _, err := Dial(dirs, id); err == nil {
			c.Close()
		}
	}
}

// IDs are those of the sessions that may be there, sorted; Dial tells.
func IDs(dirs []string) (ids []string) {
	for _, dir := range dirs {
		all, _ := os.ReadDir(dir) // none is an answer
		for _, e := range all {
			if e.Type()&os.ModeSocket != 0 && e.Name()[0] != '.' {
				ids = append(ids, e.Name())
			}
		}
	}
	slices.Sort(ids)
	return slices.Compact(ids)
}
