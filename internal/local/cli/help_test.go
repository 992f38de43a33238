package cli

import (
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// TestHelp: each command says what it is for and shows how it is used, in lines
// that are commands of this program; and each flag says what it does.
func TestHelp(t *testing.T) {
	seen := 0
	var look func(*cobra.Command)
	look = func(c *cobra.Command) {
		for _, sub := range c.Commands() {
			look(sub)
		}
		if c.Hidden {
			return
		}
		seen++
		if c.Short == "" || strings.HasSuffix(c.Short, ".") {
			t.Errorf("%s: what it is for: %q", c.CommandPath(), c.Short)
		}
		shown := regexp.MustCompile(`\bmirrord ([a-z][^|&)>\n]*)`).FindAllStringSubmatch(c.Example, -1)
		if len(shown) == 0 {
			t.Errorf("%s: its help shows no example", c.CommandPath())
		}
		for _, m := range shown {
			if problem := unknown(strings.Fields(m[1])); problem != "" {
				t.Errorf("%s: its help shows mirrord %s: %s", c.CommandPath(), m[1], problem)
			}
		}
		for line := range strings.Lines(c.Example) {
			if !strings.HasPrefix(line, "  ") {
				t.Errorf("%s: an example that is not indented: %q", c.CommandPath(), line)
			}
		}
		if o := c.Flags().Lookup("output"); c.Flags().Lookup("json") != nil && (o == nil || o.Shorthand != "o") {
			t.Errorf("%s takes --json, and no -o json", c.CommandPath())
		}
		c.LocalFlags().VisitAll(func(f *pflag.Flag) {
			if f.Usage == "" || strings.HasSuffix(f.Usage, ".") {
				t.Errorf("%s --%s: what it does: %q", c.CommandPath(), f.Name, f.Usage)
			}
		})
	}
	look((&app{version: "test"}).root())
	if seen < 30 {
		t.Errorf("found only %d commands", seen)
	}
}
