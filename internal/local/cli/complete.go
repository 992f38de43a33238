package cli

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/mirrord-go/mirrord/internal/config"
	"github.com/mirrord-go/mirrord/internal/local/kube"
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
// kubeconfig knows, and where no file's name can follow.
func (a *app) completions(root *cobra.Command) {
	for _, c := range root.Commands() {
		a.completions(c)
		if c.ValidArgsFunction == nil && c.Args != nil && c.Args(c, nil) == nil && c.Args(c, []string{"file"}) != nil {
			c.ValidArgsFunction = cobra.NoFileCompletions
		}
		if c.Flags().Lookup("fs-mode") != nil {
			_ = c.RegisterFlagCompletionFunc("fs-mode", cobra.FixedCompletions([]string{"read", "write", "local", "local-with-overrides"}, cobra.ShellCompDirectiveNoFileComp))
		}
		for flag, values := range map[string]func(context.Context, config.Config) []string{
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
				if cfg, err := a.completed(v.settings); err == nil {
					for _, name := range values(ctx, cfg) {
						if strings.HasPrefix(name, begun) {
							fitting = append(fitting, name)
						}
					}
				}
				return fitting, cobra.ShellCompDirectiveNoFileComp
			})
		}
	}
}

func (a *app) targetNames(ctx context.Context, cfg config.Config) []string {
	return remembered("targets", cfg, func() []string {
		found, _, err := a.inventory(ctx, cfg, nil, false)
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

func (a *app) namespaceNames(ctx context.Context, cfg config.Config) []string {
	return remembered("namespaces", cfg, func() []string {
		cluster, err := a.cluster(cfg)
		if err != nil {
			return nil
		}
		defer cluster.Close()
		return cluster.Namespaces(ctx)
	})
}

func (a *app) contextNames(_ context.Context, cfg config.Config) []string {
	names, _ := kube.Contexts(kube.Options{Kubeconfig: cfg.Kubeconfig})
	return names
}

// completed is the configuration of a command line that is still being written,
// or that needs no target.
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
func remembered(what string, cfg config.Config, ask func() []string) []string {
	file := ""
	if dir, err := os.UserCacheDir(); err == nil {
		of, _ := json.Marshal([]string{what, cfg.Kubeconfig, os.Getenv("KUBECONFIG"), cfg.Context, cfg.Namespace})
		file = filepath.Join(dir, "mirrord", "completion", fmt.Sprintf("%x", sha256.Sum256(of)))
	}
	var old []string
	if text, err := os.ReadFile(file); err == nil && json.Unmarshal(text, &old) == nil {
		if fi, err := os.Stat(file); err == nil && time.Since(fi.ModTime()) < completionLife {
			return old
		}
	}
	names := ask()
	if names == nil { // which is remembered too: else each Tab would wait for a cluster that is away
		names = old
	}
	if text, err := json.Marshal(names); err == nil && file != "" && os.MkdirAll(filepath.Dir(file), 0o700) == nil {
		_ = writeWhole(file, 0o600, func(f *os.File) error { _, err := f.Write(text); return err })
	}
	return names
}
