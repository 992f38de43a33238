// Package files is the local half of the file flow: the tree of files that the
// program sees, made of the target's and the developer's own.
//
// The session serves it by FUSE and mounts over it what is local as a whole.
// For every other path package rules says whose it is, and under which name;
// the developer's files are used here, the target's through the link. What the
// target told is remembered for a short life; what the session changed there it
// sees at once. A path that is the target's to read and the developer's to
// write becomes the developer's own, for the session, when it is first written.
//
// Errors carry the errno of whoever was asked. A signal for the waiting
// process ends a remote call after a moment, the end of the link at once, and
// nothing waits for ever.
//
// Hazard: nothing here may touch a path of the sandbox's own mount. All local
// paths are those of the namespace that the supervisor lives in.
package files

import (
	"context"
	"errors"
	"os"
	"path"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mirrord-go/mirrord/internal/budget"
	"github.com/mirrord-go/mirrord/internal/event"
	"github.com/mirrord-go/mirrord/internal/link"
	"github.com/mirrord-go/mirrord/internal/local/fusefs"
	"github.com/mirrord-go/mirrord/internal/protocol"
	"github.com/mirrord-go/mirrord/internal/rules"
)

// View is the directory that shows the target's tree whatever the rules say.
const View = "/.mirrord/remote"

const (
	// viewDir shows the target's tree whatever the rules say: that is where
	// the target's symbolic links lead that cross to a path which is local by
	// rule. It is not listed.
	viewDir = View
	// DefaultLife is how long the target's names, attributes and small contents
	// are remembered.
	DefaultLife = time.Second
	// maxCopy bounds what is copied of a remote file that is written in place,
	// in bytes.
	maxCopy = 256 << 20
)

// Peer is the link.
type Peer interface {
	Call(ctx context.Context, m protocol.Message) (protocol.Message, error)
	Open(ctx context.Context, lane link.Lane, m protocol.Message) (*link.Stream, error)
}

// Options of New.
type Options struct {
	Peer  Peer
	Rules *rules.Files
	Plan  rules.Plan // what is mounted over the tree
	// UID and GID are those of the target's process, for access(2) and chown(2).
	UID, GID uint32
	// Sockets are directories where this machine's daemons have their sockets.
	Sockets []string
	// Window is how long a lost link may take to come back: what is open waits
	// for it. 0: less than callTime.
	Window time.Duration
	// LinkLost is when the link was lost; zero: it is not. Optional.
	LinkLost func() time.Time
	// Life is how long the target's names, attributes and small contents are
	// remembered; 0: not at all.
	Life time.Duration
	// Root: programs are root in the sandbox, as in an engine's containers, and not
	// the caller by his number.
	Root bool
	// Served are files with a content of the session's own.
	Served map[string][]byte
	Emit   event.Sink
	// Moved counts bytes that were read of the target's files, and written to
	// them. nil: nobody counts.
	Moved func(read, written int)
	// Ahead is the memory for what is read ahead of the program. Without room
	// nothing is; nil: it has no end.
	Ahead *budget.Share
}

// Tree is the view of one session. It implements fusefs.Tree.
type Tree struct {
	o      Options
	remote *remote
	born   time.Time
	fixed  map[string]uint32 // mode of mount points and of what leads there
	absent map[string]bool   // see rules.Plan

	mu       sync.Mutex
	switched map[string]bool // remote by rule, local since the program wrote there
	parents  map[string]bool // directories of these
	said     map[string]bool // events that are told once
	led      map[string]led  // by volume
}

var _ fusefs.Tree = (*Tree)(nil)

// New makes the view.
func New(o Options) *Tree {
	t := &Tree{o: o, remote: newRemote(o.Peer, o.Window, o.Life, o.Ahead), born: time.Now(), fixed: map[string]uint32{}, absent: map[string]bool{},
		switched: map[string]bool{}, parents: map[string]bool{}, said: map[string]bool{}, led: map[string]led{}}
	lead := func(p string) {
		for d := path.Dir(p); d != "/"; d = path.Dir(d) {
			t.fixed[d] = unix.S_IFDIR | 0o755
		}
	}
	t.remote.uid, t.remote.gid = o.UID, o.GID
	if o.Root {
		t.remote.ownUID, t.remote.ownGID = -1, -1
	}
	if o.LinkLost != nil {
		t.remote.linkLost = o.LinkLost
	}
	if o.Moved != nil {
		t.remote.carried = o.Moved
	}
	lead(viewDir)
	t.fixed[viewDir] = unix.S_IFDIR | 0o755
	for _, p := range slices.Concat(o.Plan.Binds, o.Plan.Pins) {
		lead(p)
		t.fixed[p] = unix.S_IFREG | 0o644 // sockets too: only a mount point
		if fi, err := os.Lstat(p); err == nil && fi.IsDir() {
			t.fixed[p] = unix.S_IFDIR | 0o755
		}
	}
	for _, p := range o.Plan.Absent {
		lead(p)
		t.absent[p] = true
	}
	for _, p := range o.Plan.Links {
		lead(p)
		t.fixed[p] = unix.S_IFLNK | 0o777
	}
	return t
}

// Close ends what runs for the view: nothing is read ahead any more.
func (t *Tree) Close() error { return t.remote.close() }

// inView reports whether p is below viewDir, and what it is in the target.
func inView(p string) (remote string, ok bool) {
	if p == viewDir {
		return "/", true
	}
	rest, ok := strings.CutPrefix(p, viewDir+"/")
	return "/" + rest, ok
}

// at says whose p is now, and how it is called there.
func (t *Tree) at(p string) (rules.Where, string) { return t.side(p, rules.Read) }

// target says where a change of p goes, and how it is called there.
func (t *Tree) target(p string) (rules.Where, string) { return t.side(p, rules.Write) }

func (t *Tree) side(p string, op rules.Op) (rules.Where, string) {
	d := t.o.Rules.Decide(p, op)
	if _, ok := t.o.Served[p]; ok || t.isSwitched(p) {
		return rules.Local, d.Path
	}
	return d.Where, d.Path
}

// where says whose p is now.
func (t *Tree) where(p string) rules.Where {
	w, _ := t.at(p)
	return w
}

// isSwitched reports whether p, or a directory above it, became local.
func (t *Tree) isSwitched(p string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	for d := p; len(t.switched) > 0 && d != "/"; d = path.Dir(d) {
		if t.switched[d] {
			return true
		}
	}
	return false
}

// becomeLocal makes p the developer's own from now on.
func (t *Tree) becomeLocal(p string) {
	t.mu.Lock()
	t.switched[p], t.parents[path.Dir(p)] = true, true
	t.mu.Unlock()
	t.remote.forget(p)
}

// say tells something about key once.
func (t *Tree) say(level event.Level, code, key, text string) {
	if t.first(code, key) && t.o.Emit != nil {
		t.o.Emit(event.Event{Level: level, Code: code, Flow: "files", Text: text, Facts: map[string]string{"path": key}})
	}
}

// first notes that something about key needs telling no more, and reports
// whether it was news.
func (t *Tree) first(code, key string) (news bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	news = !t.said[code+key]
	t.said[code+key] = true
	return news
}

// Lookup implements fusefs.Tree.
func (t *Tree) Lookup(ctx context.Context, p string) (fusefs.Node, error) {
	if mode, ok := t.fixed[p]; ok {
		return t.fixedNode(p, mode), nil
	}
	if r, ok := inView(p); ok {
		return t.lookupView(ctx, r)
	}
	if p == "/" {
		return t.rootNode(), nil
	}
	if content, ok := t.o.Served[p]; ok {
		return t.servedNode(p, content), nil
	}
	n, err := t.lookupSides(ctx, p)
	if errors.Is(err, syscall.ENOENT) && t.o.Rules.Leads(p) {
		return t.ledNode(p), nil
	}
	return n, err
}

// lookupSides finds p on the side that it is on, and a directory that leads to
// something of the other side there.
func (t *Tree) lookupSides(ctx context.Context, p string) (fusefs.Node, error) {
	switch where, name := t.at(p); where {
	case rules.Local:
		n, err := t.localNode(p, name)
		if errors.Is(err, syscall.ENOENT) && t.o.Rules.Reaches(p, rules.Remote) {
			return t.directory(t.lookupRemote(ctx, p, name))
		}
		if t.absent[p] && err != nil { // only that there is nothing can be remembered
			return fusefs.Node{Keep: fusefs.Ever}, syscall.ENOENT
		}
		return n, err
	case rules.Remote:
		n, err := t.lookupRemote(ctx, p, name)
		if errors.Is(err, syscall.ENOENT) && t.shows(p) {
			if l, err := t.directory(t.localNode(p, name)); err == nil {
				return l, nil
			}
		}
		return n, err
	}
	return fusefs.Node{Keep: t.o.Life}, syscall.ENOENT
}

// shows reports whether a local directory is shown at p, which is the
// target's, when the target has none.
func (t *Tree) shows(p string) bool {
	return t.o.Rules.HasCode(p) || t.o.Rules.Reaches(p, rules.Local)
}

// directory lets a lookup through if it found a directory.
func (t *Tree) directory(n fusefs.Node, err error) (fusefs.Node, error) {
	if err == nil && n.Attr.Mode&unix.S_IFMT != unix.S_IFDIR {
		return fusefs.Node{Keep: n.Keep}, syscall.ENOENT
	}
	return n, err
}

// lookupRemote finds p, which the target calls name.
func (t *Tree) lookupRemote(ctx context.Context, p, name string) (fusefs.Node, error) {
	a, keep, err := t.remote.lookup(ctx, name)
	if err != nil {
		return fusefs.Node{Keep: keep}, t.replaced(ctx, name, err)
	}
	if a.Mode&unix.S_IFMT == unix.S_IFIFO { // the kernel asks nobody when it is opened
		t.say(event.Info, "fifo", p, p+" is a FIFO of the target's: who opens it here waits for another program of this session, and meets none of the target's")
	}
	n := t.remoteNode(sideRemote, p, name, a, keep)
	if walked(p, name, a) {
		n.Key = t.linkKey(ctx, sideRemote, p, name, a)
	}
	return n, nil
}

// Readlink implements fusefs.Tree.
func (t *Tree) Readlink(ctx context.Context, p string, k uint64) (string, error) {
	if t.fixed[p]&unix.S_IFMT == unix.S_IFLNK {
		return os.Readlink(p)
	}
	s, at := sideOf(k), p
	if r, view := inView(p); view {
		at = r
	}
	switch _, name := t.at(p); s {
	case sideLocal:
		if n, err := t.localNode(p, name); err != nil || n.Key != k {
			return "", syscall.ESTALE
		}
		to, err := os.Readlink(name)
		return beside(p, name, to), err
	case sideRemote:
		at = name
	case sideOther: // see lookupView
		return at, nil
	}
	a, err := t.remote.stat(ctx, at)
	if err != nil {
		return "", err
	}
	if t.linkKey(ctx, s, p, at, a) != k { // replaced since the lookup
		t.remote.forget(at)
		return "", syscall.ESTALE
	}
	t.lead(at, a.Link)
	return t.cross(ctx, at, beside(p, at, a.Link), s == sideView)
}

// beside gives the text of a symbolic link that is shown at p and is called
// name: if these differ, what it says of its own directory is not said of p's.
func beside(p, name, to string) string {
	if _, view := inView(p); view || p == name || path.IsAbs(to) {
		return to
	}
	return path.Dir(name) + "/" + to
}

// Access implements fusefs.Tree.
func (t *Tree) Access(ctx context.Context, p string, mask uint32) error {
	if _, ok := t.fixed[p]; ok || p == "/" {
		return nil
	}
	n, err := t.Lookup(ctx, p)
	if err != nil {
		return err
	}
	switch side := sideOf(n.Key); {
	case side == sideLocal:
		_, name := t.at(p)
		return unix.Faccessat(unix.AT_FDCWD, name, mask, unix.AT_EACCESS)
	case side != sideRemote && mask&unix.W_OK != 0:
		return syscall.EROFS
	}
	return allowed(&n.Attr, mask, t.o.UID, t.o.GID)
}

// allowed is what the target's kernel would say to its process. Of groups only
// the first is known, so where another one could help it is taken to.
func allowed(a *protocol.Attr, mask, uid, gid uint32) error {
	bits := a.Mode
	switch {
	case uid == 0:
		if mask&unix.X_OK == 0 || a.Mode&0o111 != 0 || a.Mode&unix.S_IFMT == unix.S_IFDIR {
			return nil
		}
		return syscall.EACCES
	case a.UID == uid:
		bits >>= 6
	case a.GID == gid:
		bits >>= 3
	default:
		bits |= bits >> 3
	}
	if mask&^bits&7 != 0 {
		return syscall.EACCES
	}
	return nil
}

// Statfs implements fusefs.Tree. What only leads somewhere is on no disk; it is
// shown as the target's root.
func (t *Tree) Statfs(ctx context.Context, p string) (protocol.Fsinfo, error) {
	if r, ok := inView(p); ok {
		return t.remote.statfs(ctx, r)
	}
	where, name := t.at(p)
	if where == rules.Local {
		var st unix.Statfs_t
		if err := unix.Statfs(name, &st); err == nil {
			return protocol.Fsinfo{Type: uint64(st.Type), Bsize: uint64(st.Bsize), Blocks: st.Blocks, Bfree: st.Bfree, Bavail: st.Bavail,
				Files: st.Files, Ffree: st.Ffree, Namelen: uint64(st.Namelen), Frsize: uint64(st.Frsize), Flags: uint64(st.Flags)}, nil
		}
	}
	i, err := t.remote.statfs(ctx, name)
	if errors.Is(err, syscall.ENOENT) {
		return t.remote.statfs(ctx, "/")
	}
	return i, err
}
