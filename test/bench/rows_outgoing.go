package main

import (
	"context"
	"fmt"

	"github.com/mirrord-go/mirrord/test/bench/measure"
)

// Connections of a program to what only the cluster reaches, against a
// port-forward to the same server.

// bulkBytes is one transfer.
const bulkBytes = 100_000_000

func outgoingRows(ctx context.Context, w *world) ([]measure.Row, error) {
	s, err := w.session(ctx, w.direct(), podTarget)
	if err != nil {
		return nil, err
	}
	n, err := w.native(ctx)
	if err != nil {
		return nil, err
	}
	f, err := w.forward(ctx, w.direct(), podServer, 7000)
	if err != nil {
		return nil, err
	}
	direct := w.addresses[podServer] + ":7000"
	// both makes the samplers of a task that is told the server's address.
	both := func(r measure.Row, figure func(v values) float64, task, number string) measure.Row {
		sampler := func(worker *worker, addr string) measure.Sampler {
			return func(ctx context.Context, _ int) (float64, error) {
				v, err := worker.do(ctx, task, addr, number)
				return figure(v), err
			}
		}
		r.Against, r.Ours, r.Reference = "port-forward", sampler(s.worker, direct), sampler(n, f.addr)
		return r
	}
	bulk := func(v values) float64 { return bulkBytes / 1e6 / v["seconds"] }
	amount := fmt.Sprint(bulkBytes)
	return []measure.Row{
		both(measure.Row{Name: "one stream down", Unit: "MB/s", Budget: measure.AtLeast(0.95)}, bulk, "down", amount),
		both(measure.Row{Name: "one stream up", Unit: "MB/s", Budget: measure.AtLeast(0.95)}, bulk, "up", amount),
		{Name: "processor time of both ends", Unit: "s/GB", Against: "port-forward", Budget: measure.AtMost(2),
			Ours:      processorTime(s.worker, direct, s.supervisor, s.agent),
			Reference: processorTime(n, f.addr, f.cmd.Process.Pid)},
		both(measure.Row{Name: "round trip of 64 bytes", Unit: "µs", Budget: measure.Within(300)}, func(v values) float64 { return v["p50"] * 1e6 }, "rtt", "1000"),
		both(measure.Row{Name: "connections, one after the other", Unit: "1/s", Budget: measure.AtLeast(1)}, func(v values) float64 { return 100 / v["seconds"] }, "connections", "100"),
	}, nil
}

// processorTime is what the processes use for a stream down, in seconds for
// each GB.
func processorTime(worker *worker, addr string, pids ...int) measure.Sampler {
	return func(ctx context.Context, _ int) (float64, error) {
		before, err := cpuTime(pids...)
		if err != nil {
			return 0, err
		}
		if _, err := worker.do(ctx, "down", addr, fmt.Sprint(2*bulkBytes)); err != nil {
			return 0, err
		}
		after, err := cpuTime(pids...)
		return (after - before).Seconds() / (2 * bulkBytes / 1e9), err
	}
}
