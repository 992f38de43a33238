package cli

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/mirrord-go/mirrord/internal/config"
	"github.com/mirrord-go/mirrord/internal/failure"
	"github.com/mirrord-go/mirrord/internal/local/kube"
)

// rbacFlags are the flags of rbac beside those of a session.
type rbacFlags struct {
	settings                      map[string]config.Setting
	output, name                  string
	users, groups, serviceAccount []string
}

func (a *app) rbacCommand() *cobra.Command {
	var f rbacFlags
	c := &cobra.Command{
		Use:   "rbac [flags]",
		Short: "Print the role that a session needs in the cluster",
		Long: `rbac prints the smallest role with which the session of these flags and this
configuration can run, and a binding for whoever is named; two of each where the agent
has a namespace of its own. It asks the cluster nothing, but for what -t pick shows.

A comment stands above each rule that a session can do without, and says what it lacks
then.`,
		Example: `  mirrord rbac -t deployment/shop -n staging --group developers | kubectl apply -f -
  mirrord rbac -t pod/shop -n staging --ephemeral-container --serviceaccount ci:runner
  mirrord rbac -n staging -o json`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			text, err := a.rbac(f)
			if err == nil {
				_, err = fmt.Print(text)
			}
			return err
		},
	}
	f.settings = sessionFlags(c.Flags())
	fl := c.Flags()
	fl.StringVarP(&f.output, "output", "o", kube.FormYAML, "yaml or json")
	_ = c.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{kube.FormYAML, kube.FormJSON}, cobra.ShellCompDirectiveNoFileComp))
	fl.StringVar(&f.name, "name", "mirrord", "name of the role and its binding")
	fl.StringArrayVar(&f.users, "user", nil, "user who gets it; can be given again")
	fl.StringArrayVar(&f.groups, "group", nil, "group that gets it; can be given again")
	fl.StringArrayVar(&f.serviceAccount, "serviceaccount", nil, "service account that gets it: NAMESPACE:NAME; can be given again")
	return c
}

func (a *app) rbac(f rbacFlags) (string, error) {
	if f.output != kube.FormYAML && f.output != kube.FormJSON {
		return "", failure.Usage("usage", fmt.Sprintf("--output %q is no form", f.output), "mirrord rbac -o json", "there are yaml and json")
	}
	dir, err := os.Getwd()
	if err != nil {
		return "", failure.Wrap(err, "no-working-directory", "the working directory cannot be told", "cd to a directory that exists")
	}
	cfg, _, err := a.configuration(f.settings, os.Environ(), dir)
	if err != nil {
		return "", err
	}
	ctx, stop := interruptible()
	defer stop()
	if err := a.chooseTarget(ctx, &cfg); err != nil {
		return "", err
	}
	if _, local := cfg.Process(); local {
		return "", failure.Usage("no-cluster-needed", "a target on this machine needs no permissions in a cluster", "name one of a cluster: mirrord rbac -t pod/NAME", "the target is %s", cfg.Target)
	}
	namespace, err := kube.TargetNamespace(kube.Options{Kubeconfig: cfg.Kubeconfig, Context: cfg.Context, Namespace: cfg.Namespace})
	if err != nil {
		return "", err
	}
	var subjects []kube.Subject
	for _, name := range f.users {
		subjects = append(subjects, kube.Subject{Kind: "User", Name: name})
	}
	for _, name := range f.groups {
		subjects = append(subjects, kube.Subject{Kind: "Group", Name: name})
	}
	for _, text := range f.serviceAccount {
		s, err := kube.ParseServiceAccount(text, namespace)
		if err != nil {
			return "", err
		}
		subjects = append(subjects, s)
	}
	uses := kube.Uses{Target: cfg.Target, Namespace: namespace, AgentNamespace: cfg.Agent.Namespace, InPod: cfg.Agent.Ephemeral}
	return kube.Manifest(f.output, f.name, kube.Roles(uses.Needs()), subjects)
}
