package rules

import (
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
)

// Plan is what is local as a whole, so that the kernel can show it by mounts,
// at native speed and whatever else happens: whatever is below a bind and not
// below a hide, Decide calls local, to read and to write, under its own name.
// All lists are sorted.
type Plan struct {
	// Binds are directories; and sockets, which are nothing but a name that only
	// the real one answers to.
	Binds []string
	// Pins are single files that every program reads. A mounted file stays the
	// one that it was when the session began.
	Pins []string
	// Links are symbolic links that lead to where every program is; they stay
	// as they were when the session began.
	Links []string
	// Absent are names that programs look for all the time and do not find; what
	// was absent when the session began stays so.
	Absent []string
	// Hides are directories below Binds to cover with nothing.
	Hides []string
}

// Disk is the developer's file system as far as a plan needs it.
type Disk interface {
	// Lstat gives the type of what is at p; ok is false if there is nothing.
	Lstat(p string) (mode fs.FileMode, ok bool)
	// List gives the names in a directory; none if it cannot be read.
	List(dir string) []string
}

// pinned are what every program reads: the files of the dynamic loader
// (ld.so(8)) and of the C library's start, times and names of users.
var pinned = []string{"/etc/ld.so.cache", "/etc/ld.so.preload", "/etc/locale.alias", "/etc/localtime", "/etc/passwd", "/etc/group"}

// strict is a directory whose reader, ssh(1), refuses files that belong neither
// to root nor to the caller: in a mount root's would be nobody's.
const strict = "/etc/ssh"

// socketDirs are where daemons and programs of the desktop have their sockets.
var socketDirs = []string{"/run", "/tmp"}

const (
	// maxChildren bounds the entries of a directory that is taken apart: each
	// may become a mount, and a session has to be made quickly. What is larger is
	// served path by path.
	maxChildren = 1000
	// maxSearched bounds the directories that are searched for sockets only.
	maxSearched = 500
	// socketDepth is how deep below socketDirs sockets are looked for:
	// /run/user/1000/podman/podman.sock.
	socketDepth = 4
)

// planner makes one plan.
type planner struct {
	*Files
	disk     Disk
	seen     map[string]bool // directories that were looked at
	searched int             // directories, for sockets only
	plan     Plan
}

// Plan plans the mounts.
func (f *Files) Plan(disk Disk) Plan {
	p := &planner{Files: f, disk: disk, seen: map[string]bool{}}
	for _, dir := range p.candidates() { // parents come before children
		if dir == "/" || p.bound(dir) {
			continue
		}
		if _, ok := disk.Lstat(dir); ok {
			p.bind(dir)
		} else if f.plain(dir) { // a PATH often names what is not there
			p.plan.Absent = append(p.plan.Absent, dir)
		}
	}
	p.pin()
	for _, dir := range slices.Sorted(maps.Keys(f.hidden)) {
		mode, ok := disk.Lstat(dir)
		if ok && mode.IsDir() && p.bound(dir) && f.judge(dir, Read).Where == NotFound {
			p.plan.Hides = append(p.plan.Hides, dir)
		}
	}
	slices.Sort(p.plan.Binds)
	p.plan.Binds = slices.Compact(p.plan.Binds) // one place leads to the same socket as another above it
	return p.plan
}

// candidates are directories that may be local as a whole, each once, sorted.
func (p *planner) candidates() []string {
	all := slices.Concat(p.at.Own, p.at.Tools, systemDirs, []string{etc})
	if p.at.Home != "" {
		all = append(all, p.at.Home)
	}
	if p.mode == FilesLocal || p.mode == FilesLocalWithOverrides {
		for _, name := range p.disk.List("/") {
			all = append(all, "/"+name)
		}
	}
	for _, l := range p.lists {
		for _, c := range l.patterns {
			for _, h := range c.heads {
				if l.read == Local && h.end != endSome && len(h.text) > 1 {
					all = append(all, p.spelled(h.text)...)
				}
			}
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// spelled gives what this machine has at a path, whatever its case; what is in
// it, if the path ends with a slash.
func (p *planner) spelled(text string) []string {
	found := []string{"/"}
	for part := range strings.SplitSeq(text[1:], "/") {
		var next []string
		for _, dir := range found {
			for _, name := range p.disk.List(dir) {
				if fold(name) == part || part == "" {
					next = append(next, path.Join(dir, name))
				}
			}
		}
		found = next
	}
	return found
}

func (p *planner) bound(dir string) bool {
	return slices.ContainsFunc(p.plan.Binds, func(b string) bool { return within(dir, b) })
}

// bind binds dir if all of it is local, otherwise what is so inside it.
func (p *planner) bind(dir string) {
	mode, ok := p.disk.Lstat(dir)
	if !ok || p.seen[dir] || !p.plain(dir) {
		return
	}
	p.seen[dir] = true
	switch {
	case mode&fs.ModeSocket != 0:
		p.plan.Binds = append(p.plan.Binds, dir)
		return
	case !mode.IsDir(): // a symbolic link to a directory has its own place
		return
	}
	if p.whole(dir) && !p.disguised(dir) {
		p.plan.Binds = append(p.plan.Binds, dir)
		return
	}
	if p.hopeless(dir) {
		p.sockets(dir)
		return
	}
	names := p.disk.List(dir)
	if len(names) > maxChildren {
		return
	}
	for _, name := range names {
		p.bind(path.Join(dir, name))
	}
}

// sockets binds what sockets are below dir, where nothing else can be bound.
func (p *planner) sockets(dir string) {
	top := longest(dir, socketDirs)
	if top == "" || strings.Count(dir[len(top):], "/") >= socketDepth || p.searched >= maxSearched {
		return
	}
	p.searched++
	for _, name := range p.disk.List(dir) {
		c := path.Join(dir, name)
		switch mode, ok := p.disk.Lstat(c); {
		case ok && mode&fs.ModeSocket != 0 && p.plain(c):
			p.plan.Binds = append(p.plan.Binds, c)
		case ok && mode.IsDir():
			p.sockets(c)
		}
	}
}

// pin plans the single names.
func (p *planner) pin() {
	for _, file := range pinned {
		switch mode, ok := p.disk.Lstat(file); {
		case !p.plain(file) || p.bound(file):
		case !ok:
			p.plan.Absent = append(p.plan.Absent, file)
		case mode.IsRegular():
			p.plan.Pins = append(p.plan.Pins, file)
		case mode&fs.ModeSymlink != 0:
			p.plan.Links = append(p.plan.Links, file)
		}
	}
	for _, dir := range systemDirs { // /lib -> usr/lib
		if mode, ok := p.disk.Lstat(dir); ok && mode&fs.ModeSymlink != 0 && p.plain(dir) {
			p.plan.Links = append(p.plan.Links, dir)
		}
	}
}

// disguised reports whether something that is hidden below dir is not a
// directory that can be covered.
func (p *planner) disguised(dir string) bool {
	for h := range p.hidden {
		if mode, ok := p.disk.Lstat(h); within(h, dir) && ok && !mode.IsDir() {
			return true
		}
	}
	return false
}

// plain reports whether the path is local, to read and to write, under its own
// name.
func (f *Files) plain(p string) bool {
	r, w := f.Decide(p, Read), f.Decide(p, Write)
	return r.Where == Local && w.Where == Local && r.Path == p
}

// guard gives the directory that p is in where only those patterns hold that
// name it; empty if all do.
func (f *Files) guard(p string) string {
	if g := longest(p, f.guards); len(g) > len(longest(p, f.free)) {
		return g
	}
	return ""
}

// zones gives dir and what is below it where other patterns may hold.
func (f *Files) zones(dir string) []string {
	zones := []string{dir}
	for _, z := range slices.Concat(f.guards, f.free) {
		if z != dir && within(z, dir) {
			zones = append(zones, z)
		}
	}
	return zones
}

// touched reports whether one of the patterns may match dir or anything below
// it, where it holds.
func (f *Files) touched(dir string, patterns []*pattern) bool {
	for _, z := range f.zones(dir) {
		guard := f.guard(z)
		if slices.ContainsFunc(patterns, func(c *pattern) bool { return c.into(guard) && c.reaches(z) }) {
			return true
		}
	}
	return false
}

// exceptions are the patterns that make something else than local.
func (f *Files) exceptions() []*pattern {
	all := f.mapped()
	for _, l := range f.lists {
		if l.read != Local {
			all = append(all, l.patterns...)
		}
	}
	return all
}

// whole reports whether everything below dir, which is local itself, is local
// under its own name, to read and to write, except for what is hidden as a
// whole.
func (f *Files) whole(dir string) bool {
	if longest(dir, kernelDirs) != "" {
		return true
	}
	if within(strict, dir) || within(dir, strict) || f.touched(dir, f.exceptions()) {
		return false
	}
	if f.covered(dir) {
		return true
	}
	d, placed := f.place(dir)
	switch {
	case placed && d.Where != Local:
		return false
	case placed, longest(dir, systemDirs) != "", within(dir, etc), f.mode == FilesLocal, f.mode == FilesLocalWithOverrides:
	default: // by its own name only
		return false
	}
	for _, p := range slices.Concat(f.at.Volumes, f.remote) {
		if (within(p, dir) || within(dir, p) && !placed) && f.judge(p, Read).Where != Local {
			return false
		}
	}
	for h := range f.hidden {
		if within(h, dir) && f.judge(h, Read).Where == NotFound && f.mottled(h) {
			return false
		}
	}
	return true
}

// covered reports whether the list "local" has a pattern that matches all that
// is below dir.
func (f *Files) covered(dir string) bool {
	for _, l := range f.lists {
		for _, c := range l.patterns {
			if l.read == Local && c.covers(dir) && !slices.ContainsFunc(f.zones(dir), func(z string) bool { return !c.into(f.guard(z)) }) {
				return true
			}
		}
	}
	return false
}

// mottled reports whether something below h, which is hidden, may be shown.
func (f *Files) mottled(h string) bool {
	for _, p := range slices.Concat(f.free, f.at.Tools) {
		if p != h && within(p, h) {
			return true
		}
	}
	for _, l := range f.lists {
		if l.read == Local && f.touched(h, l.patterns) {
			return true
		}
	}
	return false
}

// hopeless reports whether no directory below dir can be bound, because a
// pattern may match anywhere; except for places, which are looked at by
// themselves.
func (f *Files) hopeless(dir string) bool {
	guard := f.guard(dir)
	return slices.ContainsFunc(f.exceptions(), func(c *pattern) bool { return c.into(guard) && c.everywhere(dir) })
}
