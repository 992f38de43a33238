package rules

import (
	"fmt"
	"path"
	"regexp"
	"slices"
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

// Places are what a session knows of the two machines. All paths are absolute
// and clean.
type Places struct {
	Home string // the developer's home directory; empty: unknown
	// Own are directories that are the developer's by default: the working
	// directory and its repository, temporary directories.
	Own []string
	// Tools are the same, and what programs are made of: toolchains. A pattern
	// holds there only if it names the directory (see Files).
	Tools []string
	// Volumes are the mount points of the target's volumes.
	Volumes []string
	// Code are directories with program code of the developer's outside of Own:
	// below them a directory that the target does not have is taken from here.
	Code []string
}

// Files decides about paths. The first rule that fits decides: the kernel's own
// directories, the user's lists in their order, places, the lists of defaults,
// the mode. Of the places that hold a path the most specific wins, and on a tie
// the developer's own: a volume of the target inside the working directory is
// the target's, a volume at /tmp is not.
//
// A pattern of the user's holds in a directory of the system or of a toolchain
// only if it begins with ^ and the directory's name: "\.json$" says nothing
// about /usr, "^/usr/share/.*\.json$" does. So these directories can be mounted
// whatever else is configured. In /proc, /sys and /dev no pattern holds.
//
// A Files is not changed after NewFiles and may be used concurrently.
type Files struct {
	at       Places
	mode     string
	lists    []list // in the order in which they are asked
	mappings []mapping
	hidden   map[string]string // directories that are shown as missing, and why
	remote   []string          // the target's for reads by default
	guards   []string          // directories where only patterns hold that name them
	free     []string          // the places inside guards where all do
}

// list is one of the user's lists of patterns.
type list struct {
	key         string
	read, write Where
	patterns    []*pattern
}

// mapping gives a path that matches another name.
type mapping struct {
	*pattern
	to string
}

// FileDecision is whose a path is, and how it is called there.
type FileDecision struct {
	Decision
	// Path is the path to use on either side: what was asked for, unless a
	// mapping gives it another name.
	Path string
}

// systemDirs are local because programs and what they are made of are: the
// program that runs is the developer's, not the target's.
var systemDirs = []string{
	"/proc", "/sys", "/dev", "/bin", "/sbin", "/usr", "/lib", "/lib32", "/lib64", "/libx32", "/opt", "/home", "/run",
	"/tmp", "/var/tmp", "/var/db/timezone/zoneinfo", "/nix", "/snap", "/selinux", "/Program Files",
}

// guarded are those of systemDirs that every program needs whole and fast.
var guarded = []string{"/bin", "/sbin", "/usr", "/lib", "/lib32", "/lib64", "/libx32", "/nix", "/snap"}

// loaded are what every program here is loaded from and by. No volume of the
// target's replaces it: whoever can mount one would choose the code that the
// developer's programs run.
var loaded = []string{
	"/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/nix", "/snap",
	"/usr/bin", "/usr/sbin", "/usr/lib", "/usr/lib32", "/usr/lib64", "/usr/libx32", "/usr/libexec",
	"/usr/local/bin", "/usr/local/sbin", "/usr/local/lib", "/usr/local/lib64",
	"/etc/ld.so.preload", "/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d",
}

// kernelDirs are the kernel's own: what is there depends on who looks, so
// nothing of the target's ever is.
var kernelDirs = []string{"/proc", "/sys", "/dev"}

// etc is local by default, with single files of the target's in it.
const etc = "/etc"

// Files of /etc that say who the machine is, and whom to trust: the target's by
// default.
const (
	hostnameFile = "/etc/hostname"
	certificates = "/etc/ssl/certs"
)

// dnsFiles say how names resolve: the target's by default.
var dnsFiles = []string{"/etc/resolv.conf", "/etc/hosts"}

// identities are directories in the home directory that cloud libraries would
// use in place of the target's identity.
var identities = []string{".config/gcloud", ".kube", ".azure"}

// identityAWS is one that FilesOptions.ShowAWS leaves alone.
const identityAWS = ".aws"

// daemons are directories of sockets of name service daemons, which would
// answer for the developer's machine instead of the target (nscd(8)).
var daemons = []string{"/run/nscd"}

// codePattern matches program code and tooling by name, wherever it is.
var codePattern = regexp.MustCompile(`(?i)` + strings.Join([]string{
	`.\.(so|d|sh|rb|py|pyc|pth|js|jar|class|plist)$`, `\.(dll|pdb)$`, `venv\.cfg$`, `.+\.asdf/.+`, `.*/\.tool-versions$`,
	`/package\.json$`, `/\.yarnrc(\.yml|\.json)?$`, `/node_modules`, `clr-.*-pipe-`, `.*(^|/)jvm\.cfg$`}, "|"))

// NewFiles makes the rules of a session. A pattern that is none is a
// *PatternError.
func NewFiles(o FilesOptions, at Places) (*Files, error) {
	f := &Files{at: at, mode: o.Mode, hidden: map[string]string{}}
	switch f.mode {
	case "":
		f.mode = FilesRead
	case FilesRead, FilesWrite, FilesLocal, FilesLocalWithOverrides:
	default:
		return nil, fmt.Errorf("the mode of files is %q; it can be %s, %s, %s or %s", o.Mode, FilesRead, FilesWrite, FilesLocal, FilesLocalWithOverrides)
	}
	if err := f.compileLists(o); err != nil {
		return nil, err
	}
	local := func(p string) bool {
		return o.DNSLocal && slices.Contains(dnsFiles, p) || (o.HostnameLocal || f.mode == FilesLocal) && p == hostnameFile || f.mode == FilesLocal && p == certificates
	}
	f.remote = slices.DeleteFunc(slices.Concat(dnsFiles, []string{hostnameFile, certificates}), local)
	// A pod's own files of names are mounts as well, which change nothing.
	f.at.Volumes = slices.DeleteFunc(slices.Clone(at.Volumes), func(p string) bool { return p == hostnameFile || slices.Contains(dnsFiles, p) })
	if !o.DNSLocal {
		for _, d := range daemons {
			f.hidden[d] = d + " is hidden: its daemon would answer for this machine"
		}
	}
	if f.mode == FilesLocal {
		return f, nil
	}
	names := slices.Clone(identities)
	if !o.ShowAWS {
		names = append(names, identityAWS)
	}
	for _, name := range names {
		if at.Home != "" {
			f.hidden[path.Join(at.Home, name)] = "~/" + name + " is hidden: it would stand for the target's identity"
		}
	}
	f.guards = slices.Concat(guarded, at.Tools)
	f.free = slices.Concat(at.Own, f.at.Volumes)
	if at.Home != "" {
		f.free = append(f.free, at.Home)
	}
	return f, nil
}

// compileLists takes the user's patterns, which mode local ignores.
func (f *Files) compileLists(o FilesOptions) error {
	for _, l := range []struct {
		list
		from []Pattern
	}{
		{list{key: "not_found", read: NotFound, write: NotFound}, o.NotFound},
		{list{key: "read_write", read: Remote, write: Remote}, o.ReadWrite},
		{list{key: "read_only", read: Remote, write: Local}, o.ReadOnly},
		{list{key: "local", read: Local, write: Local}, o.Local},
	} {
		for _, p := range l.from {
			c, err := newPattern("feature.fs."+l.key, p)
			if err != nil {
				return err
			}
			l.patterns = append(l.patterns, c)
		}
		f.lists = append(f.lists, l.list)
	}
	for _, m := range o.Mapping {
		c, err := newPattern("feature.fs.mapping", m.Path)
		if err != nil {
			return err
		}
		f.mappings = append(f.mappings, mapping{c, m.To})
	}
	if f.mode == FilesLocal {
		f.lists, f.mappings = nil, nil
	}
	return nil
}

// WritesRemote reports whether anything of the target's can be changed.
func (o FilesOptions) WritesRemote() bool {
	return o.Mode == FilesWrite || o.Mode != FilesLocal && len(o.ReadWrite) > 0
}

// Decide says where the absolute, clean path p is, and what it is called there.
func (f *Files) Decide(p string, op Op) FileDecision {
	if k := longest(p, kernelDirs); k != "" {
		return FileDecision{Decision{Local, k + " is the kernel's"}, p}
	}
	guard := f.guard(p)
	for _, m := range f.mappings {
		if to, ok := m.apply(p, guard); ok {
			d := f.judge(to, op)
			return FileDecision{Decision{d.Where, fmt.Sprintf("it is %s by %s; %s", to, m.why, d.Why)}, to}
		}
	}
	d := f.judge(p, op)
	d.Why += f.unheard(p, guard)
	return FileDecision{d, p}
}

// unheard says of the first pattern that matches p and does not hold there what
// would make it.
func (f *Files) unheard(p, guard string) string {
	if guard == "" {
		return ""
	}
	all := f.mapped()
	for _, l := range f.lists {
		all = append(all, l.patterns...)
	}
	for _, c := range all {
		if !c.into(guard) && c.re.MatchString(p) {
			return fmt.Sprintf(" (%s does not hold in %s: begin it with \"^%s/\")", c.why, guard, guard)
		}
	}
	return ""
}

// judge decides about a path that is mapped already.
func (f *Files) judge(p string, op Op) Decision {
	if k := longest(p, kernelDirs); k != "" {
		return Decision{Local, k + " is the kernel's"}
	}
	guard := f.guard(p)
	for _, l := range f.lists {
		for _, c := range l.patterns {
			if c.holds(p, guard) {
				if op == Write {
					return Decision{l.write, c.why}
				}
				return Decision{l.read, c.why}
			}
		}
	}
	if d, ok := f.place(p); ok {
		if d.Where == Remote && op == Write && f.mode != FilesWrite {
			return Decision{Local, f.modeSays(Write)}
		}
		return d
	}
	if r := longest(p, f.remote); r != "" && op == Read {
		return Decision{Remote, r + " is remote by default"}
	}
	if f.mode == FilesLocal || f.mode == FilesLocalWithOverrides {
		return Decision{Local, f.modeSays(op)}
	}
	if p == "/" {
		return Decision{Remote, "the root shows both sides"}
	}
	if d := longest(p, systemDirs); d != "" {
		return Decision{Local, d + " is local by default"}
	}
	switch {
	case within(p, etc):
		return Decision{Local, etc + " is local by default"}
	case codePattern.MatchString(p):
		return Decision{Local, "program code is local by default"}
	case op == Write && f.mode == FilesRead:
		return Decision{Local, f.modeSays(op)}
	}
	return Decision{Remote, f.modeSays(op)}
}

func (f *Files) modeSays(op Op) string {
	switch {
	case f.mode == FilesLocal || f.mode == FilesLocalWithOverrides:
		return "mode " + f.mode + " is local"
	case f.mode == FilesRead && op == Write:
		return "mode read writes here"
	case op == Write:
		return "mode write writes in the target"
	}
	return "mode " + f.mode + " reads in the target"
}

// place asks the places only.
func (f *Files) place(p string) (d Decision, ok bool) {
	most := -1
	consider := func(dir string, found Decision) {
		if dir != "/" && within(p, dir) && len(dir) > most {
			d, ok, most = found, true, len(dir)
		}
	}
	for dir, why := range f.hidden {
		// Only the longest can be the answer, so the order does not matter; what
		// is one's own as well is not hidden.
		if !slices.Contains(f.at.Own, dir) && dir != f.at.Home {
			consider(dir, Decision{NotFound, why})
		}
	}
	if f.mode == FilesLocal {
		return d, ok
	}
	for _, o := range f.at.Own {
		consider(o, Decision{Local, o + " is your own"})
	}
	for _, o := range f.at.Tools {
		consider(o, Decision{Local, o + " is your own"})
	}
	consider(f.at.Home, Decision{Local, "your home directory"})
	for _, v := range f.at.Volumes {
		consider(v, Decision{Remote, v + " is a volume of the target"})
	}
	if l := longest(p, loaded); l != "" && d.Where == Remote {
		return Decision{Local, "programs here are loaded from " + l}, true
	}
	return d, ok
}

// Reaches reports whether a place, or a pattern that begins with a path, names
// something of the side strictly below dir, so that dir must be there to get to
// it.
func (f *Files) Reaches(dir string, side Where) bool {
	below := func(list []string) bool {
		for _, p := range list {
			if p != dir && within(p, dir) && f.judge(p, Read).Where == side {
				return true
			}
		}
		return false
	}
	guard := f.guard(dir)
	for _, l := range f.lists {
		if l.read == side && slices.ContainsFunc(l.patterns, func(c *pattern) bool { return c.namesBelow(dir, guard) }) {
			return true
		}
	}
	if side == Remote {
		return below(f.at.Volumes) || below(f.remote)
	}
	return below(f.at.Own) || below(f.at.Tools) || below([]string{f.at.Home}) || below(systemDirs) || below([]string{etc}) || below(f.codeFiles())
}

// MayReach reports whether anything strictly below dir can be the target's by
// the rules that make exceptions: places, patterns, mappings.
func (f *Files) MayReach(dir string) bool {
	if f.Reaches(dir, Remote) || f.touched(dir, f.mapped()) {
		return true
	}
	for _, l := range f.lists {
		if l.read == Remote && f.touched(dir, l.patterns) {
			return true
		}
	}
	return false
}

// Leads reports whether a mapping names something strictly below dir, which is
// not mapped itself and therefore a directory even if neither side has it.
func (f *Files) Leads(dir string) bool {
	return dir != "/" && f.Decide(dir, Read).Path == dir && slices.ContainsFunc(f.mapped(), func(c *pattern) bool { return c.leads(dir) })
}

// Names gives the names in dir that mappings spell out: they may be there
// although neither side has them.
func (f *Files) Names(dir string) (names []string) {
	for _, c := range f.mapped() {
		names = append(names, c.names(dir)...)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

func (f *Files) mapped() []*pattern {
	list := make([]*pattern, len(f.mappings))
	for i, m := range f.mappings {
		list[i] = m.pattern
	}
	return list
}

// codeFiles gives a path in each directory of Code, for Reaches.
func (f *Files) codeFiles() []string {
	list := make([]string, len(f.at.Code))
	for i, c := range f.at.Code {
		list[i] = path.Join(c, "main.py") // any name that is code
	}
	return list
}

// HasCode reports whether local directories that the target lacks are shown
// at dir.
func (f *Files) HasCode(dir string) bool {
	return slices.ContainsFunc(f.at.Code, func(c string) bool { return within(dir, c) })
}

// within reports whether p is dir or below it.
func within(p, dir string) bool {
	if dir == "" {
		return false
	}
	return p == dir || dir == "/" || strings.HasPrefix(p, dir) && p[len(dir)] == '/'
}

// longest gives the longest of dirs that p is in, "/" not counted; empty if
// there is none.
func longest(p string, dirs []string) (found string) {
	for _, d := range dirs {
		if d != "/" && within(p, d) && len(d) > len(found) {
			found = d
		}
	}
	return found
}
