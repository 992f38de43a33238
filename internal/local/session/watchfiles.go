package session

import (
	"context"
	"errors"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mirrord-go/mirrord/internal/local/activity"
	"github.com/mirrord-go/mirrord/internal/local/files"
	"github.com/mirrord-go/mirrord/internal/local/fusefs"
	"github.com/mirrord-go/mirrord/internal/rules"
)

// watchFiles gives a Tree that does what t does and tells of it. What is mounted
// as a whole from this machine the kernel serves alone.
func (s *supervisor) watchFiles(t fusefs.Tree) fusefs.Tree { return &watchedTree{t, s.activity} }

// watchedTree is a Tree whose use is told.
type watchedTree struct {
	fusefs.Tree
	log *activity.Log
}

// tell tells what was done at p; to is its new name, if it has one.
func (t *watchedTree) tell(what, p, to string, err error) {
	if errors.Is(err, syscall.ESTALE) { // the kernel comes again
		return
	}
	t.log.File(false, func() activity.Event {
		return activity.Event{What: what, Path: p, To: to, Error: errorText(err)}
	})
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// Lookup tells of what is not there.
func (t *watchedTree) Lookup(ctx context.Context, p string) (fusefs.Node, error) {
	n, err := t.Tree.Lookup(ctx, p)
	if err != nil && t.log.Watched() {
		if errors.Is(err, syscall.ENOENT) {
			t.tell(activity.Absent, p, "", nil)
		} else {
			t.tell(activity.Absent, p, "", err)
		}
	}
	return n, err
}

func (t *watchedTree) Open(ctx context.Context, p string, key uint64, flags uint32) (fusefs.File, error) {
	began := time.Now()
	f, err := t.Tree.Open(ctx, p, key, flags)
	if errors.Is(err, syscall.ESTALE) {
		return f, err
	}
	ofTarget := files.OfTarget(key)
	t.log.File(ofTarget && err == nil, func() activity.Event {
		e := activity.Event{What: activity.Opened, Path: p, Where: rules.Local.String(), Millis: activity.Took(began), Error: errorText(err)}
		if ofTarget {
			e.Where = rules.Remote.String()
		}
		if flags&unix.O_ACCMODE != unix.O_RDONLY {
			e.Mode = "write"
		}
		return e
	})
	return f, err
}

func (t *watchedTree) Create(ctx context.Context, p string, flags, mode uint32) (fusefs.File, error) {
	f, err := t.Tree.Create(ctx, p, flags, mode)
	t.tell(activity.Made, p, "", err)
	return f, err
}

func (t *watchedTree) Setattr(ctx context.Context, p string, key uint64, c fusefs.Change) error {
	err := t.Tree.Setattr(ctx, p, key, c)
	t.tell(activity.Changed, p, "", err)
	return err
}

func (t *watchedTree) Mkdir(ctx context.Context, p string, mode uint32) error {
	err := t.Tree.Mkdir(ctx, p, mode)
	t.tell(activity.Made, p, "", err)
	return err
}

func (t *watchedTree) Symlink(ctx context.Context, to, p string) error {
	err := t.Tree.Symlink(ctx, to, p)
	t.tell(activity.Made, p, "", err)
	return err
}

func (t *watchedTree) Link(ctx context.Context, old, p string) error {
	err := t.Tree.Link(ctx, old, p)
	t.tell(activity.Made, p, "", err)
	return err
}

func (t *watchedTree) Unlink(ctx context.Context, p string) error {
	err := t.Tree.Unlink(ctx, p)
	t.tell(activity.Removed, p, "", err)
	return err
}

func (t *watchedTree) Rmdir(ctx context.Context, p string) error {
	err := t.Tree.Rmdir(ctx, p)
	t.tell(activity.Removed, p, "", err)
	return err
}

func (t *watchedTree) Rename(ctx context.Context, old, p string, flags uint32) error {
	err := t.Tree.Rename(ctx, old, p, flags)
	t.tell(activity.Renamed, old, p, err)
	return err
}
