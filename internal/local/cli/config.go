package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/mirrord-go/mirrord/internal/config"
	"github.com/mirrord-go/mirrord/internal/event"
	"github.com/mirrord-go/mirrord/internal/failure"
	"github.com/mirrord-go/mirrord/internal/local/monitor"
)

func (a *app) configCommand() *cobra.Command {
	c := &cobra.Command{
		Use:     "config",
		Short:   "Show what a configuration means, and what one may hold",
		Example: "  mirrord config show\n  mirrord config schema > .mirrord/schema.json",
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	c.AddCommand(a.configShow(), a.configSchema())
	return c
}

// jsonWanted adds -o json and --json to a command.
func jsonWanted(c *cobra.Command) func() (bool, error) {
	asJSON := c.Flags().Bool("json", false, "print JSON")
	output := c.Flags().StringP("output", "o", "", "json: the same as --json")
	_ = c.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"json"}, cobra.ShellCompDirectiveNoFileComp))
	return func() (bool, error) {
		if *output != "" && *output != "json" {
			return false, failure.Usage("usage", fmt.Sprintf("%q is no form of output", *output), c.CommandPath()+" -o json", "-o takes json")
		}
		return *asJSON || *output == "json", nil
	}
}

func (a *app) configShow() *cobra.Command {
	var settings map[string]config.Setting
	var all bool
	c := &cobra.Command{
		Use:   "show",
		Short: "Print what holds for each key, and where it was given",
		Long: `show takes the flags and the configuration of exec and prints what was given, key by
key, with the place: a line of the file, a variable or a flag. Values of variables are
hidden. It starts nothing.`,
		Example: "  mirrord config show --steal\n  mirrord config show --all -o json",
		Args:    cobra.NoArgs,
	}
	wanted := jsonWanted(c)
	c.RunE = func(*cobra.Command, []string) error {
		asJSON, err := wanted()
		if err != nil {
			return err
		}
		sources, err := a.sources(settings)
		if err != nil {
			return err
		}
		shown, notes, err := config.Show(sources, all)
		if err != nil {
			return err
		}
		if asJSON {
			return monitor.WriteJSON(os.Stdout, shown, "  ")
		}
		a.tell(notes)
		return printShown(shown, all)
	}
	settings = sessionFlags(c.Flags())
	c.Flags().BoolVar(&all, "all", false, "the defaults too")
	return c
}

// tell shows what a person should know about a configuration that works.
func (a *app) tell(notes []event.Event) {
	m := a.monitor(false, true)
	for _, n := range notes {
		m.Show(n)
	}
}

func printShown(shown []config.Shown, all bool) error {
	if len(shown) == 0 {
		fmt.Println("nothing is configured; with --all the defaults are shown")
	}
	table := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	for _, s := range shown {
		value, from := fmt.Sprint(s.Value), s.From
		if from != config.FromDefault {
			text, err := json.Marshal(s.Value)
			if err != nil {
				return err
			}
			value = string(text)
		}
		if s.Ignored {
			from += " (ignored)"
		}
		fmt.Fprintf(table, "%s\t%s\t%s\n", s.Key, monitor.Clean(value), monitor.Clean(from))
	}
	return table.Flush()
}

func (a *app) configSchema() *cobra.Command {
	var up bool
	c := &cobra.Command{
		Use:   "schema",
		Short: "Print the JSON schema of configurations, for editors",
		Long: `schema prints a description of all keys in the words of JSON Schema. Editors complete
and check by it: VS Code and IntelliJ where the file begins with
  {"$schema": "./schema.json", …}
and for YAML with a first line  # yaml-language-server: $schema=./schema.json`,
		Example: "  mirrord config schema > .mirrord/schema.json\n  mirrord config schema --up > .mirrord/up.json",
		Args:    cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			schema := config.Schema()
			if up {
				schema = config.ServicesSchema()
			}
			return monitor.WriteJSON(os.Stdout, schema, "  ")
		},
	}
	c.Flags().BoolVar(&up, "up", false, "of files for mirrord up")
	return c
}

// verdict is what verify-config says in JSON.
type verdict struct {
	Type     string         `json:"type"` // Success or Fail
	Config   *verdictTarget `json:"config,omitempty"`
	Warnings []string       `json:"warnings,omitzero"`
	Notes    []string       `json:"notes,omitempty"` // what has no effect, and need not worry anybody
	Errors   []string       `json:"errors,omitempty"`
	Types    []string       `json:"compatible_target_types,omitempty"`
	Resolved []config.Shown `json:"resolved_config,omitempty"`
}

// verdictTarget is the target as the configuration has it; null: none.
type verdictTarget struct {
	Path      *string `json:"path"`
	Namespace *string `json:"namespace"`
}

func (a *app) verifyCommand() *cobra.Command {
	var settings map[string]config.Setting
	var ide, resolved bool
	c := &cobra.Command{
		Use:   "verify-config [FILE]",
		Short: "Check a configuration",
		Long: `verify-config checks a configuration, with the variables and flags that exec would
take, and tells of all mistakes with their places; the exit code is 2 then. Without
FILE it is the one that exec would take. It starts nothing and asks nobody.`,
		Example: "  mirrord verify-config .mirrord/mirrord.json\n  mirrord verify-config --json --ide shop.yaml",
		Args:    cobra.MaximumNArgs(1),
	}
	wanted := jsonWanted(c)
	c.RunE = func(_ *cobra.Command, args []string) error {
		asJSON, err := wanted()
		if err != nil {
			return err
		}
		if len(args) == 1 {
			settings["MIRRORD_CONFIG_FILE"] = config.Setting{Value: args[0], Flag: "config-file"}
		}
		sources, err := a.sources(settings)
		if err != nil {
			return err
		}
		sources.TargetLater = ide
		v, notes, err := verify(sources, resolved)
		if asJSON {
			if f, ok := errors.AsType[*failure.Error](err); ok {
				a.code = f.Exit
			}
			return monitor.WriteJSON(os.Stdout, v, "  ")
		}
		if err != nil {
			return err
		}
		a.tell(notes)
		fmt.Println("the configuration has no mistakes")
		return nil
	}
	settings = sessionFlags(c.Flags())
	c.Flags().BoolVar(&ide, "ide", false, "a target may still be chosen: none is no mistake")
	c.Flags().BoolVar(&resolved, "resolved", false, "with --json: what holds for each key, too")
	return c
}

// verify makes the verdict. The error is that of a configuration with mistakes.
func verify(s config.Sources, resolved bool) (verdict, []event.Event, error) {
	cfg, notes, err := config.Load(s)
	if err == nil {
		err = checkTarget(cfg)
	}
	if err != nil {
		v := verdict{Type: "Fail"}
		if f, ok := errors.AsType[*failure.Error](err); ok && f.Code == "config-invalid" {
			v.Errors = strings.Split(f.Why, "\n")
		} else {
			v.Errors = []string{err.Error()}
		}
		return v, nil, err
	}
	v := verdict{Type: "Success", Config: &verdictTarget{}, Warnings: []string{}, Types: config.TargetKinds()}
	if cfg.Target != "" {
		v.Config.Path = &cfg.Target
	}
	if cfg.Namespace != "" {
		v.Config.Namespace = &cfg.Namespace
	}
	if cfg.Incoming.Mode == "steal" || cfg.Agent.Ephemeral {
		v.Types = slices.DeleteFunc(v.Types, func(kind string) bool { return kind == "targetless" || cfg.Agent.Ephemeral && kind == "process" })
	}
	for _, n := range notes {
		switch n.Level {
		case event.Warning:
			v.Warnings = append(v.Warnings, n.Text)
		case event.Info:
			v.Notes = append(v.Notes, n.Text)
		}
	}
	if resolved {
		v.Resolved, _, err = config.Show(s, true)
	}
	return v, notes, err
}
