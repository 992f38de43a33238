package learn

import (
	"fmt"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/mirrord-go/mirrord/internal/rules"
)

// refusals tells what programs were refused, why, and what would change it.
// Where a directory has more than a few of the same, it is one.
func (m *maker) refusals() {
	type kind struct{ dir, what, errno, why, do string }
	var order []kind
	lists := map[kind][]Refused{}
	for _, p := range m.names {
		for _, r := range m.paths[p].refused {
			why, do := m.reason(p, r)
			one := Refused{text(p), r.what.String(), unix.ErrnoName(r.errno), r.times, why, do}
			k := kind{parent(p), one.What, one.Error, why, do}
			if lists[k] == nil {
				order = append(order, k)
			}
			lists[k] = append(lists[k], one)
		}
	}
	var all []Refused
	for _, k := range order {
		list := lists[k]
		if len(list) > few {
			one := list[0]
			one.Path, one.Times = strings.TrimSuffix(text(k.dir), "/")+"/", 0
			for _, r := range list {
				one.Times += r.Times
			}
			list = []Refused{one}
		}
		all = append(all, list...)
	}
	m.r.Refused = cut(m, all)
}

// reason says why p was refused, and what would change it.
func (m *maker) reason(p string, r refusal) (why, do string) {
	reads, writes := m.rules.Decide(p, rules.Read), m.rules.Decide(p, rules.Write)
	// Whoever writes one file of a directory mostly writes others.
	dir := func(key string, want rules.Where) {
		x := wish{key: key, path: parent(writes.Path), of: p, whole: true, op: rules.Write, want: want}
		if x.path == "/" {
			x.path, x.whole = writes.Path, false
		}
		m.wish(x)
	}
	switch {
	case r.errno == syscall.EIO || r.errno == syscall.ETIMEDOUT:
		return "the target could not be asked: the link or the agent was gone, or its disk failed", ""
	case m.hidden(p):
		return "what the target has is shown here to be read only", ""
	case r.what == moving && r.errno == syscall.EXDEV:
		if reads.Where == rules.Remote && writes.Where == rules.Local {
			dir("read_write", rules.Remote)
			return "it is read in the target and written here (" + writes.Why + "): it cannot be moved, and programs copy instead", "let it be written in the target as well"
		}
		return fmt.Sprintf("one name is %s (%s) and the other is on the other side, or on another disk: programs copy instead", writes.Where, writes.Why), ""
	case r.what != reading && writes.Where == rules.Local:
		if reads.Where == rules.Remote && m.kindHere(parent(writes.Path)) == Nothing {
			dir("read_write", rules.Remote)
			at := text(parent(writes.Path))
			return fmt.Sprintf("%s, and this machine has no directory %s", writes.Why, at),
				fmt.Sprintf("let it be written in the target (--fs-mode write does so for all), or make the directory here: mkdir -p %s", shell(at))
		}
		if reads.Where == rules.Remote {
			dir("read_write", rules.Remote)
			return fmt.Sprintf("%s, and it cannot be done here: you may not write to the directory, or what is there is a directory, or this machine has another file of that name", writes.Why),
				"let it be written in the target (--fs-mode write does so for all)"
		}
		m.wish(wish{key: "read_write", path: writes.Path, of: p, op: rules.Write, want: rules.Remote})
		return "this machine refused it: " + writes.Why, "change what you may do here, or write it in the target"
	case r.what != reading && writes.Where == rules.Remote:
		if r.errno == syscall.EROFS {
			dir("read_only", rules.Local)
			return "the target's disk is read only there: a ConfigMap, a Secret, or a container with a read-only root", "let it be written here, for this session"
		}
		dir("read_only", rules.Local)
		return fmt.Sprintf("the target's kernel refused it to the user of its process (uid %d)", m.o.UID), "change its permissions in the image or the pod, or let it be written here"
	case reads.Where == rules.Remote:
		do = "change its permissions in the image or the pod, or run the pod as another user"
		if m.kindHere(reads.Path) != Nothing {
			m.wish(wish{key: "local", path: reads.Path, of: p, whole: m.kindHere(reads.Path) != File, op: rules.Read, want: rules.Local})
			do += "; or take this machine's"
		} else {
			do += "; or make one here, and take that: \"local\" or \"mapping\" of feature.fs"
		}
		return fmt.Sprintf("the target's kernel refused it to the user of its process (uid %d)", m.o.UID), do
	}
	return "this machine refused it: " + reads.Why, ""
}

// shell is p as a word of a shell.
func shell(p string) string {
	if strings.Trim(p, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._-") == "" {
		return p
	}
	return "'" + strings.ReplaceAll(p, "'", `'\''`) + "'"
}
