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
	minuteRequests = "180000" // of a minute
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
	if err := w.proxy(ctx); err != nil {
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
	streams := func(name, unit string, budget measure.Budget, figure string, scale float64, pod, against, reference string, load ...string) measure.Row {
		load = append(load, "somebody")
		return measure.Row{Name: name, Unit: unit, Against: against, Budget: budget,
			Ours: byStreams(client, at(pod), figure, scale, load...), Reference: byStreams(client, reference, figure, scale, load...)}
	}
	return []measure.Row{
		row(measure.Row{Name: "requests under a mirror, as many as go", Unit: "1/s", Budget: measure.AtLeast(0.5)},
			podMirrored, podPlain, "rate", 1, connectionsAt, "20000", "0"),
		row(measure.Row{Name: "p50 under a mirror, 1,000/s", Unit: "ms", Budget: measure.Within(1)},
			podMirrored, podPlain, "p50", 1e3, connectionsAt, latencyRequests, latencyRate),
		row(measure.Row{Name: "p99 under a mirror, 1,000/s", Unit: "ms", Budget: measure.Within(1)},
			podMirrored, podPlain, "p99", 1e3, connectionsAt, latencyRequests, latencyRate),
		{Name: "copies that arrive, 3,000/s, worst", Unit: "%", Against: "limit", Budget: measure.AtLeast(1), Every: true,
			Ours: copies(client, mirror, at(podMirrored), mirrorRequests, mirrorRate), Reference: measure.Constant(100)},
		{Name: "copies that arrive, 3,000/s for a minute", Unit: "%", Against: "limit", Budget: measure.AtLeast(1), Single: true,
			Ours: copies(client, mirror, at(podMirrored), minuteRequests, mirrorRate), Reference: measure.Constant(100)},
		{Name: "copies that arrive, as many as go", Unit: "%", Against: "limit", Budget: measure.AtLeast(1), Every: true,
			Ours: copies(client, mirror, at(podMirrored), "20000", "0"), Reference: measure.Constant(100)},
		row(measure.Row{Name: "requests that the filter leaves, as many as go", Unit: "1/s", Budget: measure.AtLeast(0.5)},
			podFiltered, podPlain, "rate", 1, connectionsAt, "20000", "0"),
		{Name: "requests that the filter leaves, and through nginx", Unit: "1/s", Against: "nginx", Budget: measure.AtLeast(1),
			Ours:      sampler(client, at(podFiltered), "rate", 1, connectionsAt, "20000", "0"),
			Reference: sampler(client, w.addresses[podProxied]+":"+proxyPort, "rate", 1, connectionsAt, "20000", "0")},
		row(measure.Row{Name: "p50 of what the filter leaves, 1,000/s", Unit: "ms", Budget: measure.Within(0.2)},
			podFiltered, podPlain, "p50", 1e3, connectionsAt, latencyRequests, latencyRate),
		row(measure.Row{Name: "p99 of what the filter leaves, 1,000/s", Unit: "ms", Budget: measure.Within(0.2)},
			podFiltered, podPlain, "p99", 1e3, connectionsAt, latencyRequests, latencyRate),
		{Name: "p99 of what the filter leaves, and through nginx, 1,000/s", Unit: "ms", Against: "nginx", Budget: measure.AtMost(1),
			Ours:      sampler(client, at(podFiltered), "p99", 1e3, connectionsAt, latencyRequests, latencyRate),
			Reference: sampler(client, w.addresses[podProxied]+":"+proxyPort, "p99", 1e3, connectionsAt, latencyRequests, latencyRate)},
		{Name: "stolen request, p50", Unit: "µs", Against: "port-forward", Budget: measure.Within(300),
			Ours: sampler(client, at(podStolen), "p50", 1e6, "1", "1000", "0"), Reference: sampler(n, f.addr, "p50", 1e6, "1", "1000", "0")},
		{Name: "stolen request, p99", Unit: "µs", Against: "port-forward", Budget: measure.Within(1000),
			Ours: sampler(client, at(podStolen), "p99", 1e6, "1", "1000", "0"), Reference: sampler(n, f.addr, "p99", 1e6, "1", "1000", "0")},
		streams("HTTP/2 that the filter leaves, as many as go", "1/s", measure.AtLeast(0.5), "rate", 1, podFiltered, "untouched", at(podPlain), connectionsAt, "4", "10000", "0"),
		streams("HTTP/2 that the filter leaves, and through nginx", "1/s", measure.AtLeast(0.9), "rate", 1, podFiltered, "nginx", w.addresses[podProxied]+":"+proxyPort2, connectionsAt, "4", "10000", "0"),
		streams("p99 of HTTP/2 that the filter leaves, 1,000/s", "ms", measure.Within(0.3), "p99", 1e3, podFiltered, "untouched", at(podPlain), connectionsAt, "1", latencyRequests, latencyRate),
		streams("HTTP/2 that the filter leaves, 1,000 streams at once", "1/s", measure.AtLeast(0.5), "rate", 1, podFiltered, "untouched", at(podPlain), "1", "1000", "10000", "0"),
		{Name: "HTTP/2 request that the filter takes, p50", Unit: "µs", Against: "port-forward", Budget: measure.Within(1500),
			Ours: byStreams(client, at(podFiltered), "p50", 1e6, "1", "1", "1000", "0", "nobody"), Reference: byStreams(n, f.addr, "p50", 1e6, "1", "1", "1000", "0", "nobody")},
	}, nil
}

// byStreams is a figure of requests by HTTP/2.
func byStreams(worker *worker, addr, name string, scale float64, load ...string) measure.Sampler {
	return func(ctx context.Context, _ int) (float64, error) {
		v, err := worker.do(ctx, append([]string{"http2", addr}, load...)...)
		return v[name] * scale, err
	}
}

// proxyPort and, for HTTP/2, proxyPort2 are where nginx listens in front of the server
// of its pod.
const proxyPort, proxyPort2 = "8081", "8082"

// proxied is a configuration of nginx that does as little as a proxy can.
const proxied = `
worker_processes 2;
pid /tmp/nginx.pid;
error_log /tmp/nginx.log;
events { worker_connections 4096; }
http {
  access_log off;
  client_body_temp_path /tmp/nginx-1; proxy_temp_path /tmp/nginx-2; fastcgi_temp_path /tmp/nginx-3; uwsgi_temp_path /tmp/nginx-4; scgi_temp_path /tmp/nginx-5;
  upstream server { server 127.0.0.1:8080; keepalive 64; keepalive_requests 1000000; }
  server {
    listen ` + proxyPort + `;
    keepalive_requests 1000000;
    location / { proxy_pass http://server; proxy_http_version 1.1; proxy_set_header Connection ""; }
  }
  server {
    listen ` + proxyPort2 + ` http2;
    keepalive_requests 1000000; http2_max_concurrent_streams 1024;
    location / { grpc_pass grpc://server; }
  }
}
`

// proxy starts nginx in its pod.
func (w *world) proxy(ctx context.Context) error {
	_, err := w.kubectl(ctx, "exec", podProxied, "--", "bash", "-c", `printf %s "$0" >/tmp/nginx.conf && nginx -e /tmp/nginx.log -c /tmp/nginx.conf`, proxied)
	if err != nil {
		return err
	}
	w.later(func() error {
		_, err := w.kubectl(context.Background(), "exec", podProxied, "--", "nginx", "-e", "/tmp/nginx.log", "-c", "/tmp/nginx.conf", "-s", "stop")
		return err
	})
	return nil
}

// copies is the percentage of that many requests to the target that the mirroring
// session got as well.
func copies(client *worker, mirror *session, addr, requests, rate string) measure.Sampler {
	return func(ctx context.Context, _ int) (float64, error) {
		before, err := settled(ctx, mirror)
		if err != nil {
			return 0, err
		}
		if _, err := client.do(ctx, "http", addr, connectionsAt, requests, rate); err != nil {
			return 0, err
		}
		after, err := settled(ctx, mirror)
		if err != nil {
			return 0, err
		}
		var sent float64
		if _, err := fmt.Sscan(requests, &sent); err != nil {
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
