package files

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"syscall"
	"time"

	"github.com/mirrord-go/mirrord/internal/link"
	"github.com/mirrord-go/mirrord/internal/protocol"
)

// The names in a directory of the target's.

// maxNames bounds a directory's listing, at about 1 KiB each while it is made:
// a directory without end must not take the supervisor's memory.
const maxNames = 1 << 18

// named is a name in a directory.
type named struct {
	name string
	attr *protocol.Attr // without a type: the kernel is to ask
	keep time.Duration
}

// list gives the names in a directory.
func (r *remote) list(ctx context.Context, p string) ([]named, error) {
	return soon(ctx, r, expected[[]named]{
		may:   func() bool { return r.tells(p) },
		found: func() ([]named, bool) { return r.listed(p) },
		alone: func() { r.foreseeList(p) },
		ask:   func(ctx context.Context) ([]named, error) { return r.askList(ctx, p) },
	})
}

// listed gives the names in p if all are known.
func (r *remote) listed(p string) (all []named, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	d, own := r.dirs[p], r.entry(p)
	if d == nil || !d.whole || !r.fresh(d.at) {
		return nil, false
	}
	// The kernel keeps names until it is told that the directory has changed: it
	// must not get those from before a change that it was told of.
	if own == nil || own.at.IsZero() || !sameFile(own.attr, d.own) || !same(own.attr, d.own) {
		return nil, false
	}
	r.order.MoveToBack(d.place)
	for _, name := range d.sort() {
		e := d.names[name]
		n := named{name: name, attr: e.attr, keep: r.left(e.at)}
		if _, ok := r.rememberedOf(path.Join(p, name), e); !ok {
			n.attr, n.keep = unsure(e.attr), 0
		}
		all = append(all, n)
	}
	if d.by != nil {
		r.saved(d.by)
		r.thrift.give(len(all) * entryCost / 2)
		d.by = nil
	}
	return all, true
}

// unsure is what a listing says of a name that the kernel is to ask for: the
// type of a directory, on which its place in the view may depend.
func unsure(a *protocol.Attr) *protocol.Attr {
	if a.Mode&syscall.S_IFMT == syscall.S_IFDIR {
		return a
	}
	return &protocol.Attr{}
}

// askList asks for the names in a directory.
func (r *remote) askList(ctx context.Context, p string) ([]named, error) {
	calling, done := r.bound(ctx)
	defer done()
	asked := time.Now()
	s, err := r.peer.Open(calling, link.Interactive, &protocol.ReadDir{Path: p})
	if err != nil {
		return nil, explain(calling, err)
	}
	defer s.Close()
	stop := context.AfterFunc(calling, func() { s.Reset(syscall.ECANCELED) })
	defer stop()
	var all []named
	var last *protocol.Entries
	for {
		m, err := s.Receive()
		if errors.Is(err, io.EOF) {
			r.learnList(p, all, last, asked)
			return all, nil
		}
		if err != nil {
			return nil, explain(calling, err)
		}
		part, err := as[*protocol.Entries](m)
		if err != nil {
			return nil, err
		}
		if len(all)+len(part.List) > r.names {
			return nil, fmt.Errorf("list %q: more than %d names: %w", p, r.names, syscall.EOVERFLOW)
		}
		last = part
		for i := range part.List {
			e := &part.List[i]
			if !validName(e.Name) {
				continue
			}
			n := named{e.Name, &e.Attr, r.life}
			e.Attr.Data, e.Attr.HasData = nil, false
			if r.unsettled(attrKey(sideRemote, path.Join(p, e.Name), &e.Attr), asked) {
				n.attr, n.keep = unsure(n.attr), 0
			} else {
				r.learn(path.Join(p, e.Name), &e.Attr, asked)
			}
			all = append(all, n)
		}
	}
}

// learnList notes that these are the names in p, if the last part says that they
// are all.
func (r *remote) learnList(p string, all []named, last *protocol.Entries, asked time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	d := r.dirs[p]
	if d == nil || last == nil || last.End != protocol.EndWhole || r.stale(p, asked) {
		return
	}
	names := make(map[string]bool, len(all))
	for _, n := range all {
		names[n.name] = true
	}
	r.settleNames(d, names, &last.Attr, asked, time.Now(), nil)
	d.habit.part = time.Time{}
}

// validName refuses what the kernel would take for an attack.
func validName(name string) bool {
	const nameMax = 255 // NAME_MAX, linux/limits.h
	if name == "" || name == "." || name == ".." || len(name) > nameMax {
		return false
	}
	for i := range len(name) {
		if name[i] == '/' || name[i] == 0 {
			return false
		}
	}
	return true
}
