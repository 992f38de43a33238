package sandbox

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/mirrord-go/mirrord/internal/local/host"
	"github.com/mirrord-go/mirrord/internal/local/sandbox/handoff"
)

// An Ability is something that a sandbox needs of this machine.
type Ability struct {
	Step    handoff.Step // that needs it
	Err     error        // nil: it is there; else as Explain gives it
	Cure    host.Cure    // of Err
	Instead bool         // with Err: a sandbox does without (host.Piece.Without)
}

// Probe finds out, by doing, what this machine lets a sandbox do. It starts an
// init as Launch does, which tries its steps one by one and ends. The first
// ability is that of user namespaces; where it is missing and nothing stands in
// for it, the others cannot be known and are not in the result. Like Launch it
// closes inherited descriptors above 2. An error says that the probe itself
// could not be carried out.
func Probe(ctx context.Context) ([]Ability, error) {
	p, sock, err := Launch(As{})
	if failed, ok := errors.AsType[*handoff.Error](err); ok {
		return []Ability{lack(failed)}, nil
	}
	if err != nil {
		return nil, err
	}
	defer p.Wait()
	defer p.Kill()
	conn, err := handoff.NewConn(sock)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	// If init has ended with a word already, that is still to be read.
	sent := conn.Send(handoff.Message{Kind: handoff.KindProbe})
	found := []Ability{{Step: handoff.StepUserNS}}
	if p.bare != nil {
		found[0] = lack(p.bare)
		found[0].Instead = true
	}
	for {
		m, err := conn.Receive()
		switch {
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case errors.Is(err, io.EOF) && len(found) > 1:
			<-p.mapped
			owners := Ability{Step: handoff.StepOwners}
			if p.owners != nil {
				owners = lack(p.owners)
				owners.Instead = true
			}
			return append(found, owners), nil
		case err != nil:
			return nil, errors.Join(err, sent)
		}
		result, err := handoff.DecodeError(m.Body)
		switch {
		case err != nil:
			return nil, err
		case m.Kind == handoff.KindError: // it never came to the probes
			return []Ability{lack(result)}, nil
		case result.Errno == 0 && result.Text == "":
			found = append(found, Ability{Step: result.Step})
		default:
			found = append(found, lack(result))
		}
	}
}

// lack is an ability that is not there.
func lack(h *handoff.Error) Ability {
	err, cure := host.Explain(h, host.Look())
	return Ability{h.Step, err, cure, h.Instead}
}
