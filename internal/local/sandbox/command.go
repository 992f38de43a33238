package sandbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mirrord-go/mirrord/internal/local/host"
	"github.com/mirrord-go/mirrord/internal/local/sandbox/handoff"
	"github.com/mirrord-go/mirrord/internal/local/sandbox/tree"
)

// A sandbox whose Spec has no Argv is kept: Go lets its init end, the helper
// stays and holds the namespaces, and commands join as long as the Box is open.
// Each has an init of its own (Enter), a seccomp listener of its own, whose end
// tells the end of its last process, and a UTS namespace of its own, by which
// its processes are told from those of the others: the user namespace is that of
// all. What makes both a user and a UTS namespace in there (a container) is out
// of sight when one command is ended, not when the session is.

// Command is one command in a Box that is kept. Its methods may be called
// concurrently.
type Command struct {
	box    *Box
	conn   *handoff.Conn
	tree   *tree.Tree
	notify *os.File // set by Go; nil: there is no filter
	done   chan struct{}
}

// Door is a pidfd of the helper, for Enter.
func (b *Box) Door() *os.File { return b.helper.pidfd }

// Own reports whether the sandbox has a user namespace of its own, for Enter.
func (b *Box) Own() bool { return b.tree.Own() }

// Hold is Watch for a sandbox that is kept: it serves the commands that join,
// until ctx ends (its error). It waits for Go, and is called once. Done is
// not closed.
func (b *Box) Hold(ctx context.Context, hooks Hooks) error {
	w, end, err := b.beginWatch(ctx, hooks)
	if err != nil {
		return err
	}
	defer end()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	failed := make(chan error, 1)
	for {
		select {
		case c := <-b.joined:
			w.wg.Go(func() {
				if err := w.alike().command(ctx, c.notify, c.tree); err != nil {
					select {
					case failed <- err:
					default:
					}
					return
				}
				close(c.done)
			})
		case err := <-failed:
			return err
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// alike is a watch for another command of the same sandbox.
func (w *watch) alike() *watch {
	one := &watch{b: w.b, hooks: w.hooks, reg: w.reg, any: w.any, slots: w.slots}
	one.sweeps.of = map[int]bool{}
	return one
}

// command serves a command until its last process has ended.
func (w *watch) command(ctx context.Context, notify *os.File, all *tree.Tree) error {
	ctx, cancel := context.WithCancel(ctx)
	defer w.meetUnix()()
	defer w.wg.Wait()
	defer cancel() // what looks for listeners ends
	if notify == nil {
		if err := w.poll(ctx, all); err != nil {
			return err
		}
	} else {
		defer notify.Close()
		if err := w.serve(ctx, notify); err != nil {
			return err
		}
	}
	if w.unix != nil {
		w.unix.last(ctx)
	}
	w.awaitClosed(ctx, w.reg.of(w), closeTime) // their end is told a moment later
	return nil
}

// closeTime is how long the end of a command waits for that of its listeners,
// which comes within a millisecond, unless another command has got them.
const closeTime = 200 * time.Millisecond

// Join tells the init at the other end of sock, which has entered the sandbox,
// what to become: of spec Argv, Env, Dir, NoIPv6, Poll and Connects
// count. It owns sock.
// When it returns without error, init waits for Command.Go; without that it ends
// with ctx, or Close.
func (b *Box) Join(ctx context.Context, sock *os.File, spec handoff.Spec) (*Command, error) {
	conn, err := handoff.NewConn(sock)
	if err != nil {
		return nil, err
	}
	c := &Command{box: b, conn: conn, done: make(chan struct{})}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if err := c.join(&spec); err != nil {
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		conn.Close()
		return nil, err
	}
	return c, nil
}

func (c *Command) join(spec *handoff.Spec) error {
	if err := c.conn.Send(handoff.Message{Kind: handoff.KindSpec, Body: spec.Encode()}); err != nil {
		if _, failed := receive(c.conn); failed != nil {
			return failed
		}
		return err
	}
	for {
		m, err := receive(c.conn)
		switch {
		case err != nil:
			return err
		case m.Kind == handoff.KindReady && c.tree != nil:
			return nil
		case m.File == nil || handoff.Label(m.Body[0]) != handoff.Space || c.tree != nil:
			if m.File != nil {
				m.File.Close()
			}
			return fmt.Errorf("sandbox: unexpected message %d", m.Kind)
		}
		c.tree, err = tree.New(c.box.proc, m.File)
		m.File.Close()
		if err != nil {
			return err
		}
	}
}

// Go lets the command run. It returns when execve has succeeded, or with what
// failed. It is called once; Hold must be running.
func (c *Command) Go(ctx context.Context) error {
	defer c.conn.Close()
	var err error
	if c.notify, err = release(c.conn); err != nil {
		return err
	}
	select {
	case c.box.joined <- c:
		return nil
	case <-ctx.Done():
		if c.notify != nil {
			c.notify.Close()
		}
		return ctx.Err()
	}
}

// Done is closed when the last process of the command has ended, and what it
// listened on is closed.
func (c *Command) Done() <-chan struct{} { return c.done }

// Filtered reports, after Go, whether the command's calls are seen; see
// Box.Filtered.
func (c *Command) Filtered() bool { return c.notify != nil }

// End ends the command and what it has started; see Box.End.
func (c *Command) End(ctx context.Context) error { return c.tree.End(ctx) }

// Without lists, after Go, what this command does without, which others may
// have; see Box.Without.
func (c *Command) Without() []host.Piece {
	if c.notify != nil {
		return nil
	}
	return without(map[handoff.Step]bool{handoff.StepSeccomp: true})
}

// release lets an init go on to its end. notify is nil where the command has no
// filter.
func release(conn *handoff.Conn) (notify *os.File, err error) {
	if err := conn.Send(handoff.Message{Kind: handoff.KindGo}); err != nil {
		return nil, err
	}
	filtered := false
	for {
		m, err := receive(conn)
		var failed *handoff.Error
		switch {
		case errors.As(err, &failed) && failed.Step == handoff.StepLost && filtered:
			return notify, nil // close-on-exec: the command runs
		case err == nil && m.Kind == handoff.KindFile && handoff.Label(m.Body[0]) == handoff.Notify && !filtered:
			filtered, notify = true, m.File
			continue
		case err == nil:
			err = fmt.Errorf("sandbox: unexpected message %d", m.Kind)
		}
		for _, f := range []*os.File{m.File, notify} {
			if f != nil {
				f.Close()
			}
		}
		return nil, err
	}
}

// dismiss lets the init of a sandbox that is kept end.
func dismiss(conn *handoff.Conn) error {
	if err := conn.Send(handoff.Message{Kind: handoff.KindGo}); err != nil {
		return err
	}
	m, err := receive(conn)
	if m.File != nil {
		m.File.Close()
	}
	if failed := (*handoff.Error)(nil); errors.As(err, &failed) && failed.Step == handoff.StepLost {
		return nil
	}
	if err == nil {
		err = unix.EPROTO
	}
	return err
}
