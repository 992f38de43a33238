package cli

import (
	"context"
	"fmt"
	"net"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/mirrord-go/mirrord/internal/event"
	"github.com/mirrord-go/mirrord/internal/local/activity"
	"github.com/mirrord-go/mirrord/internal/local/bare"
	"github.com/mirrord-go/mirrord/internal/local/forward"
	"github.com/mirrord-go/mirrord/internal/local/record"
)

func (a *app) portForwardCommand() *cobra.Command {
	f := &execFlags{}
	var locals, remotes []string
	var wanted func() (bool, error)
	c := &cobra.Command{
		Use:   "port-forward [flags] [-L [[ADDRESS:]LOCAL:]HOST:PORT]... [-R [PORT:]LOCAL]...",
		Short: "Forward ports into the cluster, and from it",
		Long: `port-forward leads ports of this machine into the cluster, and ports of the target to
this machine, until Ctrl-C.

-L LOCAL:HOST:PORT opens LOCAL on this machine's loopback; who connects there is
connected to HOST:PORT as the target sees it: names are looked up in the target, at
each connection, so HOST is a service, a name outside, an address (IPv6 in brackets),
or localhost for the target itself. Without a target it is the cluster's network.
LOCAL 0 is any free port, which is printed; without LOCAL it is PORT. ADDRESS is where
it is opened instead, 0.0.0.0 for everybody.

-R PORT:LOCAL brings what reaches the target's PORT to this machine's localhost:LOCAL:
a copy, or with --steal, or where the configuration says so, the traffic itself, of
which a filter (--header, --path, --method, --host) takes only some. Without PORT both are the same.

A connection that cannot be made there is reset here, and a line says why. The session
waits for a link that is lost, and follows a target that is replaced.`,
		Example: `  mirrord port-forward -L 8080:shop:80
  mirrord port-forward -t deployment/shop -L 5432:db.data:5432 -L 0:localhost:9090
  mirrord port-forward -t deployment/shop --steal --header 'x-user: ana' -R 80:3000
  mirrord port-forward -n staging -L '[::1]:8080:[fd00::7]:80' -o json`,
		Args: cobra.NoArgs,
	}
	wanted = jsonWanted(c)
	c.RunE = func(*cobra.Command, []string) error {
		asJSON, err := wanted()
		if err != nil {
			return err
		}
		return a.portForward(f, locals, remotes, asJSON)
	}
	c.Flags().StringArrayVarP(&locals, "local", "L", nil, "lead a port of this machine to one that the target reaches; may be repeated")
	c.Flags().StringArrayVarP(&remotes, "remote", "R", nil, "bring a port of the target's to one of this machine; may be repeated")
	f.bareFlags(c.Flags(), "steal", "header", "path", "method", "host")
	return c
}

func (a *app) portForward(f *execFlags, locals, remotes []string, asJSON bool) error {
	ls, rs, err := forward.Parse(locals, remotes)
	if err != nil {
		return err
	}
	b, err := a.begin(f, true)
	if err != nil {
		return err
	}
	withoutSandbox(&b.cfg, len(ls) > 0)
	if b.cfg.Incoming, err = forward.Rules(b.cfg.Incoming, b.cfg.Targetless(), rs); err != nil {
		b.done(err)
		return err
	}
	opened, err := forward.Open(net.Listen, ls) // before anything is started in the cluster
	if err != nil {
		b.done(err)
		return err
	}
	defer forward.Close(opened)
	ctx, stop := untilTold()
	defer stop()
	var out *record.Lines
	var watch func(activity.Event)
	if asJSON {
		out = record.NewLines("", os.Stdout, func(error) { stop() }) // nobody reads any more
		defer out.Close()
		watch = func(e activity.Event) { out.Put(e) }
	}
	return a.runBare(ctx, b, bare.Options{Kind: "port-forward", Watch: watch, Begin: func(ctx context.Context, s *bare.Session) (bare.Server, error) {
		return forward.New(ctx, s, opened, rs, func(r forward.Ready) {
			out.Put(r)
			for _, l := range r.Locals {
				b.show(event.Event{Level: event.Info, Code: "forward-open", Text: fmt.Sprintf("%s → %s", strings.Join(l.Listen, ", "), l.To),
					Facts: map[string]string{"listen": strings.Join(l.Listen, ","), "to": l.To}})
			}
			for _, p := range r.Remotes {
				verb := map[string]string{"steal": "stolen", "mirror": "mirrored"}[p.Mode]
				if p.Filter != "" {
					verb += " where the filter matches"
				}
				b.show(event.Event{Level: event.Info, Code: "forward-open", Text: fmt.Sprintf("the target's port %d, %s → localhost:%d", p.Target, verb, p.Port),
					Facts: map[string]string{"port": fmt.Sprint(p.Target), "mode": p.Mode, "to": fmt.Sprintf("localhost:%d", p.Port)}})
			}
		})
	}})
}
