package redirect_test

import (
	"strings"
	"testing"
	"time"

	"github.com/mirrord-go/mirrord/internal/agent/redirect"
	"github.com/mirrord-go/mirrord/internal/leak"
)

// An agent that is stopped holds nobody's connections for long, and has its ports
// again when it goes on.
func TestStopped(t *testing.T) {
	leak.Check(t)
	p := newPod(t)
	p.serve(t, "target", 80)
	r := opened(t, p, func(p *pod) (*redirect.Redirect, error) { return redirect.NewByLookup(p.t, "ann@laptop") }, 80)
	steal(t, r)
	answers := func(who string) {
		t.Helper()
		for end := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
			got, err := p.ask("192.0.2.7:80")
			if strings.HasPrefix(got, who+" ") {
				return
			}
			if time.Now().After(end) {
				t.Fatalf("got %q, %v, want %s", got, err, who)
			}
		}
	}
	answers("agent")
	goOn := redirect.Stop(r)
	defer goOn()
	answers("target")
	goOn()
	answers("agent")
}
