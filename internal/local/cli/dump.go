package cli

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/mirrord-go/mirrord/internal/event"
	"github.com/mirrord-go/mirrord/internal/failure"
	"github.com/mirrord-go/mirrord/internal/local/attach"
	"github.com/mirrord-go/mirrord/internal/local/bare"
	"github.com/mirrord-go/mirrord/internal/local/dump"
	"github.com/mirrord-go/mirrord/internal/local/monitor"
	"github.com/mirrord-go/mirrord/internal/rules"
)

func (a *app) dumpCommand() *cobra.Command {
	f := &execFlags{}
	var ports []string
	var wanted func() (bool, error)
	c := &cobra.Command{
		Use:   "dump -t TARGET [-p PORT]...",
		Short: "Print what clients send to the target",
		Long: `dump prints what clients send to ports of the target, until Ctrl-C: a copy, so that the
target notices nothing. Without -p these are all ports that the pod's specification
names. What the target answers is not copied.

Text is printed with its lines, everything in it that is not seen escaped as in \x1b;
what is no text as hexdump does. With -o json each line is an object, with the data in
base64.`,
		Example: `  mirrord dump -t deployment/shop
  mirrord dump -t pod/shop-7d4b9 -p 80 -p 9090
  mirrord dump -t deployment/shop -p 80 -o json`,
		Args: cobra.NoArgs,
	}
	wanted = jsonWanted(c)
	c.RunE = func(*cobra.Command, []string) error {
		asJSON, err := wanted()
		if err != nil {
			return err
		}
		return a.dump(f, ports, asJSON)
	}
	c.Flags().StringSliceVarP(&ports, "ports", "p", nil, "a port of the target; may be repeated (default: those of the pod's specification)")
	f.bareFlags(c.Flags())
	return c
}

func (a *app) dump(f *execFlags, ports []string, asJSON bool) error {
	numbers, err := portNumbers(ports)
	if err != nil {
		return err
	}
	b, err := a.begin(f, true)
	if err != nil {
		return err
	}
	if b.cfg.Targetless() {
		err := failure.Usage("dump-no-target", "dump needs a target", "name one: mirrord dump -t deployment/NAME", "it prints what clients send to a target")
		b.done(err)
		return err
	}
	withoutSandbox(&b.cfg, false)
	b.cfg.Incoming = rules.IncomingOptions{Mode: rules.IncomingMirror}
	ctx, stop := untilTold()
	defer stop()
	show := dumpText
	if asJSON {
		show = func(r dump.Record) error { return monitor.WriteJSON(os.Stdout, r, "") }
	}
	return a.runBare(ctx, b, bare.Options{Kind: "dump", Begin: func(ctx context.Context, s *bare.Session) (bare.Server, error) {
		all := numbers
		if len(all) == 0 {
			if all = declared(s.Hold.First()); len(all) == 0 {
				return nil, failure.Usage("dump-no-ports", "nobody says which ports to print", "name them: mirrord dump -t "+b.cfg.Target+" -p 80", "the target's specification names none for TCP")
			}
		}
		return dump.New(ctx, s, all, func(r dump.Record) error {
			if r.Kind == dump.Ready {
				var text []string
				for _, n := range r.Ports {
					text = append(text, strconv.Itoa(int(n)))
				}
				b.show(event.Event{Level: event.Info, Code: "dump-ready", Text: "what clients send to port " + strings.Join(text, ", ") + " of the target is printed; Ctrl-C ends it",
					Facts: map[string]string{"ports": strings.Join(text, ",")}})
			}
			return show(r)
		}, stop)
	}})
}

// portNumbers reads the values of -p.
func portNumbers(texts []string) (all []uint16, err error) {
	for _, text := range texts {
		n, err := strconv.ParseUint(text, 10, 16)
		if err != nil || n == 0 {
			return nil, failure.Usage("dump-ports", fmt.Sprintf("-p %s is no port", text), "for example: mirrord dump -t pod/NAME -p 80 -p 9090", "a port is a number from 1 to 65535")
		}
		all = append(all, uint16(n))
	}
	if all = slices.Compact(slices.Sorted(slices.Values(all))); len(all) > maxDumped {
		return nil, failure.Usage("dump-ports", fmt.Sprintf("%d ports are too many", len(all)), "several commands, each with some of them", "at most %d are copied at once", maxDumped)
	}
	return all, nil
}

// maxDumped bounds the ports of one dump, as the agent does (agent/capture).
const maxDumped = 250

// declared are the TCP ports that the target's specification names.
func declared(at *attach.Attachment) (all []uint16) {
	a, ok := at.Agent().(*clusterAgent)
	if !ok {
		return nil
	}
	for _, p := range a.target.Ports {
		if p.Protocol == "TCP" && len(all) < maxDumped {
			all = append(all, p.Number)
		}
	}
	return all
}

// dumpText prints a record for a person.
func dumpText(r dump.Record) error {
	w := bufio.NewWriter(os.Stdout)
	for _, line := range dump.Text(r) {
		_, _ = w.WriteString(line + "\n") // Flush tells
	}
	return w.Flush()
}
