package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"github.com/mirrord-go/mirrord/test/bench/measure"
)

// How long until a command runs, until mirrord has ended after it, and until
// commands without a session answer.

func startRows(ctx context.Context, w *world) ([]measure.Row, error) {
	a, err := w.api(ctx)
	if err != nil {
		return nil, err
	}
	crowd := &crowd{w: w, size: crowdSize}
	return []measure.Row{{
		Name: "until the command runs, image present", Unit: "ms", Against: "an empty Job's pod", Budget: measure.AtMost(1.3),
		Ours: func(ctx context.Context, _ int) (float64, error) {
			started, _, err := w.briefSession(ctx)
			return milliseconds(started), err
		},
		// The removal of a pod must not slow down the start of the next.
		Reference: func(ctx context.Context, n int) (float64, error) {
			d, err := a.startEmptyJob(ctx, fmt.Sprintf("empty-%d", n), w.node, w.image)
			if err != nil {
				return 0, err
			}
			return milliseconds(d), w.quiet(ctx, "bench=empty")
		},
	}, {
		Name: "until the command runs, joining a session", Unit: "ms", Against: "limit", Budget: measure.AtMost(1),
		Ours: func(ctx context.Context, _ int) (float64, error) {
			joined, err := w.briefJoin(ctx)
			return milliseconds(joined), err
		},
		Reference: measure.Constant(150),
	}, {
		Name: "exit after the command's end", Unit: "ms", Against: "limit", Budget: measure.AtMost(1),
		Ours: func(ctx context.Context, _ int) (float64, error) {
			_, ended, err := w.briefSession(ctx)
			return milliseconds(ended), err
		},
		Reference: measure.Constant(200),
	}, {
		Name: "mirrord --help", Unit: "ms", Against: "limit", Budget: measure.AtMost(1),
		Ours:      func(context.Context, int) (float64, error) { return w.timed("--help") },
		Reference: measure.Constant(30),
	}, {
		// The first Tab asks the cluster, at the cluster's speed; its answer is given to the next.
		Name: "Tab behind -t, again", Unit: "ms", Against: "limit", Budget: measure.AtMost(1),
		Ours: func(context.Context, int) (float64, error) {
			tab := []string{"__complete", "exec", "-n", w.namespace, "-t", ""}
			if _, err := w.timed(tab...); err != nil {
				return 0, err
			}
			return w.timed(tab...)
		},
		Reference: measure.Constant(150),
	}, {
		Name: "Tab in a word of mirrord's own", Unit: "ms", Against: "limit", Budget: measure.AtMost(1),
		Ours:      func(context.Context, int) (float64, error) { return w.timed("__complete", "exec", "--s") },
		Reference: measure.Constant(150),
	}, {
		Name: "ls of 1,000 pods", Unit: "ms", Against: "limit", Budget: measure.AtMost(1),
		Ours:      crowd.list,
		Reference: measure.Constant(1000),
	}, {
		Name: "ls of 1,000 pods", Unit: "ms", Against: "kubectl get pods", Budget: measure.AtMost(1),
		Ours:      crowd.list,
		Reference: crowd.kubectl,
	}}, nil
}

// timed runs a command of mirrord and gives its milliseconds from start to end.
func (w *world) timed(args ...string) (float64, error) {
	return timed(w.asUser(append([]string{w.mirrord}, args...)...))
}

func timed(cmd *exec.Cmd) (float64, error) {
	words := &lastWords{}
	cmd.Stderr = words
	begin := clock()
	if err := cmd.Run(); err != nil {
		return 0, fmt.Errorf("%s: %w: %s", cmd, err, words)
	}
	return milliseconds(clock() - begin), nil
}

func milliseconds(d time.Duration) float64 { return d.Seconds() * 1e3 }

// briefSession runs a command that only reads the clock, in a session of its own.
func (w *world) briefSession(ctx context.Context) (started, ended time.Duration, err error) {
	started, ended, err = w.readClock(ctx, "-n", w.namespace, "-t", "pod/"+podTarget)
	if err != nil {
		return 0, 0, err
	}
	return started, ended, w.quiet(ctx, agents)
}

// briefJoin runs it in a session that is kept.
func (w *world) briefJoin(ctx context.Context) (time.Duration, error) {
	words := &lastWords{}
	cmd := w.asUser(w.mirrord, "session", "start", "-q", "-n", w.namespace, "-t", "pod/"+podTarget)
	cmd.Stderr = words
	id, err := cmd.Output()
	if err != nil {
		return 0, fmt.Errorf("%s: %w: %s", cmd, err, words)
	}
	session := strings.TrimSpace(string(id))
	started, _, err := w.readClock(ctx, "--session", session)
	if stop := w.asUser(w.mirrord, "session", "stop", session).Run(); err == nil {
		err = stop
	}
	if err != nil {
		return 0, err
	}
	return started, w.quiet(ctx, agents)
}

// readClock runs a command that only reads the clock. It gives the time from
// mirrord's start to the command's first instruction, and from its last one to
// mirrord's end.
func (w *world) readClock(ctx context.Context, flags ...string) (started, ended time.Duration, err error) {
	out, err := os.CreateTemp(w.dir, "clock-")
	if err != nil {
		return 0, 0, err
	}
	defer os.Remove(out.Name())
	defer out.Close()
	cmd := w.asUser(slices.Concat([]string{w.mirrord, "exec"}, flags, []string{"--", w.at("bin/load"), "clock"})...)
	words := &lastWords{}
	cmd.Stdout, cmd.Stderr = out, words // a file: nobody waits for who else holds it
	begin := clock()
	if err := cmd.Run(); err != nil {
		return 0, 0, fmt.Errorf("%s: %w: %s", cmd, err, words)
	}
	end := clock()
	text, err := os.ReadFile(out.Name())
	if err != nil {
		return 0, 0, err
	}
	var first, last int64
	if _, err := fmt.Sscan(string(text), &first, &last); err != nil {
		return 0, 0, fmt.Errorf("the command's output %q: %w", strings.TrimSpace(string(text)), err)
	}
	return time.Duration(first) - begin, end - time.Duration(last), nil
}
