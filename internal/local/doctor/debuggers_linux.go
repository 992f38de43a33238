package doctor

import (
	"context"
	"os/exec"

	"github.com/mirrord-go/mirrord/internal/debugger"
	"github.com/mirrord-go/mirrord/internal/local/host"
)

// debuggers tells of each debugger that find finds how it is used in a session,
// or why it cannot be.
func (d *doctor) debuggers(f host.Facts, find func(debugger.Tool) (path string, ok bool)) {
	d.area = Debuggers
	for _, tool := range debugger.Tools() {
		path, ok := find(tool)
		switch {
		case !ok:
		case tool.Traces && f.NoTracing():
			d.o.Show(Check{Area: d.area, Name: tool.Program, State: Skipped,
				Text: path + "; nobody but root may trace processes (kernel.yama.ptrace_scope is " + f.PtraceScope() + "), so it sets no breakpoint, in a session or not",
				Do:   "sysctl -w kernel.yama.ptrace_scope=1, as root; 3 can be changed by a restart of this machine only"})
		default:
			d.good(tool.Program, "%s; mirrord exec -t TARGET -- %s", path, tool.Run)
		}
	}
}

// inPath looks for a program, and asks it for its module.
func inPath(ctx context.Context) func(debugger.Tool) (string, bool) {
	return func(t debugger.Tool) (string, bool) {
		path, err := exec.LookPath(t.Program)
		if err == nil && t.Module != "" {
			err = exec.CommandContext(ctx, path, "-c", "import "+t.Module).Run()
		}
		return path, err == nil
	}
}
