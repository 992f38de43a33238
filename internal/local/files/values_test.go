package files

import (
	"context"
	"slices"
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
	_, err := v.Lookup(context.WithValue(t.Context(), valueKey{}, 7), v.in("/dir/x"))
	must(t, err)
	peer.mu.Lock()
	defer peer.mu.Unlock()
	if !slices.Contains(peer.got, any(7)) { // others are asked ahead, which nobody waits for
		t.Errorf("the peer was asked with %v, want 7", peer.got)
	}
}
