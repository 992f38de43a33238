package rules

import (
	"path"
	"regexp"
	"strings"
)

// Op is what a program wants of a path.
type Op uint8

// Operations. An open is a Write when any of write, append, truncate or create
// is asked, even together with reading.
const (
	Read Op = iota
	Write
)

// Files decides about paths, in mode read: what is read comes from the target,
// what is written stays here.
//
// Places decide before patterns. Of the places that hold a path the most
// specific wins, and on a tie the developer's own: a volume of the target
// inside the working directory is the target's, a volume at /tmp is not.
type Files struct {
	Home string // the developer's home directory; empty: unknown
	// Own are directories that are the developer's whatever the lists say: the
	// working directory and its repository, temporary directories, toolchains.
	Own []string
	// Volumes are the mount points of the target's volumes.
	Volumes []string
	// Code are directories with program code of the developer's outside of Own:
	// below them a directory that the target does not have is taken from here.
	Code []string
}

// systemDirs are local because programs and what they are made of are: the
// program that runs is the developer's, not the target's.
var systemDirs = []string{
	"/proc", "/sys", "/dev", "/bin", "/sbin", "/usr", "/lib", "/lib32", "/lib64", "/libx32", "/opt", "/home", "/run",
	"/tmp", "/var/tmp", "/var/db/timezone/zoneinfo", "/nix", "/snap", "/selinux", "/Program Files",
}

// kernelDirs are the kernel's own: nothing of the target's is ever there.
var kernelDirs = []string{"/proc", "/sys", "/dev"}

// etc is local by default, with single files of the target's in it.
const etc = "/etc"

// remoteByDefault are the files of /etc that say how names resolve and whom to
// trust.
var remoteByDefault = []string{"/etc/resolv.conf", "/etc/hosts", "/etc/hostname", "/etc/ssl/certs"}

// hidden are identities of the developer's in the home directory that cloud
// libraries would use in place of the target's.
var hidden = []string{".config/gcloud", ".kube", ".azure"}

// codePattern matches program code and tooling by name, wherever it is.
var codePattern = regexp.MustCompile(`(?i)` + strings.Join([]string{
	`.\.(so|d|sh|rb|py|pyc|pth|js|jar|class|plist)$`, `\.(dll|pdb)$`, `venv\.cfg$`, `.+\.asdf/.+`, `.*/\.tool-versions$`,
	`/package\.json$`, `/\.yarnrc(\.yml|\.json)?$`, `/node_modules`, `clr-.*-pipe-`, `.*(^|/)jvm\.cfg$`}, "|"))

// Decide says where the absolute, clean path p is.
func (f *Files) Decide(p string, op Op) Decision {
	if d, ok := f.place(p); ok {
		if d.Where == Remote && op == Write {
			return Decision{Local, "mode read writes here"}
		}
		return d
	}
	for _, r := range remoteByDefault {
		if within(p, r) && op == Read {
			return Decision{Remote, r + " is remote by default"}
		}
	}
	if p == "/" {
		return Decision{Remote, "the root shows both sides"}
	}
	for _, d := range systemDirs {
		if within(p, d) {
			return Decision{Local, d + " is local by default"}
		}
	}
	switch {
	case within(p, etc):
		return Decision{Local, etc + " is local by default"}
	case codePattern.MatchString(p):
		return Decision{Local, "program code is local by default"}
	case op == Write:
		return Decision{Local, "mode read writes here"}
	}
	return Decision{Remote, "mode read reads in the target"}
}

// place asks the places only.
func (f *Files) place(p string) (d Decision, ok bool) {
	longest := -1
	consider := func(dir string, found Decision) {
		if within(p, dir) && len(dir) > longest {
			d, ok, longest = found, true, len(dir)
		}
	}
	for _, k := range kernelDirs {
		if within(p, k) {
			return Decision{Local, k + " is the kernel's"}, true
		}
	}
	for _, o := range f.Own {
		if o != "/" {
			consider(o, Decision{Local, o + " is your own"})
		}
	}
	if f.Home != "" {
		consider(f.Home, Decision{Local, "your home directory"})
		for _, h := range hidden {
			consider(path.Join(f.Home, h), Decision{NotFound, "~/" + h + " is hidden: it would stand for the target's identity"})
		}
	}
	for _, v := range f.Volumes {
		if v != "/" {
			consider(v, Decision{Remote, v + " is a volume of the target"})
		}
	}
	return d, ok
}

// Reaches reports whether a literal place of the side is strictly below dir,
// so that dir must be there to get to it.
func (f *Files) Reaches(dir string, side Where) bool {
	below := func(list []string) bool {
		for _, p := range list {
			if p != dir && within(p, dir) && f.Decide(p, Read).Where == side {
				return true
			}
		}
		return false
	}
	if side == Remote {
		return below(f.Volumes) || below(remoteByDefault)
	}
	return below(f.Own) || below([]string{f.Home}) || below(systemDirs) || below([]string{etc}) || below(f.codeFiles())
}

// codeFiles gives a path in each directory of Code, for Reaches.
func (f *Files) codeFiles() []string {
	list := make([]string, len(f.Code))
	for i, c := range f.Code {
		list[i] = path.Join(c, "main.py") // any name that is code
	}
	return list
}

// HasCode reports whether local directories that the target lacks are shown
// at dir.
func (f *Files) HasCode(dir string) bool {
	for _, c := range f.Code {
		if within(dir, c) {
			return true
		}
	}
	return false
}

// within reports whether p is dir or below it.
func within(p, dir string) bool {
	if dir == "" {
		return false
	}
	return p == dir || dir == "/" || strings.HasPrefix(p, dir) && p[len(dir)] == '/'
}
