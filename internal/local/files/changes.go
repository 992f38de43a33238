package files

import (
	"context"
	"math"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mirrord-go/mirrord/internal/local/fusefs"
	"github.com/mirrord-go/mirrord/internal/protocol"
)

// inode is a file of the target's that is open, or that the session changed a
// moment ago. What was asked about it before a change is not used after it.
type inode struct {
	users   int // open files
	gen     uint64
	changed time.Time // the last change that may have been done since
	pending map[*outbox]bool
}

// settledTime is how long a change that has been done is known at least: what
// was asked before it is not used any more by then.
const settledTime = time.Second

// bare is a key without its side: the target's file is the same in the view.
func bare(k uint64) uint64 { return k &^ (3 << 62) }

// inode gives the one with key k, new if it is not known. For holders of the
// lock.
func (r *remote) inode(k uint64) *inode {
	in := r.inodes[bare(k)]
	if in == nil {
		in = &inode{pending: map[*outbox]bool{}}
		r.inodes[bare(k)] = in
	}
	return in
}

// hold counts an open file with key k.
func (r *remote) hold(k uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.inode(k).users++
}

// letGo is the opposite of hold.
func (r *remote) letGo(k uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.inode(k).users--
	r.prune()
}

// prune forgets what is of no use any more. For holders of the lock.
func (r *remote) prune() {
	for k, in := range r.inodes {
		if in.users == 0 && len(in.pending) == 0 && time.Since(in.changed) > max(r.life, settledTime) {
			delete(r.inodes, k)
		}
	}
}

// touch notes a change of the file with key k.
func (r *remote) touch(k uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	in := r.inode(k)
	in.gen++
	in.changed = time.Now()
	if in.users == 0 {
		r.prune()
	}
}

// generation tells how often the file with key k was changed.
func (r *remote) generation(k uint64) uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	if in := r.inodes[bare(k)]; in != nil {
		return in.gen
	}
	return 0
}

// unsettled reports whether what was asked then about the file with key k may
// be from before a change.
func (r *remote) unsettled(k uint64, asked time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.isUnsettled(k, asked)
}

// isUnsettled is unsettled for holders of the lock.
func (r *remote) isUnsettled(k uint64, asked time.Time) bool {
	in := r.inodes[bare(k)]
	return in != nil && (len(in.pending) > 0 || !in.changed.Before(asked))
}

// settle waits until all changes of the file with key k are done.
func (r *remote) settle(ctx context.Context, k uint64) error { return r.settleBut(ctx, k, nil) }

// settleBut is settle of all but the changes of one open file: what a program
// writes by several descriptors is done in its order.
func (r *remote) settleBut(ctx context.Context, k uint64, own *outbox) error {
	r.mu.Lock()
	var busy []*outbox
	if in := r.inodes[bare(k)]; in != nil {
		for b := range in.pending {
			if b != own {
				busy = append(busy, b)
			}
		}
	}
	r.mu.Unlock()
	for _, b := range busy {
		if err := b.settle(ctx); err != nil {
			return err
		}
	}
	return nil
}

// forgetAround forgets the name p, what is below it and the attributes of the
// directory it is in; and so it does with what is still on its way of them.
func (r *remote) forgetAround(p string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if e := r.entry(p); e != nil {
		r.drop(e)
	}
	for below, d := range r.dirs {
		if below == p || strings.HasPrefix(below, p+"/") {
			r.removeDirectory(d)
		}
	}
	dir, _ := split(p)
	if d := r.dirs[dir]; d != nil {
		d.whole = false
	}
	if e := r.entry(dir); e != nil {
		e.expire()
	}
	r.change(p, r.limit)
}

// lose notes that the file at p is to have a name less. Which one that is may
// not be known any more: then all that are open may be it, and all that have
// several names are forgotten.
func (r *remote) lose(p string) {
	e, known := r.newest(p)
	if known {
		r.touch(attrKey(sideRemote, p, e.attr))
	}
	r.forgetAround(p)
	r.mu.Lock()
	defer r.mu.Unlock()
	if !known {
		for _, in := range r.inodes {
			in.gen++
			in.changed = time.Now()
		}
	}
	if r.linked == 0 {
		return
	}
	for _, d := range r.dirs {
		for _, e := range d.names {
			if e.severalNames() {
				e.expire()
			}
		}
	}
}

// create makes and opens p for reading or writing as the flags say.
func (r *remote) create(ctx context.Context, p string, flags, mode uint32) (*remoteFile, error) {
	r.forgetAround(p)
	f, err := r.openHeld(ctx, sideRemote, p, 0, &protocol.Open{Path: p, Flags: flags&openFlags | unix.O_CREAT, Mode: mode & 0o7777})
	r.forgetAround(p)
	if err == nil {
		if flags&unix.O_TRUNC != 0 { // it was there
			r.touch(f.id)
			f.gen = r.generation(f.id)
		}
		a := f.attr
		r.remember(p, &a, time.Now())
	}
	return f, err
}

// openFlags are the flags of open(2) that concern the agent; the kernel here
// deals with the others. They are the same on all systems.
const openFlags = unix.O_ACCMODE | unix.O_APPEND | unix.O_CREAT | unix.O_EXCL | unix.O_TRUNC

// openToChange opens p, the file with key want, for writing, or empties it.
func (r *remote) openToChange(ctx context.Context, p string, want uint64, flags uint32) (*remoteFile, error) {
	if err := r.settle(ctx, want); err != nil {
		return nil, err
	}
	m := &protocol.Open{Path: p, Flags: flags & (openFlags &^ (unix.O_CREAT | unix.O_EXCL))}
	if flags&unix.O_ACCMODE != unix.O_WRONLY && flags&unix.O_TRUNC == 0 {
		m.Prefetch = prefetch
	}
	f, err := r.openHeld(ctx, sideRemote, p, want, m)
	if flags&unix.O_TRUNC != 0 {
		r.touch(want)
		r.forgetAround(p)
		if err == nil { // that was its own change, and it has read nothing yet
			f.gen = r.generation(want)
		}
	}
	return f, err
}

// make makes what m says at its path.
func (r *remote) make(ctx context.Context, m *protocol.Make) error {
	a, err := call[*protocol.Attr](ctx, r, m)
	r.forgetAround(m.Path)
	if err != nil {
		return err
	}
	if m.Old != "" { // one name more
		r.touch(attrKey(sideRemote, m.Old, a))
		r.forgetAround(m.Old)
	}
	r.remember(m.Path, a, time.Now())
	return nil
}

// do is call for what is answered with yes or no.
func (r *remote) do(ctx context.Context, m protocol.Message) error {
	a, err := call[*protocol.Answer](ctx, r, m)
	if err != nil {
		return err
	}
	return a.Err()
}

// grip takes a handle of all open files that have none at these paths and below:
// they are about to lose the names by which they would be asked for.
func (r *remote) grip(ctx context.Context, paths ...string) error {
	var light []*remoteFile
	r.mu.Lock()
	for f := range r.light {
		if slices.ContainsFunc(paths, func(p string) bool { return f.path == p || strings.HasPrefix(f.path, p+"/") }) {
			light = append(light, f)
		}
	}
	r.mu.Unlock()
	for _, f := range light {
		f.mu.Lock()
		held := f.gone || f.handle != 0
		f.mu.Unlock()
		if held {
			continue
		}
		if err := f.grip(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (r *remote) remove(ctx context.Context, p string, dir bool) error {
	if err := r.grip(ctx, p); err != nil {
		return err
	}
	err := r.do(ctx, &protocol.Remove{Path: p, Dir: dir})
	r.lose(p)
	return err
}

func (r *remote) rename(ctx context.Context, old, p string, flags uint32) error {
	if err := r.grip(ctx, old, p); err != nil {
		return err
	}
	err := r.do(ctx, &protocol.Rename{Old: old, New: p, Flags: flags})
	r.lose(p)
	r.lose(old)
	return err
}

// setAttr changes the attributes of p, the file with key k.
func (r *remote) setAttr(ctx context.Context, p string, k uint64, c fusefs.Change) error {
	if err := r.settle(ctx, k); err != nil {
		return err
	}
	m := r.setAttrOf(c)
	m.Path = p
	a, err := call[*protocol.Attr](ctx, r, m)
	r.touch(k)
	if c.Mode != nil && (err != nil || a.Mode&unix.S_IFMT == unix.S_IFDIR) {
		r.forgetAround(p) // what is below may be out of reach now
	} else {
		r.forget(p)
	}
	if err != nil {
		return err
	}
	r.remember(p, a, time.Now())
	return nil
}

// setAttrOf is the message that asks for c.
func (r *remote) setAttrOf(c fusefs.Change) *protocol.SetAttr {
	m := &protocol.SetAttr{}
	if c == (fusefs.Change{}) {
		m.What, m.UID, m.GID = protocol.SetUID|protocol.SetGID, math.MaxUint32, math.MaxUint32
	}
	if c.UID != nil {
		m.What, m.UID = m.What|protocol.SetUID, idThere(*c.UID, r.ownUID, r.uid)
	}
	if c.GID != nil {
		m.What, m.GID = m.What|protocol.SetGID, idThere(*c.GID, r.ownGID, r.gid)
	}
	if c.Mode != nil {
		m.What, m.Mode = m.What|protocol.SetMode, *c.Mode&0o7777
	}
	if c.Size != nil {
		m.What, m.Size = m.What|protocol.SetSize, *c.Size
	}
	set := func(t *time.Time, what, now uint32, ns *int64) {
		switch {
		case t == nil:
		case t.IsZero():
			m.What |= what | now
		default:
			m.What |= what
			*ns = t.UnixNano()
		}
	}
	set(c.Atime, protocol.SetAtime, protocol.SetAtimeNow, &m.Atime)
	set(c.Mtime, protocol.SetMtime, protocol.SetMtimeNow, &m.Mtime)
	return m
}
