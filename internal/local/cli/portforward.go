package cli

import (
	"context"
	"fmt"
	"net"
	"strings"

	"github.com/spf13/cobra"

	"github.com/mirrord-go/mirrord/internal/event"
	"github.com/mirrord-go/mirrord/internal/local/activity"
	"github.com/mirrord-go/mirrord/internal/local/bare"
	"github.com/mirrord-go/mirrord/internal/local/forward"
	"github.com/mirrord-go/mirrord/internal/rules"
)

func (a *app) portForwardCommand() *cobra.Command {
	f := &execFlags{}
	var locals []string
	var wanted func() (bool, error)
	c := &cobra.Command{
		Use:   "port-forward [flags] -L [[ADDRESS:]LOCAL:]HOST:PORT...",
		Short: "Forward ports into the cluster",
		Long: `port-forward leads ports of this machine into the cluster, until Ctrl-C.

-L LOCAL:HOST:PORT opens LOCAL on this machine's loopback; who connects there is
connected to HOST:PORT as the target sees it: names are looked up in the target, at
each connection, so HOST is a service, a name outside, an address (IPv6 in brackets),
or localhost for the target itself. Without a target it is the cluster's network.
LOCAL 0 is any free port, which is printed; without LOCAL it is PORT. ADDRESS is where
it is opened instead, 0.0.0.0 for everybody.

A connection that cannot be made there is reset here, and a line says why. The session
waits for a link that is lost, and follows a target that is replaced.`,
		Example: `  mirrord port-forward -L 8080:shop:80
  mirrord port-forward -t deployment/shop -L 5432:db.data:5432 -L 0:localhost:9090
  mirrord port-forward -n staging -L '[::1]:8080:[fd00::7]:80' -o json`,
		Args: cobra.NoArgs,
	}
	wanted = jsonWanted(c)
	c.RunE = func(*cobra.Command, []string) error {
		asJSON, err := wanted()
		if err != nil {
			return err
		}
		return a.portForward(f, locals, asJSON)
	}
	c.Flags().StringArrayVarP(&locals, "local", "L", nil, "lead a port of this machine to one that the target reaches; may be repeated")
	f.bareFlags(c.Flags())
	return c
}

func (a *app) portForward(f *execFlags, locals []string, asJSON bool) error {
	ls, _, err := forward.Parse(locals, nil)
	if err != nil {
		return err
	}
	b, err := a.begin(f, true)
	if err != nil {
		return err
	}
	withoutSandbox(&b.cfg, true)
	b.cfg.Incoming = rules.IncomingOptions{Mode: rules.IncomingOff}
	opened, err := forward.Open(net.Listen, ls) // before anything is started in the cluster
	if err != nil {
		b.done(err)
		return err
	}
	defer forward.Close(opened)
	ctx, stop := untilTold()
	defer stop()
	var out *lines
	var watch func(activity.Event)
	if asJSON {
		out = newLines(stop)
		defer out.close()
		watch = func(e activity.Event) { out.put(e) }
	}
	return a.runBare(ctx, b, bare.Options{Kind: "port-forward", Watch: watch, Begin: func(ctx context.Context, s *bare.Session) (bare.Server, error) {
		return forward.New(ctx, s, opened, func(r forward.Ready) {
			out.put(r)
			for _, l := range r.Locals {
				b.show(event.Event{Level: event.Info, Code: "forward-open", Text: fmt.Sprintf("%s → %s", strings.Join(l.Listen, ", "), l.To),
					Facts: map[string]string{"listen": strings.Join(l.Listen, ","), "to": l.To}})
			}
		})
	}})
}
