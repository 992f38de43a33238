package files

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mirrord-go/mirrord/internal/local/fusefs"
	"github.com/mirrord-go/mirrord/internal/protocol"
	"github.com/mirrord-go/mirrord/internal/rules"
)

// maxLinks bounds the links on one way, as the kernel does
// (path_resolution(7)).
const maxLinks = 40

// cross gives the target's link at p a meaning here: what it leads to is to be
// found in the target, or nowhere. It never leads to a file of the developer's,
// or the target could choose what the program reads and writes here.
//
// The kernel walks the text through this tree, and more of a path may follow.
// So it is given on as it is only if every step of it means here what it means
// there: a directory on the way that is a link is the target's here too, and
// crosses by itself; none is left again by "..", and nothing of the developer's
// is below its end. Otherwise it is walked in the target first, and the result
// has no step left that could mean anything else. Links that the target replaces
// (a ConfigMap's ..data) are followed only where they are asked for: the kernel
// never asks again where a link leads.
func (t *Tree) cross(ctx context.Context, p, to string, view bool) (string, error) {
	full := to
	if !path.IsAbs(to) {
		full = path.Dir(p) + "/" + to
	}
	full, climbs := anchored(full)
	end := path.Clean(full)
	if turns(to) || !t.straight(ctx, end) {
		var err error
		if end, err = t.resolve(ctx, full); err != nil {
			return "", err
		}
		if t.isTarget(end) {
			return end, nil
		}
		return viewDir + end, nil
	}
	switch {
	case view && !path.IsAbs(to) && !climbs:
		return to, nil // stays in the view
	case !t.isTarget(end):
		return viewDir + end, nil
	case view: // out of the view, where it is the target's as well
		return end, nil
	}
	return to, nil
}

// isTarget reports whether p and all that is below it are the target's.
func (t *Tree) isTarget(p string) bool {
	where, name := t.at(p)
	return where == rules.Remote && name == p && !t.o.Rules.Reaches(p, rules.Local)
}

// turns reports whether a path goes back by ".." from where it has been.
func turns(p string) bool {
	been := false
	for name := range strings.SplitSeq(p, "/") {
		switch name {
		case "", ".":
		case "..":
			if been {
				return true
			}
		default:
			been = true
		}
	}
	return false
}

// straight reports whether each directory on the way to p that is a link in the
// target is that link here.
func (t *Tree) straight(ctx context.Context, p string) bool {
	for d := path.Dir(p); d != "/"; d = path.Dir(d) {
		a, err := t.remote.stat(ctx, d)
		if err != nil && !errors.Is(err, syscall.ENOENT) {
			return false
		}
		if err == nil && a.Mode&unix.S_IFMT == unix.S_IFLNK {
			if where, name := t.at(d); where != rules.Remote || name != d {
				return false
			}
		}
	}
	return true
}

// linkKey is attrKey of what is shown at p and is called at. Where a link leads
// that has to be walked first depends on others; if these are replaced, it is
// another link.
func (t *Tree) linkKey(ctx context.Context, s side, p, at string, a *protocol.Attr) uint64 {
	if !walked(p, at, a) {
		return attrKey(s, p, a)
	}
	to, err := t.cross(ctx, at, beside(p, at, a.Link), s == sideView)
	if err != nil {
		return attrKey(s, p, a)
	}
	return key(s, a.Dev, a.Ino^uint64(a.Mtime)<<16^pathKey(to))
}

// walked reports whether this is a link that goes back from where it has been.
func walked(p, at string, a *protocol.Attr) bool {
	return a.Mode&unix.S_IFMT == unix.S_IFLNK && turns(beside(p, at, a.Link))
}

// replaced is err, or ESTALE if it says that name is not there because what it
// is in was replaced meanwhile, as the kubelet does with what "..data" of a
// volume leads to (AtomicWriter, k8s.io/kubernetes/pkg/volume/util), and removes
// the old one piece by piece: in the target a path leads to the old or to the new
// one at any time. The kernel then walks the path once more, asking for every
// name.
func (t *Tree) replaced(ctx context.Context, name string, err error) error {
	if !errors.Is(err, syscall.ENOENT) {
		return err
	}
	if old, known := t.old(ctx, path.Dir(name), path.Base(name)); known && old {
		return fmt.Errorf("%s was replaced: %w", name, syscall.ESTALE)
	}
	dir := path.Dir(name)
	for i := 0; ; {
		n := strings.Index(dir[i:], "/..")
		if n < 0 {
			return err
		}
		volume := dir[:i+n]
		if i += n + 1; dir[i:] == ".." || strings.HasPrefix(dir[i:], "../") {
			continue
		}
		in, _, _ := strings.Cut(dir[i:], "/")
		old, known := t.old(ctx, volume, in)
		if !known {
			t.remote.forget(volume + "/" + dataLink)
			t.remote.forget(dir)
			_, gone := t.remote.stat(ctx, dir)
			old = errors.Is(gone, syscall.ENOENT)
		}
		if !old {
			return err
		}
		return fmt.Errorf("%s was replaced: %w", dir, syscall.ESTALE)
	}
}

// old reports whether a volume's directory is not what its ..data leads to any
// more; it is known only of one that the kernel has got to by that.
func (t *Tree) old(ctx context.Context, volume, in string) (old, known bool) {
	if !t.followed(volume, in) {
		return false, false
	}
	data := volume + "/" + dataLink
	t.remote.forget(data)
	a, err := t.remote.stat(ctx, data)
	if err != nil || a.Link == "" {
		return false, false
	}
	return a.Link != in, true
}

const (
	// dataLink is the link of a volume to what it has now.
	dataLink = "..data"
	// followTime is how long a walk may go on by a link that was replaced: as long
	// as the kernel keeps it, and the walk.
	followTime = 2 * time.Second
	// maxLed bounds the volumes whose links are remembered; there are as many as
	// the target mounts.
	maxLed = 1 << 10
)

// led is where a volume's link has led the kernel.
type led struct {
	now, before string
	since       time.Time // of now
}

// lead notes where the link at p, a path of the target, leads the kernel.
func (t *Tree) lead(p, to string) {
	if path.Base(p) != dataLink {
		return
	}
	volume := path.Dir(p)
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.led) >= maxLed {
		clear(t.led)
	}
	if was := t.led[volume]; was.now != to {
		t.led[volume] = led{to, was.now, time.Now()}
	}
}

// followed reports whether the kernel may still be on its way by the volume's link
// to a name that is asked for.
func (t *Tree) followed(volume, name string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	l := t.led[volume]
	return l.now != "" && (name == l.now || name == l.before && time.Since(l.since) < followTime)
}

// resolve walks p in the target, as its kernel would: the result has neither
// links nor "..". Its last name need not exist.
func (t *Tree) resolve(ctx context.Context, p string) (string, error) {
	at, rest := "/", strings.Split(p, "/")
	for links := 0; len(rest) > 0; {
		name := rest[0]
		rest = rest[1:]
		switch name {
		case "", ".":
			continue
		case "..":
			at = path.Dir(at)
			continue
		}
		next := path.Join(at, name)
		a, err := t.remote.stat(ctx, next)
		switch {
		case errors.Is(err, syscall.ENOENT) && len(rest) == 0:
			return next, nil
		case err != nil:
			return "", err
		case a.Mode&unix.S_IFMT != unix.S_IFLNK:
			at = next
			continue
		}
		if links++; links > maxLinks {
			return "", syscall.ELOOP
		}
		if path.IsAbs(a.Link) {
			at = "/"
		}
		rest = append(strings.Split(a.Link, "/"), rest...)
	}
	return at, nil
}

// anchored is an absolute path without the ".." that would climb above the
// root and stay there instead (path_resolution(7)): below another directory
// they would not.
func anchored(p string) (_ string, climbs bool) {
	var b strings.Builder
	depth := 0
	for name := range strings.SplitSeq(p, "/") {
		switch name {
		case "", ".":
			continue
		case "..":
			if depth == 0 {
				climbs = true
				continue
			}
			depth--
		default:
			depth++
		}
		b.WriteString("/" + name)
	}
	if b.Len() == 0 {
		return "/", climbs
	}
	return b.String(), climbs
}

// lookupView finds p, a path of the target, below viewDir. What the target
// does not have may be a socket of this machine's, in a place of sockets
// (/var/run in the target leads to /run): that leads out of the view again. The
// directories on the way there hold nothing else.
func (t *Tree) lookupView(ctx context.Context, p string) (fusefs.Node, error) {
	a, keep, err := t.remote.lookup(ctx, p)
	if err == nil {
		n := t.remoteNode(sideView, p, p, a, keep)
		if walked(viewDir+p, p, a) {
			n.Key = t.linkKey(ctx, sideView, viewDir+p, p, a)
		}
		return n, nil
	}
	if err = t.replaced(ctx, p, err); !errors.Is(err, syscall.ENOENT) {
		return fusefs.Node{Keep: keep}, err
	}
	return t.socketNode(p)
}

// socketNode is what the view shows of this machine's at p, a path that the
// target does not have.
func (t *Tree) socketNode(p string) (fusefs.Node, error) {
	switch mode := t.socketPlace(p); {
	case mode.IsDir():
		return t.ledNode(viewDir + p), nil
	case mode&fs.ModeSocket != 0:
		return fusefs.Node{Key: pathKey("out:" + p), Keep: t.o.Life, KeepAttr: t.o.Life,
			Attr: protocol.Attr{Mode: unix.S_IFLNK | 0o777, Size: uint64(len(p)), Nlink: 1, Link: p}}, nil
	}
	return fusefs.Node{Keep: t.o.Life}, syscall.ENOENT
}

// socketPlace is the type of what this machine has at p, if it is a socket or
// a directory in a place where daemons and the desktop have their sockets; 0
// otherwise.
func (t *Tree) socketPlace(p string) fs.FileMode {
	inside := func(dir string) bool { return strings.HasPrefix(p, dir+"/") }
	if !slices.ContainsFunc(t.o.Sockets, inside) || t.where(p) != rules.Local {
		return 0
	}
	fi, err := os.Lstat(p)
	if err != nil {
		return 0
	}
	return fi.Mode() & (fs.ModeDir | fs.ModeSocket)
}

// listSockets lists p, a directory that only this machine has, in the view.
func (t *Tree) listSockets(p string) (all []fusefs.Entry, err error) {
	list, err := os.ReadDir(p)
	if err != nil {
		return nil, err
	}
	for _, e := range list {
		n, err := t.socketNode(path.Join(p, e.Name()))
		if err == nil {
			all = append(all, fusefs.Entry{Name: e.Name(), Node: n})
		}
	}
	return all, nil
}
