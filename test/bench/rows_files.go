package main

import (
	"context"
	"fmt"
	"time"

	"github.com/mirrord-go/mirrord/test/bench/measure"
)

// Files of the target: how much, over the link as it is, and how many round
// trips, over one where these outweigh all else.

const (
	bigFile = 50_000_000 // bytes
	// rest is longer than names and attributes of the target are remembered
	// (docs/flows/files.md).
	rest = "1200ms"
	// roundTrip is that of the slow link.
	roundTrip = 40 * time.Millisecond
)

func filesRows(ctx context.Context, w *world) ([]measure.Row, error) {
	// A directory for each pair, and the one before: whatever is read is new.
	script := fmt.Sprintf(`set -e; cd /data; head -c %d /dev/urandom >big
		fill() { mkdir -p $1; for i in $(seq $2); do echo $i >$1/$i; done; }
		for n in $(seq 0 %d); do
			for d in one two; do fill $d/$n 1; done
			for d in first again; do fill $d/$n 1000; fill $d-slow/$n 50; done
		done`, bigFile, w.pairs)
	if _, err := w.kubectl(ctx, "exec", podTarget, "--", "bash", "-c", script); err != nil {
		return nil, err
	}
	slow, err := w.delayed(ctx, roundTrip/2)
	if err != nil {
		return nil, err
	}
	near, err := w.fileEnds(ctx, w.direct())
	if err != nil {
		return nil, err
	}
	far, err := w.fileEnds(ctx, slow)
	if err != nil {
		return nil, err
	}
	return append(near.amounts(w), far.trips()...), nil
}

// fileEnds is who reads files over a link, and who measures the link.
type fileEnds struct {
	session *session
	native  *worker
	forward *forward
}

func (w *world) fileEnds(ctx context.Context, l link) (e fileEnds, err error) {
	if e.session, err = w.session(ctx, l, podTarget); err != nil {
		return e, err
	}
	if e.native, err = w.native(ctx); err != nil {
		return e, err
	}
	e.forward, err = w.forward(ctx, l, podTarget, 7000)
	return e, err
}

// amounts are the rows on much data.
func (e fileEnds) amounts(w *world) []measure.Row {
	copied := func(dir string) measure.Sampler {
		return func(ctx context.Context, n int) (float64, error) {
			d, err := w.throughExec(ctx, "tar", "-C", fmt.Sprintf("/data/%s/%d", dir, n), "-cf", "-", ".")
			return d.Seconds(), err
		}
	}
	read := rate(e.session.worker, "read", "1", "/data/big", "forget")
	return []measure.Row{
		{Name: "walk and read 1,000 small files, first time", Unit: "s", Against: "kubectl exec tar", Budget: measure.AtMost(1),
			Ours: e.walk("first", "/data/first/%d"), Reference: copied("first")},
		{Name: "walk and read 1,000 small files, again", Unit: "s", Against: "kubectl exec tar", Budget: measure.AtMost(1),
			Ours: e.walk("again", "/data/again/%d"), Reference: copied("again")},
		{Name: "read 50 MB", Unit: "MB/s", Against: "kubectl exec cat", Budget: measure.AtLeast(1), Ours: read,
			Reference: func(ctx context.Context, _ int) (float64, error) {
				d, err := w.throughExec(ctx, "cat", "/data/big")
				return bigFile / 1e6 / d.Seconds(), err
			}},
		{Name: "read 50 MB", Unit: "MB/s", Against: "port-forward", Budget: measure.AtLeast(0.95), Ours: read,
			Reference: rate(e.native, "down", e.forward.addr, fmt.Sprint(bigFile))},
	}
}

// trips are the rows that count round trips. The budgets leave a quarter of one
// for everything else.
func (e fileEnds) trips() []measure.Row {
	one := func(figure, dir string) measure.Sampler {
		return func(ctx context.Context, n int) (float64, error) {
			v, err := e.session.do(ctx, "open", fmt.Sprintf("/data/%s/%d/1", dir, n), rest)
			return v[figure] * 1e3, err
		}
	}
	trip := func(ctx context.Context, _ int) (float64, error) {
		v, err := e.native.do(ctx, "rtt", e.forward.addr, "5")
		return v["p50"] * 1e3, err
	}
	return []measure.Row{
		{Name: "small file, first time, 40 ms away", Unit: "ms", Against: "round trip", Budget: measure.AtMost(1.25), Ours: one("first", "one"), Reference: trip},
		{Name: "small file, again, 40 ms away", Unit: "ms", Against: "round trip", Budget: measure.AtMost(0.25), Ours: one("again", "two"), Reference: trip},
		// A twentieth of the files and of the time: 10 s and 2 s for 1,000 files.
		{Name: "walk and read 50 small files, first time, 40 ms away", Unit: "s", Against: "limit", Budget: measure.AtMost(1),
			Ours: e.walk("first", "/data/first-slow/%d"), Reference: measure.Constant(0.5)},
		{Name: "walk and read 50 small files, again, 40 ms away", Unit: "s", Against: "limit", Budget: measure.AtMost(1),
			Ours: e.walk("again", "/data/again-slow/%d"), Reference: measure.Constant(0.1)},
	}
}

// walk gives the seconds of the first or the second walk below a directory
// that was never seen.
func (e fileEnds) walk(figure, dir string) measure.Sampler {
	return func(ctx context.Context, n int) (float64, error) {
		v, err := e.session.do(ctx, "walk", fmt.Sprintf(dir, n))
		return v[figure], err
	}
}

// rate is the MB/s of a task that moves bigFile bytes.
func rate(worker *worker, task ...string) measure.Sampler {
	return func(ctx context.Context, _ int) (float64, error) {
		v, err := worker.do(ctx, task...)
		return bigFile / 1e6 / v["seconds"], err
	}
}

// throughExec gives the time that a command in the target takes to write all of
// its output to this machine, the start of kubectl included.
func (w *world) throughExec(ctx context.Context, argv ...string) (time.Duration, error) {
	cmd := w.kubectlCommand(append([]string{"exec", podTarget, "--"}, argv...)...)
	words := &lastWords{}
	cmd.Stderr = words // stdout is thrown away by the kernel
	begin := time.Now()
	if err := cmd.Run(); err != nil {
		return 0, fmt.Errorf("%s: %w: %s", cmd, err, words)
	}
	return time.Since(begin), ctx.Err()
}
