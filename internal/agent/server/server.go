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

	"github.com/mirrord-go/mirrord/internal/agent/target"
	"github.com/mirrord-go/mirrord/internal/link/resume"
	"github.com/mirrord-go/mirrord/internal/link/seal"
)

const (
	// firstClient is how long an agent waits for its session to arrive: the
	// developer's machine may be slow, or gone.
	firstClient = 60 * time.Second
	// handshakeTime bounds the sealing of one pipe, so that a stranger who
	// connects and says nothing costs little.
	handshakeTime = 10 * time.Second
	// maxHandshakes bounds how many strangers are listened to at once.
	maxHandshakes = 8
)

// Options of Run.
type Options struct {
	Version   string
	ClientKey ed25519.PublicKey // of the one session that may connect
	Session   string
	Listener  net.Listener // on loopback or private to the session; Run closes it
	// Target finds the target; its error is told to the session.
	Target func() (*target.Target, error)
	// Announce gets the agent's first line: its own key and port.
	Announce io.Writer
	Log      *slog.Logger
}

// Announcement is the first line that an agent prints, as JSON.
type Announcement struct {
	Version string `json:"mirrord-agent"`
	Key     string `json:"key"`
	Port    int    `json:"port,omitempty"`
}

// Run serves one session and returns when it has ended. The error is nil
// after a goodbye.
func Run(ctx context.Context, o Options) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	key, err := seal.NewKey()
	if err != nil {
		return fmt.Errorf("make a key: %w", err)
	}
	t, targetErr := o.Target()
	if targetErr != nil {
		o.Log.Warn("no target", "error", targetErr)
	} else {
		defer t.Close()
		go func() { // ends with Run
			select {
			case <-t.Done():
				cancel(errTargetEnded)
			case <-ctx.Done():
			}
		}()
	}

	pipes := resume.NewServer(resume.Options{})
	var wg sync.WaitGroup
	defer wg.Wait()
	defer pipes.Close()
	defer o.Listener.Close()
	wg.Go(func() { acceptPipes(ctx, o, key, pipes) })

	a := Announcement{Version: o.Version, Key: seal.PublicKey(key)}
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
	return (&session{o: o, t: t, targetErr: targetErr}).serve(ctx, pipe)
}

var (
	errTargetEnded = errors.New("the target has ended")
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
		if err != nil {
			return
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

func handshake(ctx context.Context, c net.Conn, key ed25519.PrivateKey, client ed25519.PublicKey) (io.ReadWriteCloser, error) {
	ctx, cancel := context.WithTimeout(ctx, handshakeTime)
	defer cancel()
	if tcp, ok := c.(*net.TCPConn); ok {
		_ = tcp.SetNoDelay(true)
	}
	sealed, err := seal.Server(ctx, c, key, client)
	if err != nil {
		c.Close()
		return nil, err
	}
	return sealed, nil
}
