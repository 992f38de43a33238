package server

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/mirrord-go/mirrord/internal/agent/target"
	"github.com/mirrord-go/mirrord/internal/link"
	"github.com/mirrord-go/mirrord/internal/link/resume"
	"github.com/mirrord-go/mirrord/internal/protocol"
)

// raw is a link to the agent on which nothing was said.
func (a *agent) raw() *link.Conn {
	a.t.Helper()
	pipe, err := resume.Dial(a.t.Context(), func(ctx context.Context) (io.ReadWriteCloser, error) {
		return a.connect(ctx, a.session, a.key)
	}, resume.Options{})
	if err != nil {
		a.t.Fatal(err)
	}
	l := link.New(pipe, link.Local, link.Options{})
	a.t.Cleanup(func() { l.Close("test") })
	return l
}

// Clients of other releases are served, or told who is to be updated.
func TestVersions(t *testing.T) {
	const now = protocol.Version
	for _, c := range []struct {
		name     string
		min, max uint32
		want     string // in the refusal; empty: served
	}{
		{"the same", now, now, ""},
		{"newer, knows ours", now, now + 1, ""},
		{"older, the last it knows is ours", now - 1, now, ""},
		{"newer, has forgotten ours", now + 1, now + 5, "update the agent's image"},
		{"older, we have forgotten it", 0, protocol.MinVersion - 1, "update mirrord"},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := start(t, target.Self)
			m, err := a.raw().Call(t.Context(), &protocol.Hello{Min: c.min, Max: c.max, Software: "mirrord x"})
			if err != nil {
				t.Fatal(err)
			}
			switch m := m.(type) {
			case *protocol.Welcome:
				if c.want != "" || m.Version != now {
					t.Errorf("welcomed with version %d", m.Version)
				}
			case *protocol.Answer:
				if c.want == "" || m.Cause != protocol.CauseVersion || !strings.Contains(m.Text, c.want) {
					t.Errorf("refused: %+v, want %q", m, c.want)
				}
			}
		})
	}
}

// newerKind is a message that this release does not know.
type newerKind struct{ *protocol.Readlink }

func (newerKind) Kind() protocol.Kind { return 9999 }

// newerHello is a Hello with fields that this release does not know: those of
// Attr, whose first two are Hello's.
type newerHello struct{ *protocol.Attr }

func (newerHello) Kind() protocol.Kind { return protocol.KindHello }

// What a newer client says beyond this release is skipped or refused, and
// disturbs nothing else.
func TestNewerClient(t *testing.T) {
	a := start(t, target.Self)
	l := a.raw()
	control, err := l.Open(t.Context(), link.Interactive, newerHello{&protocol.Attr{Ino: protocol.Version, Size: protocol.Version, Nlink: 7, Link: "unknown", Data: []byte("unknown")}})
	if err != nil {
		t.Fatal(err)
	}
	m, err := control.Receive()
	if w, ok := m.(*protocol.Welcome); err != nil || !ok || w.Version != protocol.Version {
		t.Fatalf("unknown fields: greeted with %T %v, %v", m, m, err)
	}
	if m, err := l.Call(t.Context(), newerKind{&protocol.Readlink{Path: "/"}}); !errors.Is(err, syscall.ENOSYS) {
		t.Errorf("a request of unknown kind: %v, %v, want ENOSYS", m, err)
	}
	if err := control.Send(newerKind{&protocol.Readlink{Path: "/"}}); err != nil {
		t.Fatal(err)
	}
	if m, err := l.Call(t.Context(), &protocol.EnvRequest{}); err != nil || m.Kind() != protocol.KindEnv {
		t.Errorf("afterwards: %v, %v", m, err)
	}
}

// An agent says only what it can do.
func TestFeatures(t *testing.T) {
	for _, personates := range []bool{false, true} {
		a := start(t, func() (*target.Target, error) {
			self, err := target.Self()
			if err == nil && personates {
				err = self.Personate()
			}
			return self, err
		})
		_, _, m := a.join()
		w, ok := m.(*protocol.Welcome)
		if !ok {
			t.Fatalf("greeted with %T", m)
		}
		for _, f := range []string{protocol.FeatureFiles, protocol.FeatureMirror, protocol.FeatureSteal, protocol.FeatureHTTPFilter, protocol.FeatureHostFilter, protocol.FeatureBodyFilter, protocol.FeatureLookups} {
			if !slices.Contains(w.Features, f) {
				t.Errorf("%s is missing in %q", f, w.Features)
			}
		}
		if got := slices.Contains(w.Features, protocol.FeatureUnix); got != personates {
			t.Errorf("unix sockets are offered: %v, want %v", got, personates)
		}
	}
}
