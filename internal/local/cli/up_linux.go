package cli

import (
	"cmp"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/mirrord-go/mirrord/internal/config"
	"github.com/mirrord-go/mirrord/internal/failure"
	"github.com/mirrord-go/mirrord/internal/local/monitor"
	"github.com/mirrord-go/mirrord/internal/shell"
)

// upFlags are the flags of up.
type upFlags struct {
	settings       map[string]config.Setting
	mode           string
	dry            bool
	asJSON         bool
	quiet, verbose bool
}

func (a *app) upCommand() *cobra.Command {
	var f upFlags
	var wanted func() (bool, error)
	c := &cobra.Command{
		Use:   "up [flags] [SERVICE...]",
		Short: "Run several services, each in the context of its target, from one file",
		Long: `up runs the services of a file, mirrord-up.yaml, each in a session of its own: all of
them, or those that are named. Their output comes with the service's name before each
line. When one ends, or with Ctrl-C, all end; the exit code is that of the first.

A service's target is what has its name in the cluster, unless the file says. By
default the requests come here that carry the header  baggage: mirrord-session=KEY;
the key is your user name, or --key.

mirrord up init writes a file to begin with; --dry-run shows what a file means.`,
		Example: `  mirrord up init && mirrord up
  mirrord up -f services.yaml --key ana shop cart
  mirrord up --mode mirror --dry-run`,
		RunE: func(_ *cobra.Command, only []string) (err error) {
			if f.asJSON, err = wanted(); err != nil {
				return err
			}
			if f.mode != "" && !slices.Contains(config.Modes(), f.mode) {
				return failure.Usage("usage", fmt.Sprintf("%q is no mode", f.mode), "mirrord up --mode mirror", "modes are %s", strings.Join(config.Modes(), ", "))
			}
			a.code, err = a.up(&f, only)
			return err
		},
		ValidArgsFunction: func(_ *cobra.Command, named []string, _ string) ([]string, cobra.ShellCompDirective) {
			var names []string
			if all, err := a.services(&f, nil); err == nil {
				for _, s := range all.List {
					if !slices.Contains(named, s.Name) {
						names = append(names, s.Name)
					}
				}
			}
			return names, cobra.ShellCompDirectiveNoFileComp
		},
	}
	fl := c.Flags()
	f.settings = someFlags(fl, "config-file", "context", "kubeconfig", "accept-invalid-certificates", "agent-namespace", "agent-image", "key")
	file := fl.Lookup("config-file")
	file.Usage, file.NoOptDefVal = "file of services (default: mirrord-up.yaml)", ""
	fl.Lookup("key").Usage = "name of these sessions, for their filter and {{ key }} (default: your user name)"
	fl.StringVarP(&f.mode, "mode", "m", "", "for all services: split (requests of the key, or of the filter, come here), mirror (copies of them), replace (all traffic)")
	fl.BoolVar(&f.dry, "dry-run", false, "show what would run, and ask no cluster")
	fl.BoolVarP(&f.quiet, "quiet", "q", false, "show warnings and errors only")
	fl.BoolVarP(&f.verbose, "verbose", "v", false, "show details")
	addIdle(fl, "ui", "u", "there is no web page of sessions; the terminal has a live view: mirrord status --watch", true)
	wanted = jsonWanted(c)
	_ = c.RegisterFlagCompletionFunc("mode", cobra.FixedCompletions(config.Modes(), cobra.ShellCompDirectiveNoFileComp))
	c.AddCommand(a.upInit())
	return c
}

// services reads the file.
func (a *app) services(f *upFlags, only []string) (config.Services, error) {
	s, err := a.sources(f.settings)
	if err != nil {
		return config.Services{}, err
	}
	// The services may work elsewhere.
	if set, ok := f.settings["MIRRORD_KUBECONFIG"]; ok && set.Value != "" && !filepath.IsAbs(set.Value) && !strings.HasPrefix(set.Value, "~") {
		set.Value = filepath.Join(s.Dir, set.Value)
		f.settings["MIRRORD_KUBECONFIG"] = set
	}
	if list := os.Getenv("KUBECONFIG"); list != "" {
		os.Setenv("KUBECONFIG", absolute(list, s.Dir))
		s.Environ = os.Environ()
	}
	s.RandomKey = userKey
	return config.LoadServices(s, only, f.mode)
}

// userKey names the sessions of somebody who gives no name: so the header of
// their requests stays the same.
func userKey() string {
	if u, err := user.Current(); err == nil && u.Username != "" {
		return u.Username
	}
	return cmp.Or(os.Getenv("USER"), randomKey())
}

// up runs the services.
func (a *app) up(f *upFlags, only []string) (int, error) {
	all, err := a.services(f, only)
	if err != nil {
		return 0, err
	}
	if len(all.List) == 0 {
		return 0, failure.Usage("up-service-unknown", "there is no service to run", "name one: mirrord up SERVICE", "all services of %s are skipped", all.File)
	}
	for _, s := range all.List {
		if err := a.runnable(s); err != nil {
			return 0, err
		}
	}
	if f.dry {
		return 0, a.showServices(all, f.asJSON)
	}
	out := a.newUpOutput(f, &all)
	for _, n := range all.Notes {
		out.Show(n)
	}
	if err := a.inferTargets(&all, out); err != nil {
		return 0, err
	}
	return out.run()
}

// runnable fails for a service that this program cannot run.
func (a *app) runnable(s config.Service) error {
	if fi, err := os.Stat(s.Dir); err != nil || !fi.IsDir() {
		return failure.Usage("up-no-directory", fmt.Sprintf("the service %s is to run in %s, and that is no directory", s.Name, s.Dir), "change run.dir of the service at "+s.Where, "%v", cmp.Or(err, os.ErrInvalid))
	}
	return nil
}

// shownService is a service as --dry-run prints it in JSON.
type shownService struct {
	Name    string   `json:"service"`
	Target  string   `json:"target,omitempty"` // empty: what has its name in the cluster
	Context string   `json:"context,omitempty"`
	Space   string   `json:"namespace,omitempty"`
	Mode    string   `json:"mode"`
	Filter  string   `json:"filter,omitempty"`
	Type    string   `json:"type"`
	Command []string `json:"command"`
	Dir     string   `json:"dir"`
}

// showServices prints what would run.
func (a *app) showServices(all config.Services, asJSON bool) error {
	var shown []shownService
	for _, s := range all.List {
		v := shownService{Name: s.Name, Target: s.Config.Target, Context: s.Config.Context, Space: s.Config.Namespace, Mode: s.Mode, Type: "exec", Command: s.Argv, Dir: s.Dir}
		if s.Container {
			v.Type = "container"
		}
		if s.Config.Targetless() && !s.Infer {
			v.Mode = "off"
		}
		if h := s.Config.Incoming.HTTP; h != nil {
			if v.Filter = config.KeyHeader(all.Key); !s.Keyed {
				v.Filter, _ = h.Filter.Text() // it has been checked
			}
		}
		shown = append(shown, v)
	}
	if asJSON {
		return monitor.WriteJSON(os.Stdout, shown, "  ")
	}
	a.tell(all.Notes)
	table := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "SERVICE\tTARGET\tMODE\tFILTER\tCOMMAND")
	for _, v := range shown {
		target := cmp.Or(v.Target, "(what is called "+v.Name+")")
		if v.Space != "" {
			target += " in " + v.Space
		}
		line := shell.Line(v.Command...)
		if v.Type == "container" {
			line = "(container) " + line
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\n", v.Name, monitor.Clean(target), v.Mode, monitor.Clean(cmp.Or(v.Filter, "-")), monitor.Clean(line))
	}
	return table.Flush()
}

// colourful tells whether lines to f may be coloured.
func colourful(f *os.File) bool { return os.Getenv("NO_COLOR") == "" && term.IsTerminal(int(f.Fd())) }
