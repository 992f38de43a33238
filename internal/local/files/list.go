package files

import (
	"context"
	"errors"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/mirrord-go/mirrord/internal/local/fusefs"
	"github.com/mirrord-go/mirrord/internal/protocol"
	"github.com/mirrord-go/mirrord/internal/rules"
)

// List implements fusefs.Tree. A name is listed if and only if a lookup finds
// it.
func (t *Tree) List(ctx context.Context, p string) ([]fusefs.Entry, error) {
	if r, ok := inView(p); ok {
		list, err := t.remote.list(ctx, r)
		if errors.Is(err, syscall.ENOENT) && t.socketPlace(r).IsDir() {
			return t.listSockets(r)
		}
		if err != nil {
			return nil, err
		}
		all := make([]fusefs.Entry, 0, len(list))
		for _, e := range list {
			c := path.Join(r, e.name)
			if walked(viewDir+c, c, e.attr) { // let the kernel ask: see linkKey
				e.attr, e.keep = &protocol.Attr{}, 0
			}
			all = append(all, fusefs.Entry{Name: e.name, Node: t.remoteNode(sideView, c, c, e.attr, e.keep)})
		}
		return all, nil
	}
	all := map[string]fusefs.Node{}
	_, name := t.at(p)
	err := t.listSides(ctx, p, name, all)
	if name != p { // what is mapped of p need not be so of all that is in it
		if own := t.listSides(ctx, p, p, all); own == nil {
			err = nil
		}
	}
	for _, n := range t.o.Rules.Names(p) {
		t.add(ctx, path.Join(p, n), all)
	}
	found := t.o.Rules.Leads(p)
	for f, mode := range t.fixed {
		if path.Dir(f) == p && !strings.HasPrefix(viewDir, f) {
			all[path.Base(f)] = t.fixedNode(f, mode)
			found = true
		}
	}
	for f, content := range t.o.Served {
		if path.Dir(f) == p {
			all[path.Base(f)] = t.servedNode(f, content)
		}
	}
	if err != nil && (!found || !errors.Is(err, syscall.ENOENT)) {
		return nil, err
	}
	entries := make([]fusefs.Entry, 0, len(all))
	for _, name := range slices.Sorted(maps.Keys(all)) {
		entries = append(entries, fusefs.Entry{Name: name, Node: all[name]})
	}
	return entries, nil
}

// listSides adds the names of both sides' directory dir that are found at p.
func (t *Tree) listSides(ctx context.Context, p, dir string, all map[string]fusefs.Node) error {
	err := t.listRemote(ctx, p, dir, all)
	if errors.Is(err, syscall.ENOTDIR) { // a file there, a directory here
		err = syscall.ENOENT
	}
	if lerr := t.listLocal(ctx, p, dir, all); errors.Is(err, syscall.ENOENT) && (lerr == nil || t.where(p) == rules.Local) {
		return lerr
	}
	return err
}

// add adds p, which a mapping calls otherwise than the directory that it is in,
// if it is there.
func (t *Tree) add(ctx context.Context, p string, all map[string]fusefs.Node) {
	if _, ok := all[path.Base(p)]; ok {
		return
	}
	if n, err := t.Lookup(ctx, p); err == nil {
		all[path.Base(p)] = n
	}
}

// listRemote adds those names of the target's directory dir that a lookup
// would find at p.
func (t *Tree) listRemote(ctx context.Context, p, dir string, all map[string]fusefs.Node) error {
	if t.where(p) != rules.Remote && !t.o.Rules.MayReach(p) {
		return syscall.ENOENT
	}
	list, err := t.remote.list(ctx, dir)
	if err != nil {
		return err
	}
	for i := range list {
		n := &list[i]
		c := path.Join(p, n.name)
		w, name := t.at(c)
		if name != path.Join(dir, n.name) {
			t.add(ctx, c, all)
			continue
		}
		reached := n.attr.Mode&unix.S_IFMT == unix.S_IFDIR && t.o.Rules.Reaches(c, rules.Remote)
		if walked(c, name, n.attr) { // let the kernel ask: see linkKey
			n.attr, n.keep = &protocol.Attr{}, 0
		}
		if w == rules.Remote || w == rules.Local && reached {
			all[n.name] = t.remoteNode(sideRemote, c, name, n.attr, n.keep)
		}
	}
	return nil
}

// listLocal adds those names of the developer's directory dir that a lookup
// would find at p.
func (t *Tree) listLocal(ctx context.Context, p, dir string, all map[string]fusefs.Node) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	for _, base := range names {
		c := path.Join(p, base)
		w, name := t.at(c)
		if name != path.Join(dir, base) {
			t.add(ctx, c, all)
			continue
		}
		_, taken := all[base]
		if w == rules.NotFound || w == rules.Remote && (taken || !t.shows(c)) {
			continue
		}
		n, err := t.localNode(c, name)
		if err != nil || w == rules.Remote && n.Attr.Mode&unix.S_IFMT != unix.S_IFDIR {
			continue
		}
		all[base] = n
	}
	return err
}

// Mixed implements fusefs.Tree.
func (t *Tree) Mixed(p string) bool {
	if r, ok := inView(p); ok {
		return r == "/" // whose own attributes never change
	}
	where, name := t.at(p)
	if _, ok := t.fixed[p]; ok || p == "/" || where == rules.Local || name != p || len(t.o.Rules.Names(p)) > 0 {
		return true
	}
	t.mu.Lock()
	parent := t.parents[p]
	t.mu.Unlock()
	if parent {
		return true
	}
	_, err := os.Lstat(p)
	return err == nil
}
