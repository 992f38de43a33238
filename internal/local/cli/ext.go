package cli

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/mirrord-go/mirrord/internal/config"
	"github.com/mirrord-go/mirrord/internal/debugger/jetbrains"
	"github.com/mirrord-go/mirrord/internal/event"
	"github.com/mirrord-go/mirrord/internal/failure"
)

// extCommand is of editors. By itself it is what mirrord's own plugins run, for which
// there is no use here.
func (a *app) extCommand() *cobra.Command {
	c := &cobra.Command{
		Use:     "ext",
		Short:   "Write what an IDE needs to run commands in a session",
		Example: "  mirrord ext jetbrains -t deployment/shop --name Shop -- npm start",
		Args:    cobra.ArbitraryArgs,
		RunE: func(*cobra.Command, []string) error {
			return failure.Usage("command-elsewhere", `this mirrord has no command "ext"`, containerExt.do, "%s", containerExt.why)
		},
	}
	c.AddCommand(a.jetbrainsCommand())
	return c
}

func (a *app) jetbrainsCommand() *cobra.Command {
	var settings map[string]config.Setting
	var name, dir string
	c := &cobra.Command{
		Use:   "jetbrains [flags] -- COMMAND [ARGS...]",
		Short: "Write run configurations of JetBrains' IDEs",
		Long: `jetbrains writes run configurations into the directory .run, where JetBrains' IDEs
(IntelliJ IDEA, GoLand, PyCharm, WebStorm, RubyMine, CLion, Rider) look for them: one
that runs COMMAND in a session with these flags, and, where COMMAND says that it waits
for a debugger, one that attaches to it. A file that is there already is not changed,
unless mirrord wrote it.`,
		Example: `  mirrord ext jetbrains -t deployment/shop --name Shop -- npm start
  mirrord ext jetbrains -t deployment/shop --steal -- node --inspect-brk server.js
  mirrord ext jetbrains -t pod/shop-7d4b9 -- java -agentlib:jdwp=transport=dt_socket,server=y,suspend=y,address=5005 -jar shop.jar`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			working, err := os.Getwd()
			if err != nil {
				return failure.Wrap(err, "no-working-directory", "the working directory cannot be told", "cd to a directory that exists")
			}
			if _, _, err := a.configuration(settings, os.Environ(), working); err != nil {
				return err
			}
			if name == "" {
				name = "mirrord " + filepath.Base(args[0])
			}
			front := append(append([]string{self(), "exec"}, sessionArgs(cmd.Flags(), working)...), "--")
			return a.writeRunConfigurations(dir, jetbrains.Make(name, front, args))
		},
	}
	c.Flags().SetInterspersed(false)
	settings = sessionFlags(c.Flags())
	c.Flags().StringVar(&name, "name", "", "name in the IDE's list (default: mirrord and the program's)")
	c.Flags().StringVar(&dir, "dir", ".run", "directory to write into")
	return c
}

// writeRunConfigurations writes all, or none if one would replace a file of somebody's.
func (a *app) writeRunConfigurations(dir string, m jetbrains.Made) error {
	for _, c := range m.Configurations {
		old, err := os.ReadFile(filepath.Join(dir, c.File))
		if err == nil && !jetbrains.Own(old) {
			f := failure.New("run-configuration-there", fmt.Sprintf("%s is there, and is not mirrord's", filepath.Join(dir, c.File)), "give another name: --name NAME", "it would be replaced")
			f.Exit = failure.ExitUsage
			return f
		}
	}
	show := a.monitor(false, false).Show
	for _, c := range m.Configurations {
		file := filepath.Join(dir, c.File)
		err := os.MkdirAll(dir, 0o755)
		if err == nil {
			err = os.WriteFile(file, c.XML, 0o644)
		}
		if err != nil {
			return failure.Wrap(err, "run-configuration-unwritable", fmt.Sprintf("%s cannot be written", file), "name a directory that you may write: --dir DIR")
		}
		show(event.Event{Level: event.Info, Code: "run-configuration", Text: fmt.Sprintf("made %s: %q in the IDE's list", file, c.Name), Facts: map[string]string{"path": file}})
	}
	for _, n := range m.Notes {
		show(event.Event{Level: event.Info, Code: "run-configuration-note", Text: n})
	}
	return nil
}
