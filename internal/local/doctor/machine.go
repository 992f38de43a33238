package doctor

import (
	"context"

	"golang.org/x/sys/unix"

	"github.com/mirrord-go/mirrord/internal/failure"
	"github.com/mirrord-go/mirrord/internal/local/sandbox"
	"github.com/mirrord-go/mirrord/internal/local/sandbox/handoff"
)

// parts are what a sandbox needs besides namespaces.
var parts = []struct {
	step handoff.Step
	name string
	// without says how a session does without it; empty: it cannot.
	without string
}{
	{handoff.StepTUN, "/dev/net/tun", ""},
	{handoff.StepNFT, "nftables", ""},
	{handoff.StepFUSE, "/dev/fuse", ""},
	{handoff.StepSeccomp, "notice of listeners", "they are looked for instead, and found a moment later"},
}

// machine checks what the sandbox needs.
func (d *doctor) machine(ctx context.Context, probe func(context.Context) ([]sandbox.Ability, error)) {
	d.area = Machine
	const namespaces = "user namespaces"
	found, err := probe(ctx)
	switch {
	case ctx.Err() != nil:
		return
	case err != nil:
		d.bad(namespaces, failure.Wrap(err, "no-sandbox", "the sandbox for commands cannot be tried here", "try: mirrord exec -t process/$$ true"))
	case found[0].Err != nil:
		d.bad(namespaces, found[0].Err)
	default:
		d.good(namespaces, "Linux %s", kernel())
	}
	results := map[handoff.Step]error{}
	for _, a := range found {
		results[a.Step] = a.Err
	}
	for _, p := range parts {
		switch err, tried := results[p.step]; {
		case !tried:
			d.skipped(p.name, "cannot be tried without user namespaces")
		case err == nil:
			d.good(p.name, "")
		case p.without != "":
			d.skipped(p.name, "%v; %s", failure.From(err).Why, p.without)
		default:
			d.bad(p.name, err)
		}
	}
}

// kernel is the release of the kernel that runs.
func kernel() string {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return ""
	}
	return unix.ByteSliceToString(u.Release[:])
}
