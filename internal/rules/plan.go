package rules

import (
	"io/fs"
	"path"
	"slices"
)

// Plan is what is local as a whole, so that the kernel can show it by mounts,
// at native speed and whatever else happens. All lists are sorted.
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

// daemons are directories of sockets of name service daemons, which would
// answer for the developer's machine instead of the target (nscd(8)).
var daemons = []string{"/run/nscd"}

// Plan plans the mounts.
func (f *Files) Plan(disk Disk) Plan {
	var p Plan
	candidates := slices.Concat(f.Own, systemDirs, []string{etc})
	if f.Home != "" {
		candidates = append(candidates, f.Home)
	}
	slices.Sort(candidates)
	bound := func(dir string) bool {
		return slices.ContainsFunc(p.Binds, func(b string) bool { return within(dir, b) })
	}
	for _, dir := range slices.Compact(candidates) { // parents come before children
		if dir == "/" || bound(dir) {
			continue
		}
		if _, ok := disk.Lstat(dir); ok {
			f.bind(disk, dir, &p)
		} else { // a PATH often names what is not there
			p.Absent = append(p.Absent, dir)
		}
	}
	for _, file := range pinned {
		switch mode, ok := disk.Lstat(file); {
		case !ok:
			p.Absent = append(p.Absent, file)
		case mode.IsRegular():
			p.Pins = append(p.Pins, file)
		case mode&fs.ModeSymlink != 0:
			p.Links = append(p.Links, file)
		}
	}
	for _, dir := range systemDirs { // /lib -> usr/lib
		if mode, ok := disk.Lstat(dir); ok && mode&fs.ModeSymlink != 0 && f.Decide(dir, Read).Where == Local {
			p.Links = append(p.Links, dir)
		}
	}
	hide := slices.Clone(daemons)
	for _, h := range hidden {
		if f.Home != "" {
			hide = append(hide, path.Join(f.Home, h))
		}
	}
	for _, dir := range hide {
		mode, ok := disk.Lstat(dir)
		if ok && mode.IsDir() && bound(dir) && !slices.ContainsFunc(f.Own, func(o string) bool { return within(o, dir) }) {
			p.Hides = append(p.Hides, dir)
		}
	}
	slices.Sort(p.Binds)
	slices.Sort(p.Hides)
	return p
}

// bind binds dir if all of it is local, otherwise what is so inside it.
func (f *Files) bind(disk Disk, dir string, p *Plan) {
	mode, ok := disk.Lstat(dir)
	if !ok || f.Decide(dir, Read).Where != Local {
		return
	}
	switch {
	case mode&fs.ModeSocket != 0:
		p.Binds = append(p.Binds, dir)
		return
	case !mode.IsDir(): // a symbolic link to a directory has its own place
		return
	}
	if !f.Reaches(dir, Remote) && dir != strict {
		p.Binds = append(p.Binds, dir)
		return
	}
	for _, name := range disk.List(dir) {
		f.bind(disk, path.Join(dir, name), p)
	}
}
