package cli

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/mirrord-go/mirrord/internal/config"
	"github.com/mirrord-go/mirrord/internal/event"
	"github.com/mirrord-go/mirrord/internal/failure"
	"github.com/mirrord-go/mirrord/internal/local/attach"
	"github.com/mirrord-go/mirrord/internal/local/diagnose"
	"github.com/mirrord-go/mirrord/internal/local/doctor"
	"github.com/mirrord-go/mirrord/internal/local/journal"
	"github.com/mirrord-go/mirrord/internal/local/kube"
	"github.com/mirrord-go/mirrord/internal/local/monitor"
	"github.com/mirrord-go/mirrord/internal/protocol"
)

func (a *app) diagnoseCommand() *cobra.Command {
	var settings map[string]config.Setting
	var output string
	var asJSON bool
	c := &cobra.Command{
		Use:   "diagnose [flags]",
		Short: "Pack what helps to find out why a session failed",
		Long: `diagnose packs into one archive what somebody needs who helps you: versions, the
configuration that holds, what doctor says, the events of your last sessions and the
logs of your agents that still run. It takes the flags and the configuration of exec.

Nothing is sent anywhere. Values of variables, values of headers, queries and bodies in filters
and the credentials of the kubeconfig are taken out. Names stay: of targets, namespaces,
hosts, paths and addresses. Look through the archive before you give it away:
tar xzf FILE. Without a cluster it holds what there is on this machine.`,
		Example: `  mirrord diagnose
  mirrord diagnose -t deployment/shop -n staging -o shop.tar.gz
  mirrord diagnose --json`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			ctx, stop := interruptible()
			defer stop()
			return a.diagnose(ctx, settings, output, asJSON)
		},
	}
	settings = sessionFlags(c.Flags())
	c.Flags().StringVarP(&output, "output", "o", "", "file to write (default: mirrord-diagnose-TIME.tar.gz here)")
	c.Flags().BoolVar(&asJSON, "json", false, "print the list of what is packed as one JSON object")
	return c
}

func (a *app) diagnose(ctx context.Context, settings map[string]config.Setting, output string, asJSON bool) error {
	now := time.Now()
	name := "mirrord-diagnose-" + now.Format("20060102-150405")
	if output == "" {
		output = name + ".tar.gz"
	}
	b, err := a.gather(ctx, settings)
	if err != nil {
		return err
	}
	if err := writeWhole(output, 0o600, func(f *os.File) error { return b.Write(f, name, now) }); err != nil {
		return failure.Wrap(err, "diagnose-not-written", "the archive cannot be written there", "choose another place: mirrord diagnose -o /tmp/mirrord.tar.gz")
	}
	files, left := b.List()
	if asJSON {
		return monitor.WriteJSON(os.Stdout, map[string]any{"archive": output, "files": files, "left_out": left}, "  ")
	}
	fmt.Printf("packed into %s\n", monitor.Clean(output))
	for _, f := range files {
		fmt.Printf("  %-28s %7d bytes  %s\n", monitor.Clean(f.Name), f.Bytes, f.About)
	}
	for _, l := range left {
		fmt.Printf("left out: %s: %s\n", monitor.Clean(l.What), monitor.Clean(strings.ReplaceAll(l.Why, "\n", "; ")))
	}
	fmt.Println("taken out: values of variables, of headers, of queries and of bodies, credentials of the kubeconfig")
	fmt.Println("still in it: names of targets, namespaces, users and hosts, addresses and paths; look through it before you give it away")
	return nil
}

// gather collects what there is. An error says that ctx has ended.
func (a *app) gather(ctx context.Context, settings map[string]config.Setting) (*diagnose.Bundle, error) {
	b := &diagnose.Bundle{}
	dir, err := os.Getwd()
	if err != nil {
		dir = "/"
	}
	cfg, notes, err := a.configuration(settings, os.Environ(), dir)
	if err != nil {
		// Its mistakes may quote what should not be in here.
		b.Leave("config.json", "the configuration cannot be used ("+failure.From(err).Code+"): mirrord exec says why")
		cfg = config.Config{}
	} else {
		redacted, secrets := cfg.Redacted()
		b.Hide(secrets...)
		b.AddJSON("config.json", "the configuration that holds, and what is said about it", map[string]any{"config": redacted, "notes": notes})
	}
	if err := a.chooseTarget(ctx, &cfg); err != nil {
		b.Leave("the target", failure.From(err).Error())
		cfg.Target = ""
	}
	options, err := clusterOptions(a.version, cfg)
	image := options.Image
	if err != nil {
		image = failure.From(err).Error()
	}
	_, local := cfg.Process()
	b.Hide(kube.Secrets(options)...)
	versions := map[string]any{"mirrord": a.version, "go": runtime.Version(), "system": runtime.GOOS + "/" + runtime.GOARCH,
		"machine": diagnose.Machine(), "agent_image": image, "protocol": protocol.Spoken()}

	a.examine(ctx, b, cfg, options, local)
	if dir := journal.Dir(os.Getenv); dir == "" {
		b.Leave("sessions", "there is neither XDG_STATE_HOME nor HOME")
	} else {
		sessions(b, dir)
	}
	if local {
		b.Leave("agent", "the target is on this machine")
	} else {
		versions["cluster"] = agents(ctx, b, options)
	}
	b.AddJSON("versions.json", "versions of mirrord, machine and cluster, name of the agent's image", versions)
	return b, ctx.Err()
}

// examine packs what doctor says.
func (a *app) examine(ctx context.Context, b *diagnose.Bundle, cfg config.Config, options kube.Options, local bool) {
	target := cfg.Target
	if cfg.Targetless() {
		target = ""
	}
	checks := []doctor.Check{}
	ok, err := doctor.Run(ctx, doctor.Options{Kube: options, Target: target, Local: local, Features: features(cfg),
		Show: func(c doctor.Check) { checks = append(checks, c) }})
	if err != nil {
		b.Leave("doctor.json", err.Error())
		return
	}
	b.AddJSON("doctor.json", "what doctor says", map[string]any{"ok": ok, "checks": checks})
}

// sessions packs the events of the last sessions.
func sessions(b *diagnose.Bundle, dir string) {
	files, err := journal.Files(dir)
	if len(files) == 0 {
		why := "no session has left a journal in " + dir
		if err != nil && !os.IsNotExist(err) {
			why = err.Error()
		}
		b.Leave("sessions", why)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			b.Leave("sessions/"+filepath.Base(file), err.Error())
			continue
		}
		b.Add("sessions/"+filepath.Base(file), "events of a session", text)
	}
}

// agents packs the logs of the user's agents, and gives the cluster's version.
func agents(ctx context.Context, b *diagnose.Bundle, options kube.Options) (version string) {
	cluster, err := kube.Connect(options)
	if err != nil {
		b.Leave("agent", failure.From(err).Error())
		return ""
	}
	defer cluster.Close()
	if version, err = cluster.Version(ctx); err != nil {
		b.Leave("agent", failure.From(err).Error())
		return ""
	}
	logs, err := cluster.Logs(ctx, attach.UserName())
	for _, l := range logs {
		b.Add("agent/"+l.Pod+".log", "log of an agent that is there now", l.Text)
	}
	switch {
	case err != nil:
		b.Leave("agent", failure.From(err).Error())
	case len(logs) == 0:
		b.Leave("agent", "no agent of "+attach.UserName()+" is in namespace "+cluster.AgentNamespace()+" now")
	}
	return version
}

// keepJournal begins the journal of a session; nil where there is none.
func (a *app) keepJournal(cfg config.Config) *journal.Journal {
	dir := journal.Dir(os.Getenv)
	if dir == "" || os.Getenv("MIRRORD_JOURNAL") == "off" {
		return nil
	}
	_, secrets := cfg.Redacted()
	// Of the login only what is in the kubeconfig now: it may be another when the
	// journal is packed.
	secrets = append(secrets, kube.Secrets(kube.Options{Kubeconfig: cfg.Kubeconfig})...)
	j, err := journal.Open(dir, diagnose.Hider(secrets))
	if err != nil {
		return nil
	}
	j.Note(event.Event{Level: event.Step, Code: "session", Text: "mirrord " + a.version,
		Facts: map[string]string{"target": cfg.Target, "namespace": cfg.Namespace, "context": cfg.Context, "image": cfg.Agent.Image}})
	return j
}
