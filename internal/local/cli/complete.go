package cli

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/mirrord-go/mirrord/internal/config"
	"github.com/mirrord-go/mirrord/internal/local/kube"
	"github.com/mirrord-go/mirrord/internal/local/roster"
)

const (
	// completionTime bounds what the cluster is waited for: nobody waits longer
	// after a Tab. Older answers stand in.
	completionTime = 1500 * time.Millisecond
	// completionLife is how long an answer is given again without asking: the
	// Tabs of one command line.
	completionLife = 10 * time.Second
)

// completions tells the shell the values of flags that the cluster or the
// kubeconfig knows.
func (a *app) completions(root *cobra.Command) {
	for _, c := range root.Commands() {
		a.completions(c)
		for flag, values := range map[string]func(context.Context, map[string]config.Setting) []string{
			"target": a.targetNames, "target-namespace": a.namespaceNames, "namespace": a.namespaceNames, "context": a.contextNames,
		} {
			f := c.Flags().Lookup(flag)
			if f == nil {
				continue
			}
			v, ok := f.Value.(*flagValue)
			if !ok {
				continue
			}
			_ = c.RegisterFlagCompletionFunc(flag, func(_ *cobra.Command, _ []string, begun string) ([]string, cobra.ShellCompDirective) {
				ctx, stop := interruptible()
				defer stop()
				ctx, cancel := context.WithTimeout(ctx, completionTime)
				defer cancel()
				var fitting []string
				for _, name := range values(ctx, v.settings) {
					if strings.HasPrefix(name, begun) {
						fitting = append(fitting, name)
					}
				}
				return fitting, cobra.ShellCompDirectiveNoFileComp
			})
		}
	}
}

func (a *app) targetNames(ctx context.Context, settings map[string]config.Setting) []string {
	return a.remembered("targets", settings, func() []string {
		found, _, err := a.inventory(ctx, settings, nil, false)
		if err != nil {
			return nil
		}
		names := []string{}
		for _, l := range found.Targets {
			if l.Available {
				names = append(names, l.Path+"\t"+fmt.Sprintf("%d/%d ready", l.Ready, l.Wanted))
			}
		}
		return names
	})
}

func (a *app) namespaceNames(ctx context.Context, settings map[string]config.Setting) []string {
	return a.remembered("namespaces", settings, func() []string {
		cfg, err := a.completed(settings)
		if err != nil {
			return nil
		}
		cluster, err := a.cluster(cfg)
		if err != nil {
			return nil
		}
		defer cluster.Close()
		return cluster.Namespaces(ctx)
	})
}

// sessionIDs completes with the sessions that run and are not named yet.
func sessionIDs(_ *cobra.Command, named []string, _ string) ([]string, cobra.ShellCompDirective) {
	ids := slices.DeleteFunc(roster.IDs(sessionDirs()), func(id string) bool { return slices.Contains(named, id) })
	return ids, cobra.ShellCompDirectiveNoFileComp
}

// stoppableIDs are sessionIDs, and those of sessions without a sandbox.
func stoppableIDs(c *cobra.Command, named []string, begun string) ([]string, cobra.ShellCompDirective) {
	ids, directive := sessionIDs(c, named, begun)
	for _, st := range bareSessions() {
		if !slices.Contains(named, st.ID) {
			ids = append(ids, st.ID)
		}
	}
	return ids, directive
}

// oneSessionID is sessionIDs where one is wanted.
func oneSessionID(c *cobra.Command, named []string, begun string) ([]string, cobra.ShellCompDirective) {
	if len(named) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return sessionIDs(c, named, begun)
}

func (a *app) contextNames(_ context.Context, settings map[string]config.Setting) []string {
	cfg, err := a.completed(settings)
	if err != nil {
		return nil
	}
	names, _ := kube.Contexts(kube.Options{Kubeconfig: cfg.Kubeconfig})
	return names
}

// completed is the configuration of a command line that is still being written.
func (a *app) completed(settings map[string]config.Setting) (config.Config, error) {
	sources, err := a.sources(settings)
	if err != nil {
		return config.Config{}, err
	}
	sources.TargetLater = true
	cfg, _, err := config.Load(sources)
	return cfg, err
}

// remembered gives what ask says, or what it said last for the same cluster and
// namespace: for a short while, and where it has no answer now (nil).
func (a *app) remembered(what string, settings map[string]config.Setting, ask func() []string) []string {
	file := ""
	if cfg, err := a.completed(settings); err == nil {
		if dir, err := os.UserCacheDir(); err == nil {
			of, _ := json.Marshal([]string{what, cfg.Kubeconfig, os.Getenv("KUBECONFIG"), cfg.Context, cfg.Namespace})
			file = filepath.Join(dir, "mirrord", "completion", fmt.Sprintf("%x", sha256.Sum256(of)))
		}
	}
	var old []string
	if text, err := os.ReadFile(file); err == nil && json.Unmarshal(text, &old) == nil {
		if fi, err := os.Stat(file); err == nil && time.Since(fi.ModTime()) < completionLife {
			return old
		}
	}
	names := ask()
	if names == nil {
		return old
	}
	if text, err := json.Marshal(names); err == nil && file != "" && os.MkdirAll(filepath.Dir(file), 0o700) == nil {
		_ = writeWhole(file, 0o600, func(f *os.File) error { _, err := f.Write(text); return err })
	}
	return names
}
