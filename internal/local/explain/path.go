package explain

import (
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/mirrord-go/mirrord/internal/rules"
)

// File is what else is known of a path.
type File struct {
	Name   string `json:"name"`   // what it is called on the side that it is on
	Here   string `json:"here"`   // what this machine has by that name
	Target string `json:"target"` // what the target has; nobody asks it
	Shown  string `json:"shown"`  // how it gets to the program: Mounted, Served, Hidden or Own
	How    string `json:"how"`    // the same in words
	// Write is what the first write does.
	Write string `json:"first_write,omitempty"`
}

// The ways in which a path is shown.
const (
	Mounted = "mounted" // by the kernel, at native speed
	Served  = "served"  // path by path, by the session
	Hidden  = "hidden"
	Own     = "own" // the session's own content
)

// notAsked is what is known of the target's files.
const notAsked = "not asked"

// Machine is what is known of this machine and the session on it.
type Machine struct {
	// Served are the files with a content of the session's own.
	Served map[string][]byte
	Plan   rules.Plan
	// Lstat gives the type of what this machine has at a path; ok is false if
	// there is nothing.
	Lstat func(p string) (mode fs.FileMode, ok bool)
}

// Path says whose the absolute, clean path p is, for reading and for writing.
func Path(f *rules.Files, m Machine, p string) []Answer {
	reads, writes := f.Decide(p, rules.Read), f.Decide(p, rules.Write)
	if _, ok := m.Served[p]; ok {
		const why = "mirrord's own content, unless dns is off: names resolve as in the target"
		file := &File{Name: p, Here: m.here(p), Target: notAsked, Shown: Own, How: "it is made by the session"}
		write := *file
		write.Write = "it is refused: read-only file system (EROFS)"
		return []Answer{{Question: "read " + p, Where: "the session", Why: why, File: file},
			{Question: "write " + p, Where: "nowhere", Why: why, Note: write.Write, File: &write}}
	}
	answers := make([]Answer, 0, 2)
	for _, q := range []struct {
		word string
		d    rules.FileDecision
	}{{"read", reads}, {"write", writes}} {
		file := &File{Name: q.d.Path, Here: m.here(q.d.Path), Target: notAsked}
		file.Shown, file.How = m.shown(p, reads)
		a := Answer{Question: q.word + " " + p, Where: q.d.Where.String(), Why: q.d.Why, File: file}
		if q.d.Path != p {
			a.note("it is " + q.d.Path + " there")
		}
		if q.word == "write" {
			file.Write = m.firstWrite(reads, writes)
			a.note(file.Write)
		}
		answers = append(answers, a)
	}
	return answers
}

// here says what this machine has at p.
func (m *Machine) here(p string) string {
	switch mode, ok := m.Lstat(p); {
	case !ok:
		return "nothing"
	case mode.IsRegular():
		return "a file"
	case mode.IsDir():
		return "a directory"
	case mode&fs.ModeSymlink != 0:
		return "a symbolic link"
	case mode&fs.ModeSocket != 0:
		return "a socket"
	}
	return "a special file"
}

// shown says how p gets to the program, and the same in words.
func (m *Machine) shown(p string, reads rules.FileDecision) (shown, how string) {
	inside := func(list []string) string {
		i := slices.IndexFunc(list, func(dir string) bool { return p == dir || strings.HasPrefix(p, dir+"/") })
		if i < 0 {
			return ""
		}
		return list[i]
	}
	if dir := inside(m.Plan.Hides); dir != "" {
		return Hidden, dir + " is covered with nothing"
	}
	if reads.Where == rules.NotFound {
		return Hidden, "programs do not find it"
	}
	if dir := inside(m.Plan.Binds); dir == p {
		return Mounted, "it is mounted from this machine, at native speed"
	} else if dir != "" {
		return Mounted, dir + " is mounted from this machine, at native speed"
	}
	switch link := inside(m.Plan.Links); {
	case slices.Contains(m.Plan.Pins, p):
		return Mounted, "the file is mounted from this machine, at native speed; it stays the one that it is when the session begins"
	case slices.Contains(m.Plan.Absent, p):
		return Hidden, "there is none when the session begins, and programs find none for its time"
	case link == p:
		return Served, "it is this machine's link, as it is when the session begins"
	case link != "":
		return Served, link + " is a link of this machine's: what counts is the path that it leads to"
	case reads.Where == rules.Remote:
		return Served, "it is asked of the target, path by path"
	}
	return Served, "it is this machine's, served path by path: something of the target's may be in its directory (some 0.1 ms for each open)"
}

// firstWrite says what the first write of a path does.
func (m *Machine) firstWrite(reads, writes rules.FileDecision) string {
	switch {
	case writes.Where == rules.NotFound:
		return "it cannot be made: it is not found (ENOENT)"
	case writes.Where == rules.Remote:
		return "it is changed in the target, as the user of its process may"
	case reads.Where != rules.Remote:
		return ""
	}
	dir := path.Dir(writes.Path)
	switch mode, ok := m.Lstat(writes.Path); {
	case ok && mode.IsDir():
		return "the target's directory does not become this machine's: changing its mode or times is refused (EROFS)"
	case ok:
		return "the first write goes to this machine's file, which is the one that is read from then on, for the session"
	}
	if mode, ok := m.Lstat(dir); !ok || !mode.IsDir() && mode&fs.ModeSymlink == 0 {
		return fmt.Sprintf("the first write is refused (EROFS): this machine has no directory %s", dir)
	}
	return "the first write copies the target's content to this machine, and the copy is what is read from then on, for the session"
}
