package cli

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"github.com/mirrord-go/mirrord/internal/config"
)

func TestSessionFlags(t *testing.T) {
	for _, c := range []struct{ args, want, rest string }{
		{"", "", ""},
		{"-t pod/x cmd -t y", "MIRRORD_IMPERSONATED_TARGET=pod/x(target)", "cmd -t y"},
		{"-qtpod/x cmd", "MIRRORD_IMPERSONATED_TARGET=pod/x(target)", "cmd"},
		{"-f conf.yaml cmd", "MIRRORD_CONFIG_FILE=conf.yaml(config-file)", "cmd"},
		{"-f - cmd", "MIRRORD_CONFIG_FILE=-(config-file)", "cmd"},
		{"-fconf.yaml cmd", "MIRRORD_CONFIG_FILE=conf.yaml(config-file)", "cmd"},
		{"-f -- cmd", "MIRRORD_CONFIG_FILE=./.mirrord/mirrord.json(config-file)", "cmd"},
		{"-f --steal cmd", "MIRRORD_AGENT_TCP_STEAL_TRAFFIC=true(steal) MIRRORD_CONFIG_FILE=./.mirrord/mirrord.json(config-file)", "cmd"},
		{"--config-file -q cmd", "MIRRORD_CONFIG_FILE=./.mirrord/mirrord.json(config-file)", "cmd"},
		{"--config-file=x cmd", "MIRRORD_CONFIG_FILE=x(config-file)", "cmd"},
		{"-qf -v cmd", "MIRRORD_CONFIG_FILE=./.mirrord/mirrord.json(config-file)", "cmd"},
		{"-t -f cmd", "MIRRORD_IMPERSONATED_TARGET=-f(target)", "cmd"},
		{"-q -f", "MIRRORD_CONFIG_FILE=./.mirrord/mirrord.json(config-file)", ""},
		{"cmd -f", "", "cmd -f"},
		{"-c cmd", "MIRRORD_ACCEPT_INVALID_CERTIFICATES=true(accept-invalid-certificates)", "cmd"},
		{"-c=false cmd", "MIRRORD_ACCEPT_INVALID_CERTIFICATES=false(accept-invalid-certificates)", "cmd"},
		{"--no-outgoing cmd", "MIRRORD_TCP_OUTGOING=false(no-outgoing) MIRRORD_UDP_OUTGOING=false(no-outgoing)", "cmd"},
		{"--steal=false cmd", "", "cmd"},
		{"-s A;B -x C cmd", "MIRRORD_OVERRIDE_ENV_VARS_EXCLUDE=C(override-env-vars-exclude) MIRRORD_OVERRIDE_ENV_VARS_INCLUDE=A;B(override-env-vars-include)", "cmd"},
		{"-e cmd", "MIRRORD_EPHEMERAL_CONTAINER=true(ephemeral-container)", "cmd"},
	} {
		t.Run(c.args, func(t *testing.T) {
			fl := pflag.NewFlagSet("exec", pflag.ContinueOnError)
			fl.SetInterspersed(false)
			fl.BoolP("quiet", "q", false, "")
			fl.BoolP("verbose", "v", false, "")
			settings := sessionFlags(fl)
			if err := fl.Parse(fillIn(fl, strings.Fields(c.args))); err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, name := range slices.Sorted(maps.Keys(settings)) {
				got = append(got, name+"="+settings[name].Value+"("+settings[name].Flag+")")
			}
			if s := strings.Join(got, " "); s != c.want {
				t.Errorf("got %s, want %s", s, c.want)
			}
			if rest := strings.Join(fl.Args(), " "); rest != c.rest {
				t.Errorf("the command is %q, want %q", rest, c.rest)
			}
		})
	}
}

// Every flag stands for a variable that a key has, or that is known to have no
// effect.
func TestFlagsHaveKeys(t *testing.T) {
	vars := map[string]bool{"MIRRORD_CONFIG_FILE": true, "MIRRORD_CHECK_VERSION": true}
	for _, k := range config.Keys() {
		vars[k.Var] = true
	}
	for _, f := range config.Flags() {
		settings := map[string]config.Setting{}
		value := "x"
		if f.Name == "path" {
			value = "/x"
		}
		if err := f.Set(settings, value); err != nil {
			t.Errorf("--%s: %v", f.Name, err)
		}
		for name := range settings {
			if !vars[name] {
				t.Errorf("--%s stands for %s, which no key has", f.Name, name)
			}
		}
		if len(settings) == 0 {
			t.Errorf("--%s stands for nothing", f.Name)
		}
	}
}
