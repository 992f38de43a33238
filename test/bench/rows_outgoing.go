package main

import (
	"context"
	"fmt"
	"time"

	"github.com/mirrord-go/mirrord/test/bench/measure"
)

// Connections of a program to what only the cluster reaches, against a
// port-forward to the same server.

// bulkBytes is one transfer.
const bulkBytes = 100_000_000

func outgoingRows(ctx context.Context, w *world) ([]measure.Row, error) {
	shaped, err := w.over(ctx, line{delay: shapedTrip / 2, rate: mbit200})
	if err != nil {
		return nil, err
	}
	e, err := w.streamEnds(ctx, w.direct())
	if err != nil {
		return nil, err
	}
	far, err := w.streamEnds(ctx, shaped)
	if err != nil {
		return nil, err
	}
	both := e.both
	bulk := func(v values) float64 { return bulkBytes / 1e6 / v["seconds"] }
	amount := fmt.Sprint(bulkBytes)
	return []measure.Row{
		both(measure.Row{Name: "one stream down", Unit: "MB/s", Budget: measure.AtLeast(0.95)}, bulk, "down", amount),
		both(measure.Row{Name: "one stream up", Unit: "MB/s", Budget: measure.AtLeast(0.95)}, bulk, "up", amount),
		far.both(measure.Row{Name: "one stream down, 200 Mbit/s, 20 ms away", Unit: "MB/s", Budget: measure.AtLeast(0.95), Pairs: longPairs}, bulk, "down", amount),
		far.both(measure.Row{Name: "one stream up, 200 Mbit/s, 20 ms away", Unit: "MB/s", Budget: measure.AtLeast(0.95), Pairs: longPairs}, bulk, "up", amount),
		e.processorTime("down"),
		e.processorTime("up"),
		both(measure.Row{Name: "round trip of 64 bytes", Unit: "µs", Budget: measure.Within(300)}, func(v values) float64 { return v["p50"] * 1e6 }, "rtt", "1000"),
		both(measure.Row{Name: "connections, one after the other", Unit: "1/s", Budget: measure.AtLeast(0.7)}, func(v values) float64 { return 100 / v["seconds"] }, "connections", "100"),
	}, nil
}

// shapedTrip is the round trip of the link that is both slow and far.
const shapedTrip = 20 * time.Millisecond

// streamEnds are a session's way to a server in another pod, and a port-forward's
// over the same link.
type streamEnds struct {
	ours    *session
	server  string // its address in the cluster
	native  *worker
	forward *forward
}

func (w *world) streamEnds(ctx context.Context, l link) (e streamEnds, err error) {
	if e.ours, err = w.session(ctx, l, podTarget); err != nil {
		return e, err
	}
	if e.native, err = w.native(ctx); err != nil {
		return e, err
	}
	e.forward, err = w.forward(ctx, l, podServer, 7000)
	e.server = w.addresses[podServer] + ":7000"
	return e, err
}

// both makes the samplers of a task that is told the server's address.
func (e streamEnds) both(r measure.Row, figure func(v values) float64, task, number string) measure.Row {
	r.Against, r.Ours, r.Reference = "port-forward", e.sample(figure, task, e.server, number), sample(e.native, figure, task, e.forward.addr, number)
	return r
}

// sample is a task of the session's worker.
func (e streamEnds) sample(figure func(v values) float64, task ...string) measure.Sampler {
	return sample(e.ours.worker, figure, task...)
}

func sample(by *worker, figure func(v values) float64, task ...string) measure.Sampler {
	return func(ctx context.Context, _ int) (float64, error) {
		v, err := by.do(ctx, task...)
		return figure(v), err
	}
}

// processorTime is what a stream that way takes of supervisor and agent, in seconds
// for each GB.
func (e streamEnds) processorTime(way string) measure.Row {
	return measure.Row{Name: "processor time of both ends, " + way, Unit: "s/GB", Against: "port-forward", Budget: measure.AtMost(2),
		Ours:      processorTime(e.ours.worker, way, e.server, e.ours.supervisor, e.ours.agent),
		Reference: processorTime(e.native, way, e.forward.addr, e.forward.cmd.Process.Pid)}
}

func processorTime(worker *worker, way, addr string, pids ...int) measure.Sampler {
	return func(ctx context.Context, _ int) (float64, error) {
		before, err := cpuTime(pids...)
		if err != nil {
			return 0, err
		}
		if _, err := worker.do(ctx, way, addr, fmt.Sprint(2*bulkBytes)); err != nil {
			return 0, err
		}
		after, err := cpuTime(pids...)
		return (after - before).Seconds() / (2 * bulkBytes / 1e9), err
	}
}
