package doctor

import (
	"context"

	"github.com/mirrord-go/mirrord/internal/failure"
	"github.com/mirrord-go/mirrord/internal/local/host"
	"github.com/mirrord-go/mirrord/internal/local/sandbox"
	"github.com/mirrord-go/mirrord/internal/local/sandbox/handoff"
)

// prober finds out what a sandbox may do here: sandbox.Probe.
type prober func(context.Context) ([]sandbox.Ability, error)

// here checks this machine.
func (d *doctor) here(ctx context.Context) {
	f := host.Look()
	d.machine(ctx, f, sandbox.Probe)
	d.debuggers(f, inPath(ctx))
}

// machine checks what the sandbox needs.
func (d *doctor) machine(ctx context.Context, f host.Facts, probe prober) {
	d.area = Machine
	if why, do := f.Kernel(); why != "" {
		d.bad("kernel", &failure.Error{Code: "old-kernel", What: "this kernel lacks what a session needs", Why: why, Do: do})
	} else if f.Container != "" {
		d.good("kernel", "Linux %s, in a %s", f.Release, f.Container)
	} else {
		d.good("kernel", "Linux %s", f.Release)
	}
	found, err := probe(ctx)
	if ctx.Err() != nil {
		return
	}
	if err != nil {
		found = []sandbox.Ability{{Step: handoff.StepUserNS,
			Err: failure.Wrap(err, "no-sandbox", "the sandbox for commands cannot be tried here", "try: mirrord exec -t process/$$ true")}}
	}
	found[0].Step = handoff.StepUserNS // or of their maps
	results := map[handoff.Step]sandbox.Ability{}
	for _, a := range found {
		results[a.Step] = a
	}
	for _, p := range host.Pieces {
		a, tried := results[p.Step]
		switch {
		case !tried:
			d.skipped(p.Name, "cannot be tried without user namespaces")
		case p.Step == handoff.StepSeccomp && a.Err == nil && f.NoPtrace():
			d.o.Show(Check{Area: d.area, Name: p.Name, State: Skipped, Text: "kernel.yama.ptrace_scope is 3, so nobody may look into processes; " + p.Without,
				Do: "set kernel.yama.ptrace_scope to 2 or less where it is set (/etc/sysctl.conf, /etc/sysctl.d), then restart this machine"})
		case a.Err == nil:
			d.good(p.Name, "")
		case a.Instead:
			e := failure.From(a.Err)
			d.o.Show(Check{Area: d.area, Name: p.Name, State: Skipped, Text: e.Why + "; " + p.Without, Do: e.Do, Cure: a.Cure})
		default:
			d.lacks(p.Name, a.Err, a.Cure)
		}
	}
	if text := f.Limits(); text != "" {
		d.skipped("limits", "%s", text)
	} else {
		d.good("limits", "")
	}
}
