package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/mirrord-go/mirrord/test/bench/measure"
)

// How all this grows with how many there are. What is proportional is as good as it
// can be; what each one more costs must not become more.

const (
	// manySessions are those on one pod; further ones are spread over the others.
	manySessions = 10
	// idleTime is how long it is looked at what nobody asks for anything takes.
	idleTime = 5 * time.Second
	// slack is what figures that are in proportion may differ by.
	slack = 1.1
)

func scaleRows(ctx context.Context, w *world) ([]measure.Row, error) {
	var rows []measure.Row
	first := &kept{f: func(ctx context.Context) (float64, error) { return w.replicas(ctx, 1) }}
	for _, n := range []int{1, 5, 10, 25, 50} {
		rows = append(rows, grown(n, measure.Row{Name: "start of a steal", Unit: "ms", Ours: func(ctx context.Context, _ int) (float64, error) {
			if n == 1 {
				return first.get(ctx)
			}
			return w.replicas(ctx, n)
		}}, "replicas", first, measure.AtMost(slack), float64(n)))
	}
	few := &crowd{w: w, size: 10}
	fewest := &kept{f: func(ctx context.Context) (float64, error) { return few.list(ctx, 0) }}
	for _, c := range []*crowd{few, {w: w, size: 100}, {w: w, size: crowdSize}} {
		rows = append(rows, grown(c.size, measure.Row{Name: "ls", Unit: "ms", Ours: c.list}, "pods", fewest, measure.AtMost(slack), float64(c.size)/float64(few.size)))
	}
	g := &growing{w: w} // the last: these sessions go on until the area ends
	for _, n := range []int{1, 2, 5, manySessions, 25, 50} {
		rows = append(rows, g.rows(n)...)
	}
	return rows, nil
}

// grown makes row one of a curve: of n things that there are, against times what the
// first has measured.
func grown(n int, row measure.Row, of string, first *kept, budget measure.Budget, times float64) measure.Row {
	row.Point = measure.Point{Curve: row.Name, Of: of, At: float64(n)}
	if row.Name = fmt.Sprintf("%s, %d %s", row.Name, n, of); n == 1 {
		row.Name = strings.TrimSuffix(row.Name, "s")
	}
	row.Single, row.Budget = true, budget
	row.Against = "the first"
	if times != 1 {
		row.Against = fmt.Sprintf("%g × the first", times)
	}
	row.Reference = func(ctx context.Context, _ int) (float64, error) {
		v, err := first.get(ctx)
		return times * v, err
	}
	return row
}

// kept is a figure that is measured once.
type kept struct {
	f func(ctx context.Context) (float64, error)
	v float64
}

func (k *kept) get(ctx context.Context) (v float64, err error) {
	if k.v == 0 {
		k.v, err = k.f(ctx)
	}
	return k.v, err
}

// growing are sessions that become more, each on the same node.
type growing struct {
	w      *world
	all    []*session
	last   time.Duration // that the start of the last one has taken
	firsts [3]*kept
}

// grow starts sessions until there are n.
func (g *growing) grow(ctx context.Context, n int) error {
	others := []string{podServer, podClient, podPlain, podMirrored, podStolen, podFiltered, podProxied}
	for i := len(g.all); i < n; i++ {
		pod := podTarget
		if i >= manySessions {
			pod = others[i%len(others)]
		}
		begin := clock()
		s, err := g.w.session(ctx, g.w.direct(), pod)
		if err != nil {
			return fmt.Errorf("session %d: %w", i+1, err)
		}
		g.last = clock() - begin
		g.all = append(g.all, s)
	}
	return nil
}

// rows are those of n sessions. They are measured in the order in which they are made.
func (g *growing) rows(n int) []measure.Row {
	sampled := func(f func(ctx context.Context) (float64, error)) *kept {
		return &kept{f: func(ctx context.Context) (float64, error) {
			if err := g.grow(ctx, n); err != nil {
				return 0, err
			}
			return f(ctx)
		}}
	}
	own := [3]*kept{
		sampled(func(context.Context) (float64, error) { return milliseconds(g.last), nil }),
		sampled(func(context.Context) (float64, error) { return resident(g.agents()...) }),
		sampled(g.idle),
	}
	if g.firsts[0] == nil {
		g.firsts = own
	}
	var rows []measure.Row
	for i, row := range []measure.Row{{Name: "start of one more session", Unit: "ms"}, {Name: "memory of all agents", Unit: "MB"}, {Name: "processor of all agents, idle", Unit: "‰"}} {
		row.Ours = func(ctx context.Context, _ int) (float64, error) { return own[i].get(ctx) }
		budget, times := measure.AtMost(slack), float64(n)
		if i == 0 {
			budget, times = measure.AtMost(2), 1
		}
		rows = append(rows, grown(n, row, "sessions", g.firsts[i], budget, times))
	}
	return rows
}

func (g *growing) agents() (pids []int) {
	for _, s := range g.all {
		pids = append(pids, s.agent)
	}
	return pids
}

// idle is what the agents take of a processor while nobody asks them for anything, in
// thousandths.
func (g *growing) idle(ctx context.Context) (float64, error) {
	before, err := ran(g.agents()...)
	if err != nil {
		return 0, err
	}
	begin := clock()
	select {
	case <-time.After(idleTime):
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	}
	after, err := ran(g.agents()...)
	return 1e3 * (after - before).Seconds() / (clock() - begin).Seconds(), err
}

// ran is how long the processes have had a processor, to the nanosecond: the first
// number of schedstat, of each thread (Documentation/scheduler/sched-stats.rst).
func ran(pids ...int) (sum time.Duration, err error) {
	for _, pid := range pids {
		tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
		if err != nil {
			return 0, err
		}
		for _, task := range tasks {
			b, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/schedstat", pid, task.Name()))
			if err != nil {
				return 0, err
			}
			n, err := strconv.ParseInt(strings.Fields(string(b))[0], 10, 64)
			if err != nil {
				return 0, err
			}
			sum += time.Duration(n)
		}
	}
	return sum, nil
}

// resident is how much memory the processes have, in MB; what they share counts once
// (Pss in smaps_rollup, proc(5)).
func resident(pids ...int) (sum float64, err error) {
	for _, pid := range pids {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
		if err != nil {
			return 0, err
		}
		_, rest, _ := strings.Cut(string(b), "\nPss:")
		line, _, _ := strings.Cut(rest, "kB")
		n, err := strconv.ParseInt(strings.TrimSpace(line), 10, 64)
		if err != nil {
			return 0, fmt.Errorf("memory of process %d: %w", pid, err)
		}
		sum += float64(n<<10) / 1e6
	}
	return sum, nil
}

// replicaTemplate is a workload whose pods do nothing, as an agent needs nothing of them.
const replicaTemplate = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: many}
spec:
  replicas: %d
  selector: {matchLabels: {bench: many}}
  template:
    metadata: {labels: {bench: many}}
    spec:
      terminationGracePeriodSeconds: 0
      automountServiceAccountToken: false
      containers: [{name: main, image: debian:1, command: [sleep, infinity]}]
`

// replicas is how long it takes from the start of a stealing session until it has the
// traffic of all n pods of a workload, in milliseconds.
func (w *world) replicas(ctx context.Context, n int) (_ float64, err error) {
	if err := w.cluster.Apply(ctx, w.namespace, fmt.Sprintf(replicaTemplate, n)); err != nil {
		return 0, err
	}
	if err := w.cluster.WaitReady(ctx, w.namespace, "deployment/many"); err != nil {
		return 0, err
	}
	// Those of a larger sample before are gone.
	for settled := false; !settled; {
		out, err := w.kubectl(ctx, "get", "pods", "-l", "bench=many", "-o", "name")
		if err != nil {
			return 0, err
		}
		settled = len(strings.Fields(out)) == n
	}
	events := w.at(fmt.Sprintf("work/events-%d", n))
	begin := clock()
	p, err := start(w.asUser(w.mirrord, "exec", "-n", w.namespace, "-t", "deployment/many", "--steal", "--events", events, "--", w.at("bin/load"), "serve"))
	if err != nil {
		return 0, err
	}
	p.ignore()
	defer func() { err = errors.Join(err, p.cmd.Process.Signal(syscall.SIGTERM), p.close(), w.quiet(ctx, agents)) }()
	for {
		b, _ := os.ReadFile(events) // it may not be there yet
		if bytes.Count(b, []byte(`"code":"replica"`)) >= n-1 && bytes.Contains(b, []byte(`"code":"port-open"`)) {
			return milliseconds(clock() - begin), nil
		}
		select {
		case <-p.ended:
			return 0, fmt.Errorf("%s has ended: %s", p.cmd, p.stderr)
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		case <-time.After(5 * time.Millisecond):
		}
	}
}
