package session

import (
	"fmt"
	"path"
	"strings"
	"sync"
	"time"

	"github.com/mirrord-go/mirrord/internal/config"
	"github.com/mirrord-go/mirrord/internal/event"
	"github.com/mirrord-go/mirrord/internal/local/activity"
	"github.com/mirrord-go/mirrord/internal/rules"
)

// runs is the step that ends the start: what runs, and how it sees the target.
func runs(argv []string, cfg *config.Config) string {
	env, files := cfg.EnvRules(), cfg.FilesRules()
	parts := []string{"environment " + side(len(env.Exclude) == 1 && env.Exclude[0].Text == "*")}
	switch mode := files.Mode; mode {
	case "", rules.FilesRead:
		parts = append(parts, "files read")
	case rules.FilesWrite:
		parts = append(parts, "files read and written")
	case rules.FilesLocal:
		parts = append(parts, "files local")
	default:
		parts = append(parts, "files "+mode)
	}
	switch o := cfg.Outgoing; {
	case o.TCPLocal != o.UDPLocal:
		parts = append(parts, fmt.Sprintf("outgoing tcp %s, udp %s", side(o.TCPLocal), side(o.UDPLocal)))
	default:
		parts = append(parts, "outgoing "+side(o.TCPLocal))
	}
	parts = append(parts, "dns "+side(cfg.DNS.Local), "incoming "+incomingWord(cfg))
	return "running " + path.Base(argv[0]) + ": " + strings.Join(parts, ", ")
}

func side(local bool) string {
	if local {
		return "local"
	}
	return "remote"
}

func incomingWord(cfg *config.Config) string {
	in := cfg.Incoming
	switch {
	case cfg.Targetless():
		return "local"
	case in.Mode == "":
		in.Mode = rules.IncomingMirror
	}
	if in.HTTP != nil && in.Mode != rules.IncomingOff {
		return in.Mode + " where the filter matches"
	}
	return in.Mode
}

// tally counts what happens in a session, for its last line.
type tally struct {
	mu     sync.Mutex
	counts map[string]int // by the event's code
}

func (t *tally) count(e event.Event) {
	if strings.HasSuffix(e.Facts["address"], ":53") {
		return // lookups are not what a person means by connections
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.counts == nil {
		t.counts = map[string]int{}
	}
	t.counts[e.Code]++
}

// counted are the events that the last line tells of, in its order.
var counted = []struct{ code, one, many string }{
	{"outgoing-connected", "connection made", "connections made"},
	{"outgoing-refused", "refused", "refused"},
}

// became are the words for what became of what reached the target's ports, and
// their names among the facts.
func became(p activity.Ports) []struct {
	n          int64
	text, fact string
} {
	return []struct {
		n          int64
		text, fact string
	}{
		{p.Mirrored, "mirrored", "mirrored"}, {p.Stolen, "stolen", "stolen"}, {p.Passed, "passed through", "passed_through"},
		{p.Returned, "handed back", "handed_back"}, {p.Lost, "lost", "lost"}, {p.Ended, "from before ended", "ended"},
	}
}

// summary is the last line, and the same in parts.
func (t *tally) summary(target string, took time.Duration, ports activity.Ports) (text string, facts map[string]string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	facts = map[string]string{"ms": fmt.Sprint(took.Milliseconds())}
	var parts []string
	for _, c := range counted {
		switch n := t.counts[c.code]; {
		case n == 1:
			parts = append(parts, "1 "+c.one)
		case n > 1:
			parts = append(parts, fmt.Sprintf("%d %s", n, c.many))
		}
	}
	for _, b := range became(ports) {
		facts[b.fact] = fmt.Sprint(b.n)
		if b.n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", b.n, b.text))
		}
	}
	text = fmt.Sprintf("session with %s ended after %s", target, took.Round(100*time.Millisecond))
	if len(parts) > 0 {
		text += ": " + strings.Join(parts, ", ")
	}
	return text, facts
}
