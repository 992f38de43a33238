package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/mirrord-go/mirrord/internal/config"
	"github.com/mirrord-go/mirrord/internal/config/document"
	"github.com/mirrord-go/mirrord/internal/event"
	"github.com/mirrord-go/mirrord/internal/failure"
	"github.com/mirrord-go/mirrord/internal/local/kube"
	"github.com/mirrord-go/mirrord/internal/local/monitor"
	"github.com/mirrord-go/mirrord/internal/local/status"
)

// inventory is what ls prints as JSON and YAML.
type inventory struct {
	Targets    []listed `json:"targets"`
	Namespace  string   `json:"current_namespace"`
	Context    string   `json:"context,omitempty"`
	Contexts   []string `json:"contexts,omitempty"`   // the kubeconfig's
	Namespaces []string `json:"namespaces,omitempty"` // nil: they may not be listed
}

// listed is one target.
type listed struct {
	Path      string    `json:"path"`
	Kind      string    `json:"kind"`
	Available bool      `json:"available"` // a session can begin with it now
	Ready     int       `json:"ready"`
	Wanted    int       `json:"wanted"`
	Ports     []int32   `json:"ports"`
	Since     time.Time `json:"since"`
}

// Variables of editors. Flags win.
const (
	lsTypes = "MIRRORD_LS_TARGET_TYPES" // the kinds that are shown: a JSON list
	lsRich  = "MIRRORD_LS_RICH_OUTPUT"  // true: JSON is printed
)

func (a *app) lsCommand() *cobra.Command {
	var settings map[string]config.Setting
	var kinds []string
	var output string
	var all, asJSON bool
	c := &cobra.Command{
		Use:   "ls",
		Short: "List what can be a target",
		Long: `ls lists what a session can run in the context of: workloads, services and pods of the
namespace, how many of their pods are ready, and their ports. Without --all those with no
ready pod are left out.`,
		Example: "  mirrord ls\n  mirrord ls -n staging --type deployment --type pod\n  mirrord ls -o name | fzf | xargs -I T mirrord exec -t T -- python main.py",
		Args:    cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			if output == "" && (asJSON || os.Getenv(lsRich) == "true") {
				output = "json"
			}
			if !slices.Contains([]string{"", "json", "yaml", "name"}, output) {
				return failure.Usage("usage", fmt.Sprintf("%q is no form of output", output), "mirrord ls -o name", "-o takes json, yaml or name")
			}
			ctx, stop := interruptible()
			defer stop()
			if text := os.Getenv(lsTypes); text != "" && len(kinds) == 0 {
				if err := json.Unmarshal([]byte(text), &kinds); err != nil {
					return failure.Usage("usage", fmt.Sprintf("%s is no list of kinds", lsTypes), "mirrord ls --type deployment --type pod", "it is %s; %v", text, err)
				}
			}
			cfg, err := a.completed(settings)
			if err != nil {
				return err
			}
			found, notes, err := a.inventory(ctx, cfg, kinds, output == "json" || output == "yaml")
			if err != nil {
				return err
			}
			if !all {
				found.Targets = slices.DeleteFunc(found.Targets, func(l listed) bool { return !l.Available })
			}
			m := a.monitor(false, false)
			for _, n := range notes {
				m.Show(event.Event{Level: event.Warning, Code: "ls", Text: n})
			}
			return printInventory(found, output)
		},
	}
	settings = someFlags(c.Flags(), "target-namespace", "namespace", "context", "kubeconfig", "config-file", "accept-invalid-certificates")
	c.Flags().StringArrayVarP(&kinds, "type", "t", nil, "only this kind; can be given again")
	c.Flags().StringVarP(&output, "output", "o", "", "json, yaml, or name: the targets alone")
	c.Flags().BoolVar(&asJSON, "json", false, "the same as -o json")
	c.Flags().BoolVar(&all, "all", false, "also those with no ready pod")
	_ = c.RegisterFlagCompletionFunc("type", cobra.FixedCompletions(kube.Kinds(), cobra.ShellCompDirectiveNoFileComp))
	_ = c.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"json", "yaml", "name"}, cobra.ShellCompDirectiveNoFileComp))
	return c
}

// inventory asks the cluster that cfg means; with namespaces also which there are.
func (a *app) inventory(ctx context.Context, cfg config.Config, kinds []string, namespaces bool) (inventory, []string, error) {
	cluster, err := a.cluster(cfg)
	if err != nil {
		return inventory{}, nil, err
	}
	defer cluster.Close()
	names := make(chan []string, 1)
	go func() {
		if namespaces {
			names <- cluster.Namespaces(ctx)
		}
		close(names)
	}()
	all, notes, err := cluster.Inventory(ctx, kinds)
	found := inventory{Targets: []listed{}, Namespace: cluster.Namespace(), Context: cluster.Context(), Namespaces: <-names}
	if namespaces {
		found.Contexts, _ = kube.Contexts(kube.Options{Kubeconfig: cfg.Kubeconfig}) // it was read a moment ago
	}
	for _, l := range all {
		if l.Ports == nil {
			l.Ports = []int32{}
		}
		found.Targets = append(found.Targets, listed(l))
	}
	return found, notes, err
}

func printInventory(found inventory, output string) error {
	switch output {
	case "json":
		return monitor.WriteJSON(os.Stdout, found, "  ")
	case "yaml":
		text, err := document.ToYAML(found)
		if err == nil {
			_, err = os.Stdout.Write(text)
		}
		return err
	case "name":
		for _, l := range found.Targets {
			fmt.Println(monitor.Clean(l.Path))
		}
		return nil
	}
	if len(found.Targets) == 0 {
		fmt.Printf("nothing in namespace %s has a ready pod; with --all what has none is listed too\n", found.Namespace)
		return nil
	}
	table := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "TARGET\tREADY\tPORTS\tAGE")
	for _, l := range found.Targets {
		ports := make([]string, 0, len(l.Ports))
		for _, p := range l.Ports {
			ports = append(ports, strconv.Itoa(int(p)))
		}
		fmt.Fprintf(table, "%s\t%d/%d\t%s\t%s\n", monitor.Clean(l.Path), l.Ready, l.Wanted, strings.Join(ports, ","), status.Age(time.Since(l.Since)))
	}
	return table.Flush()
}
