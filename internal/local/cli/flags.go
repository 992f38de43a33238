package cli

import (
	"flag"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/mirrord-go/mirrord/internal/config"
	"github.com/mirrord-go/mirrord/internal/event"
	"github.com/mirrord-go/mirrord/internal/failure"
)

// sessionFlags adds the flags of a session to fl. What is given on the command
// line is in the result when fl has been parsed: by the environment variable
// that the flag stands for. The command has flags of its own with the names of
// those without.
func sessionFlags(fl *pflag.FlagSet, without ...string) map[string]config.Setting {
	var all []string
	for _, f := range config.Flags() {
		if !slices.Contains(without, f.Name) {
			all = append(all, f.Name)
		}
	}
	return someFlags(fl, all...)
}

// someFlags is sessionFlags with only those that are named.
func someFlags(fl *pflag.FlagSet, names ...string) map[string]config.Setting {
	settings := map[string]config.Setting{}
	for _, f := range config.Flags() {
		if !slices.Contains(names, f.Name) {
			continue
		}
		v := &flagValue{flag: f, settings: settings}
		p := fl.VarPF(v, f.Name, f.Short, f.About)
		p.Hidden = f.Hidden
		switch {
		case f.Var == "":
			p.NoOptDefVal = "true"
		case f.Equals:
			p.NoOptDefVal = f.Alone
		}
	}
	return settings
}

// flagValue is one flag of config's table; it implements pflag.Value.
type flagValue struct {
	flag     config.Flag
	settings map[string]config.Setting
	text     string
}

func (v *flagValue) String() string { return v.text }

func (v *flagValue) Type() string {
	if v.flag.Var == "" || v.flag.Equals { // the help shows no value
		return "bool"
	}
	return "string"
}

func (v *flagValue) Set(text string) error {
	if v.flag.Var == "" {
		switch text {
		case "true":
		case "false": // as if it were not there
			return nil
		default:
			return fmt.Errorf("it takes no value")
		}
	}
	v.text = text
	return v.flag.Set(v.settings, text)
}

// idleFlag is a flag of mirrord's that a command takes and has no use for; it
// implements pflag.Value.
type idleFlag struct {
	pflag.Value
	why string
}

// addIdle adds an idleFlag; boolean: it needs no value.
func addIdle(fl *pflag.FlagSet, name, short, why string, boolean bool) {
	v := new(flag.FlagSet) // of the standard library: pflag exports no values
	if boolean {
		v.Bool(name, false, "")
	} else {
		v.String(name, "", "")
	}
	p := fl.VarPF(&idleFlag{pflag.PFlagFromGoFlag(v.Lookup(name)).Value, why}, name, short, "no effect here: "+why)
	p.Hidden = true
	if boolean {
		p.NoOptDefVal = "true"
	}
}

// tellIdle says of the flags that were given which have no effect, and why.
func (a *app) tellIdle(fl *pflag.FlagSet) {
	fl.Visit(func(f *pflag.Flag) {
		if v, ok := f.Value.(*idleFlag); ok {
			quiet, _ := fl.GetBool("quiet") // not there: false
			a.monitor(quiet, false).Show(event.Event{Level: event.Info, Code: "flag-idle", Text: fmt.Sprintf("--%s has no effect here: %s", f.Name, v.why)})
		}
	})
}

// fillIn gives flags that may stand alone, and do, their value: the library
// knows only flags whose value must follow "=" then. A flag stands alone at the
// end and before another flag. args are looked at up to the first that is none.
func fillIn(fl *pflag.FlagSet, args []string) []string {
	alone := map[string]string{}
	for _, f := range config.Flags() {
		if f.Alone != "" && !f.Equals {
			alone[f.Name] = f.Alone
		}
	}
	var filled []string
	for i := 0; i < len(args); i++ {
		name, ok := wantsValue(fl, args[i])
		if !ok {
			return append(filled, args[i:]...)
		}
		filled = append(filled, args[i])
		if name == "" {
			continue
		}
		if last := i+1 == len(args); alone[name] != "" && (last || strings.HasPrefix(args[i+1], "-") && args[i+1] != "-") {
			filled = append(filled, alone[name])
		} else if !last {
			i++
			filled = append(filled, args[i])
		}
	}
	return filled
}

// wantsValue names the flag in arg whose value is the next argument, "" if
// there is none; ok is false if arg is no flag that fl has.
func wantsValue(fl *pflag.FlagSet, arg string) (name string, ok bool) {
	if len(arg) < 2 || arg[0] != '-' || arg == "--" {
		return "", false
	}
	if long, ok := strings.CutPrefix(arg, "--"); ok {
		long, _, given := strings.Cut(long, "=")
		f := fl.Lookup(long)
		if f == nil || given || f.NoOptDefVal != "" {
			return "", f != nil
		}
		return f.Name, true
	}
	for i := 1; i < len(arg); i++ { // -qt pod/x, -tpod/x, -c=true
		f := fl.ShorthandLookup(arg[i : i+1])
		switch rest := arg[i+1:]; {
		case f == nil:
			return "", false
		case strings.HasPrefix(rest, "="):
			return "", true
		case f.NoOptDefVal != "":
			continue
		case rest == "":
			return f.Name, true
		default:
			return "", true
		}
	}
	return "", true
}

// rulesOf refuses flags that would say something about a session that is there.
func rulesOf(id string, changed []string) error {
	if len(changed) == 0 {
		return nil
	}
	return failure.Usage("session-rules", fmt.Sprintf("--%s has no effect on a session that is there already", strings.Join(changed, ", --")),
		"give it to: mirrord session start", "target, rules and agent of session %s are those that it was started with", id)
}

// changedSettings names the flags of c that say something about a session.
func changedSettings(c *cobra.Command) (names []string) {
	known := map[string]bool{"learn": true, "events": true, "end-all": true, "timings": true, "pprof": true}
	for _, f := range config.Flags() {
		known[f.Name] = true
	}
	c.Flags().Visit(func(f *pflag.Flag) {
		if known[f.Name] {
			names = append(names, f.Name)
		}
	})
	slices.Sort(names)
	return names
}
