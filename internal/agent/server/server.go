// Package server is the agent: it accepts the links of one session and hands
// each stream to the room that answers it.
//
// It is the only agent room that knows all others. It serves whoever proves
// the session's key and nobody else, and ends with the session: at its
// goodbye, when no client has come (back) within the resume window, when the
// target ends, or at SIGTERM.
package server

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/mirrord-go/mirrord/internal/agent/files"
	"github.com/mirrord-go/mirrord/internal/agent/target"
	"github.com/mirrord-go/mirrord/internal/link/resume"
	"github.com/mirrord-go/mirrord/internal/link/seal"
	"github.com/mirrord-go/mirrord/internal/protocol"
	"github.com/mirrord-go/mirrord/internal/quiet"
)

const (
	// firstClient is how long an agent waits for its session to arrive: the
	// developer's machine may be slow, or gone.
	firstClient = 60 * time.Second
	// handshakeTime bounds the sealing of one pipe, so that a stranger who
	// connects and says nothing costs little.
	handshakeTime = 10 * time.Second
	// acceptPause is how long an agent without free descriptors waits for one.
	acceptPause = 100 * time.Millisecond
	// maxHandshakes bounds how many strangers are listened to at once.
	maxHandshakes = 8
)

// Options of Run.
type Options struct {
	Version   string
	ClientKey ed25519.PublicKey // of the one session that may connect
	Session   string
	Listener  net.Listener // on loopback or private to the session; Run closes it
	// Window is how long a lost link may take to come back; 0: the default.
	// LostReply is how long requests that wait for local wait for it, before they
	// are answered here; 0: as long as Window.
	Window, LostReply time.Duration
	// Target finds the target; its error is told to the session.
	Target func() (*target.Target, error)
	// Ready is called when all is open that takes more rights than serving the
	// session; there is no target if it was not found. It tells, by mode, why
	// ports cannot be mirrored or stolen here, and what else is missing for a
	// person. May be nil.
	Ready func(*target.Target) (Lacks, error)
	// Announce gets the agent's first line: its own key and port.
	Announce io.Writer
	// Ignored are options that the agent was given and does not know: a newer
	// mirrord's. They are told to the session.
	Ignored []string
	Log     *slog.Logger
}

// Lacks is what an agent cannot do for want of rights.
type Lacks struct {
	Modes map[uint8]string // of incoming, why not
	Else  []string         // a line each
}

// Run serves one session and returns when it has ended. The error is nil
// after a goodbye.
func Run(ctx context.Context, o Options) error {
	told := ctx
	ctx, cancel := context.WithCancelCause(context.WithoutCancel(told))
	defer cancel(nil)
	defer context.AfterFunc(told, func() { cancel(errTold) })()
	key, err := seal.NewKey()
	if err != nil {
		return fmt.Errorf("make a key: %w", err)
	}
	var wg sync.WaitGroup
	s := &session{o: o, memory: newMemory()}
	if s.t, s.targetErr = o.Target(); s.targetErr != nil {
		o.Log.Warn("no target", "error", s.targetErr)
	} else {
		defer s.t.Close()
		wg.Go(func() { // ends with Run
			select {
			case <-s.t.Done():
				cancel(errTargetEnded)
			case <-ctx.Done():
			}
		})
		if s.files, err = files.New(s.t.Root, files.As{UID: s.t.UID, GID: s.t.GID, Groups: s.t.Groups, Umask: s.t.Umask}, s.memory.ofFiles()); err != nil {
			o.Log.Warn("no files", "error", err)
		} else {
			defer s.files.Close()
		}
	}
	if o.Ready != nil {
		if s.lacks, err = o.Ready(s.t); err != nil {
			return err
		}
	}

	s.states = make(chan resume.State, 1)
	pipes := resume.NewServer(resume.Options{Window: o.Window, OnState: s.note})
	defer wg.Wait()
	defer cancel(nil)
	defer pipes.Close()
	defer o.Listener.Close()
	wg.Go(func() { acceptPipes(ctx, o, key, pipes) })

	a := protocol.Announcement{Software: o.Version, Key: seal.PublicKey(key), Messages: protocol.Spoken(), Link: seal.Version, Ignored: o.Ignored}
	if tcp, ok := o.Listener.Addr().(*net.TCPAddr); ok {
		a.Port = tcp.Port
	}
	if err := json.NewEncoder(o.Announce).Encode(a); err != nil {
		return fmt.Errorf("announce the agent: %w", err)
	}

	waiting, stop := context.WithTimeoutCause(ctx, firstClient, errNobody)
	pipe, err := pipes.Accept(waiting)
	stop()
	if err != nil {
		return errors.Join(err, context.Cause(waiting))
	}
	o.Log.Info("session begins")
	return s.serve(ctx, pipe)
}

var (
	errTargetEnded = errors.New("the target has ended")
	errTold        = errors.New("I was told to end: my pod is being deleted, or my node shut down")
	errNobody      = errors.New("no client came")
)

// acceptPipes seals the pipes that arrive and gives them to the session, until
// the listener is closed.
func acceptPipes(ctx context.Context, o Options, key ed25519.PrivateKey, pipes *resume.Server) {
	var wg sync.WaitGroup
	defer wg.Wait()
	slots := make(chan struct{}, maxHandshakes)
	stop := context.AfterFunc(ctx, func() { o.Listener.Close() })
	defer stop()
	for {
		c, err := o.Listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // out of descriptors, for the moment
			o.Log.Warn("accept", "error", err)
			pause(ctx)
			continue
		}
		select {
		case slots <- struct{}{}:
		default:
			c.Close() // too many strangers at once; the session tries again
			continue
		}
		wg.Go(func() {
			sealed, err := handshake(ctx, c, key, o.ClientKey)
			<-slots
			if err != nil {
				o.Log.Warn("refused a client", "from", c.RemoteAddr().String(), "error", err)
				return
			}
			if err := pipes.Attach(ctx, sealed); err != nil {
				o.Log.Info("pipe ended", "error", err)
			}
		})
	}
}

// pause waits a moment for what passes by itself.
func pause(ctx context.Context) {
	timer := time.NewTimer(acceptPause)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

func handshake(ctx context.Context, c net.Conn, key ed25519.PrivateKey, client ed25519.PublicKey) (io.ReadWriteCloser, error) {
	ctx, cancel := context.WithTimeout(ctx, handshakeTime)
	defer cancel()
	if tcp, ok := c.(*net.TCPConn); ok {
		_ = tcp.SetNoDelay(true)
		c = quiet.New(tcp)
	}
	sealed, err := seal.Server(ctx, c, key, client)
	if err != nil {
		c.Close()
		return nil, err
	}
	return sealed, nil
}
