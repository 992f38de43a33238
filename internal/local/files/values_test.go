package files

import (
	"context"
	"sync"
	"testing"

	"github.com/mirrord-go/mirrord/internal/link"
	"github.com/mirrord-go/mirrord/internal/protocol"
)

// asker is a Peer that notes a value of the contexts that it is asked with.
type asker struct {
	Peer
	mu  sync.Mutex
	got []any
}

type valueKey struct{}

func (a *asker) note(ctx context.Context) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.got = append(a.got, ctx.Value(valueKey{}))
}

func (a *asker) Call(ctx context.Context, m protocol.Message) (protocol.Message, error) {
	a.note(ctx)
	return a.Peer.Call(ctx, m)
}

func (a *asker) Open(ctx context.Context, lane link.Lane, m protocol.Message) (*link.Stream, error) {
	a.note(ctx)
	return a.Peer.Open(ctx, lane, m)
}

// The values of a call's context reach the peer: whoever stands around the tree
// can tell which questions a call waits for.
func TestValuesReachThePeer(t *testing.T) {
	var peer *asker
	v := newView(t, func(_ string, o *Options) { peer = &asker{Peer: o.Peer}; o.Peer = peer })
	v.has(nil, map[string]string{"/dir/x": "content"})
	ctx := context.WithValue(t.Context(), valueKey{}, 7)
	for what, do := range map[string]func() error{
		"lookup": func() error { _, err := v.Lookup(ctx, v.in("/dir")); return err },
		"list":   func() error { _, err := v.List(ctx, v.in("/dir")); return err },
	} {
		peer.got = nil
		must(t, do())
		if len(peer.got) == 0 || peer.got[0] != 7 {
			t.Errorf("%s: the peer was asked with %v, want 7", what, peer.got)
		}
	}
}
