package main

import (
	"context"
	"fmt"
	"os"

	"github.com/mirrord-go/mirrord/test/bench/measure"
)

// Requests to the target's server while a session is there.

const (
	mirrorRate     = "3000" // requests a second that a mirror has to keep up with
	mirrorRequests = "6000"
	// latencyRate leaves the processors time: beyond it p99 shows how long the
	// queue in front of them is, with and without a session.
	latencyRate     = "1000"
	latencyRequests = "2000"
	connectionsAt   = "8" // so many connections carry them
)

func incomingRows(ctx context.Context, w *world) ([]measure.Row, error) {
	client, err := w.inPod(ctx, podClient)
	if err != nil {
		return nil, err
	}
	mirror, err := w.session(ctx, w.direct(), podMirrored)
	if err != nil {
		return nil, err
	}
	steal, err := w.session(ctx, w.direct(), podStolen, "--steal")
	if err != nil {
		return nil, err
	}
	filter := w.at("filter.json")
	if err := os.WriteFile(filter, []byte(`{"feature": {"network": {"incoming": {"http_filter": {"header_filter": "^x-user: nobody$"}}}}}`), 0o644); err != nil {
		return nil, err
	}
	filtered, err := w.session(ctx, w.direct(), podFiltered, "--steal", "-f", filter)
	if err != nil {
		return nil, err
	}
	for _, s := range []*session{mirror, steal, filtered} {
		if _, err := s.do(ctx, "listen", ":8080"); err != nil {
			return nil, err
		}
	}
	n, err := w.native(ctx)
	if err != nil {
		return nil, err
	}
	f, err := w.forward(ctx, w.direct(), podServer, 8080)
	if err != nil {
		return nil, err
	}
	sampler := func(worker *worker, addr, name string, scale float64, load ...string) measure.Sampler {
		return func(ctx context.Context, _ int) (float64, error) {
			v, err := worker.do(ctx, append([]string{"http", addr}, load...)...)
			return v[name] * scale, err
		}
	}
	at := func(pod string) string { return w.addresses[pod] + ":8080" }
	row := func(r measure.Row, pod, against, name string, scale float64, load ...string) measure.Row {
		r.Against = "untouched"
		r.Ours, r.Reference = sampler(client, at(pod), name, scale, load...), sampler(client, at(against), name, scale, load...)
		return r
	}
	return []measure.Row{
		row(measure.Row{Name: "requests under a mirror, as many as go", Unit: "1/s", Budget: measure.AtLeast(0.5)},
			podMirrored, podPlain, "rate", 1, connectionsAt, "20000", "0"),
		row(measure.Row{Name: "p50 under a mirror, 1,000/s", Unit: "ms", Budget: measure.Within(1)},
			podMirrored, podPlain, "p50", 1e3, connectionsAt, latencyRequests, latencyRate),
		row(measure.Row{Name: "p99 under a mirror, 1,000/s", Unit: "ms", Budget: measure.Within(1)},
			podMirrored, podPlain, "p99", 1e3, connectionsAt, latencyRequests, latencyRate),
		{Name: "copies that arrive, 3,000/s, worst", Unit: "%", Against: "limit", Budget: measure.AtLeast(1), Every: true,
			Ours: copies(client, mirror, at(podMirrored)), Reference: measure.Constant(100)},
		row(measure.Row{Name: "requests that the filter leaves, as many as go", Unit: "1/s", Budget: measure.AtLeast(0.5)},
			podFiltered, podPlain, "rate", 1, connectionsAt, "20000", "0"),
		row(measure.Row{Name: "p50 of what the filter leaves, 1,000/s", Unit: "ms", Budget: measure.Within(0.2)},
			podFiltered, podPlain, "p50", 1e3, connectionsAt, latencyRequests, latencyRate),
		row(measure.Row{Name: "p99 of what the filter leaves, 1,000/s", Unit: "ms", Budget: measure.Within(0.2)},
			podFiltered, podPlain, "p99", 1e3, connectionsAt, latencyRequests, latencyRate),
		{Name: "stolen request, p50", Unit: "µs", Against: "port-forward", Budget: measure.Within(300),
			Ours: sampler(client, at(podStolen), "p50", 1e6, "1", "1000", "0"), Reference: sampler(n, f.addr, "p50", 1e6, "1", "1000", "0")},
		{Name: "stolen request, p99", Unit: "µs", Against: "port-forward", Budget: measure.Within(1000),
			Ours: sampler(client, at(podStolen), "p99", 1e6, "1", "1000", "0"), Reference: sampler(n, f.addr, "p99", 1e6, "1", "1000", "0")},
	}, nil
}

// copies is the percentage of requests to the target that the mirroring session
// got as well.
func copies(client *worker, mirror *session, addr string) measure.Sampler {
	return func(ctx context.Context, _ int) (float64, error) {
		before, err := settled(ctx, mirror)
		if err != nil {
			return 0, err
		}
		if _, err := client.do(ctx, "http", addr, connectionsAt, mirrorRequests, mirrorRate); err != nil {
			return 0, err
		}
		after, err := settled(ctx, mirror)
		if err != nil {
			return 0, err
		}
		var sent float64
		if _, err := fmt.Sscan(mirrorRequests, &sent); err != nil {
			return 0, err
		}
		return (after - before) / sent * 100, nil
	}
}

// settled gives the number of requests that the session has got, once no more
// arrive.
func settled(ctx context.Context, s *session) (float64, error) {
	v, err := s.do(ctx, "settled", "500ms")
	return v["requests"], err
}
