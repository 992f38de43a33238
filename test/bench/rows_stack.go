package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/mirrord-go/mirrord/test/bench/measure"
)

// What a connection pays for the sandbox: the stack alone against the loopback
// interface, and connections of a session to a server of this machine, which a rule
// keeps here.

const (
	// severalConns are made one after the other, none of which may be lost.
	severalConns = 20_000
	// idleConns are held at once, and idleMemory is what they may take, in MB.
	idleConns, idleMemory = 2_000, 60
)

func stackRows(ctx context.Context, w *world) ([]measure.Row, error) {
	own, err := ownAddress()
	if err != nil {
		return nil, err
	}
	server, err := start(w.asUser(w.at("bin/load"), "serve"))
	if err != nil {
		return nil, err
	}
	w.later(server.kill)
	server.ignore()
	native, err := w.native(ctx)
	if err != nil {
		return nil, err
	}
	addr := netip.AddrPortFrom(own, 7000).String()
	if err := answers(ctx, native, addr); err != nil {
		return nil, err
	}
	here := w.at("here.json")
	if err := os.WriteFile(here, fmt.Appendf(nil, `{"feature": {"network": {"outgoing": {"filter": {"local": [%q]}}}}}`, addr), 0o644); err != nil {
		return nil, err
	}
	s, err := w.session(ctx, w.direct(), podTarget, "-f", here)
	if err != nil {
		return nil, err
	}
	several := fmt.Sprint(severalConns)
	rows, err := aloneRows(ctx, w)
	return append(rows, []measure.Row{
		{Name: "20,000 connections, those that come", Unit: "%", Against: "limit", Budget: measure.AtLeast(1), Single: true, Reference: measure.Constant(100),
			Ours: func(ctx context.Context, _ int) (float64, error) { // the first that is lost fails
				_, err := s.do(ctx, "connections", addr, several)
				return 100, err
			}},
		{Name: "memory of 2,000 idle connections", Unit: "MB", Against: "limit", Budget: measure.AtMost(1), Single: true, Reference: measure.Constant(idleMemory),
			Ours: func(ctx context.Context, _ int) (float64, error) {
				before, err := resident(s.supervisor)
				if err != nil {
					return 0, err
				}
				if _, err := s.do(ctx, "hold", addr, fmt.Sprint(idleConns)); err != nil {
					return 0, err
				}
				after, err := resident(s.supervisor)
				_, ended := s.do(ctx, "hold", addr, "0")
				return after - before, errors.Join(err, ended)
			}},
	}...), err
}

// aloneRows are of the stack without a session, by the benchmarks of its package.
func aloneRows(ctx context.Context, w *world) ([]measure.Row, error) {
	if err := command(ctx, "go", "test", "-c", "-trimpath", "-buildvcs=false", "-o", w.at("bin/netstack.test"), "./internal/local/netstack"); err != nil {
		return nil, err
	}
	row := func(r measure.Row, benchmark string, figure *regexp.Regexp, scale float64) measure.Row {
		over := func(device string) measure.Sampler {
			return func(ctx context.Context, _ int) (float64, error) {
				pattern := "^BenchmarkDevices$/^" + strings.ReplaceAll(benchmark+"/"+device, "/", "$/^") + "$"
				out, err := exec.CommandContext(ctx, w.at("bin/netstack.test"), "-test.run=^$", "-test.bench="+pattern, "-test.benchtime=300ms").CombinedOutput()
				m := figure.FindSubmatch(out)
				if err != nil || m == nil {
					return 0, errors.Join(fmt.Errorf("benchmark %s:\n%s", pattern, out), err)
				}
				v, err := strconv.ParseFloat(string(m[1]), 64)
				return v * scale, err
			}
		}
		r.Against, r.Ours, r.Reference = "native", over("tun"), over("native")
		return r
	}
	speed, pace := regexp.MustCompile(`\s([\d.]+) MB/s`), regexp.MustCompile(`\s([\d.]+) ns/op`)
	return []measure.Row{
		row(measure.Row{Name: "one stream down", Unit: "MB/s", Budget: measure.AtLeast(0.5)}, "down/1", speed, 1),
		row(measure.Row{Name: "one stream up", Unit: "MB/s", Budget: measure.AtLeast(0.5)}, "up/1", speed, 1),
		row(measure.Row{Name: "round trip of 64 bytes", Unit: "µs", Budget: measure.Within(60)}, "round_trip", pace, 1e-3),
	}, nil
}

// ownAddress is one of this machine's that is not its loopback: a connection to that
// would be the program's own.
func ownAddress() (netip.Addr, error) {
	all, err := net.InterfaceAddrs()
	for _, a := range all {
		if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().Is4() && p.Addr().IsGlobalUnicast() {
			return p.Addr(), nil
		}
	}
	return netip.Addr{}, errors.Join(errors.New("this machine has no address of IPv4 but loopback"), err)
}

// answers waits until a server does.
func answers(ctx context.Context, by *worker, addr string) error {
	for {
		_, err := by.do(ctx, "rtt", addr, "1")
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(err, context.Cause(ctx))
		case <-time.After(10 * time.Millisecond):
		}
	}
}
