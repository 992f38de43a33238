package main

import (
	"context"
	"errors"
	"time"

	"github.com/mirrord-go/mirrord/test/bench/measure"
)

// What shares a link: lookups, which take one round trip of it, and small
// exchanges beside a transfer that fills it.

// service is a name that every cluster has; the search list is not asked.
const service = "kubernetes.default.svc.cluster.local."

func dnsRows(ctx context.Context, w *world) ([]measure.Row, error) {
	far, err := w.over(ctx, line{delay: shapedTrip / 2})
	if err != nil {
		return nil, err
	}
	pod, err := w.inPod(ctx, podTarget)
	if err != nil {
		return nil, err
	}
	var rows []measure.Row
	for _, part := range []struct {
		away string
		link link
		trip time.Duration
		many string
	}{{"0 ms away", w.direct(), 0, "200"}, {"20 ms away", far, shapedTrip, "50"}} {
		e, err := w.streamEnds(ctx, part.link)
		if err != nil {
			return nil, err
		}
		inMicroseconds := func(v values) float64 { return v["p50"] * 1e6 }
		trip, own := sample(e.native, inMicroseconds, "rtt", e.forward.addr, part.many), sample(pod, inMicroseconds, "lookup", service, part.many, part.trip.String())
		rows = append(rows, measure.Row{Name: "lookup of a service, " + part.away, Unit: "µs", Against: "round trip + pod's own", Budget: measure.Within(500),
			Ours: e.sample(inMicroseconds, "lookup", service, part.many, "0s"), Reference: func(ctx context.Context, n int) (float64, error) {
				a, err := trip(ctx, n)
				b, podErr := own(ctx, n)
				return a + b, errors.Join(err, podErr)
			}})
	}
	return rows, nil
}

func linkRows(ctx context.Context, w *world) ([]measure.Row, error) {
	shaped, err := w.over(ctx, line{delay: shapedTrip / 2, rate: mbit200})
	if err != nil {
		return nil, err
	}
	var rows []measure.Row
	for _, part := range []struct {
		away  string
		link  link
		pairs int
	}{{"0 ms away", w.direct(), 0}, {"200 Mbit/s, 20 ms away", shaped, longPairs}} {
		e, err := w.streamEnds(ctx, part.link)
		if err != nil {
			return nil, err
		}
		ms := func(which string) func(values) float64 {
			return func(v values) float64 { return v[which] * float64(time.Second/time.Millisecond) }
		}
		for _, direction := range []string{"down", "up"} {
			name := "4 KiB exchange beside a stream " + direction + ", "
			rows = append(rows, measure.Row{Name: name + "p99, " + part.away, Unit: "ms", Against: "idle", Budget: measure.AtMost(5), Pairs: part.pairs,
				Ours: e.sample(ms("p99"), "beside", e.server, "200", direction), Reference: e.sample(ms("p99"), "exchange", e.server, "200")})
			if part.link == w.direct() { // on a slow link a port-forward takes seconds for one
				rows = append(rows, measure.Row{Name: name + "p50, " + part.away, Unit: "ms", Against: "port-forward", Budget: measure.AtMost(1),
					Ours: e.sample(ms("p50"), "beside", e.server, "20", direction), Reference: sample(e.native, ms("p50"), "beside", e.forward.addr, "20", direction)})
			}
		}
	}
	return rows, nil
}
