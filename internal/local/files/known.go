package files

import (
	"bytes"
	"container/list"
	"path"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mirrord-go/mirrord/internal/protocol"
)

const (
	// maxContent bounds the contents of small files that are kept, in bytes.
	maxContent = 16 << 20
	// maxNamed bounds the names and attributes that are kept, in bytes.
	maxNamed = 12 << 20
	// maxDirectory bounds those of one directory: a large one shall not push out
	// all others.
	maxDirectory = maxNamed / 3
	// Memory is what a Tree holds at most, in bytes, besides what is on its way.
	Memory = maxContent + maxNamed
	// entryCost and directoryCost are what is kept of a name besides its text, and
	// of a directory besides its names, in bytes, about.
	entryCost     = 384
	directoryCost = 512
	// maxChanged is how many names that the session changed are known one by one.
	maxChanged = 4096
)

// known is what the target told, by directory. Of each name it keeps the newest
// that was asked for. It holds longer than that may be used, up to its bounds:
// the content of a file is right again when its attributes are found to be the
// same. What is used least recently goes first, a directory at a time.
//
// All of it is guarded by remote.mu, which its methods are called with.
type known struct {
	dirs     map[string]*directory
	order    list.List // of *directory, the least recently used first
	contents list.List // of *content, alike
	named    int       // bytes of names and attributes
	content  int       // bytes of contents
	linked   int       // entries of files with several names

	// When the session last changed the names in a directory, and what is below
	// one; everything stands for what is not known one by one.
	changed, moved map[string]time.Time
	everything     time.Time
}

// directory is what is known of the names in one.
type directory struct {
	path  string
	names map[string]*entry
	size  int
	place *list.Element

	whole     bool           // at asked, the names were all that there are
	asked, at time.Time      // see entry
	own       *protocol.Attr // its attributes then
	by        *directory
	sorted    []string // the names; nil: not sorted since they changed

	habit habit
}

// entry is what is known of a name.
type entry struct {
	dir       *directory
	name      string
	attr      *protocol.Attr // without content; never changed
	asked, at time.Time      // when it was asked for, and since when it is as old as its life counts
	content   *content       // of some time
	by        *directory     // whose survey brought it; nil: it was asked for, or used since
	coming    bool           // its content has been asked for
	barren    bool           // its content cannot be had ahead
}

// content is a small file's content when it had these attributes.
type content struct {
	of        *entry
	data      []byte
	attr      *protocol.Attr
	asked, at time.Time
	by        *directory // see entry
	place     *list.Element
}

// fact is what is known of a path and may be used.
type fact struct {
	attr      *protocol.Attr // nil: there is nothing
	asked, at time.Time      // see entry
	data      *content       // nil: not known
}

func newKnown() known {
	return known{dirs: map[string]*directory{}, changed: map[string]time.Time{}, moved: map[string]time.Time{}}
}

// split gives the directory that p is in, and its name there. The root is in
// none.
func split(p string) (dir, name string) {
	if p == "/" {
		return "", "/"
	}
	return path.Dir(p), path.Base(p)
}

// directory gives the directory p, new if it is not known.
func (k *known) directory(p string) *directory {
	d := k.dirs[p]
	if d == nil {
		d = &directory{path: p, names: map[string]*entry{}}
		d.place = k.order.PushBack(d)
		k.dirs[p] = d
		k.grow(d, directoryCost+len(p))
		k.makeRoom(d)
	}
	k.order.MoveToBack(d.place)
	return d
}

// entry gives what is known of p, nil if nothing is.
func (k *known) entry(p string) *entry {
	dir, name := split(p)
	if d := k.dirs[dir]; d != nil {
		k.order.MoveToBack(d.place)
		return d.names[name]
	}
	return nil
}

func (k *known) grow(d *directory, n int) {
	d.size += n
	k.named += n
}

func (e *entry) cost() int { return entryCost + len(e.name) + len(e.attr.Link) }

func (e *entry) severalNames() bool {
	return e.attr.Nlink > 1 && e.attr.Mode&unix.S_IFMT != unix.S_IFDIR
}

// put keeps a for name in d, unless something newer is known. The content that
// comes with a is kept in any case: whether it may be used its own time says.
func (k *known) put(d *directory, name string, a *protocol.Attr, asked, at time.Time, by *directory) {
	bare := *a
	bare.Data, bare.HasData, bare.Settled = nil, false, false
	e := d.names[name]
	switch {
	case e == nil:
		e = &entry{dir: d, name: strings.Clone(name), attr: &bare}
		d.names[e.name], d.sorted, d.whole = e, nil, false // it is new: so others may be
	case e.asked.After(asked):
		k.keep(e, a, asked, at, by)
		return
	default:
		k.count(e, -1)
		if !sameFile(e.attr, &bare) { // replaced: in a volume of the kubelet's, together with others
			e.barren, d.whole = false, false
		}
		e.attr = &bare
	}
	k.count(e, 1)
	e.asked, e.at, e.by = asked, at, by
	k.keep(e, a, asked, at, by)
	if d.size > maxDirectory {
		k.forgetNames(d)
	}
	k.makeRoom(d)
}

// count adds e n times to what is counted.
func (k *known) count(e *entry, n int) {
	k.grow(e.dir, n*e.cost())
	if e.severalNames() {
		k.linked += n
	}
}

// keep keeps the content that comes with a, if any.
func (k *known) keep(e *entry, a *protocol.Attr, asked, at time.Time, by *directory) {
	if !a.HasData || e.content != nil && e.content.asked.After(asked) {
		return
	}
	k.spill(e)
	of := *a
	of.Data = nil
	c := &content{of: e, data: bytes.Clone(a.Data), attr: &of, asked: asked, at: at, by: by} // a is part of a larger message
	c.place = k.contents.PushBack(c)
	k.content += len(c.data)
	e.content = c
	for k.content > maxContent {
		k.spill(k.contents.Front().Value.(*content).of)
	}
}

// spill drops e's content.
func (k *known) spill(e *entry) {
	if c := e.content; c != nil {
		k.contents.Remove(c.place)
		k.content -= len(c.data)
		e.content = nil
		e.dir.habit.all = false
	}
}

// drop forgets e: its directory may have other names than are known.
func (k *known) drop(e *entry) {
	k.spill(e)
	k.count(e, -1)
	delete(e.dir.names, e.name)
	e.dir.whole, e.dir.sorted = false, nil
}

// expire makes e too old to be used, as all is that was asked for before. The
// name is still there.
func (e *entry) expire() { e.asked, e.at = time.Now(), time.Time{} }

// forgetNames forgets all names in d.
func (k *known) forgetNames(d *directory) {
	for _, e := range d.names {
		k.drop(e)
	}
	d.whole = false
}

// removeDirectory forgets d.
func (k *known) removeDirectory(d *directory) {
	k.forgetNames(d)
	k.grow(d, -d.size)
	k.order.Remove(d.place)
	delete(k.dirs, d.path)
}

// makeRoom keeps what is known within its bound. but stays.
func (k *known) makeRoom(but *directory) {
	for k.named > maxNamed {
		d := k.order.Front().Value.(*directory)
		if d == but {
			return
		}
		k.removeDirectory(d)
	}
}

// settleNames makes the names in d, all that there were at that time, what is known
// of it.
func (k *known) settleNames(d *directory, names map[string]bool, own *protocol.Attr, asked, at time.Time, by *directory) {
	if d.whole && d.asked.After(asked) || len(names) > len(d.names) { // some did not fit
		return
	}
	for name, e := range d.names {
		if !names[name] && !e.asked.After(asked) {
			k.drop(e)
		}
	}
	d.whole, d.asked, d.at, d.own, d.by = true, asked, at, own, by
	d.habit.all = false
}

// sort gives the names in d in order.
func (d *directory) sort() []string {
	if d.sorted == nil {
		d.sorted = make([]string, 0, len(d.names))
		for name := range d.names {
			d.sorted = append(d.sorted, name)
		}
		slices.Sort(d.sorted)
	}
	return d.sorted
}

// change notes that the session changed the name p, or what is there.
func (k *known) change(p string, keep time.Duration) {
	now := time.Now()
	dir, _ := split(p)
	k.changed[dir], k.moved[p] = now, now
	if len(k.changed)+len(k.moved) <= maxChanged {
		return
	}
	for _, m := range []map[string]time.Time{k.changed, k.moved} {
		for p, at := range m {
			if now.Sub(at) > keep {
				delete(m, p)
			}
		}
	}
	if len(k.changed)+len(k.moved) > maxChanged {
		clear(k.changed)
		clear(k.moved)
		k.everything = now
	}
}

// stale reports whether what was asked then about the names in dir may be from
// before a change of the session's.
func (k *known) stale(dir string, asked time.Time) bool {
	if at, ok := k.changed[dir]; ok && !at.Before(asked) || !k.everything.Before(asked) {
		return true
	}
	for d := dir; d != "" && d != "/"; d = path.Dir(d) {
		if at, ok := k.moved[d]; ok && !at.Before(asked) {
			return true
		}
	}
	return false
}

// sameFile reports whether both are the attributes of one file.
func sameFile(a, b *protocol.Attr) bool {
	return a.Ino == b.Ino && a.Dev == b.Dev && a.Mode&unix.S_IFMT == b.Mode&unix.S_IFMT
}

// remembered is what was told of p a moment ago, and has not been changed by the
// session since.
func (r *remote) remembered(p string) (f fact, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.rememberedOf(p, r.entry(p))
}

// rememberedOf is remembered for holders of the lock, of e.
func (r *remote) rememberedOf(p string, e *entry) (f fact, ok bool) {
	if e == nil || e.attr.Mode&unix.S_IFMT == 0 || !r.fresh(e.at) {
		return fact{}, false
	}
	k := attrKey(sideRemote, p, e.attr)
	if r.isUnsettled(k, e.asked) {
		return fact{}, false
	}
	f = fact{attr: e.attr, asked: e.asked, at: e.at}
	// The same file with the same times has the same content, if every change
	// since would show in these: see protocol.Attr. Within its life it may be used
	// in any case.
	if c := e.content; c != nil && sameFile(c.attr, e.attr) && same(c.attr, e.attr) && (c.attr.Settled || r.fresh(c.at)) && !r.isUnsettled(k, c.asked) {
		f.data = c
	}
	return f, true
}

// answer is what p's lookup gives without a question; its attr is nil if there
// is nothing.
func (r *remote) answer(p string) (f fact, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	e := r.entry(p)
	if f, ok = r.rememberedOf(p, e); ok {
		r.use(e)
		return f, true
	}
	dir, _ := split(p)
	if d := r.dirs[dir]; e == nil && d != nil && d.whole && r.fresh(d.at) {
		if d.by != nil {
			r.saved(d.by)
		}
		return fact{at: d.at}, true
	}
	return fact{}, false
}

// newest is what was told last of p, however long ago that is.
func (r *remote) newest(p string) (f fact, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	e := r.entry(p)
	if e == nil {
		return fact{}, false
	}
	return fact{attr: e.attr, asked: e.asked, at: e.at}, true
}

// remember keeps a, which was asked for then and came just now.
func (r *remote) remember(p string, a *protocol.Attr, asked time.Time) {
	if r.life <= 0 || a.Mode&unix.S_IFMT == 0 {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	dir, name := split(p)
	r.put(r.directory(dir), name, a, asked, time.Now(), nil)
}

// learn is remember of what the kernel is told, unless the session has changed
// the name since.
func (r *remote) learn(p string, a *protocol.Attr, asked time.Time) {
	dir, _ := split(p)
	r.mu.Lock()
	stale := r.stale(dir, asked)
	r.mu.Unlock()
	if stale {
		return
	}
	r.remember(p, a, asked)
	r.mu.Lock()
	defer r.mu.Unlock()
	if e := r.entry(p); e != nil && e.asked.After(asked) && !same(e.attr, a) {
		// The kernel is told a, and keeps names and contents until it is told
		// something else: it must not get those of another time now.
		e.expire()
	}
}

// forget sees to it that p is asked for anew.
func (r *remote) forget(p string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if e := r.entry(p); e != nil {
		e.expire()
	}
}
