package cli

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/mirrord-go/mirrord/internal/config"
	"github.com/mirrord-go/mirrord/internal/config/document"
	"github.com/mirrord-go/mirrord/internal/debugger/launch"
	"github.com/mirrord-go/mirrord/internal/event"
	"github.com/mirrord-go/mirrord/internal/failure"
	"github.com/mirrord-go/mirrord/internal/local/journal"
	"github.com/mirrord-go/mirrord/internal/local/monitor"
)

func (a *app) debugConfigCommand() *cobra.Command {
	var settings map[string]config.Setting
	var wanted func() (bool, error)
	var session string
	c := &cobra.Command{
		Use:   "debug-config [flags] FILE NAME",
		Short: "Print a launch configuration that debugs in a session",
		Long: `debug-config prints the launch configuration NAME of FILE, a launch.json of VS Code,
rewritten so that what it debugs runs in a session with these flags. Put what it
prints into the file, under a name of your own; FILE itself is not changed.

It knows the types cppdbg, debugpy, go, java, lldb, node, node-terminal, pwa-node and
python. Where a configuration takes a single path to a debugger or to java, a script
that runs it in a session is written to ~/.local/state/mirrord/shims, and named.
Tasks and settings that belong to it are printed after it.

With --session the program joins that session, which must run when it starts. An
editor that has the configuration in its hands gives it on stdin: FILE is - then.`,
		Example: `  mirrord debug-config -t deployment/shop .vscode/launch.json 'Run shop'
  mirrord debug-config -t deployment/shop --steal --json .vscode/launch.json 'Run shop'
  mirrord debug-config --session k3vq7a --json - 'Run shop' <launch.json`,
		Args: cobra.ExactArgs(2),
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			if len(args) != 1 || args[0] == "-" {
				return nil, cobra.ShellCompDirectiveDefault
			}
			text, err := os.ReadFile(args[0])
			if err != nil {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			root, err := launch.Parse(args[0], string(text))
			if err != nil {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return launch.Names(root), cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			asJSON, err := wanted()
			if err != nil {
				return err
			}
			if session != "" {
				if err := rulesOf(session, changedSettings(cmd)); err != nil {
					return err
				}
			}
			r, err := a.debugConfig(settings, cmd.Flags(), session, args[0], args[1])
			if err != nil {
				return err
			}
			if asJSON {
				return monitor.WriteJSON(os.Stdout, r, "  ")
			}
			return a.printDebugConfig(r)
		},
	}
	settings = sessionFlags(c.Flags())
	c.Flags().StringVar(&session, "session", "", "what is debugged joins this session, of mirrord session start")
	wanted = jsonWanted(c)
	c.Flags().Lookup("json").Usage = "print one JSON object with configuration, tasks, settings, files and notes"
	return c
}

// debugConfig rewrites a configuration and makes its files.
func (a *app) debugConfig(settings map[string]config.Setting, fl *pflag.FlagSet, session, file, name string) (launch.Result, error) {
	read := os.ReadFile
	if file == "-" {
		file, read = "launch.json", func(string) ([]byte, error) { return io.ReadAll(os.Stdin) }
	}
	text, err := read(file)
	if err != nil {
		f := failure.Wrap(err, "launch-unreadable", fmt.Sprintf("the file %s cannot be read", file), "name the launch.json: mirrord debug-config .vscode/launch.json NAME")
		f.Exit = failure.ExitUsage
		return launch.Result{}, f
	}
	root, err := launch.Parse(file, string(text))
	if err != nil {
		return launch.Result{}, err
	}
	c, err := launch.Find(file, root, name)
	if err != nil {
		return launch.Result{}, err
	}
	whole, err := filepath.Abs(file)
	if err != nil {
		return launch.Result{}, failure.Wrap(err, "no-working-directory", "the working directory cannot be told", "cd to a directory that exists")
	}
	folder := filepath.Dir(whole)
	if filepath.Base(folder) == ".vscode" {
		folder = filepath.Dir(folder)
	}
	journals := journal.Dir(os.Getenv)
	if journals == "" {
		return launch.Result{}, failure.New("shim-unwritable", "there is no place for scripts", "set XDG_STATE_HOME to a directory that you may write", "there is neither XDG_STATE_HOME nor HOME")
	}
	storage := filepath.Join(filepath.Dir(journals), "shims")
	r, err := launch.Rewrite(file, c, launch.Options{
		Mirrord: self(), Args: sessionArgs(fl, folder), Session: session, Storage: storage, Resolve: editorVariable(folder), Look: lookFor,
	})
	if err != nil {
		return launch.Result{}, err
	}
	if session != "" {
		return r, makeFiles(r.Files)
	}
	if cfg, _, err := a.configuration(settings, os.Environ(), folder); err != nil {
		return launch.Result{}, err
	} else if cfg.Targetless() && r.Wrapped && c.Value("mirrord") == nil {
		r.Notes = append(r.Notes, "no target is named: the session has the cluster's network only; to name one: -t KIND/NAME")
	}
	return r, makeFiles(r.Files)
}

// self is how this program is called: by its name, where that leads to it.
func self() string {
	own, err := os.Executable()
	if err != nil {
		return "mirrord"
	}
	if found, err := filepath.EvalSymlinks(lookFor("mirrord")); err == nil && found == own {
		return "mirrord"
	}
	return own
}

// sessionArgs are the flags of a session that were given, for exec, with paths
// that hold in any directory. The configuration of the folder is named if there
// is one: debuggers start programs in all sorts of directories.
func sessionArgs(fl *pflag.FlagSet, folder string) (args []string) {
	known := map[string]config.Flag{}
	for _, f := range config.Flags() {
		known[f.Name] = f
	}
	fl.Visit(func(p *pflag.Flag) {
		f, ok := known[p.Name]
		value := p.Value.String()
		switch {
		case !ok:
			return
		case f.Var == "":
			if value == "true" { // else it is as if it were not there
				args = append(args, "--"+f.Name)
			}
			return
		case f.Equals:
			args = append(args, "--"+f.Name+"="+value)
			return
		case f.Name == "config-file" || f.Name == "env-file" || f.Name == "kubeconfig":
			if abs, err := filepath.Abs(value); err == nil && value != "-" {
				value = abs
			}
		}
		if f.Short != "" {
			args = append(args, "-"+f.Short, value)
		} else {
			args = append(args, "--"+f.Name, value)
		}
	})
	if !fl.Changed("config-file") {
		for _, ending := range []string{"json", "yaml", "yml", "toml"} {
			own := filepath.Join(folder, ".mirrord", "mirrord."+ending)
			if _, err := os.Stat(own); err == nil {
				return append(args, "-f", own)
			}
		}
	}
	return args
}

// editorVariable gives what an editor puts in place of ${name}, as far as that
// is known without one.
func editorVariable(folder string) func(name string) (string, bool) {
	return func(name string) (string, bool) {
		if v, ok := strings.CutPrefix(name, "env:"); ok {
			return os.Getenv(v), true
		}
		switch name {
		case "workspaceFolder", "workspaceRoot":
			return folder, true
		case "workspaceFolderBasename":
			return filepath.Base(folder), true
		case "userHome":
			home, err := os.UserHomeDir()
			return home, err == nil
		case "pathSeparator", "/":
			return string(filepath.Separator), true
		}
		return "", false
	}
}

// lookFor finds a program: in PATH, and where Go and Java have theirs. "" if there
// is none.
func lookFor(name string) string {
	dirs := filepath.SplitList(os.Getenv("PATH"))
	switch home, _ := os.UserHomeDir(); name {
	case "dlv":
		dirs = append(dirs, os.Getenv("GOBIN"), filepath.Join(os.Getenv("GOPATH"), "bin"), filepath.Join(home, "go", "bin"))
	case "java":
		dirs = append([]string{filepath.Join(os.Getenv("JAVA_HOME"), "bin")}, dirs...)
	}
	for _, dir := range dirs {
		if !filepath.IsAbs(dir) {
			continue
		}
		file := filepath.Join(dir, name)
		if st, err := os.Stat(file); err != nil || st.IsDir() || st.Mode()&0o111 == 0 {
			continue
		}
		if to, err := filepath.EvalSymlinks(file); name == "java" && err == nil {
			return to // its JDK is around it
		}
		return file
	}
	return ""
}

// makeFiles writes files that are not there yet, each as a whole.
func makeFiles(files []launch.File) error {
	for _, f := range files {
		content := []byte(f.Content)
		if f.CopyOf != "" {
			var err error
			if content, err = os.ReadFile(f.CopyOf); err != nil {
				continue // the program is asked instead
			}
		}
		if err := makeFile(f.Path, content); err != nil {
			return failure.Wrap(err, "shim-unwritable", "a file of the launch configuration cannot be written", "set XDG_STATE_HOME to a directory that you may write")
		}
	}
	return nil
}

func makeFile(path string, content []byte) error {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if old, err := os.ReadFile(path); err == nil && string(old) == string(content) {
		return os.Chmod(path, 0o700)
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := os.CreateTemp(dir, ".new-*")
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	err = errors.Join(err, f.Chmod(0o700), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name())
	}
	return err
}

// printDebugConfig prints what a person copies to stdout, and the rest as lines
// of mirrord.
func (a *app) printDebugConfig(r launch.Result) error {
	if err := monitor.WriteJSON(os.Stdout, r.Configuration, "  "); err != nil {
		return err
	}
	type part struct {
		where string
		value *document.Node
	}
	var parts []part
	for _, t := range r.Tasks {
		parts = append(parts, part{`.vscode/tasks.json, in the list "tasks"`, t})
	}
	if r.Settings != nil {
		parts = append(parts, part{".vscode/settings.json", r.Settings})
	}
	for _, p := range parts {
		fmt.Printf("// for %s:\n", p.where)
		if err := monitor.WriteJSON(os.Stdout, p.value, "  "); err != nil {
			return err
		}
	}
	m := a.monitor(false, false)
	for _, f := range r.Files {
		m.Show(event.Event{Level: event.Info, Code: "debug-config-file", Text: "made " + f.Path, Facts: map[string]string{"path": f.Path}})
	}
	for _, n := range r.Notes {
		m.Show(event.Event{Level: event.Info, Code: "debug-config-note", Text: n})
	}
	return nil
}
