package session

import (
	"context"

	"github.com/mirrord-go/mirrord/internal/event"
	"github.com/mirrord-go/mirrord/internal/local/outgoing"
	"github.com/mirrord-go/mirrord/internal/local/sandbox"
)

// unixHooks has out answer for the unix sockets that are the target's; nil: none
// are.
func unixHooks(out *outgoing.Router) *sandbox.Unix {
	if !out.Rules.Unix() {
		return nil
	}
	return &sandbox.Unix{
		Remote: out.RemoteUnix,
		Dial: func(ctx context.Context, d sandbox.UnixDial) (sandbox.Far, error) {
			far, err := out.DialUnix(ctx, d.Name, d.Packet, d.Wait)
			if err != nil {
				return nil, err // and no Far that is not nil
			}
			return far, nil
		},
		Missed: func(m sandbox.Missed) {
			switch m.Why {
			case sandbox.MissedDatagram:
				out.UnixDatagram(m.Name)
			case sandbox.MissedRing:
				out.UnixRing(m.PID)
			}
		},
	}
}

// tellNoUnix says that what the configuration asks for cannot be had for a
// command without a filter.
func (s *supervisor) tellNoUnix(filtered bool) {
	if len(s.cfg.Outgoing.UnixStreams) > 0 && !filtered {
		s.emit(event.Event{Level: event.Warning, Code: "unix-not-seen", Flow: "outgoing",
			Text: "unix sockets of the target cannot be reached here: this machine lets nobody see who connects to which (seccomp; mirrord doctor says why); all of them are this machine's"})
	}
}
