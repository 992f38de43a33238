package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/mirrord-go/mirrord/internal/config"
	"github.com/mirrord-go/mirrord/internal/event"
	"github.com/mirrord-go/mirrord/internal/failure"
	"github.com/mirrord-go/mirrord/internal/local/explain"
	"github.com/mirrord-go/mirrord/internal/local/kube"
	"github.com/mirrord-go/mirrord/internal/local/monitor"
	"github.com/mirrord-go/mirrord/internal/local/places"
	"github.com/mirrord-go/mirrord/internal/rules"
)

func (a *app) explainCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "explain",
		Short: "Say what a session would decide, and by which rule",
		Long: `explain takes the flags and the configuration of exec and says whose a path, a
connection, a name, a variable or a request would be in that session, by which rule,
and where that rule is written. It starts nothing. Where no cluster answers the rules
decide alone, and it says what is missing.`,
		Example: `  mirrord explain path /etc/app/config.yaml
  mirrord explain connect db.shop:5432
  mirrord explain request 'GET /api/items' -H 'x-user: ana'`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	c.AddCommand(
		a.explainPath(),
		a.explainConnect(),
		a.explainer("dns NAME...", "Who answers a lookup", "  mirrord explain dns db.shop",
			func(_ context.Context, cfg config.Config, names []string) (all []explain.Answer, err error) {
				search, err := a.search(cfg)
				if err != nil {
					return nil, err
				}
				for _, name := range names {
					answer, err := explain.DNS(cfg.DNS, search, name)
					if err != nil {
						return nil, err
					}
					all = append(all, answer)
				}
				return all, nil
			}),
		a.explainer("env NAME...", "Where the value of a variable comes from", "  mirrord explain env DATABASE_URL NODE_OPTIONS",
			func(_ context.Context, cfg config.Config, names []string) (all []explain.Answer, err error) {
				e, err := cfg.Variables(os.ReadFile)
				for _, name := range names {
					if err == nil {
						all = append(all, explain.Env(e, name))
					}
				}
				return all, err
			}),
		a.explainRequest(),
	)
	return c
}

// explainer makes one command of explain.
func (a *app) explainer(use, short, example string, ask func(context.Context, config.Config, []string) ([]explain.Answer, error)) *cobra.Command {
	c := &cobra.Command{Use: use, Short: short, Example: example, Args: cobra.MinimumNArgs(1)}
	settings := sessionFlags(c.Flags(), "header") // that of a request
	wanted := jsonWanted(c)
	c.RunE = func(_ *cobra.Command, args []string) error {
		asJSON, err := wanted()
		if err != nil {
			return err
		}
		ctx, stop := interruptible()
		defer stop()
		sources, err := a.sources(settings)
		if err != nil {
			return err
		}
		cfg, _, err := config.Load(sources)
		if err != nil {
			return err
		}
		answers, err := ask(ctx, cfg, args)
		if err != nil {
			return err
		}
		shown, _, err := config.Show(sources, false)
		if err != nil {
			return err
		}
		written := map[string]string{}
		for _, s := range shown {
			written[s.Key] = s.From
		}
		return printAnswers(explain.Placed(answers, written), asJSON)
	}
	return c
}

func printAnswers(answers []explain.Answer, asJSON bool) error {
	if asJSON {
		return monitor.WriteJSON(os.Stdout, answers, "  ")
	}
	var last explain.File
	for _, a := range answers {
		fmt.Printf("%s: %s\n  %s\n", monitor.Clean(a.Question), monitor.Clean(a.Where), monitor.Clean(a.Why))
		if a.Note != "" {
			fmt.Printf("  %s\n", monitor.Clean(a.Note))
		}
		if f := a.File; f != nil && (f.How != last.How || f.Name != last.Name) { // once a path
			last = *f
			fmt.Printf("  %s\n  this machine has %s there; the target was %s\n", monitor.Clean(f.How), f.Here, f.Target)
		}
	}
	return nil
}

func (a *app) explainPath() (c *cobra.Command) {
	c = a.explainer("path [flags] PATH... [-- COMMAND ARGS...]", "Whose a file is",
		"  mirrord explain path /etc/hosts /app/config.yaml\n  mirrord explain path /srv/tool/lib/x.conf -- /srv/tool/bin/run serve",
		func(ctx context.Context, cfg config.Config, paths []string) ([]explain.Answer, error) {
			var command []string
			if n := c.ArgsLenAtDash(); n >= 0 {
				paths, command = paths[:n], paths[n:]
			}
			if len(paths) == 0 {
				return nil, failure.Usage("explain-malformed", "there is no path to explain", "mirrord explain path /etc/hosts -- python main.py", "what follows -- is the command")
			}
			return a.paths(ctx, cfg, paths, command)
		})
	c.Long = `path says whose files are, for reading and for writing, what the first write does,
whether this machine has such a file, and whether it is mounted from this machine at
native speed or served path by path. The target is not asked what it has.
What a command needs is
local wherever it is: its program's installation. For a program outside of PATH
name the command behind --, as for exec; it is not started.`
	return c
}

// paths explains paths of a session that runs command; nil is any.
func (a *app) paths(ctx context.Context, cfg config.Config, paths, command []string) (all []explain.Answer, err error) {
	dir, err := os.Getwd()
	if err != nil {
		return nil, err
	}
	at := places.Of(command, os.Environ(), dir)
	t, err := a.target(ctx, cfg)
	if a.unasked(err, "what is mounted in the target is not known") {
		t, err = &kube.Target{}, nil
	}
	if err != nil {
		return nil, err
	}
	at.Volumes = t.Volumes
	f, err := rules.NewFiles(cfg.FilesRules(), at)
	if err != nil {
		return nil, err
	}
	m := explain.Machine{Served: places.Served(cfg.FilesRules()), Plan: places.Plan(f), Lstat: func(p string) (fs.FileMode, bool) {
		fi, err := os.Lstat(p)
		if err != nil {
			return 0, false
		}
		return fi.Mode(), true
	}}
	for _, p := range paths {
		if !filepath.IsAbs(p) {
			p = filepath.Join(dir, p)
		}
		all = append(all, explain.Path(f, m, filepath.Clean(p))...)
	}
	return all, nil
}

// target asks the cluster about the target, and this machine about one that is
// here. Of no target there is nothing to know.
func (a *app) target(ctx context.Context, cfg config.Config) (*kube.Target, error) {
	if err := a.chooseTarget(ctx, &cfg); err != nil {
		return nil, err
	}
	if text, here := cfg.Process(); here {
		pid, err := processID(text)
		if err != nil {
			return nil, err
		}
		mounts, err := processMounts(pid)
		return &kube.Target{Volumes: mounts}, err
	}
	if cfg.Targetless() {
		return &kube.Target{Targetless: true}, nil
	}
	cluster, err := a.cluster(cfg)
	if err != nil {
		return nil, err
	}
	defer cluster.Close()
	return cluster.Resolve(ctx, cfg.Target)
}

// cluster is the one that cfg means. It is not asked anything yet.
func (a *app) cluster(cfg config.Config) (*kube.Cluster, error) {
	options, err := clusterOptions(a.version, cfg)
	if err != nil {
		return nil, err
	}
	return kube.Connect(options)
}

// search is the search list that a target in the cluster is taken to have;
// with dns off names are not the target's.
func (a *app) search(cfg config.Config) ([]string, error) {
	if _, here := cfg.Process(); here || cfg.Targetless() || cfg.DNS.Local {
		return nil, nil
	}
	cluster, err := a.cluster(cfg)
	if a.unasked(err, "names are taken as they are written") {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer cluster.Close()
	return explain.Search(cluster.Namespace()), nil
}

// unasked reports whether err says that there is no cluster to ask: then the rules
// decide alone, and it is said what is missing.
func (a *app) unasked(err error, missing string) bool {
	var f *failure.Error
	if !errors.As(err, &f) || f.Code != "no-kubeconfig" && f.Code != "cluster-unreachable" {
		return false
	}
	a.monitor(false, false).Show(event.Event{Level: event.Warning, Code: "explain-unasked", Text: f.What + "; " + missing})
	return true
}

func (a *app) explainConnect() *cobra.Command {
	network := "tcp"
	c := a.explainer("connect {HOST:PORT | /PATH | unix:@NAME}...", "Where a connection goes", "  mirrord explain connect localhost:5432 db.shop:5432\n  mirrord explain connect /var/run/app.sock\n  mirrord explain connect --udp 10.0.0.1:8125",
		func(_ context.Context, cfg config.Config, addresses []string) (all []explain.Answer, err error) {
			o, err := rules.NewOutgoing(cfg.Outgoing)
			if err != nil {
				return nil, err
			}
			search, err := a.search(cfg)
			if err != nil {
				return nil, err
			}
			for _, address := range addresses {
				answer, err := explain.Connect(o, search, network, address)
				if err != nil {
					return nil, err
				}
				all = append(all, answer)
			}
			return all, nil
		})
	c.Flags().BoolFunc("udp", "by UDP instead of TCP", func(string) error { network = "udp"; return nil })
	return c
}

func (a *app) explainRequest() *cobra.Command {
	var headers []string
	var port uint16
	var body, client, serverName string
	c := a.explainer("request 'METHOD /PATH'", "Who answers a request that reaches the target", "  mirrord explain request 'GET /api/items?id=1' -H 'x-user: ana' --port 8080",
		func(ctx context.Context, cfg config.Config, lines []string) (all []explain.Answer, err error) {
			in, err := rules.NewIncoming(cfg.Incoming, cfg.Targetless())
			if err != nil {
				return nil, err
			}
			t := &kube.Target{} // nobody probes a process of this machine
			if _, here := cfg.Process(); !here {
				t, err = a.target(ctx, cfg)
				if a.unasked(err, "which requests are the kubelet's probes is not known") {
					t, err = &kube.Target{}, nil
				}
				if err != nil {
					return nil, err
				}
			}
			sent := []byte(body)
			if name, file := strings.CutPrefix(body, "@"); file {
				if sent, err = os.ReadFile(name); err != nil {
					return nil, failure.Usage("explain-malformed", "the body cannot be read", "mirrord explain request 'POST /api' --body '{\"id\": 7}'", "%v", err)
				}
			}
			var from netip.Addr
			if client != "" {
				if from, err = netip.ParseAddr(client); err != nil {
					return nil, failure.Usage("explain-malformed", fmt.Sprintf("%q is no address of a client", client), "mirrord explain request 'GET /api' --client 10.0.0.1", "%v", err)
				}
			}
			for _, line := range lines {
				answer, err := explain.Request(in, probePaths(t), port, explain.Sender{Client: from, ServerName: serverName}, line, headers, sent)
				if err != nil {
					return nil, err
				}
				all = append(all, answer)
			}
			return all, nil
		})
	c.Flags().StringArrayVarP(&headers, "header", "H", nil, "a header of the request: 'Name: value'; may be repeated")
	c.Flags().StringVar(&body, "body", "", "the request's body, without its coding; @FILE: what is in a file")
	c.Flags().StringVar(&client, "client", "", "the client's address")
	c.Flags().StringVar(&serverName, "sni", "", "the server's name that the client asks for under TLS")
	c.Flags().Uint16VarP(&port, "port", "p", 80, "port that the program listens on")
	return c
}
