package incoming

import (
	"io"
	"testing"

	"github.com/mirrord-go/mirrord/internal/local/activity"
	"github.com/mirrord-go/mirrord/internal/protocol"
)

// A copy of a request that writes is warned of, once in a session, and only where
// the program's own connections lead to what the target writes to.
func TestMirroredWrites(t *testing.T) {
	const get, post = "GET /a HTTP/1.1\r\n\r\n", "POST /a HTTP/1.1\r\nContent-Length: 2\r\n\r\nhi"
	for name, c := range map[string]struct {
		mode   uint8
		remote bool
		said   string
		want   int
	}{
		"writes":                    {protocol.ModeMirror, true, post, 1},
		"behind one that reads":     {protocol.ModeMirror, true, get + post + post, 1},
		"reads":                     {protocol.ModeMirror, true, get, 0},
		"no HTTP":                   {protocol.ModeMirror, true, "POST\r\n", 0},
		"outgoing local":            {protocol.ModeMirror, false, post, 0},
		"stolen: the program alone": {protocol.ModeSteal, true, post, 0},
	} {
		t.Run(name, func(t *testing.T) {
			b := setUp(t, c.mode)
			b.o.Activity, b.o.RemoteOutgoing = activity.New(nil), c.remote
			for range 2 {
				agent, app, done := arrive(t, b, t.Context(), c.mode)
				_, _ = io.WriteString(agent, c.said)
				_ = agent.CloseWrite()
				if got, err := io.ReadAll(app); err != nil || string(got) != c.said {
					t.Errorf("the program got %q, %v", got, err)
				}
				app.Close()
				_, _ = io.Copy(io.Discard, agent)
				within(t, "the end of the delivery", done)
			}
			b.mu.Lock()
			defer b.mu.Unlock()
			warned := 0
			for _, e := range b.events {
				if e.Code == "mirrored-writes" {
					warned++
				}
			}
			if warned != c.want {
				t.Errorf("warned %d times, want %d", warned, c.want)
			}
		})
	}
}
