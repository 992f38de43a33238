package attach

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/mirrord-go/mirrord/internal/config"
	"github.com/mirrord-go/mirrord/internal/event"
	"github.com/mirrord-go/mirrord/internal/failure"
	"github.com/mirrord-go/mirrord/internal/link"
	"github.com/mirrord-go/mirrord/internal/link/resume"
	"github.com/mirrord-go/mirrord/internal/link/seal"
	"github.com/mirrord-go/mirrord/internal/protocol"
	"github.com/mirrord-go/mirrord/internal/rules"
)

// release is an agent of some release, which greets and does nothing else.
type release struct {
	announced protocol.Announcement
	key       ed25519.PrivateKey
	client    ed25519.PublicKey
	pipes     *resume.Server
	resuming  byte            // 0, or a version of resuming that it refuses with
	greets    func() [][]byte // its first words on the control stream
	hello     chan protocol.Message
	leaves    bool // it says goodbye
	closed    bool // to connections
	links     sync.WaitGroup
}

func (r *release) Announced() protocol.Announcement   { return r.announced }
func (r *release) Image() string                      { return "registry.example/agent:7" }
func (r *release) Place() (namespace, context string) { return "", "" }
func (r *release) Probes() map[uint16][]string        { return nil }
func (r *release) Gone(error) bool                    { return false }
func (r *release) Close(context.Context) error        { return nil }
func (r *release) Follow(context.Context, bool, Request) (Agent, error) {
	return nil, ErrNotReplaced
}
func (r *release) Dial(ctx context.Context) (io.ReadWriteCloser, error) {
	if r.closed {
		return nil, errors.New("the way to it is cut")
	}
	near, far := net.Pipe()
	r.links.Go(func() {
		sealed, err := seal.Server(context.WithoutCancel(ctx), far, r.key, r.client)
		if err == nil && r.resuming != 0 {
			_, _ = sealed.Read(make([]byte, 4096))
			_, _ = sealed.Write([]byte{3, 0, 0, 4, resume.RefusedVersion, 'o', 'l', 'd'})
			sealed.Close()
		} else if err == nil {
			_ = r.pipes.Attach(context.Background(), sealed)
		}
	})
	return near, nil
}

// serve greets the one session that comes.
func (r *release) serve() {
	pipe, err := r.pipes.Accept(context.Background())
	if err != nil {
		return
	}
	l := link.New(pipe, link.Agent, link.Options{})
	s, m, err := l.Accept(context.Background())
	if err == nil {
		r.hello <- m
		for _, b := range r.greets() {
			_, _ = s.Write(b)
		}
		_, _ = io.Copy(io.Discard, s)
	}
	l.Close("done")
}

// meet is a session with cfg that connects to r: what it says, and its error.
func meet(t *testing.T, r *release, cfg config.Config) (*Hold, []event.Event, error) {
	t.Helper()
	var err error
	if r.key, err = seal.NewKey(); err != nil {
		t.Fatal(err)
	}
	r.announced.Software, r.announced.Key = "7.0", seal.PublicKey(r.key)
	r.pipes, r.hello = resume.NewServer(resume.Options{}), make(chan protocol.Message, 1)
	if r.announced.Link == 0 {
		r.announced.Link = seal.Version
	}
	if r.announced.Messages == (protocol.Versions{}) {
		r.announced.Messages = protocol.Spoken()
	}
	r.links.Go(r.serve)
	var h heard
	hold := New(Options{Config: &cfg, Version: "6.0", Emit: h.emit, Reach: func(_ context.Context, q Request) (_ Agent, err error) {
		r.client, err = seal.ParsePublicKey(q.PublicKey)
		return r, err
	}})
	err = hold.Begin(t.Context())
	if err == nil && r.leaves {
		hold.Now().said.wg.Wait()
	}
	hold.End()
	r.pipes.Close()
	r.links.Wait()
	return hold, h.list, err
}

func words(m protocol.Message) [][]byte { return [][]byte{protocol.Append(nil, m)} }

// Releases that have no common version refuse each other in one line, which
// names the one to update.
func TestVersions(t *testing.T) {
	const now = protocol.Version
	type versions = protocol.Versions
	welcome := func(version uint32) func() [][]byte {
		return func() [][]byte { return words(&protocol.Welcome{Version: version, Hostname: "h"}) }
	}
	for _, c := range []struct {
		name string
		r    *release
		what string // of the failure; empty: there is none
	}{
		{"neighbour, newer", &release{announced: protocol.Announcement{Messages: versions{Min: now, Max: now + 1}}, greets: welcome(now)}, ""},
		{"neighbour, older", &release{announced: protocol.Announcement{Messages: versions{Min: now - 1, Max: now}}, greets: welcome(now)}, ""},
		{"newer", &release{announced: protocol.Announcement{Messages: versions{Min: now + 1, Max: now + 1}}},
			"this mirrord is older than the agent of the image registry.example/agent:7: update mirrord"},
		{"older", &release{announced: protocol.Announcement{Messages: versions{Max: protocol.MinVersion - 1}, Software: "x", Link: 1}},
			"the agent of the image registry.example/agent:7 is older than this mirrord: update the agent's image"},
		{"newer link", &release{announced: protocol.Announcement{Link: seal.Version + 1}},
			"this mirrord is older than the agent of the image registry.example/agent:7: update mirrord"},
		{"older link", &release{announced: protocol.Announcement{Link: seal.Version - 1 - 1}},
			"the agent of the image registry.example/agent:7 is older than this mirrord: update the agent's image"},
		{"other resuming", &release{resuming: 2}, "of releases that do not understand each other"},
		{"refuses", &release{greets: func() [][]byte {
			return words(&protocol.Answer{Cause: protocol.CauseVersion, Text: "we speak protocol 7: update mirrord"})
		}}, "of releases that do not understand each other"},
		{"chose what nobody offered", &release{greets: welcome(now + 1)},
			"this mirrord is older than the agent of the image registry.example/agent:7: update mirrord"},
		{"chose nothing", &release{greets: welcome(0)},
			"the agent of the image registry.example/agent:7 is older than this mirrord: update the agent's image"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.name == "older" && protocol.MinVersion == 1 {
				c.r.announced.Messages = versions{Min: 1, Max: 0} // there is no version before 1
			}
			_, _, err := meet(t, c.r, config.Config{})
			f, ok := err.(*failure.Error)
			switch {
			case c.what == "" && err != nil:
				t.Errorf("got %v, want a session", err)
			case c.what != "" && (!ok || f.Code != "agent-version" || !strings.HasSuffix(f.What, c.what)):
				t.Errorf("got %v, want %q", err, c.what)
			}
		})
	}
}

// TestNotGreeted: an agent that does not want the session, and one that nobody
// gets through to.
func TestNotGreeted(t *testing.T) {
	answer := func(a protocol.Answer) *release { return &release{greets: func() [][]byte { return words(&a) }} }
	for _, c := range []struct {
		code string
		r    *release
		why  string
	}{
		{"agent-refuses", answer(protocol.Answer{Cause: protocol.CauseDenied, Text: "not today"}), "not today"},
		{"target-unreachable", answer(protocol.Answer{Cause: protocol.CauseTarget, Text: "it has ended"}), "it has ended"},
		{"agent-unreachable", &release{closed: true}, "cut"},
	} {
		t.Run(c.code, func(t *testing.T) {
			_, _, err := meet(t, c.r, config.Config{})
			if f := failure.From(err); f == nil || f.Code != c.code || !strings.Contains(f.Why, c.why) {
				t.Errorf("got %+v, want %s: %s", f, c.code, c.why)
			}
		})
	}
}

// newer is a message that this release does not know.
type newer struct{ *protocol.Readlink }

func (newer) Kind() protocol.Kind { return 9999 }

// What a newer agent says beyond this release is skipped.
func TestNewerAgent(t *testing.T) {
	r := &release{greets: func() [][]byte {
		// A Welcome with a field of number 100, then a message of unknown kind.
		b := protocol.Append(nil, &protocol.Welcome{Version: protocol.Version, Hostname: "h"})
		b = append(b, 0xa2, 0x06, 1, 'x')
		b[1] += 4 // the body's length
		return [][]byte{b, protocol.Append(nil, newer{&protocol.Readlink{Path: "/"}}), protocol.Append(nil, &protocol.Notice{Code: "note", Text: "still heard"}),
			protocol.Append(nil, &protocol.Bye{})}
	}, leaves: true, announced: protocol.Announcement{Ignored: []string{"beam"}}}
	h, said, err := meet(t, r, config.Config{})
	if err != nil {
		t.Fatal(err)
	}
	if h.First().Pod().Hostname != "h" {
		t.Errorf("welcome is %+v", h.First().Pod())
	}
	var all bytes.Buffer
	for _, e := range said {
		all.WriteString(e.Code + ": " + e.Text + "\n")
	}
	for _, want := range []string{"agent-older: the agent (7.0) is older than this mirrord and does without: beam; update the agent's image\n", "note: still heard\n"} {
		if !strings.Contains(all.String(), want) {
			t.Errorf("said\n%swant %q", all.String(), want)
		}
	}
	if m, ok := (<-r.hello).(*protocol.Hello); !ok || m.Min != protocol.MinVersion || m.Max != protocol.Version {
		t.Errorf("greeted with %+v", m)
	}
}

// What an agent lacks is refused where the configuration asks for it, and done
// without where it is only a default.
func TestFeatures(t *testing.T) {
	all := []string{protocol.FeatureFiles, protocol.FeatureMirror, protocol.FeatureSteal, protocol.FeatureHTTPFilter, protocol.FeatureHostFilter, protocol.FeatureBodyFilter, protocol.FeatureUnix, protocol.FeatureLookups, protocol.FeatureTee}
	filter := &rules.HTTPOptions{}
	host := &rules.HTTPOptions{Filter: rules.Filter{Not: &rules.Filter{AnyOf: []rules.Filter{{Host: &rules.Pattern{Text: "a"}}}}}}
	body := &rules.HTTPOptions{Filter: rules.Filter{AllOf: []rules.Filter{{Body: &rules.Body{Kind: rules.BodyText}}}}}
	jq := &rules.HTTPOptions{Filter: rules.Filter{HeaderJQ: &rules.Pattern{Text: "true"}}}
	for _, c := range []struct {
		name    string
		cfg     config.Config
		lacks   string
		refused bool
		said    string
	}{
		{"nothing", config.Config{Target: "pod/a"}, "", false, ""},
		{"files by default", config.Config{Target: "pod/a"}, protocol.FeatureFiles, false, "the target's files (files)"},
		{"files asked for", config.Config{Target: "pod/a", Files: rules.FilesOptions{Mode: rules.FilesRead}}, protocol.FeatureFiles, true, "the target's files (files)"},
		{"local files", config.Config{Target: "pod/a", Files: rules.FilesOptions{Mode: rules.FilesLocal}}, protocol.FeatureFiles, false, ""},
		{"mirror by default", config.Config{Target: "pod/a"}, protocol.FeatureMirror, false, "copies of the target's traffic (mirror)"},
		{"mirror asked for", config.Config{Target: "pod/a", Incoming: rules.IncomingOptions{Mode: rules.IncomingMirror}}, protocol.FeatureMirror, true, "(mirror)"},
		{"steal", config.Config{Target: "pod/a", Incoming: rules.IncomingOptions{Mode: rules.IncomingSteal}}, protocol.FeatureSteal, true, "stealing the target's traffic (steal)"},
		{"lossless", config.Config{Target: "pod/a", Incoming: rules.IncomingOptions{Lossless: true}}, protocol.FeatureTee, true, "lossless copies of the target's traffic (tee)"},
		{"lossless, where nothing is stolen", config.Config{Target: "pod/a", Incoming: rules.IncomingOptions{Lossless: true}}, protocol.FeatureSteal, true, "(steal)"},
		{"lossless not wanted", config.Config{Target: "pod/a"}, protocol.FeatureTee, false, ""},
		{"steal not wanted", config.Config{Target: "pod/a"}, protocol.FeatureSteal, false, ""},
		{"filter", config.Config{Target: "pod/a", Incoming: rules.IncomingOptions{HTTP: filter}}, protocol.FeatureHTTPFilter, true, "filters of requests (http-filter)"},
		{"filter by host", config.Config{Target: "pod/a", Incoming: rules.IncomingOptions{HTTP: host}}, protocol.FeatureHostFilter, true, "filters of requests by their host (host-filter)"},
		{"filter by body", config.Config{Target: "pod/a", Incoming: rules.IncomingOptions{HTTP: body}}, protocol.FeatureBodyFilter, true, "filters of requests by their body, and programs of jq (body-filter)"},
		{"filter by jq", config.Config{Target: "pod/a", Incoming: rules.IncomingOptions{HTTP: jq}}, protocol.FeatureBodyFilter, true, "(body-filter)"},
		{"no filter by body", config.Config{Target: "pod/a", Incoming: rules.IncomingOptions{HTTP: host}}, protocol.FeatureBodyFilter, false, ""},
		{"no filter by host", config.Config{Target: "pod/a", Incoming: rules.IncomingOptions{HTTP: filter}}, protocol.FeatureHostFilter, false, ""},
		{"lookups", config.Config{Target: "pod/a"}, protocol.FeatureLookups, false, ""},
		{"no target", config.Config{}, protocol.FeatureMirror, false, ""},
		{"unix sockets", config.Config{Target: "pod/a", Outgoing: rules.OutgoingOptions{UnixStreams: []rules.Pattern{{Text: "x"}}}}, protocol.FeatureUnix, true, "unix sockets of the target's (unix-sockets)"},
		{"unix sockets not wanted", config.Config{Target: "pod/a"}, protocol.FeatureUnix, false, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := &release{greets: func() [][]byte {
				w := &protocol.Welcome{Version: protocol.Version}
				for _, f := range all {
					if f != c.lacks {
						w.Features = append(w.Features, f)
					}
				}
				return words(w)
			}}
			h, said, err := meet(t, r, c.cfg)
			text := ""
			if f, ok := err.(*failure.Error); ok && f.Code == "agent-lacks" {
				text = f.What
			} else if err != nil {
				t.Fatal(err)
			}
			if (err != nil) != c.refused {
				t.Errorf("refused: %v, want %v", err, c.refused)
			}
			for _, e := range said {
				if e.Code == "agent-lacks" {
					text += e.Text
				}
			}
			if !strings.Contains(text, c.said) || c.said == "" && text != "" {
				t.Errorf("said %q, want %q", text, c.said)
			}
			if err == nil && c.lacks == protocol.FeatureFiles && h.o.Config.FilesRules().Mode != rules.FilesLocal {
				t.Errorf("files are still %q", h.o.Config.FilesRules().Mode)
			}
		})
	}
}
